#include "base/clock.h"

#include <chrono>
#include <thread>

#include "base/calendar.h"

namespace ferry {
namespace {

class SystemClock final : public Clock {
 public:
  double monotonic_s() const override {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  int64_t unix_ms() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
};

}  // namespace

const Clock& system_clock() {
  static const SystemClock clock;
  return clock;
}

void sleep_s(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

std::string format_local_time(int64_t unix_ms, const std::string& format) {
  return Moment{unix_ms, Moment::Zone::kLocal}.written(format);
}

}  // namespace ferry
