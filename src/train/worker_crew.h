// The processes that are one worker to the supervisor's rules: a single one, or the ranks of a run, which begin
// together and of which none goes on without the others, or their successors. What is known of each is made into
// what is known of the worker by pure functions; WorkerCrew carries them out.
#pragma once

#include <poll.h>

#include <csignal>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/child_process.h"
#include "base/flight_reader.h"
#include "base/result.h"
#include "comm/rendezvous.h"
#include "train/hang_watch.h"
#include "train/run_status.h"
#include "train/supervisor.h"

namespace ferry::supervisor {

/// How the launcher tells its ranks to stop. Whoever stops a run may send SIGTERM to each of its processes, and of two
/// that are pending a process hears one, and of one sender: theirs would hide the launcher's. Nobody else sends this.
inline int rank_stop_signal() { return SIGRTMIN; }

/// How a rank ended: a status as of waitpid.
struct RankEnd {
  int rank = 0;
  int status = 0;
  /// Not of a successor that had yet to get what belongs to it: of the run such a one knows nothing, whatever it left
  /// with.
  bool in_place = true;
};

/// What ended a crew, of those that ended before anybody was told to end them, in that order: the first whose end
/// is not a consequence of another's (kLinkFailed), else the first that failed; rank 0's where none did. check:
/// there is one.
RankEnd cause_of(const std::vector<RankEnd>& ends);

/// How long the others may go on after such an end: not at all when a rank failed by itself; a moment when it
/// lost a link, since what was at its other end is about to be known; as long as they want when it left with a
/// verdict, or because it is done, which they come to as well (but only a moment longer than rank 0, who says it).
std::optional<double> others_may_go_on_s(const RankEnd& cause);

/// Whether a successor may do better than a rank that ended so: not if the reason is another than its own. Of a
/// successor that was not in place yet nothing is known but that it failed: the next one may.
bool may_have_successor(const RankEnd& end);

/// What is known of a rank that lives.
struct RankReport {
  Heartbeat last = {};  // its last word, also that it waits
  double since_s = 0;   // when it was
  bool ended = false;
  bool stopped = false;  // by a signal
};

/// "rank 1: training (1 of 2 micro-batches of a step), silent for 61 s" of each, in a line; first those for
/// whom nobody is to blame but themselves: silent, and waiting for no other rank.
std::string who_holds_up(const std::vector<RankReport>& ranks, double now_s);

/// Who has a successor now, and why another has none, if so.
struct Replacement {
  std::vector<int> ranks;
  Result<void> all;
};

/// Owner: supervise(). One thread.
class WorkerCrew {
 public:
  /// Errors: of ChildProcess::start and comm::Rendezvous::open.
  static Result<WorkerCrew> start(const Command& command,
                                  const std::vector<std::string>& arguments,
                                  const sigset_t& blocked,
                                  double now_s);

  /// SIGTERM to one, rank_stop_signal() to each of several; successors of those that are lost later begin with it.
  void terminate();
  void kill();
  /// SIGKILL to one rank, which is lost then as any other.
  void end_rank(int rank) const;
  /// What to wait for besides signals.
  void add_polled(std::vector<pollfd>& polled) const;
  /// What they said since the last call, as one worker would: rank 0's words; while it waits for others, theirs
  /// are a sign of its life.
  std::optional<Heartbeat> heard(double now_s);
  /// What they are at, if there are several.
  std::optional<std::string> report(double now_s) const;
  /// Of a rank that was just started; -1 once its end was heard of.
  int64_t pid(int rank) const { return ranks_[static_cast<size_t>(rank)].process.pid(); }
  /// The same of each, for whoever looks in from outside.
  std::vector<RankStatus> status(double now_s, int64_t now_unix_ms) const;
  /// Shows the watch what each is in.
  void look(hang::HangWatch& watch, double now_s) const;
  /// Its end, when all have ended: told once. Others are ended where that is to be. And before that, when some are
  /// lost that may have successors: RankLost, told once, and answered by replace() or end_rest().
  std::optional<Event> ended(double now_s);
  /// Starts successors of those that are lost, and tells all where to meet when each has one. What could not be started
  /// remains lost, and is told no more: replace() again, or end_rest().
  Replacement replace(double now_s);
  void end_rest(double now_s);
  /// When all successors have what belongs to them, told once: who, and how long it took.
  std::optional<std::string> whole_again();
  /// Who it was, in words, if there were several; or who had to be ended at the end. After ended().
  const std::string& cause() const { return cause_; }
  /// When ended() is to be called at the latest.
  double wake_at() const;

 private:
  struct Rank {
    ChildProcess process;
    RankReport report;
    Heartbeat work;  // its last word about its own work
    flight::Memory flight;
    bool whole = false;      // it has what belongs to it, and so knows its step
    bool successor = false;  // it takes or has taken a lost one's place
    bool done = false;       // it has ended, with what the run came to
    bool needless = false;   // there is nothing to take a place for any more: its end says nothing
  };
  void reap(double now_s);
  void signal(int number) const;
  void left_with_verdict();
  bool is_whole(const Rank& rank) const;
  std::optional<RankLost> loss() const;
  Result<void> start_successor(int rank, double now_s);
  Result<ChildProcess> start_rank(int rank, const flight::Memory& record, bool in_place) const;
  void tell(int rank);
  std::optional<double> others_end_at() const;
  std::string who_has_not_left() const;
  bool several() const { return ranks_.size() > 1; }

  Command command_;
  std::vector<std::string> arguments_;  // of successors, but for what says so
  sigset_t blocked_{};
  std::optional<comm::Rendezvous> rendezvous_;  // of several
  std::vector<Rank> ranks_;
  std::vector<RankEnd> lost_;  // that are to have successors, or are not: not decided yet
  size_t told_lost_ = 0;       // how many of them RankLost was told of
  bool over_ = false;          // no further successors
  bool told_to_stop_ = false;
  std::vector<int> replaced_;  // whose successors have yet to be whole
  double lost_at_s_ = 0, heard_at_s_ = 0;
  std::vector<RankEnd> ends_;        // before anybody was told to
  double first_end_s_ = 0;           // of ends_
  std::optional<double> through_s_;  // when rank 0 left with what the run came to
  bool killed_ = false;              // all of them, by this
  std::string cause_;
};

}  // namespace ferry::supervisor
