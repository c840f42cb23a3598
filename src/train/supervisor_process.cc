// Carries the supervisor's rules out: fork and exec, one pipe for heartbeats, signals as a
// descriptor.
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <csignal>
#include <cstring>
#include <deque>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "train/supervisor.h"

namespace ferry::supervisor {
namespace {

/// A descriptor that is closed with its owner.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Fd& operator=(Fd&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

void ignore(int signal) {
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  ::sigaction(signal, &action, nullptr);
}

/// Blocked signals reach a signalfd even if they are ignored: `nohup` must be asked for.
bool ignored(int signal) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

/// Between fork and exec only what is safe after fork in any program: plain system calls.
[[noreturn]] void become_worker(
    const char* program, char* const* argv, int pipe_end, pid_t parent, const sigset_t& mask) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(3);  // the supervisor died before the line above
  for (const int s : kStopSignals)
    if (s != SIGTERM && s != SIGXCPU) ignore(s);
  ignore(SIGPIPE);
  if (pipe_end == kHeartbeatFd) {
    ::fcntl(pipe_end, F_SETFD, 0);
  } else if (::dup2(pipe_end, kHeartbeatFd) < 0) {
    ::_exit(3);
  }
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  ::execv(program, argv);
  const char text[] = "ferry: cannot execute the worker\n";
  (void)!::write(STDERR_FILENO, text, sizeof text - 1);
  ::_exit(2);
}

class Shell {
 public:
  Shell(const Command& command,
        const Settings& settings,
        const Clock& clock,
        const std::function<void(std::string_view)>& log)
      : command_(command), settings_(settings), clock_(clock), log_(log) {
    sigset_t watched;
    ::sigemptyset(&watched);
    ::sigaddset(&watched, SIGCHLD);
    for (const int s : kStopSignals)
      if (!ignored(s)) ::sigaddset(&watched, s);
    ::pthread_sigmask(SIG_BLOCK, &watched, &mask_);
    // Nobody reading what it says must not end it, and its worker with it.
    ignore(SIGPIPE);
    signals_ = Fd(::signalfd(-1, &watched, SFD_NONBLOCK | SFD_CLOEXEC));
    check(signals_.get() >= 0, "supervisor: signalfd: {}", std::strerror(errno));
  }

  ~Shell() { ::pthread_sigmask(SIG_SETMASK, &mask_, nullptr); }
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  int run() {
    auto [state, actions] = begin(clock_.monotonic_s(), false);
    for (;;) {
      for (const Action& action : actions)
        if (const Exit* exit = std::get_if<Exit>(&action))
          return exit->code;
        else
          std::visit([this](const auto& a) { carry_out(a); }, action);
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
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
      return events_.push_back(StartFailed{fmt::format("pipe: {}", std::strerror(errno))});
    heartbeats_ = Fd(ends[0]);
    const Fd theirs(ends[1]);
    std::vector<char*> argv{const_cast<char*>(command_.name.c_str())};
    std::string replay;
    for (const std::string& a : start.resume ? command_.again : command_.first)
      argv.push_back(const_cast<char*>(a.c_str()));
    if (start.replay_to > 0 && !command_.replay.empty()) {
      replay = fmt::format("{}={}", command_.replay, start.replay_to);
      argv.push_back(replay.data());
    }
    argv.push_back(nullptr);
    const pid_t parent = ::getpid();
    worker_ = ::fork();
    if (worker_ == 0)
      become_worker(command_.program.c_str(), argv.data(), theirs.get(), parent, mask_);
    if (worker_ < 0)
      return events_.push_back(StartFailed{fmt::format("fork: {}", std::strerror(errno))});
    events_.push_back(Started{});
  }

  // The worker stays a zombie until reap(), so its number cannot be anybody else's.
  void carry_out(const Terminate&) {
    if (worker_ > 0) ::kill(worker_, SIGTERM);
  }
  void carry_out(const Kill&) {
    if (worker_ > 0) ::kill(worker_, SIGKILL);
  }
  void carry_out(const Log& log) { log_(log.text); }
  void carry_out(const Exit&) {}

  void wait_until(double deadline) {
    const double seconds = std::max(0.0, deadline - clock_.monotonic_s());
    pollfd polled[] = {{signals_.get(), POLLIN, 0}, {heartbeats_.get(), POLLIN, 0}};
    ::poll(polled, 2, static_cast<int>(std::ceil(seconds * 1000)));
    read_heartbeats();  // before the exit that may follow them
    read_signals();
  }

  void read_heartbeats() {
    Heartbeat beats[256];  // written whole: a read returns whole ones
    ssize_t n;
    while ((n = ::read(heartbeats_.get(), beats, sizeof beats)) > 0) {
      const auto count = static_cast<size_t>(n) / sizeof beats[0];
      if (count > 0) events_.push_back(beats[count - 1]);
    }
    if (n == 0)
      heartbeats_ = Fd();  // the worker closed it: poll() must not spin on the end of file
  }

  void read_signals() {
    signalfd_siginfo info;
    while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
      if (info.ssi_signo != SIGCHLD) events_.push_back(Signal{static_cast<int>(info.ssi_signo)});
    reap();
  }

  void reap() {
    int status = 0;
    if (worker_ <= 0 || ::waitpid(worker_, &status, WNOHANG) != worker_) return;
    worker_ = -1;
    read_heartbeats();  // what it wrote after the last look
    if (WIFEXITED(status))
      events_.push_back(Exited{WEXITSTATUS(status)});
    else
      events_.push_back(Died{WTERMSIG(status)});
  }

  const Command& command_;
  const Settings& settings_;
  const Clock& clock_;
  const std::function<void(std::string_view)>& log_;
  sigset_t mask_{};
  Fd signals_, heartbeats_;
  pid_t worker_ = -1;
  std::deque<Event> events_;
};

}  // namespace

int supervise(const Command& command,
              const Settings& settings,
              const Clock& clock,
              const std::function<void(std::string_view)>& log) {
  return Shell(command, settings, clock, log).run();
}

Result<Pulse> Pulse::open(bool supervised) {
  Pulse pulse;
  if (!supervised) return pulse;
  struct stat st {};
  if (::fstat(kHeartbeatFd, &st) != 0 || !S_ISFIFO(st.st_mode))
    return fail(Code::kInvalidInput,
                "descriptor {} is not a supervisor's pipe: start without the worker option",
                kHeartbeatFd);
  ::fcntl(kHeartbeatFd, F_SETFD, FD_CLOEXEC);
  pulse.on_ = true;
  return pulse;
}

void Pulse::beat(const Heartbeat& beat) const {
  static_assert(std::is_trivially_copyable_v<Heartbeat> && sizeof(Heartbeat) <= PIPE_BUF);
  if (on_) (void)!::write(kHeartbeatFd, &beat, sizeof beat);
}

}  // namespace ferry::supervisor
