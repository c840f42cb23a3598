// ferry: one program, one subcommand for each thing it does.
#include <CLI/CLI.hpp>
#include <string>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "cli/bench_train_command.h"
#include "cli/command.h"
#include "cli/data_command.h"
#include "cli/doctor_command.h"
#include "cli/eval_command.h"
#include "cli/generate_command.h"
#include "cli/logits_command.h"
#include "cli/ops_command.h"
#include "cli/passport_command.h"
#include "cli/tokenizer_command.h"
#include "cli/train_command.h"
#include "cli/verify_command.h"
#include "device/device.h"

int main(int argc, char** argv) {
  using namespace ferry;
  CLI::App app("Trains DeepSeek-style models and looks at them.", "ferry");
  app.require_subcommand(1);
  app.fallthrough(false);
  int status = 0;
  cli::add_tokenizer_command(app, status);
  cli::add_data_command(app, status);
  cli::add_train_command(app, status);
  cli::add_bench_train_command(app, status);
  cli::add_eval_command(app, status);
  cli::add_generate_command(app, status);
  cli::add_logits_command(app, status);
  cli::add_ops_command(app, status);
  cli::add_passport_command(app, status);
  cli::add_verify_command(app, status);
  cli::add_doctor_command(app, status);
  const auto is_given = [&](const CLI::App* command) { return command->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::as_const(app).get_subcommands(is_given).empty())
    return cli::report({Code::kInvalidInput,
                        fmt::format("{}: no such command; `ferry --help` lists them", argv[1])});
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {  // help was asked for
      static_cast<void>(app.exit(e));
      return cli::report(cli::flush_output());
    }
    std::string command;
    for (const CLI::App* at = &app; !at->get_subcommands().empty(); command += at->get_name() + " ")
      at = at->get_subcommands().front();
    return cli::report(
        {Code::kInvalidInput,
         fmt::format("{}{}; `ferry {}--help` explains",
                     command.empty() ? "" : command.substr(0, command.size() - 1) + ": ",
                     e.what(),
                     command)});
  } catch (const DeviceError& e) {
    return cli::report({Code::kUnavailable, e.what()});
  } catch (const Bug& e) {
    cli::tell(fmt::format(
        "ferry: a bug in Ferry: {}\nPlease report it with the command that you gave.", e.what()));
    return 3;
  } catch (const std::system_error& e) {  // fmt's, when standard output cannot be written
    return cli::report({Code::kExhausted, e.what()});
  } catch (const std::bad_alloc&) {
    return cli::report(
        {Code::kExhausted, "out of memory; choose smaller inputs or a larger machine"});
  }
  return status == 0 ? cli::report(cli::flush_output()) : status;
}
