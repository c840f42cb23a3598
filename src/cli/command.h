// What the subcommands share: reporting a failure, and refusing one by exit status.
#pragma once

#include <fmt/core.h>

#include <cstdio>

#include "base/result.h"

namespace ferry::cli {

/// Prints "ferry: MESSAGE" to standard error; the process exit status for it.
inline int report(const Status& status) {
  std::fflush(stdout);
  fmt::print(stderr, "ferry: {}\n", status.message);
  return exit_status(status.code);
}

}  // namespace ferry::cli
