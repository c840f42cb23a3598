// The supervisor of a training run: a process that owns the worker process, starts it again when
// the chip or its driver took it down, and lets it save when the run is to stop. The rules are a
// pure function of (state, event, now); supervise() is the thin shell that carries them out with
// fork, exec, a pipe and signals.
#pragma once

#include <compare>
#include <csignal>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/signals.h"

namespace ferry {
struct RunStatus;
}

namespace ferry::supervisor {

/// What a worker is at. Each has its own patience.
enum class Phase { kStarting, kTraining, kEvaluating, kSaving };

/// The same, more closely.
enum class Work : int32_t {
  kReadingData,  // starting, until the first step is done
  kLoading,
  kFirstStep,
  kTraining,
  kEvaluating,
  kProbing,  // saving
  kWriting,
  kRemoving,
  kNoRoom,           // saving, once somebody has freed space on the disk; or left out
  kFirstEvaluation,  // starting, too: one that a stop had cut short
  kReference,        // starting, too: what the first model gives pairs of answers
  kTakingPlace,  // training, as a successor of a rank that is gone: it gets what the others have
};
/// Whether a worker at that knows which step it is after: what it says of it before is nothing yet.
bool knows_its_step(Work work);
/// What is counted of it, where it is not what that work counts as a rule.
enum class Unit : int32_t { kUsual, kPairs, kTasks, kAnswers };
Phase phase_of(Work work);

struct Settings {
  int failures_max = 5;        // restarts in a row without a step further than ever before
  double backoff_first_s = 1;  // before the first restart; doubles with each without progress
  double backoff_max_s = 60;
  // Silence that is never a hang, in each phase. A beat ends it.
  double start_patience_s = 900;
  double step_patience_s = 60;
  double evaluate_patience_s = 60;
  double save_patience_s = 1800;  // one fsync of a slow disk says nothing for long
  /// While training and evaluating, silence of so many (slowest recent) intervals between beats is
  /// none either.
  double patience_intervals = 20;
  // Stillness from which a hang is told (train/hang_watch.h); 0: none is. And, for who asks for it, from which who
  // hangs is ended in a step of training, where nothing is left that could go on by itself; 0: the patience above does.
  double hang_verdict_s = 3;
  double hang_patience_s = 0;
  double stop_patience_s = 600;  // after a signal, for the step under way, until saving begins
  double leave_s = 10;           // after a signal, for a worker that has nothing to save yet
  double kill_s = 60;            // for the kernel to end a worker after SIGKILL
  /// A signal that follows another so soon is its echo: `timeout`, shells and terminals that close
  /// send theirs twice.
  double echo_s = 0.25;
  double tick_max_s = 10;          // a longer gap between events: the supervisor itself was stopped
  std::string go_on = "--resume";  // what to go on with, for messages
};

// What happens.
struct Started {};  // the worker that a Start asked for exists
struct StartFailed {
  std::string why;
};
struct Heartbeat {   // alive
  int64_t step = 0;  // this many are done
  Work work = Work::kTraining;
  int32_t waits_for = -1;       // a rank, which the work cannot go on without; -1: none
  int64_t done = 0, total = 0;  // of the work, in its unit; total 0: not known
  Unit unit = Unit::kUsual;
  int64_t rewinds =
      0;  // so often the run has gone back from a loss spike, and steps are counted from there anew
};
struct Exited {
  int code = 0;
};
struct Died {
  int signal = 0;
};
/// A rank of several has ended by itself; the others live.
struct RankLost {
  std::string who;       // "rank 1 was ended by signal 9 (Killed)"
  std::string others;    // "rank 0 and rank 2"
  bool held = false;     // all that it held is held by others, who can go on
  bool in_vain = false;  // it was a successor, and not in place yet
  std::vector<int> ranks = {};
  std::vector<int> spoiled = {};  // those of them that were convicted of silent corruption
};
/// What a Replace asked for could not be started; the others live.
struct NotReplaced {
  std::string why;
};
struct Signal {
  int number = 0;
};  // to the supervisor, one of kStopSignals
/// A process stands still; or nobody does any more, after one did.
struct Hung {
  double still_s = 0;    // for so long
  bool certain = false;  // and cannot go on by itself
  int rank = -1;         // of several, the one without which the others would go on; -1: all hang
};
struct Tick {};  // time passed; at least every tick_max_s
using Event = std::variant<Started,
                           StartFailed,
                           Heartbeat,
                           Exited,
                           Died,
                           RankLost,
                           NotReplaced,
                           Signal,
                           Hung,
                           Tick>;

// What to do, in order.
struct Start {
  bool resume = false;    // from the newest checkpoint of this run
  int64_t replay_to = 0;  // until so many steps are done, the worker waits for each launch
};
struct Replace {};  // a successor for each rank that is lost; the others meet it
struct EndRest {
};  // no successor: the others are ended, and what follows is told as Exited or Died
struct Terminate {};  // SIGTERM (rank_stop_signal() to each of several ranks): save and leave
struct Kill {};       // SIGKILL
struct EndRank {
  int rank = 0;
};  // SIGKILL to it alone: what follows is told as RankLost
struct Log {
  std::string text;
};
struct Exit {
  int code = 0;
};  // nothing follows it
using Action = std::variant<Start, Replace, EndRest, Terminate, Kill, EndRank, Log, Exit>;

/// How far a run has come. One that goes back from a loss spike (train/spike.h) makes steps of numbers that it has made
/// before, and is further than ever all the same.
struct Place {
  int64_t rewinds = 0;
  int64_t step = -1;  // done since; -1: nothing is known yet
  auto operator<=>(const Place&) const = default;
};
inline Place place_of(const Heartbeat& beat) { return {beat.rewinds, beat.step}; }

struct State {
  enum class Worker { kNone, kStarting, kRunning, kStopping, kKilled };

