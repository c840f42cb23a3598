#include "train/refusals.h"

namespace ferry {
namespace {

constexpr int64_t kInARowMax = 20;

}  // namespace

Result<void> Refusals::step(int64_t number,
                            const std::optional<std::string>& why,
                            const std::string& folder,
                            Progress& progress) {
  ++steps_;
  in_a_row_ = why ? in_a_row_ + 1 : 0;
  if (!why) return {};
  progress.note(
      fmt::format("step {}: update refused: {}; the weights stay as they were", number, *why));
  if (in_a_row_ < kInARowMax) return {};
  return fail(
      Code::kVerdict,
      "{} updates in a row were refused; the last checkpoint is in {}. Lower optimizer.lr or raise "
      "schedule.warmup_steps and go on with --resume",
      in_a_row_,
      folder);
}

Result<void> Refusals::end(int64_t steps_of_run) const {
  if (steps_ == 0 || in_a_row_ < steps_ || steps_ < steps_of_run) return {};
  return fail(
      Code::kVerdict,
      "each of the {} updates was refused: the weights are what they were at the beginning. "
      "Lower optimizer.lr, or look at the data and at the weights it began with",
      steps_);
}

}  // namespace ferry
