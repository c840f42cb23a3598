#include "optim/schedule.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/counted.h"
#include "base/math.h"

namespace ferry {
namespace {

double fall(const Schedule& s, double p) {
  if (s.kind == Schedule::Kind::kCosine) return 0.5 * (1 + math::cos(math::kPi * p));
  return s.decay == Schedule::Decay::kLinear ? 1 - p : 1 - std::sqrt(p);
}

}  // namespace

Result<void> check_schedule(const Schedule& s) {
  if (s.steps < 1) return fail(Code::kInvalidInput, "schedule: steps is {}, at least 1", s.steps);
  if (s.warmup_steps < 0 || s.warmup_steps > s.steps)
    return fail(Code::kInvalidInput,
                "schedule: warmup_steps is {}; it must be between 0 and the run's {}",
                s.warmup_steps,
                counted(s.steps, "step"));
  if (s.kind == Schedule::Kind::kWsd &&
      (s.decay_steps < 0 || s.decay_steps > s.steps - s.warmup_steps))
    return fail(Code::kInvalidInput,
                "schedule: decay_steps is {}; it must be between 0 and the {} left after warm-up",
                s.decay_steps,
                counted(s.steps - s.warmup_steps, "step"));
  if (!(s.lr > 0) || !std::isfinite(s.lr))
    return fail(Code::kInvalidInput, "schedule: lr is {}, above 0 and finite", s.lr);
  if (!(s.min_ratio >= 0 && s.min_ratio <= 1))
    return fail(
        Code::kInvalidInput, "schedule: min_ratio is {}; it must be between 0 and 1", s.min_ratio);
  return {};
}

double learning_rate_at(const Schedule& s, int64_t step) {
  const Result<void> sound = check_schedule(s);
  check(sound.has_value(), "{}", sound ? "" : sound.error().message);
  check(step >= 0, "schedule: step {}", step);
  if (step < s.warmup_steps)
    return s.lr * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  const int64_t decay_steps =
      s.kind == Schedule::Kind::kWsd ? s.decay_steps : s.steps - s.warmup_steps;
  const int64_t into = step - (s.steps - decay_steps);
  if (into < 0 || (decay_steps == 0 && step < s.steps)) return s.lr;
  const double p =
      decay_steps == 0
          ? 1
          : std::min(1.0, static_cast<double>(into) / static_cast<double>(decay_steps));
  return s.lr * (s.min_ratio + (1 - s.min_ratio) * fall(s, p));
}

}  // namespace ferry
