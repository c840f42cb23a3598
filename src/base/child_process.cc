#include "base/child_process.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "base/os_error.h"

namespace ferry {
namespace {

constexpr int kEndsWithinMs = 10000;  // after SIGKILL

void ignore(int signal) {
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  ::sigaction(signal, &action, nullptr);
}

/// Closed with its scope; -1: none.
struct Descriptor {
  const int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

/// Between fork and exec only what is safe after fork in any program: plain system calls.
[[noreturn]] void become_child(const ChildProcess::Start& start,
                               char* const* argv,
                               int pipe_end,
                               int handed,
                               int lent,
                               int flight,
                               int told,
                               int complaints,
                               pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(3);  // the parent died before the line above
  for (const int number : start.ignored) ignore(number);
  ignore(SIGPIPE);
  // Before its number is given to something else.
  if (complaints >= 0 && ::dup2(complaints, STDERR_FILENO) < 0) ::_exit(3);
  if (pipe_end == ChildProcess::kPipeFd) {
    ::fcntl(pipe_end, F_SETFD, 0);
  } else if (::dup2(pipe_end, ChildProcess::kPipeFd) < 0) {
    ::_exit(3);
  }
  if (handed >= 0 && ::dup2(handed, ChildProcess::kHandedFd) < 0) ::_exit(3);
  if (lent >= 0 && ::dup2(lent, ChildProcess::kLentFd) < 0) ::_exit(3);
  if (flight >= 0 && ::dup2(flight, ChildProcess::kFlightFd) < 0) ::_exit(3);
  if (told >= 0 && ::dup2(told, ChildProcess::kToldFd) < 0) ::_exit(3);
  if (start.blocked) ::pthread_sigmask(SIG_SETMASK, &*start.blocked, nullptr);
  ::execv(start.program.c_str(), argv);
  const char text[] = "ferry: cannot execute its own program a second time\n";
  (void)!::write(STDERR_FILENO, text, sizeof text - 1);
  ::_exit(ChildProcess::kNotExecuted);
}

/// The same descriptor once more, above the numbers that the child finds things at; -1 if there is none to
/// be had.
int above_those_of_a_child(int fd) {
  const int above = ::fcntl(fd, F_DUPFD_CLOEXEC, ChildProcess::kToldFd + 1);
  if (above < 0 && errno == EINVAL) errno = EMFILE;  // `ulimit -n` allows no number that high
  return above;
}

/// A file without a name that holds the text; -1 likewise.
int in_memory(const std::string& text) {
  const int made = ::memfd_create("handed", MFD_CLOEXEC);
  if (made < 0) return -1;
  const int fd = above_those_of_a_child(made);
  ::close(made);
  size_t written = 0;
  while (fd >= 0 && written < text.size()) {
    const ssize_t n = ::write(fd, text.data() + written, text.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error = errno;
      ::close(fd);
      errno = error;
      return -1;
    }
    written += static_cast<size_t>(n);
  }
  return fd;
}

}  // namespace

Result<ChildProcess> ChildProcess::start(const Start& start) {
  const Descriptor handed{start.handed ? in_memory(*start.handed) : -1};
  if (start.handed && handed.fd < 0)
    return os_error(start.program + ": memory for its settings", errno);
  const Descriptor lent{start.lent >= 0 ? above_those_of_a_child(start.lent) : -1};
  const Descriptor flight{start.flight >= 0 ? above_those_of_a_child(start.flight) : -1};
  if ((start.lent >= 0 && lent.fd < 0) || (start.flight >= 0 && flight.fd < 0))
    return os_error(start.program + ": a descriptor", errno);
  int told_ends[2] = {-1, -1};
  if (start.told && ::pipe2(told_ends, O_CLOEXEC) != 0)
    return os_error(start.program + ": pipe", errno);
  const Descriptor told_low{told_ends[0]};
  const Descriptor told{start.told ? above_those_of_a_child(told_ends[0]) : -1};
  int ends[2] = {-1, -1};
  if ((start.told && told.fd < 0) ||
      ::pipe2(ends, O_CLOEXEC | (start.nonblocking ? O_NONBLOCK : 0)) != 0) {
    const int error = errno;
    if (start.told) ::close(told_ends[1]);
    return os_error(start.program + ": pipe", error);
  }
  int complaints[2] = {-1, -1};
  if (start.heard && ::pipe2(complaints, O_CLOEXEC) != 0) {
    const int error = errno;
    for (const int fd : {ends[0], ends[1], told_ends[1]})
      if (fd >= 0) ::close(fd);
    return os_error(start.program + ": pipe", error);
  }
  const Descriptor complains{complaints[1]};
  if (start.heard) {
    ::fcntl(complaints[0], F_SETFL, O_NONBLOCK);
    // As /dev/stderr it is opened anew, by whoever the child has become; where it may not be, only that fails.
    static_cast<void>(::fchmod(complaints[1], 0666));
  }
  // Whoever tells waits for nobody.
  if (start.told) ::fcntl(told_ends[1], F_SETFL, O_NONBLOCK);
  std::vector<char*> argv;
  for (const std::string& a : start.arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0)
    become_child(
        start, argv.data(), ends[1], handed.fd, lent.fd, flight.fd, told.fd, complaints[1], parent);
  const int error = errno;
  ::close(ends[1]);
  if (pid < 0) {
    for (const int fd : {ends[0], told_ends[1], complaints[0]})
      if (fd >= 0) ::close(fd);
    return os_error(start.program + ": fork", error);
  }
  return ChildProcess(pid, ends[0], told_ends[1], complaints[0]);
}

ChildProcess::ChildProcess(ChildProcess&& o) noexcept
    : pid_(std::exchange(o.pid_, -1)),
      pipe_(std::exchange(o.pipe_, -1)),
      tells_(std::exchange(o.tells_, -1)),
      complaints_(std::exchange(o.complaints_, -1)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& o) noexcept {
  std::swap(pid_, o.pid_);
  std::swap(pipe_, o.pipe_);
  std::swap(tells_, o.tells_);
  std::swap(complaints_, o.complaints_);
  return *this;
}

ChildProcess::~ChildProcess() {
  signal(SIGKILL);
  for (int waited_ms = 0; pid_ > 0 && !ended() && waited_ms < kEndsWithinMs; ++waited_ms)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  close_pipe();
  tell_no_more();
  if (complaints_ >= 0) ::close(complaints_);
}

bool ChildProcess::tell(const std::string& text) const {
  return tells_ >= 0 && ::write(tells_, text.data(), text.size()) == std::ssize(text);
}

void ChildProcess::tell_no_more() {
  if (tells_ >= 0) ::close(tells_);
  tells_ = -1;
}

void ChildProcess::close_pipe() {
  if (pipe_ >= 0) ::close(pipe_);
  pipe_ = -1;
}

void ChildProcess::signal(int number) const {
  if (pid_ > 0) ::kill(pid_, number);
}

std::optional<int> ChildProcess::ended() {
  int status = 0;
  if (pid_ <= 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  pid_ = -1;
  return status;
}

int ChildProcess::wait() {
  int status = 0;
  while (pid_ > 0 && ::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return status;
}

bool ChildProcess::stopped() const {
  siginfo_t what{};
  return pid_ > 0 &&
         ::waitid(P_PID, static_cast<id_t>(pid_), &what, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
         what.si_pid == pid_;
}

bool ChildProcess::claim_pipe() {
  struct stat st {};
  if (::fstat(kPipeFd, &st) != 0 || !S_ISFIFO(st.st_mode)) return false;
  ::fcntl(kPipeFd, F_SETFD, FD_CLOEXEC);
  return true;
}

Result<std::string> ChildProcess::take_handed() {
  struct stat st {};
  if (::fstat(kHandedFd, &st) != 0 || !S_ISREG(st.st_mode))
    return fail(
        Code::kInvalidInput, "descriptor {} is not what a parent process handed", kHandedFd);
  std::string text(static_cast<size_t>(st.st_size), '\0');
  size_t read = 0;
  while (read < text.size()) {
    // The place in the file is the parent's writer's.
    const ssize_t n =
        ::pread(kHandedFd, text.data() + read, text.size() - read, static_cast<off_t>(read));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail(Code::kInvalidInput, "descriptor {}: ends early", kHandedFd);
    read += static_cast<size_t>(n);
  }
  ::close(kHandedFd);
  return text;
}

}  // namespace ferry
