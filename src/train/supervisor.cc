// The rules alone. What carries them out is in supervisor_process.cc.
#include "train/supervisor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/stopping.h"
#include "base/units.h"

namespace ferry::supervisor {
namespace {

using Worker = State::Worker;

// Once it may have been a particle; of two in the same place nobody would believe it.
constexpr int kConvictionsOfPlace = 2;

const char* setting_of(Phase phase) {
  switch (phase) {
    case Phase::kStarting: return "start_patience_s";
    case Phase::kTraining: return "step_patience_s";
    case Phase::kEvaluating: return "evaluate_patience_s";
    case Phase::kSaving: return "save_patience_s";
  }
  return "";
}

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

  /// Of several, the one that holds the others up has a successor; all begin again where nobody knows which it is, or
  /// where it does not end.
  bool one_may_end() const { return s.hung_rank >= 0 && s.ended_rank < 0; }
  std::string who_is_ended() const {
    return one_may_end() ? fmt::format("rank {}", s.hung_rank) : "the worker";
  }
  void end_who_hangs() {
    if (!one_may_end()) return kill();
    s.since = now;
    s.ended_rank = s.hung_rank;
    actions.emplace_back(std::in_place_type<EndRank>, EndRank{s.hung_rank});
  }

  void terminate() {
    enter(Worker::kStopping);
    actions.emplace_back(std::in_place_type<Terminate>, Terminate{});
  }

  Phase phase() const { return phase_of(s.last.work); }

  /// Silence up to which the worker is taken to be at work.
  double patience() const {
    const double slow = settings.patience_intervals * s.interval_s;
    switch (phase()) {
      case Phase::kStarting: return settings.start_patience_s;
      case Phase::kTraining: return std::max(settings.step_patience_s, slow);
      case Phase::kEvaluating: return std::max(settings.evaluate_patience_s, slow);
      case Phase::kSaving: return settings.save_patience_s;
    }
    return settings.start_patience_s;
  }

  /// The same after a signal: the step under way must end, and what has nothing to save must leave.
  double patience_stopping() const {
    if (phase() == Phase::kStarting) return settings.leave_s;
    return phase() == Phase::kSaving ? settings.save_patience_s : settings.stop_patience_s;
  }

  bool never_made_a_step() const { return phase() == Phase::kStarting; }

  /// How far this worker has come, which after a restart need not be the furthest.
  std::string when() const {
    return s.of_worker.step < 0 ? "while it started"
                                : fmt::format("after step {}", s.of_worker.step);
  }

