// The key that a server wants to be shown.
#pragma once

#include <string>

#include "base/result.h"

namespace ferry::cli {

/// What a server's key is, in a file of its own: not among the arguments, where others see it. Errors:
/// kInvalidInput, of read_file.
Result<std::string> read_api_key(const std::string& path);

}  // namespace ferry::cli
