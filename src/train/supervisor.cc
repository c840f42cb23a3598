// The rules alone. What carries them out is in supervisor_process.cc.
#include "train/supervisor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/units.h"

namespace ferry::supervisor {
namespace {

using Worker = State::Worker;

/// One call of advance(): the new state and the actions as they come up.
struct Advance {
  State s;
  std::vector<Action> actions;
  const double now;
  const Settings& settings;

  template <typename... Args>
  void log(fmt::format_string<Args...> format, Args&&... args) {
    actions.emplace_back(std::in_place_type<Log>,
                         Log{fmt::format(format, std::forward<Args>(args)...)});
  }

  void exit(int code) {
    s.done = true;
    actions.emplace_back(std::in_place_type<Exit>, Exit{code});
  }

  void enter(Worker phase) {
    s.worker = phase;
    s.since = now;
  }

  void kill() {
    enter(Worker::kKilled);
    actions.emplace_back(std::in_place_type<Kill>, Kill{});
  }

  void terminate() {
    enter(Worker::kStopping);
    actions.emplace_back(std::in_place_type<Terminate>, Terminate{});
  }

  double silence_max() const {
    return s.heard ? std::max(settings.hang_min_s, settings.hang_steps * s.interval_s)
                   : settings.startup_s;
  }

  /// No worker is left, and not because it was through.
  void failed(const std::string& how) {
    s.worker = Worker::kNone;
    s.device_failed = false;
    if (s.stopping) {
      log("the worker {} before it had saved; what was trained since the newest checkpoint is lost",
          how);
      return exit(3);
    }
    const bool progress = s.step > s.step_at_failure;
    s.failures = progress ? 1 : s.failures + 1;
    s.step_at_failure = s.step;
    if (s.failures > settings.failures_max) {
      log("the worker {}; {} restarts in a row got no further than step {}: giving up. Checkpoints "
          "that were written are whole; look at the messages above, then go on with --resume",
          how,
          settings.failures_max,
          std::max<int64_t>(s.step, 0));
      return exit(3);
    }
    const double pause =
        std::min(settings.backoff_max_s, std::ldexp(settings.backoff_first_s, s.failures - 1));
    s.restart_at = now + pause;
    log("the worker {} after step {}; starting again from the newest checkpoint in {} (attempt {} "
        "of {})",
        how,
        std::max<int64_t>(s.step, 0),
        format_duration(pause),
        s.failures,
        settings.failures_max);
  }

  void on(const Started&) {
    if (s.worker != Worker::kStarting) return;
    enter(Worker::kRunning);
    if (s.stopping) terminate();  // the signal came while the worker was being made
  }

  void on(const StartFailed& e) {
    if (s.worker != Worker::kStarting) return;
    failed(fmt::format("could not be started ({})", e.why));
  }

  void on(const Heartbeat& e) {
    if (s.worker != Worker::kRunning && s.worker != Worker::kStopping) return;
    if (s.worker == Worker::kRunning) {
      // The slowest counts, forgotten by a hundredth each time: one long evaluation widens the
      // patience for the next hundred beats, not for ever.
      if (s.heard) s.interval_s = std::max(0.99 * s.interval_s, now - s.since);
      s.since = now;  // while stopping the clock for saving goes on
    }
    s.heard = true;
    if (s.first_step < 0) s.first_step = e.step;
    s.step = std::max(s.step, e.step);
  }

  void on(const Exited& e) {
    if (s.worker == Worker::kNone) return;
    if (e.code >= 0 && e.code <= 2) {
      s.worker = Worker::kNone;
      return exit(e.code);
    }
    if (!s.stopping && !cured_by_restart(e.code)) {
      s.worker = Worker::kNone;
      log("a restart would change nothing about it. Checkpoints that were written are whole: give "
          "the run what it lacks, then go on with --resume");
      return exit(3);
    }
    failed(e.code == kDeviceFailed  ? "left: its device failed"
           : e.code == kOutOfMemory ? "left: it ran out of memory"
           : e.code == kExhausted   ? "left: its environment is exhausted"
           : e.code == 3            ? "left with status 3 (its environment failed)"
                                    : fmt::format("left with status {}", e.code));
    s.device_failed = e.code == kDeviceFailed;
  }

