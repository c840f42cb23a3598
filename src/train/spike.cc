#include "train/spike.h"

#include <algorithm>
#include <cmath>

namespace ferry {

double spike_line(const ZScore& losses, const TrainSettings& settings) {
  if (settings.rewind_loss_z <= 0) return Spike::kNoLine;
  return losses.level(settings.rewind_loss_z).value_or(Spike::kNoLine);
}

Spike after_step(const Spike& before, int64_t step, bool refused, double loss, double line) {
  const bool goes_on = before.since > 0;
  const double limit = goes_on ? before.line : line;
  if (!refused && loss <= limit) return {};
  return goes_on ? before : Spike{.since = step, .line = line};
}

bool goes_back(const Spike& spike, int64_t step, const TrainSettings& settings) {
  return settings.rewind_every > 0 && spike.since > 0 &&
         step - spike.since + 1 == settings.rewind_after;
}

int64_t before_spike(const Spike& spike, int64_t step, const TrainSettings& settings) {
  if (settings.rewind_every <= 0) return 0;
  const int64_t good = spike.since > 0 ? spike.since - 1 : step;
  return good / settings.rewind_every * settings.rewind_every;
}

std::optional<int64_t> goes_back_to(const Spike& spike,
                                    int64_t step,
                                    const std::vector<int64_t>& checkpoints,
                                    const TrainSettings& settings) {
  const int64_t last = before_spike(spike, step, settings);
  const auto found =
      std::find_if(checkpoints.rbegin(), checkpoints.rend(), [&](int64_t checkpoint) {
        return checkpoint > 0 && checkpoint <= last && checkpoint % settings.rewind_every == 0;
      });
  if (found == checkpoints.rend()) return std::nullopt;
  return *found;
}

Rewinds after_going_back(const Rewinds& before, int64_t to, int64_t taken) {
  return {.count = before.count + 1,
          .to = to,
          .there = before.to == to ? before.there + 1 : 1,
          .skipped_tokens = before.skipped_tokens + taken};
}

}  // namespace ferry
