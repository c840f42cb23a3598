// ferry doctor: may this chip be trusted with a run?
#pragma once

#include <CLI/CLI.hpp>

namespace ferry::cli {

/// Adds the subcommand; when it runs, it puts the process exit status into `status`, which must
/// outlive the parsing.
void add_doctor_command(CLI::App& app, int& status);

}  // namespace ferry::cli
