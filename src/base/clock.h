// Time comes in through here: code that must be replayable takes a Clock, never the system's.
#pragma once

#include <cstdint>
#include <string>

namespace ferry {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual double monotonic_s() const = 0;  // seconds from an arbitrary start; never goes back
  virtual int64_t unix_ms() const = 0;     // wall clock, milliseconds since 1970 UTC
};

const Clock& system_clock();

/// The calling thread does nothing for so long.
void sleep_s(double seconds);

/// A moment in the machine's time zone, in a format of strftime; empty if that gives nothing, or more
/// than some kilobytes.
std::string format_local_time(int64_t unix_ms, const std::string& format);

}  // namespace ferry
