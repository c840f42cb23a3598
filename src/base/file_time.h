// When a file was written.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace ferry {

/// Milliseconds since 1970 in UTC. Errors: kNotFound, kUnavailable.
Result<int64_t> written_unix_ms(const std::string& path);

}  // namespace ferry
