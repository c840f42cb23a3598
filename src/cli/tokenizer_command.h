// ferry tokenizer: train, encode, decode and bench.
#pragma once

#include <CLI/CLI.hpp>

namespace ferry::cli {

/// Adds the subcommand; when it runs, it puts the process exit status into `exit_status`, which
/// must outlive the parsing.
void add_tokenizer_command(CLI::App& app, int& exit_status);

}  // namespace ferry::cli
