// ferry passport and ferry keygen.
#pragma once

#include <CLI/CLI.hpp>

namespace ferry::cli {

/// Adds the subcommands; `status` becomes the process exit status when it ran.
void add_passport_command(CLI::App& app, int& status);

}  // namespace ferry::cli
