// Carries the supervisor's rules out: child processes whose pipes bring heartbeats, signals as a
// descriptor.
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <csignal>
#include <cstring>
#include <deque>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/child_process.h"
#include "base/os_error.h"
#include "train/hang_watch.h"
#include "train/run_status.h"
#include "train/supervisor.h"
#include "train/worker_crew.h"

namespace ferry::supervisor {
namespace {

void ignore(int signal) {
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  ::sigaction(signal, &action, nullptr);
}

constexpr double kShownEveryS = 3;

std::string stage_of(const State& s) {
  if (s.done) return "ended";
  switch (s.worker) {
    case State::Worker::kNone: return "between two starts";
    case State::Worker::kStopping:
    case State::Worker::kKilled: return "stopping";
    case State::Worker::kStarting:
    case State::Worker::kRunning: break;
  }
  if (s.stopping) return "stopping";
  return phase_of(s.last.work) == Phase::kStarting ? "starting" : "running";
}

class Shell {
 public:
  Shell(const Command& command,
        const Settings& settings,
        const Clock& clock,
        const std::function<void(std::string_view)>& log,
        const RunStatus& shown,
        const std::function<void(int64_t pid)>& began,
        const std::function<void(const RunStatus&)>& show)
      : command_(command),
        settings_(settings),
        clock_(clock),
        log_(log),
        status_(shown),
        began_(began),
        show_(show) {
    sigset_t watched;
    ::sigemptyset(&watched);
    ::sigaddset(&watched, SIGCHLD);
    // Blocked signals reach a signalfd even if they are ignored: `nohup` must be asked for.
    for (const int s : stop_signals_to_heed()) ::sigaddset(&watched, s);
    ::pthread_sigmask(SIG_BLOCK, &watched, &mask_);
    // Nobody reading what it says must not end it, and its worker with it.
    ignore(SIGPIPE);
    signals_ = ::signalfd(-1, &watched, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals_ < 0) unable_ = os_error("a descriptor for signals", errno).value();
  }

  ~Shell() {
    if (signals_ >= 0) ::close(signals_);
    ::pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  }
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  int run() {
    if (unable_) {
      say(unable_->message);
      return exit_status(unable_->code);
    }
    auto [state, actions] = begin(clock_.monotonic_s(), false);
    for (;;) {
      // Acting comes before telling, which may take as long as its reader does.
      std::stable_partition(actions.begin(), actions.end(), [](const Action& action) {
        return std::holds_alternative<Kill>(action) || std::holds_alternative<EndRank>(action) ||
               std::holds_alternative<Terminate>(action);
      });
      for (const Action& action : actions)
        if (const Exit* exit = std::get_if<Exit>(&action))
          return ended(exit->code);
        else
          std::visit([this](const auto& a) { carry_out(a); }, action);
      look_for_hangs(state);
      show(state);
      if (events_.empty()) wait_until(wake_at(state, settings_));
      Event event = Tick{};
      if (!events_.empty()) {
        event = std::move(events_.front());
        events_.pop_front();
      }
      std::tie(state, actions) = advance(state, event, clock_.monotonic_s(), settings_);
    }
  }

 private:
  void carry_out(const Start& start) {
    std::vector<std::string> arguments{command_.name};
    const std::vector<std::string>& more = start.resume ? command_.again : command_.first;
    arguments.insert(arguments.end(), more.begin(), more.end());
    if (start.replay_to > 0 && !command_.replay.empty())
      arguments.push_back(fmt::format("{}={}", command_.replay, start.replay_to));
    Result<WorkerCrew> worker = WorkerCrew::start(command_, arguments, mask_, clock_.monotonic_s());
    if (!worker && worker.error().code == Code::kExhausted) {
      // As one that leaves for want of what no restart brings.
      say(fmt::format("the worker could not be started: {}", worker.error().message));
      return events_.push_back(Exited{kUseless});
    }
    if (!worker) return events_.push_back(StartFailed{worker.error().message});
    worker_ = std::move(*worker);
    for (int rank = 0; rank < command_.ranks; ++rank) began_(worker_->pid(rank));
    if (settings_.hang_verdict_s > 0)
      watch_.emplace(hang::Limits{.verdict_s = settings_.hang_verdict_s}, command_.ranks);
    events_.push_back(Started{});
  }

  void carry_out(const Replace&) {
    if (!worker_) return;
    const Replacement replaced = worker_->replace(clock_.monotonic_s());
    for (const int rank : replaced.ranks) {
      began_(worker_->pid(rank));
      if (watch_) watch_->replaced(rank);
    }
    if (!replaced.all) events_.push_back(NotReplaced{replaced.all.error().message});
  }
  void carry_out(const EndRest&) {
    if (worker_) worker_->end_rest(clock_.monotonic_s());
  }
  void carry_out(const Terminate&) {
    if (worker_) worker_->terminate();
  }
  void carry_out(const Kill&) {
    if (!worker_) return;
    const std::optional<std::string> at = worker_->report(clock_.monotonic_s());
    worker_->kill();
    watch_.reset();
    if (at) say(*at);
  }
  void carry_out(const EndRank& end) {
    if (!worker_) return;
    const std::optional<std::string> at = worker_->report(clock_.monotonic_s());
    worker_->end_rank(end.rank);
    if (at) say(*at);
  }
  void carry_out(const Log& log) { say(log.text); }
  void carry_out(const Exit&) {}

  void wait_until(double deadline) {
    if (worker_) deadline = std::min(deadline, worker_->wake_at());
    if (watch_) deadline = std::min(deadline, next_look_s_);
    const double seconds = std::max(0.0, deadline - clock_.monotonic_s());
    std::vector<pollfd> polled = {{signals_, POLLIN, 0}};
    if (worker_) worker_->add_polled(polled);
    ::poll(polled.data(), polled.size(), static_cast<int>(std::ceil(seconds * 1000)));
    read_heartbeats();  // before the exit that may follow them
    read_signals();
  }

