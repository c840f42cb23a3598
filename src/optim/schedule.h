// Learning-rate schedules: pure functions of the step, without libm, so that a resumed run and
// another machine take exactly the same rates.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace ferry {

/// Warm-up, then either a plateau with a decay at the end (WSD) or a half cosine.
struct Schedule {
  enum class Kind { kWsd, kCosine };
  enum class Decay { kLinear, kOneMinusSqrt };  // WSD's decay: 1 - p, or 1 - sqrt(p)

  Kind kind = Kind::kWsd;
  Decay decay = Decay::kOneMinusSqrt;
  int64_t steps = 1;  // of the whole run
  int64_t warmup_steps = 0;
  int64_t decay_steps = 0;  // WSD only: the last so many steps; the cosine always fills the rest
  double lr = 1e-3;         // the peak
  double min_ratio = 0;     // of the peak, reached at step `steps`
};

/// What is wrong with the numbers, if anything. Errors: kInvalidInput, naming the field.
Result<void> check_schedule(const Schedule& schedule);

/// The rate for update `step`, counted from 0.
///
/// Warm-up   lr * (step + 1) / warmup_steps: never zero, the peak is reached by its last step.
/// Decay     lr * (min_ratio + (1 - min_ratio) * f(p)), p = (step - first) / decay steps, where f
///           falls from 1 to 0. p reaches 1 at step `steps`, one past the last, so no update is
///           wasted on a rate of zero; later steps (a run made longer by hand) stay at the minimum.
/// Errors    check: step >= 0, check_schedule(schedule).
/// Source    WSD: Hu et al. 2024, arXiv 2404.06395; 1 - sqrt: Hägele et al. 2024, arXiv 2405.18392.
double learning_rate_at(const Schedule& schedule, int64_t step);

}  // namespace ferry