  /// No worker is left, and not because it was through.
  void failed(const std::string& how) {
    s.worker = Worker::kNone;
    s.device_failed = false;
    if (s.stopping) {
      log("the worker {} {}",
          how,
          s.last.work == Work::kRemoving
              ? "after it had saved; the newest checkpoint is whole"
              : "before it had saved; what was trained since the newest checkpoint is lost");
      return exit(3);
    }
    const bool progress = s.furthest > s.at_failure;
    s.failures = progress ? 1 : s.failures + 1;
    s.at_failure = s.furthest;
    if (s.failures > settings.failures_max) {
      log("the worker {}; {} restarts in a row got no further than step {}: giving up. Any "
          "checkpoint that was written is whole; look at the messages above, then go on with: {}",
          how,
          settings.failures_max,
          std::max<int64_t>(s.furthest.step, 0),
          settings.go_on);
      return exit(3);
    }
    const double pause =
        std::min(settings.backoff_max_s, std::ldexp(settings.backoff_first_s, s.failures - 1));
    s.restart_at = now + pause;
    log("the worker {} {}; starting again from the newest checkpoint in {} (attempt {} of {})",
        how,
        when(),
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
    // The slowest counts, forgotten by a hundredth with each step: a long silence widens the patience
    // for the next hundred steps, not for ever, however many beats a step has.
    const Phase now_at = phase_of(e.work);
    if (s.worker == Worker::kRunning && now_at == phase() &&
        (now_at == Phase::kTraining || now_at == Phase::kEvaluating))
      s.interval_s =
          std::max(place_of(e) > s.of_worker ? 0.99 * s.interval_s : s.interval_s, now - s.since);
    // A step may be one long silence (a chip is waited for at its end; one micro-batch is a step):
    // what the first one took as a whole says how long the next may be silent.
    if (e.work == Work::kFirstStep && s.last.work != Work::kFirstStep) s.first_step_at = now;
    if (now_at == Phase::kTraining && s.last.work == Work::kFirstStep)
      s.interval_s = std::max(s.interval_s, now - s.first_step_at);
    // While stopping only saving is a reason to wait on: the clock of the step goes on.
    if (s.worker == Worker::kRunning || now_at == Phase::kSaving) s.since = now;
    s.heard = true;
    // Not each beat is heard: what is whole is told by the last of a save, or by what follows it.
    // Where there was no room, nothing is.
    if (phase_of(s.last.work) == Phase::kSaving && now_at != Phase::kSaving &&
        s.last.work != Work::kNoRoom)
      s.saved = place_of(s.last);
    if (e.work == Work::kRemoving) s.saved = place_of(e);
    s.last = e;
    s.hung_rank = -1;
    if (!knows_its_step(e.work)) return;
    if (s.first.step < 0) s.first = place_of(e);
    s.of_worker = std::max(s.of_worker, place_of(e));
    s.furthest = std::max(s.furthest, place_of(e));
  }

  void on(const Exited& e) {
    if (s.worker == Worker::kNone) return;
    if (e.code == 0 && s.stopping && never_made_a_step()) return stopped_while_starting();
    if (e.code >= 0 && e.code <= 2) {
      s.worker = Worker::kNone;
      return exit(e.code);
    }
    if (!s.stopping && !cured_by_restart(e.code)) {
      s.worker = Worker::kNone;
      log("a restart would change nothing about it. Any checkpoint that was written is whole: give "
          "the run what it lacks, then go on with: {}",
          settings.go_on);
      return exit(3);
    }
    failed(e.code == kDeviceFailed  ? "left: its device failed"
           : e.code == kOutOfMemory ? "left: it ran out of memory"
           : e.code == kUseless     ? "left: it could not write"
           : e.code == kLinkFailed  ? "left: a link between its ranks failed"
           : e.code == kSpoiled     ? "left: what a rank of it held or computed was wrong"
           : e.code == kStateLost   ? "left: its ranks could not go on with what they held"
           : e.code == 3            ? "left with status 3 (its environment failed)"
                                    : fmt::format("left with status {}", e.code));
    s.device_failed = e.code == kDeviceFailed;
  }

  bool cured_by_restart(int code) const {
    if (code == kOutOfMemory) return s.furthest > s.first;
    if (code == 3) return s.starts > 1 || !never_made_a_step();
    return code != kUseless;
  }

  void stopped_while_starting() {
    s.worker = Worker::kNone;
    // By a worker before it.
    const bool lost = s.furthest > std::max({s.first, s.saved, s.of_worker});
    log("{}",
        lost           ? "stopped before the worker had gone on; what was trained since the newest "
                         "checkpoint is lost"
        : s.starts > 1 ? "stopped before the worker had gone on; the newest checkpoint is whole"
                       : "stopped before the worker had begun; nothing is lost");
    exit(lost ? 3 : 0);
  }

  void on(const Died& e) {
    if (s.worker == Worker::kNone) return;
    // It had not come so far as to answer SIGTERM.
    if (s.stopping && never_made_a_step()) return stopped_while_starting();
    // strsignal's words ("Segmentation fault") depend on the locale only, which Ferry never sets.
    failed(fmt::format("was ended by signal {} ({})", e.signal, ::strsignal(e.signal)));
  }

  /// The worker lives on, whatever becomes of it.
  void on(const RankLost& e) {
    s.hung_rank = -1;
    const bool hung = s.ended_rank >= 0 &&
                      std::find(e.ranks.begin(), e.ranks.end(), s.ended_rank) != e.ranks.end();
    if (hung) s.ended_rank = -1;
    for (const int rank : e.spoiled) convicted(rank);
    if (!lives()) return end_rest();
    count_loss();
    if (!e.held) {
      log("{}; what it held nobody holds who is left: the others are ended, too", e.who);
      return end_rest();
    }
    if (settings.failures_max == 0) {
      log("{}; no successor is wanted (supervisor.restarts): the others are ended, too", e.who);
      return end_rest();
    }
    // Each hang costs a patience: who hangs again is not given as many successors as who dies.
    if (s.losses > (hung ? 1 : settings.failures_max)) return too_many_losses(e.who);
    if (e.in_vain) return replace_later(fmt::format("{} before it was in place", e.who));
    log("{} {}; {} {} on, and a successor takes its place",
        e.who,
        when(),
        e.others,
        e.others.find(" and ") == std::string::npos ? "goes" : "go");
    if (s.worker == Worker::kRunning) s.since = now;
    replace();
  }

  /// One process after the other that computes wrongly in the same place: it is not the processes.
  void convicted(int rank) {
    if (const int times = ++s.convictions[rank]; times >= kConvictionsOfPlace)
      log("rank {} was convicted of silent corruption {} times: the chip, the core or the memory "
          "that "
          "it runs on is to be replaced; a successor is another process, and may run on the same",
          rank,
          times);
  }

  void on(const NotReplaced& e) {
    if (!lives()) return end_rest();
    count_loss();
    const std::string what = fmt::format("a successor could not be started ({})", e.why);
    if (s.losses > settings.failures_max) return too_many_losses(what);
    replace_later(what);
  }

  bool lives() const { return s.worker == Worker::kRunning || s.worker == Worker::kStopping; }

  /// In a row without a step.
  void count_loss() {
    s.losses = s.of_worker > s.at_loss ? 1 : s.losses + 1;
    s.at_loss = s.of_worker;
  }

  void too_many_losses(const std::string& last) {
    log("{}; it happened {} times in a row, and no step was made: the others are ended, too",
        last,
        s.losses);
    end_rest();
  }

  void replace() {
    s.replace_at.reset();
    actions.emplace_back(std::in_place_type<Replace>, Replace{});
  }

  /// What a successor lacked (memory, a process) may be there a moment later.
  void replace_later(const std::string& what) {
    s.replace_at = now + settings.backoff_first_s;
    if (s.worker == Worker::kRunning) s.since = now;
    log("{}; the others wait, and another successor is started in {} (attempt {} of {})",
        what,
        format_duration(settings.backoff_first_s),
        s.losses,
        settings.failures_max);
  }
  void replace_if_due() {
    if (lives() && s.replace_at && now >= *s.replace_at) replace();
  }

  void end_rest() {
    s.replace_at.reset();
    actions.emplace_back(std::in_place_type<EndRest>, EndRest{});
  }

  void on(const Signal& e) {
    const bool echo = now - s.signal_at < settings.echo_s;
    const bool came_before =
        std::find(s.signals.begin(), s.signals.end(), e.number) != s.signals.end();
    const bool insists =
        s.stopping && !echo && (came_before || e.number == SIGINT || e.number == SIGQUIT);
    if (!came_before) s.signals.push_back(e.number);
    s.signal_at = now;
    s.stopping = true;
    switch (s.worker) {
      case Worker::kNone:
        log("stopped while no worker ran; the newest checkpoint is whole");
        return exit(3);
      case Worker::kStarting: return;  // Started forwards it
      case Worker::kRunning:
        log("{}: the worker saves and leaves; once more ends it without saving",
            signal_name(e.number));
        return terminate();
      case Worker::kStopping:
        if (!insists) return;
        log("{} again: ending the worker without saving", signal_name(e.number));
        return kill();
      case Worker::kKilled: return;
    }
  }

  void on(const Hung& e) {
    if (s.worker != Worker::kRunning) return;  // after a signal it may be at its last save
    s.hung_rank = e.rank;
    if (!e.certain || settings.hang_patience_s <= 0 || e.still_s <= settings.hang_patience_s ||
        s.ended_rank >= 0)
      return;
    log("it cannot go on by itself, and {} have passed (supervisor.hang_patience_s): ending {}",
        format_duration(e.still_s),
        who_is_ended());
    end_who_hangs();
  }

  void on(const Tick&) {
    const double waited = now - s.since;
    switch (s.worker) {
      case Worker::kNone:
        if (now < s.restart_at) return;
        s.heard = false;
        s.last = {.work = Work::kReadingData};
        s.interval_s = 0;
        s.of_worker = s.at_loss = {};
        s.losses = 0;
        s.replace_at.reset();
        s.hung_rank = -1;
        s.ended_rank = -1;
        ++s.starts;
        enter(Worker::kStarting);
        actions.emplace_back(
            std::in_place_type<Start>,
            Start{true, s.device_failed ? std::max<int64_t>(s.furthest.step, 0) + 1 : 0});
        return;
      case Worker::kStarting: return;
      case Worker::kRunning:
        if (waited <= patience()) return;
        log("no sign of life from the worker for {} while {} (supervisor.{}): ending {}",
            format_duration(waited),
            in_words(s.last),
            setting_of(phase()),
            one_may_end() ? who_is_ended() : "it");
        return end_who_hangs();
      case Worker::kStopping:
        if (waited <= patience_stopping()) return;
        log("the worker, {}, did not leave within {}: ending it",
            in_words(s.last),
            format_duration(patience_stopping()));
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
  s.last = {.work = Work::kReadingData};
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
  a.replace_if_due();
  return {std::move(a.s), std::move(a.actions)};
}

Phase phase_of(Work work) {
  switch (work) {
    case Work::kReadingData:
    case Work::kLoading:
    case Work::kFirstEvaluation:
    case Work::kReference:
    case Work::kFirstStep: return Phase::kStarting;
    case Work::kTraining:
    case Work::kTakingPlace: return Phase::kTraining;
    case Work::kEvaluating: return Phase::kEvaluating;
    case Work::kProbing:
    case Work::kWriting:
    case Work::kRemoving:
    case Work::kNoRoom: return Phase::kSaving;
  }
  return Phase::kStarting;
}

bool knows_its_step(Work work) {
  return work != Work::kReadingData && work != Work::kLoading && work != Work::kTakingPlace;
}

std::string in_words(const Heartbeat& b) {
  const auto counted = [&](const char* what, const char* units) {
    switch (b.unit) {
      case Unit::kUsual: break;
      case Unit::kPairs: units = "pairs"; break;
      case Unit::kTasks: units = "tasks"; break;
      case Unit::kAnswers: units = "answers"; break;
    }
    return b.total <= 0 ? std::string(what)
                        : fmt::format("{} ({} of {} {})", what, b.done, b.total, units);
  };
  const auto bytes = [&](const char* what) {
    if (b.done <= 0 && b.total <= 0) return std::string(what);
    const std::string done = format_bytes(static_cast<double>(b.done));
    if (b.total <= 0) return fmt::format("{} ({})", what, done);
    return fmt::format("{} ({} of {})", what, done, format_bytes(static_cast<double>(b.total)));
  };
  switch (b.work) {
    case Work::kReadingData: return bytes("starting: reading the data set");
    case Work::kLoading: return bytes("starting: making the model and loading its weights");
    case Work::kReference: return counted("starting: the reference's log-probabilities", "pairs");
    case Work::kFirstEvaluation: return counted("starting: evaluating", "tokens");
    case Work::kFirstStep: return counted("starting: its first step", "micro-batches");
    case Work::kTraining: return counted("training", "micro-batches of a step");
    case Work::kEvaluating: return counted("evaluating", "tokens");
    case Work::kProbing: return "saving: answering the probes";
    case Work::kWriting: return bytes("saving: writing and hashing");
    case Work::kRemoving: return "saving: removing old checkpoints";
    case Work::kNoRoom: return "saving: waiting for somebody to free space on the disk";
    case Work::kTakingPlace: return bytes("taking the place of a rank that is gone");
  }
  return "";
}

std::string what_follows(const State& state, const Settings& settings, const Hung& hang) {
  const bool one = hang.rank >= 0 && state.ended_rank < 0 && state.worker == Worker::kRunning;
  const std::string who = one ? fmt::format("rank {}", hang.rank) : "the worker";
  if (hang.certain && settings.hang_patience_s > 0 && state.worker == Worker::kRunning)
    return fmt::format("{} is ended when that has lasted for {} (supervisor.hang_patience_s)",
                       who,
                       format_duration(settings.hang_patience_s));
  const Advance now{state, {}, state.event_at, settings};
  if (state.worker == Worker::kStopping)
    return fmt::format("the worker is ended {} after the signal (supervisor.stop_patience_s)",
                       format_duration(now.patience_stopping()));
  return fmt::format("{} is ended after {} without a sign of life (supervisor.{})",
                     who,
                     format_duration(now.patience()),
                     setting_of(now.phase()));
}

double wake_at(const State& s, const Settings& settings) {
  double regular = s.event_at + settings.tick_max_s / 2;
  if (s.worker == Worker::kNone) return std::min(regular, s.restart_at);
  const Advance now{s, {}, s.event_at, settings};
  if (s.replace_at && now.lives()) regular = std::min(regular, *s.replace_at);
  if (s.worker == Worker::kRunning) return std::min(regular, s.since + now.patience());
  if (s.worker == Worker::kStopping) return std::min(regular, s.since + now.patience_stopping());
  return regular;
}

}  // namespace ferry::supervisor
