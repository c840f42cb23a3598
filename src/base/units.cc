#include "base/units.h"

#include <fmt/core.h>

#include <cmath>

namespace ferry {
namespace {

std::string scaled(double value, double step, const char* const* names, int count) {
  int i = 0;
  while (i + 1 < count && std::abs(value) >= step) {
    value /= step;
    ++i;
  }
  if (i == 0) return fmt::format("{:.0f}{}", value, names[0]);
  const int decimals = std::abs(value) < 10 ? 2 : std::abs(value) < 100 ? 1 : 0;
  return fmt::format("{:.{}f}{}", value, decimals, names[i]);
}

}  // namespace

std::string format_bytes(double bytes) {
  static const char* const names[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
  return scaled(bytes, 1024, names, 6);
}

std::string format_count(double count) {
  static const char* const names[] = {"", " k", " M", " G", " T", " P", " E"};
  return scaled(count, 1000, names, 7);
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "unknown";
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto s = static_cast<long>(std::lround(seconds));
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}

/// Days since 1970 to a calendar date (Hinnant 2013, "chrono-compatible low-level date
/// algorithms").
std::string format_utc(int64_t unix_ms) {
  const int64_t seconds = unix_ms / 1000, days = seconds / 86400, of_day = seconds % 86400;
  const int64_t z = days + 719468, era = z / 146097, doe = z - era * 146097;
  const int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
  const int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
  const int64_t month = mp < 10 ? mp + 3 : mp - 9;
  return fmt::format("{}-{:02}-{:02} {:02}:{:02} UTC",
                     yoe + era * 400 + (month <= 2 ? 1 : 0),
                     month,
                     doy - (153 * mp + 2) / 5 + 1,
                     of_day / 3600,
                     of_day / 60 % 60);
}

}  // namespace ferry
