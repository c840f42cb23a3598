// ferry ops: which op has a kernel on which device, and how fast the kernels are here.
#pragma once

#include <CLI/CLI.hpp>

namespace ferry::cli {

/// Adds the subcommand; when it runs, it puts the process exit status into `status`, which must
/// outlive the parsing.
void add_ops_command(CLI::App& app, int& status);

}  // namespace ferry::cli
