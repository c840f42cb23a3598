// Days as people write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace ferry {

/// Noon in UTC of a day written as 2026-11-30, in milliseconds since 1970: the day is the same in nearly every time
/// zone. Nothing if there is no such day.
std::optional<int64_t> noon_unix_ms(std::string_view day);

}  // namespace ferry
