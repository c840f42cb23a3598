// ferry: one program, one subcommand for each thing it does.
#include <CLI/CLI.hpp>

#include "cli/ops_command.h"
#include "cli/tokenizer_command.h"

int main(int argc, char** argv) {
  CLI::App app("Trains DeepSeek-style models and looks at them.", "ferry");
  app.require_subcommand(1);
  int status = 0;
  ferry::cli::add_ops_command(app, status);
  ferry::cli::add_tokenizer_command(app, status);
  CLI11_PARSE(app, argc, argv);
  return status;
}