  void read_heartbeats() {
    if (!worker_) return;
    if (const std::optional<Heartbeat> heard = worker_->heard(clock_.monotonic_s()))
      events_.push_back(*heard);
    if (const std::optional<std::string> whole = worker_->whole_again()) say(*whole);
  }

  void read_signals() {
    signalfd_siginfo info;
    while (::read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info))
      if (info.ssi_signo != SIGCHLD) events_.push_back(Signal{static_cast<int>(info.ssi_signo)});
    reap();
  }

  void reap() {
    if (!worker_) return;
    std::optional<Event> end = worker_->ended(clock_.monotonic_s());
    if (!end) return;
    if (std::holds_alternative<RankLost>(*end)) return events_.push_back(*std::move(end));
    read_heartbeats();  // what it wrote after the last look
    if (watch_) {       // and what it came to: who hung went on, if it did
      worker_->look(*watch_, clock_.monotonic_s());
      for (const std::string& news : watch_->news()) say(news);
    }
    if (!worker_->cause().empty()) say(worker_->cause());
    worker_.reset();
    watch_.reset();
    events_.push_back(*std::move(end));
  }

  /// What hangs is told within seconds, and ended by the rules' patience, or by a shorter one if nothing is left to
  /// wait for.
  void look_for_hangs(const State& state) {
    status_.verdict.reset();
    if (!watch_) return;
    const double now = clock_.monotonic_s();
    const bool looks = now >= next_look_s_;
    if (looks) {
      next_look_s_ = now + watch_->every_s();
      worker_->look(*watch_, now);
    }
    const std::optional<hang::Verdict>& verdict = watch_->verdict();
    const bool hangs = verdict && verdict->kind != hang::Kind::kSlow;
    Hung hung;
    if (hangs) hung = {.still_s = verdict->still_s, .certain = verdict->certain};
    if (hangs && command_.ranks > 1 && verdict->kind != hang::Kind::kEachOther)
      hung.rank = verdict->rank;
    for (const std::string& news : watch_->news())
      say(hangs && news == verdict->text
              ? fmt::format("{}; {}", news, what_follows(state, settings_, hung))
              : news);
    if (verdict)
      status_.verdict = HangStatus{.hangs = hangs,
                                   .rank = verdict->rank,
                                   .peer = verdict->peer,
                                   .in = verdict->in,
                                   .seconds = verdict->still_s,
                                   .text = verdict->text};
    // Also that nobody hangs any more.
    if (looks && events_.empty() && (hangs || state.hung_rank >= 0)) events_.emplace_back(hung);
  }

  void say(const std::string& text) {
    log_(text);
    status_.said.push_back({.unix_ms = clock_.unix_ms(), .text = text});
    if (status_.said.size() > kRunMessagesMax) status_.said.erase(status_.said.begin());
    changed_ = true;
  }

  /// From a worker's first word on, which comes when it has the run's folder to itself.
  void show(const State& state) {
    const double now = clock_.monotonic_s();
    folder_is_ours_ = folder_is_ours_ || state.heard;
    std::string stage = stage_of(state);
    changed_ = changed_ || stage != status_.stage || state.starts != status_.starts;
    status_.stage = std::move(stage);
    status_.starts = state.starts;
    if (!folder_is_ours_ || (!changed_ && now - shown_at_ < kShownEveryS)) return;
    changed_ = false;
    shown_at_ = now;
    status_.written_unix_ms = clock_.unix_ms();
    status_.ranks =
        worker_ ? worker_->status(now, status_.written_unix_ms) : std::vector<RankStatus>();
    show_(status_);
  }

  int ended(int code) {
    if (!folder_is_ours_) return code;
    status_.stage = "ended";
    status_.verdict.reset();
    status_.exit_code = code;
    status_.written_unix_ms = clock_.unix_ms();
    status_.ranks.clear();
    show_(status_);
    return code;
  }

  const Command& command_;
  const Settings& settings_;
  const Clock& clock_;
  const std::function<void(std::string_view)>& log_;
  RunStatus status_;
  const std::function<void(int64_t pid)>& began_;
  const std::function<void(const RunStatus&)>& show_;
  bool folder_is_ours_ = false, changed_ = true;
  double shown_at_ = -1e300;
  sigset_t mask_{};
  int signals_ = -1;
  std::optional<Status> unable_;  // to begin
  std::optional<WorkerCrew> worker_;
  std::optional<hang::HangWatch> watch_;  // of worker_
  double next_look_s_ = 0;
  std::deque<Event> events_;
};

}  // namespace

int supervise(const Command& command,
              const Settings& settings,
              const Clock& clock,
              const std::function<void(std::string_view)>& log,
              const RunStatus& shown,
              const std::function<void(int64_t pid)>& began,
              const std::function<void(const RunStatus&)>& show) {
  return Shell(command, settings, clock, log, shown, began, show).run();
}

Result<Pulse> Pulse::open(bool supervised) {
  Pulse pulse;
  if (!supervised) return pulse;
  if (!ChildProcess::claim_pipe())
    return fail(Code::kInvalidInput,
                "descriptor {} is not a supervisor's pipe: start without the worker option",
                ChildProcess::kPipeFd);
  pulse.on_ = true;
  return pulse;
}

void Pulse::beat(const Heartbeat& beat) const {
  static_assert(std::is_trivially_copyable_v<Heartbeat> && sizeof(Heartbeat) <= PIPE_BUF);
  if (on_) (void)!::write(ChildProcess::kPipeFd, &beat, sizeof beat);
}

}  // namespace ferry::supervisor
