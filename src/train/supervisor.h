// The supervisor of a training run: a process that owns the worker process, starts it again when
// the chip or its driver took it down, and lets it save when the run is to stop. The rules are a
// pure function of (state, event, now); supervise() is the thin shell that carries them out with
// fork, exec, a pipe and signals.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace ferry::supervisor {

struct Settings {
  int failures_max = 5;  // restarts in a row without a step further than ever before
  double backoff_first_s =
      1;  // before the first restart; doubles with each that brings no progress
  double backoff_max_s = 60;
  double startup_s = 900;  // from start to the first heartbeat: reading data and weights
  double hang_min_s = 60;  // silence that is never a hang
  double hang_steps = 20;  // silence of so many (slowest recent) heartbeat intervals is one
  double stop_s = 600;     // for saving, after SIGTERM
  double kill_s = 60;      // for the kernel to end a worker after SIGKILL
  double tick_max_s =
      10;  // a longer gap between events means that the supervisor itself was stopped
};

// What happens.
struct Started {};  // the worker that a Start asked for exists
struct StartFailed {
  std::string why;
};
struct Heartbeat {
  int64_t step = 0;
};  // alive, and this many steps are done
struct Exited {
  int code = 0;
};
struct Died {
  int signal = 0;
};
struct Signal {
  int number = 0;
};               // SIGINT, SIGTERM or SIGHUP to the supervisor
struct Tick {};  // time passed; at least every tick_max_s
using Event = std::variant<Started, StartFailed, Heartbeat, Exited, Died, Signal, Tick>;

// What to do, in order.
struct Start {
  bool resume = false;    // from the newest checkpoint of this run
  int64_t replay_to = 0;  // until so many steps are done, the worker waits for each launch
};
struct Terminate {};  // SIGTERM: save and leave
struct Kill {};       // SIGKILL
struct Log {
  std::string text;
};
struct Exit {
  int code = 0;
};  // nothing follows it
using Action = std::variant<Start, Terminate, Kill, Log, Exit>;

struct State {
  enum class Worker { kNone, kStarting, kRunning, kStopping, kKilled };

  Worker worker = Worker::kNone;
  bool stopping = false;         // a signal came: no more restarts
  bool done = false;             // Exit was given
  double event_at = 0;           // when the previous event came
  double since = 0;              // when the worker entered its phase, or was last heard of
  double restart_at = 0;         // with no worker: when to start the next one
  bool heard = false;            // this worker sent a heartbeat
  double interval_s = 0;         // the slowest recent time between two heartbeats
  int64_t first_step = -1;       // of the first heartbeat ever: where the run began
  int64_t step = -1;             // furthest ever
  int64_t step_at_failure = -1;  // furthest when a worker last failed
  int failures = 0;              // in a row without progress
  bool device_failed = false;    // that was how the last worker ended
  int starts = 0;
};

/// The first worker of a run. `resume` says whether even that one goes on from a checkpoint.
std::pair<State, std::vector<Action>> begin(double now, bool resume);

/// What follows from an event. Pure: no clock, no process, no randomness.
///
/// The worker leaves with 0, 1 or 2     the run leaves with the same: done, verdict, wrong input.
/// ... with kExhausted                  exit 3: a disk is as full after a restart as before.
/// ... with kOutOfMemory                exit 3 if the run has not made a step yet: it does not fit.
///                                      Later it may be the neighbours': as below.
/// ... with kDeviceFailed               it starts again as below, and until it is past the step
///                                      that failed it waits for each launch, so that a fault that
///                                      comes again names the one op.
/// ... with another status, a signal    it starts again from the newest checkpoint, after a pause;
///                                      after `failures_max` restarts that got no further, exit 3.
/// It is silent for too long            SIGKILL, then as above.
/// First SIGINT, SIGTERM, SIGHUP        SIGTERM to the worker, once; the run ends with it.
/// A second one, or stop_s passed       SIGKILL; exit 3.
/// It outlives SIGKILL by kill_s        (a driver that never returns) exit 3: a second worker
/// beside it
///                                      could write the same files.
std::pair<State, std::vector<Action>> advance(State state,
                                              const Event& event,
                                              double now,
                                              const Settings& settings);

/// When a Tick is needed at the latest, given no other event.
double wake_at(const State& state, const Settings& settings);

/// A worker's exit status for a DeviceError, for Code::kExhausted, for no memory. Between the two
/// processes only: a run that ends by one of them leaves with 3.
inline constexpr int kDeviceFailed = 4;
inline constexpr int kExhausted = 5;
inline constexpr int kOutOfMemory = 6;

/// The descriptor on which a supervised worker finds its heartbeat pipe.
inline constexpr int kHeartbeatFd = 3;

/// The worker's end of the pipe. Thread rule: one thread.
class Pulse {
 public:
  /// supervised: whether this process was started by supervise(); if not, beats go nowhere.
  /// Errors: kInvalidInput if it was not, after all.
  static Result<Pulse> open(bool supervised);
  /// `steps` are done. Call at least once a step, and again during anything longer (evaluating,
  /// saving): silence is what a hang is told by. Never blocks: a beat that does not fit in the pipe
  /// is dropped.
  void beat(int64_t steps) const;

 private:
  bool on_ = false;
};

struct Command {
  std::string program;             // a path; "/proc/self/exe" is this program
  std::vector<std::string> first;  // arguments of the first start, without argv[0]
  std::vector<std::string> again;  // of every restart: --resume
  std::string replay;              // of a restart after a device's failure, with "=STEP" behind it
};

/// Runs the command under supervision and returns the exit status for the process.
///
/// The worker starts with SIGINT and SIGPIPE ignored (Ctrl-C reaches the whole group: the
/// supervisor alone answers it, with SIGTERM), kHeartbeatFd open, and dies with the supervisor
/// whatever ends that one. SIGPIPE is ignored here too from now on: a log that nobody reads any more
/// must not end the run. Call from the main thread: the kernel ties the worker's life to the
/// thread that forked it.
int supervise(const Command& command,
              const Settings& settings,
              const Clock& clock,
              const std::function<void(std::string_view)>& log);

}  // namespace ferry::supervisor