  Worker worker = Worker::kNone;
  bool stopping = false;      // a signal came: no more restarts
  bool done = false;          // Exit was given
  double event_at = 0;        // when the previous event came
  double since = 0;           // when the worker became what it is, or was last heard of
  double signal_at = -1e300;  // when the last signal came
  std::vector<int> signals;   // those that came, each once
  Heartbeat last;             // of this worker
  double restart_at = 0;      // with no worker: when to start the next one
  bool heard = false;         // this worker sent a heartbeat
  double interval_s = 0;      // the slowest recent time between two beats of training
  double first_step_at = 0;   // when this worker's first step began
  Place first;                // where the run began
  Place furthest;             // ever
  Place saved;                // the newest checkpoint that this supervisor heard to be whole
  // A restart loses steps, and only new ones are progress; a successor loses none, and each one is.
  Place at_failure;  // furthest ever, when a worker last failed
  int failures = 0;  // in a row without progress
  Place of_worker;   // furthest of this worker, once it has said where it goes on
  Place at_loss;     // the same, when a rank of it was last lost
  std::map<int, int> convictions = {};  // of a rank's place, for silent corruption
  int losses = 0;                       // of its ranks, in a row without progress
  std::optional<double> replace_at;     // when to start the next successor, after one that failed
  int hung_rank = -1;                   // of several, the one that holds the others up
  int ended_rank = -1;         // the one that was sent SIGKILL for it, and has not been seen to end
  bool device_failed = false;  // that was how the last worker ended
  int starts = 0;
};

/// The first worker of a run. `resume` says whether even that one goes on from a checkpoint.
std::pair<State, std::vector<Action>> begin(double now, bool resume);

/// What follows from an event. Pure: no clock, no process, no randomness.
///
/// The worker leaves with 0, 1 or 2     the run leaves with the same: done, verdict, wrong input.
/// ... with kUseless                    exit 3: a disk is as full after a restart as before, and
///                                      a folder as forbidden.
/// ... with 3, in its first start,      exit 3: it said what it lacks, and has not done a step.
///     while starting
/// ... with kOutOfMemory                exit 3 if the run has not made a step yet: it does not fit.
///                                      Later it may be the neighbours': as below.
/// ... with kDeviceFailed               it starts again as below, and until it is past the step
///                                      that failed it waits for each launch, so that a fault that
///                                      comes again names the one op.
/// ... with another status, a signal    it starts again from the newest checkpoint, after a pause;
///                                      after `failures_max` restarts that got no further, exit 3.
/// One rank of several is lost          a successor takes its place, if the others hold what it held;
///                                      if not, or if after `failures_max` losses in a row this start
///                                      made no step, they are ended, and all start again as above.
/// A successor cannot be started, or     another one follows after backoff_first_s, which counts as
/// is lost before it is in place        one more loss; the others wait for it.
/// It is silent for too long            SIGKILL, then as above: where one rank of several is known to hang,
///                                      to that one, and to all if it does not end. What is too long is
///                                      its phase's patience.
/// A rank hangs for hang_patience_s     likewise, if that is not 0, it cannot go on by itself
///                                      (Verdict::certain), and no signal has come.
/// A first signal                       SIGTERM to the worker, once: it saves and leaves, and the
///                                      run ends with it. While it saves, beats keep it alive.
/// A second one                         if it is a keyboard's (SIGINT, SIGQUIT) or has come before:
///                                      SIGKILL; exit 3. Another scheduler's signal changes
///                                      nothing: it warns by one, and ends by another.
/// stop_patience_s passed               SIGKILL; exit 3.
/// ... while the worker still started   SIGTERM; after leave_s SIGKILL; exit 0: nothing is lost.
/// It outlives SIGKILL by kill_s        (a driver that never returns) exit 3: a second worker beside
///                                      it could write the same files.
std::pair<State, std::vector<Action>> advance(State state,
                                              const Event& event,
                                              double now,
                                              const Settings& settings);

/// "saving: writing and hashing (1.20 GiB of 3.40 GiB)": what a beat said.
std::string in_words(const Heartbeat& beat);

/// What comes of a hang, for its verdict: "rank 1 is ended when that has lasted for 20.0 s (...)".
std::string what_follows(const State& state, const Settings& settings, const Hung& hang);

/// When a Tick is needed at the latest, given no other event.
double wake_at(const State& state, const Settings& settings);

/// A worker's exit status for a DeviceError, for what no restart mends
/// (Code::kExhausted), for no memory, for a link to another rank that failed and was not made again. Between the
/// two processes only: a run that ends by one of them leaves with 3.
inline constexpr int kDeviceFailed = 4;
inline constexpr int kUseless = 5;
inline constexpr int kOutOfMemory = 6;
inline constexpr int kLinkFailed = 7;
/// Of ranks that together have no longer what it takes to go on (StateLost in train/loop.h).
inline constexpr int kStateLost = 8;
/// Of a rank that held or computed something else than it should (Spoiled in train/corruption_guard.h).
inline constexpr int kSpoiled = 9;

/// The worker's end of the pipe.
class Pulse {
 public:
  /// supervised: whether this process was started by supervise(); if not, beats go nowhere.
  /// Errors: kInvalidInput if it was not, after all.
  static Result<Pulse> open(bool supervised);
  /// Call at least once a step, and again during anything longer (evaluating, saving): silence is
  /// what a hang is told by. Never blocks: a beat that does not fit in the pipe is dropped. From
  /// any thread.
  void beat(const Heartbeat& beat) const;

