// ferry verify.
#pragma once

#include <CLI/CLI.hpp>

namespace ferry::cli {

/// Adds the subcommand; `status` becomes the process exit status when it ran.
void add_verify_command(CLI::App& app, int& status);

}  // namespace ferry::cli
