// How long a server that says "not now" is left alone before it is asked again, and how often.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

namespace ferry::verify {

/// Owner: whoever asks. Each wait is twice as long as the one before, until the server answers.
class Patience {
 public:
  /// `most_s`: of waiting in a row. `waits` hears of each wait, before it.
  explicit Patience(double most_s, std::function<void(double wait_s)> waits = {})
      : most_s_(most_s), waits_(std::move(waits)) {}

  /// Waits, and no less than the server asks for (Retry-After). False, at once: that is more than is left.
  bool wait(std::optional<double> retry_after_s);
  /// The server had time.
  void answered();
  /// What there is to say of a server that has no time: "; ...". Empty: it was not waited for.
  std::string told() const;

 private:
  double most_s_, waited_s_ = 0, next_s_ = 0;  // next_s_ 0: the first
  std::optional<double> asks_s_;               // for more than was left
  std::function<void(double)> waits_;
};

}  // namespace ferry::verify
