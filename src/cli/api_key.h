// The key that a server wants to be shown.
#pragma once

#include <string>

#include "base/result.h"

namespace ferry::cli {

/// What a server's key is, in a file: not among the arguments, where others see it. It is the first of a file
/// such as `ferry serve --api-key-file` takes. Errors: of serve::read_key_file.
Result<std::string> read_api_key(const std::string& path);

}  // namespace ferry::cli
