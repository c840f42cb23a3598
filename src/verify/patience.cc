#include "verify/patience.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "base/units.h"

namespace ferry::verify {
namespace {

constexpr double kFirstS = 0.5, kLongestS = 30;

}  // namespace

bool Patience::wait(std::optional<double> retry_after_s) {
  asks_s_.reset();  // of an earlier reply
  const double left_s = most_s_ - waited_s_;
  if (left_s <= 0) return false;
  next_s_ = next_s_ == 0 ? kFirstS : std::min(2 * next_s_, kLongestS);
  const double wait_s = std::max(retry_after_s.value_or(0), std::min(next_s_, left_s));
  if (wait_s > left_s) {
    asks_s_ = wait_s;
    return false;
  }
  if (waits_) waits_(wait_s);
  sleep_s(wait_s);
  waited_s_ += wait_s;
  return true;
}

void Patience::answered() {
  waited_s_ = next_s_ = 0;
  asks_s_.reset();
}

std::string Patience::told() const {
  if (asks_s_)
    return fmt::format("; it wants to be left alone for {}: ask it then",
                       format_duration(*asks_s_));
  if (waited_s_ == 0) return "";
  return fmt::format("; it was asked again for {}: ask it when it has less to do",
                     format_duration(waited_s_));
}

}  // namespace ferry::verify
