// Days and times as people write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ferry {

/// A point of time, and where it is told.
struct Moment {
  enum class Zone { kUtc, kLocal };  // kLocal: where the machine is set to stand
  int64_t unix_ms = 0;
  Zone zone = Zone::kUtc;

  static Moment now();  // kLocal

  /// In a format of strftime; empty if that gives nothing, or more than some kilobytes.
  std::string written(const std::string& format) const;

  /// One that has another day of the month, another month, year and day of the week.
  Moment another_day() const;
};

/// Noon of a day written as 2026-11-30, in UTC: it reads alike on every machine. Nothing if there is no such day.
std::optional<Moment> noon_of(std::string_view day);

}  // namespace ferry
