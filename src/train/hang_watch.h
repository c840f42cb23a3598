// Looks at the ranks of a run a few times a second, and says when one hangs: how long each has stood still, against
// how long what it is in usually takes. The rules of blame are train/hang_verdict.h. Pure: what was seen and the time
// are given.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/flight_reader.h"
#include "base/system.h"
#include "train/hang_verdict.h"

namespace ferry::hang {

/// How long something took in the last half hour, where it took long enough to be seen.
class Pace {
 public:
  void add(double now_s, double wall_s, double busy_s);
  /// 0: never long. With no more than a hundred that are kept, the largest is the 99th percentile.
  double wall_s(double now_s) const { return largest(now_s, &Interval::wall_s); }
  double busy_s(double now_s) const { return largest(now_s, &Interval::busy_s); }

 private:
  struct Interval {
    double at_s, wall_s, busy_s;
  };
  double largest(double now_s, double Interval::*of) const;
  std::deque<Interval> lately_;
};

/// Owner: the supervisor, for as long as a worker lives. One thread.
class HangWatch {
 public:
  HangWatch(const Limits& limits, int ranks);

  /// Between two looks.
  double every_s() const;
  /// Whether what the system says of the rank's process will be asked for: not of who gets on.
  bool wants_process(int rank) const;

  struct Look {
    flight::Snapshot page;
    std::optional<ProcessLook> process = {};
    bool stopped = false;  // by a signal
    bool ended = false;
    bool done = false;  // and was through
  };
  void look(std::span<const Look> ranks, double now_s);

  /// Another process is that rank now: what was seen of the one before is forgotten.
  void replaced(int rank);

  /// What holds now.
  const std::optional<Verdict>& verdict() const { return verdict_; }
  /// Sentences to be told since the last call: a new verdict, the end of one.
  std::vector<std::string> news();

 private:
  struct Rank {
    bool seen = false;
    flight::Snapshot page;  // as last seen
    double moved_s = 0, looked_s = 0;
    std::optional<double> stopped_since_s, asleep_since_s;
    std::optional<ProcessLook> first_process, asleep_process, process;  // of this standstill
    bool was_stopped = false;                                           // in it
    std::optional<RankSight> blamed;                                    // for it, as then seen
    std::set<int32_t> done_works;
    struct Made {  // when a step was seen to be done
      int64_t step;
      double at_s;
      int64_t micro_batches, us;
    };
    std::deque<Made> made;
  };
  void follow(Rank& rank, const Look& look, double now_s, bool first);
  void look_at_process(Rank& rank, const Look& look, double now_s);
  RankSight sight_of(const Rank& rank, const Look& look, double now_s) const;
  void compare_speeds(std::vector<RankSight>& sights) const;
  void follow_links(double now_s);
  void tell(std::optional<Verdict> now_holds, double now_s);
  uint64_t moves_of(const Verdict& verdict) const;
  bool settled(const Rank& rank) const;
  /// Over which, at least, ranks' speeds are compared.
  double window_s() const { return 10 * limits_.verdict_s / 3; }

  const Limits limits_;
  std::vector<Rank> ranks_;
  std::map<std::string, Pace> paces_;
  struct Link {
    uint64_t received = 0;
    std::optional<double> since_s;  // bytes are on their way, and none arrives
  };
  std::vector<Link> links_;  // from * ranks + to
  std::optional<double> looked_s_;
  std::optional<Verdict> verdict_;
  struct Told {
    Verdict hang;
    uint64_t moves;  // that its end is told by
  };
  std::optional<Told> told_;
  std::map<int, double> told_slow_s_;
  std::vector<std::string> news_;
};

}  // namespace ferry::hang