  bool cured_by_restart(int code) const {
    if (code == kOutOfMemory) return s.step > s.first_step;
    return code != kExhausted;
  }

  void on(const Died& e) {
    if (s.worker == Worker::kNone) return;
    if (s.worker == Worker::kStopping && !s.heard) {  // it had not come so far as to answer SIGTERM
      s.worker = Worker::kNone;
      log("stopped before the worker had begun; nothing is lost");
      return exit(0);
    }
    // strsignal's words ("Segmentation fault") depend on the locale only, which Ferry never sets.
    failed(fmt::format("was ended by signal {} ({})", e.signal, ::strsignal(e.signal)));
  }

  void on(const Signal& e) {
    const bool again = s.stopping;
    s.stopping = true;
    switch (s.worker) {
      case Worker::kNone:
        log("stopped while no worker ran; the newest checkpoint is whole");
        return exit(3);
      case Worker::kStarting: return;  // Started forwards it
      case Worker::kRunning:
        log("signal {}: the worker saves and leaves; once more ends it without saving", e.number);
        return terminate();
      case Worker::kStopping:
        if (!again) return;
        log("signal {} again: ending the worker without saving", e.number);
        return kill();
      case Worker::kKilled: return;
    }
  }

  void on(const Tick&) {
    const double waited = now - s.since;
    switch (s.worker) {
      case Worker::kNone:
        if (now < s.restart_at) return;
        s.heard = false;
        s.interval_s = 0;
        ++s.starts;
        enter(Worker::kStarting);
        actions.emplace_back(std::in_place_type<Start>,
                             Start{true, s.device_failed ? std::max<int64_t>(s.step, 0) + 1 : 0});
        return;
      case Worker::kStarting: return;
      case Worker::kRunning:
        if (waited <= silence_max()) return;
        log("no sign of life from the worker for {}: ending it", format_duration(waited));
        return kill();
      case Worker::kStopping:
        if (waited <= settings.stop_s) return;
        log("the worker did not leave within {}: ending it", format_duration(settings.stop_s));
        return kill();
      case Worker::kKilled:
        if (waited <= settings.kill_s) return;
        log("the worker does not end, {} after SIGKILL: its driver holds it in the kernel. Leaving "
            "without a new one, which "
            "could write the same files; the chip may need a reset",
            format_duration(waited));
        return exit(3);
    }
  }
};

}  // namespace

std::pair<State, std::vector<Action>> begin(double now, bool resume) {
  State s;
  s.worker = Worker::kStarting;
  s.event_at = s.since = now;
  s.starts = 1;
  return {s, {Start{resume}}};
}

std::pair<State, std::vector<Action>> advance(State state,
                                              const Event& event,
                                              double now,
                                              const Settings& settings) {
  if (state.done) return {std::move(state), {}};
  now = std::max(now, state.event_at);
  // A supervisor that was itself stopped (Ctrl-Z, a sleeping laptop) must not hold its own silence
  // against the worker.
  if (now - state.event_at > settings.tick_max_s) {
    const double gap = now - state.event_at;
    state.since += gap;
    state.restart_at += gap;
  }
  state.event_at = now;
  Advance a{std::move(state), {}, now, settings};
  std::visit([&a](const auto& e) { a.on(e); }, event);
  return {std::move(a.s), std::move(a.actions)};
}

double wake_at(const State& s, const Settings& settings) {
  const double regular = s.event_at + settings.tick_max_s / 2;
  return s.worker == Worker::kNone ? std::min(regular, s.restart_at) : regular;
}

}  // namespace ferry::supervisor