 private:
  bool on_ = false;
};

struct Command {
  std::string program;             // a path; "/proc/self/exe" is this program
  std::string name;                // what it is called: the worker's argv[0]
  std::vector<std::string> first;  // arguments of the first start, without argv[0]
  std::vector<std::string> again;  // of every restart: --resume
  std::string replay;              // of a restart after a device's failure, with "=STEP" behind it
  std::string handed = {};         // what each start can take (ChildProcess::take_handed)
  int ranks = 1;                   // processes that are one worker together
  std::string ranked = {};         // of several, an argument of each start: others are to be met
  std::string replacing = {};      // and of each that takes a lost one's place
  std::string stopping = {};       // and of such a one where all were told to stop
};

/// Runs the command under supervision and returns the exit status for the process.
///
/// Several ranks are one worker (train/worker_crew.h): they start together, each signal goes to all
/// (rank_stop_signal() where SIGTERM is said), and when
/// one of them fails it has a successor, or the others are ended with it.
///
/// The worker is a ChildProcess: it dies with the supervisor, whatever ends that one. All
/// kStopSignals but SIGTERM and SIGXCPU are ignored in it (Ctrl-C, a terminal that closes and a
/// scheduler reach the whole group: the supervisor alone answers them, with SIGTERM). SIGPIPE is
/// ignored here too from now on: a log that nobody reads any more must not end the run. Call from
/// the main thread: the kernel ties the worker's life to the thread that forked it. `log` must not
/// block: the supervisor would hear nothing meanwhile (base/patient_output.h). Neither must `began`, which gets the
/// number of each process as soon as it was started, nor `show`, which gets what the run is at, whenever that changes
/// and every few seconds, from a worker's first word on; with the stage and what is known of workers filled in, the
/// rest as `shown` has it.
int supervise(const Command& command,
              const Settings& settings,
              const Clock& clock,
              const std::function<void(std::string_view)>& log,
              const RunStatus& shown,
              const std::function<void(int64_t pid)>& began,
              const std::function<void(const RunStatus&)>& show);

}  // namespace ferry::supervisor
