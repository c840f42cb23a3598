#include "train/beats.h"

#include <algorithm>

#include "base/fault.h"
#include "base/flight_record.h"

namespace ferry {
namespace {

using supervisor::Phase;
using supervisor::Work;

// Between two beats that say nothing new but how far it is. Patience is longer by far.
constexpr double kPauseS = 0.05;

const char* fault_name(Phase phase) {
  switch (phase) {
    case Phase::kStarting: return "beat.start";
    case Phase::kTraining: return "beat.train";
    case Phase::kEvaluating: return "beat.evaluate";
    case Phase::kSaving: return "beat.save";
  }
  return "";
}

}  // namespace

Beats::Beats(Send send, const Clock& clock)
    : send_(std::move(send)), clock_(clock), listener_([this](uint64_t bytes) { alive(bytes); }) {}

void Beats::begin(Work work, int64_t total, supervisor::Unit unit) {
  const std::lock_guard lock(mutex_);
  now_.work = work;
  now_.done = 0;
  now_.total = total;
  now_.unit = unit;
  part_began_s_ = clock_.monotonic_s();
  record();
  tell();
}

void Beats::advance(int64_t done, int64_t total) {
  const std::lock_guard lock(mutex_);
  now_.done = done;
  if (total > 0) now_.total = total;
  if (now_.work == Work::kTraining) {
    const double now_s = clock_.monotonic_s();
    flight::add_micro_batch(now_s - part_began_s_);
    part_began_s_ = now_s;
  }
  record();
  if (clock_.monotonic_s() - told_s_ >= kPauseS) tell();
}

void Beats::step_done(int64_t step, int64_t rewinds) {
  const std::lock_guard lock(mutex_);
  now_.step = step;
  now_.rewinds = rewinds;
  record();
  tell();
}

/// Of a hang its supervisor says what it was at (train/hang_verdict.h).
void Beats::record() const {
  flight::set_work(static_cast<int32_t>(now_.work), now_.step, now_.done);
}

void Beats::waiting_for(int rank) {
  const std::lock_guard lock(mutex_);
  supervisor::Heartbeat waiting = now_;
  waiting.waits_for = rank;
  if (send_) send_(waiting);
}

bool Beats::counts_bytes() const {
  return now_.work == Work::kReadingData || now_.work == Work::kLoading ||
         now_.work == Work::kWriting || now_.work == Work::kTakingPlace;
}

void Beats::alive(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (counts_bytes()) {
    now_.done += static_cast<int64_t>(bytes);
    // What is hashed again (a checkpoint that was torn, say) is not in the total.
    if (now_.total > 0) now_.done = std::min(now_.done, now_.total);
  }
  if (clock_.monotonic_s() - told_s_ >= kPauseS) tell();
}

void Beats::tell() {
  if (send_) send_(now_);
  told_s_ = clock_.monotonic_s();
  static_cast<void>(fault_point(fault_name(phase_of(now_.work))));
}

}  // namespace ferry
