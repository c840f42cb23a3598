#include "train/spike.h"

#include <algorithm>
#include <cmath>

namespace ferry {

double spike_line(const ZScore& losses, const TrainSettings& settings) {
  if (settings.rewind_loss_z <= 0) return Spike::kNoLine;
  return losses.level(settings.rewind_loss_z).value_or(Spike::kNoLine);
}

Spike after_step(
    const Spike& before, int64_t step, int64_t from, bool refused, double loss, double line) {
  const bool goes_on = before.since > 0;
  const double limit = goes_on ? before.line : line;
  if (!refused && loss <= limit) return {};
  return goes_on ? before : Spike{.since = step, .line = line, .from = from};
}

bool goes_back(const Spike& spike, int64_t step, const TrainSettings& settings) {
  return settings.rewind_every > 0 && spike.since > 0 &&
         step - spike.since + 1 >= settings.rewind_after;
}

int64_t before_spike(const Spike& spike, int64_t step, const TrainSettings& settings) {
  if (settings.rewind_every <= 0) return 0;
  const int64_t good = spike.since > 0 ? spike.since - 1 : step;
  return good / settings.rewind_every * settings.rewind_every;
}

std::vector<int64_t> places_before(const Spike& spike,
                                   int64_t step,
                                   const std::vector<int64_t>& checkpoints,
                                   const TrainSettings& settings) {
  const int64_t last = before_spike(spike, step, settings);
  std::vector<int64_t> places;
  for (const int64_t c : checkpoints)
    if (c > 0 && c <= last && c % settings.rewind_every == 0) places.push_back(c);
  std::reverse(places.begin(), places.end());
  return places;
}

bool has_gone_back_enough(const Rewinds& rewinds, int64_t to, const TrainSettings& settings) {
  return to <= rewinds.furthest && rewinds.there >= settings.rewinds;
}

Rewinds after_going_back(const Rewinds& before, int64_t to, int64_t taken) {
  const bool further = to > before.furthest;
  Rewinds after{.count = before.count + 1,
                .to = to,
                .furthest = further ? to : before.furthest,
                .there = further ? 1 : before.there + 1,
                .skipped_tokens = before.skipped_tokens + taken,
                .places = before.places};
  after.places.push_back(to);
  return after;
}

}  // namespace ferry
