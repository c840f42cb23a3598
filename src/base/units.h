// Quantities in words: 1.5 GiB, 12.3 M, 4 min 05 s, a date.
#pragma once

#include <cstdint>
#include <string>

namespace ferry {

std::string format_bytes(double bytes);       // "812 B", "1.50 GiB"
std::string format_count(double count);       // "812", "12.3 M", "4.10 T"
std::string format_duration(double seconds);  // "0.8 s", "4 min 05 s", "2 h 10 min"
std::string format_utc(int64_t unix_ms);      // "2026-11-22 08:05 UTC"

}  // namespace ferry
