// Time comes in through here: code that must be replayable takes a Clock, never the system's.
#pragma once

#include <cstdint>

namespace ferry {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual double monotonic_s() const = 0;  // seconds from an arbitrary start; never goes back
  virtual int64_t unix_ms() const = 0;     // wall clock, milliseconds since 1970 UTC
};

const Clock& system_clock();

}  // namespace ferry
