// What a training worker tells its supervisor: what it is at, and how far it is with it.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "base/alive.h"
#include "base/clock.h"
#include "ops/dispatch.h"
#include "train/supervisor.h"

namespace ferry {

/// Owner: the training loop, for as long as it runs. begin(), advance() and step_done() from its
/// thread; signs of life (base/alive.h) come from any.
///
/// Tests make any phase slow or hang at its N-th beat: fault points beat.start, beat.train,
/// beat.evaluate, beat.save.
class Beats {
 public:
  using Send = std::function<void(const supervisor::Heartbeat&)>;
  /// `send` may be empty, and must take calls from any thread.
  Beats(Send send, const Clock& clock);

  /// From here on it is at `work`, of so many units (0: not known).
  void begin(supervisor::Work work,
             int64_t total = 0,
             supervisor::Unit unit = supervisor::Unit::kUsual);
  /// So many units of it are done with, of `total` if that is known by now.
  void advance(int64_t done, int64_t total = 0);
  /// rewinds: so often the run has gone back from a loss spike.
  void step_done(int64_t step, int64_t rewinds = 0);
  /// Nothing is done until this other rank has spoken. No sign of life of the work.
  void waiting_for(int rank);

 private:
  bool counts_bytes() const;
  void alive(uint64_t bytes);
  void tell();
  void record() const;

  const Send send_;
  const Clock& clock_;
  std::mutex mutex_;
  supervisor::Heartbeat now_{.work = supervisor::Work::kReadingData};
  double told_s_ = -1e300;
  double part_began_s_ = 0;  // of the work
  AliveListener listener_;   // last: it calls the others
};

/// Makes every call of an op on this thread a sign of life, while it lives: for passes that nobody
/// knows the time of yet.
class OpsAlive final : public ops::Observer {
 public:
  OpsAlive() : observing_(*this) {}
  void after(const ops::OpCall&) override { still_alive(); }

 private:
  ops::Observing observing_;
};

}  // namespace ferry
