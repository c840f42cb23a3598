#include "verify/doctor_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/check.h"
#include "base/system.h"

namespace ferry::doctor {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kDeviceLost = 4;
constexpr int kDeathsMax = 12;  // in a row: the device is not examined further

std::string line_of(const char* event, Json content) {
  return Json{{"event", event}, {"content", std::move(content)}}.dump(
             -1, ' ', false, Json::error_handler_t::replace) +
         "\n";
}

/// The child's listener: each event becomes a line in the pipe.
class Teller final : public Listener {
 public:
  void started(const std::string& device, const std::string& description) override {
    tell("started", {{"device", device}, {"description", description}});
  }
  void planned(size_t checks) override { tell("planned", checks); }
  void began(size_t index, const CheckHead& head) override {
    tell("began", {{"index", index}, {"head", to_json(head)}});
  }
  void launched(const std::string& kernel) override { tell("launched", kernel); }
  void alive(double fraction) override { tell("alive", fraction); }
  void measured(const Measurement& m) override { tell("measured", to_json(m)); }
  void noted(const std::string& text) override { tell("noted", text); }
  void ended(const Outcome& o) override { tell("ended", to_json(o)); }
  void failed(const Status& s) {
    tell("failed", {{"code", static_cast<int>(s.code)}, {"message", s.message}});
  }

 private:
  // A parent that is gone ends the child by PR_SET_PDEATHSIG; until then writing to it is in vain.
  static void tell(const char* event, Json content) {
    const std::string line = line_of(event, std::move(content));
    for (size_t at = 0; at < line.size();) {
      const ssize_t n = ::write(kReportFd, line.data() + at, line.size() - at);
      if (n < 0 && errno != EINTR) return;
      if (n > 0) at += static_cast<size_t>(n);
    }
  }
};

/// Between fork and exec only what is safe after fork in any program: plain system calls.
[[noreturn]] void become_child(const char* program, char* const* argv, int pipe_end, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(3);  // the parent died before the line above
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, nullptr);
  if (pipe_end == kReportFd) {
    ::fcntl(pipe_end, F_SETFD, 0);
  } else if (::dup2(pipe_end, kReportFd) < 0) {
    ::_exit(3);
  }
  ::execv(program, argv);
  const char text[] = "ferry: cannot execute the examination\n";
  (void)!::write(STDERR_FILENO, text, sizeof text - 1);
  ::_exit(2);
}

/// One child. Killed and reaped with its owner.
class Child {
 public:
  static Result<Child> start(const std::string& program, std::vector<std::string> arguments) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
      return fail(Code::kExhausted, "doctor: pipe: {}", std::strerror(errno));
    arguments.insert(arguments.begin(), program);
    std::vector<char*> argv;
    for (std::string& a : arguments) argv.push_back(a.data());
    argv.push_back(nullptr);
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid == 0) become_child(program.c_str(), argv.data(), ends[1], parent);
    ::close(ends[1]);
    if (pid < 0) {
      ::close(ends[0]);
      return fail(Code::kExhausted, "doctor: fork: {}", std::strerror(errno));
    }
    return Child(pid, ends[0]);
  }
  Child(Child&& o) noexcept
      : pid_(std::exchange(o.pid_, -1)), fd_(std::exchange(o.fd_, -1)), text_(std::move(o.text_)) {}
  Child& operator=(Child&&) = delete;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    kill();
    if (fd_ >= 0) ::close(fd_);
  }

  /// The next line; nothing at the end of the pipe, or (late is set) when none came in time.
  std::optional<std::string> next(double wait_s, const Clock& clock, bool* late) {
    const double until_s = clock.monotonic_s() + wait_s;
    for (;;) {
      if (const size_t end = text_.find('\n'); end != std::string::npos) {
        std::string line = text_.substr(0, end);
        text_.erase(0, end + 1);
        return line;
      }
      const double left_s = std::min(until_s - clock.monotonic_s(), 1000.0);
      if (left_s <= 0) {
        *late = true;
        return std::nullopt;
      }
      pollfd polled{fd_, POLLIN, 0};
      if (::poll(&polled, 1, static_cast<int>(std::ceil(left_s * 1000))) <= 0) continue;
      char buffer[1 << 14];
      const ssize_t n = ::read(fd_, buffer, sizeof buffer);
      if (n == 0) return std::nullopt;
      if (n > 0) text_.append(buffer, static_cast<size_t>(n));
    }
  }

  void kill() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    (void)wait();
  }

  /// The status of waitpid; waits for the end.
  int wait() {
    int status = 0;
    while (pid_ > 0 && ::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

 private:
  Child(pid_t pid, int fd) : pid_(pid), fd_(fd) {}
  pid_t pid_;
  int fd_;
  std::string text_;
};

/// Follows children from the first check to the last.
class Examination {
 public:
  Examination(const Options& options,
              const Command& command,
              const Clock& clock,
              Listener& listener)
      : options_(options), command_(command), clock_(clock), listener_(listener) {}

  Result<Report> run() {
    const double begin_s = clock_.monotonic_s();
    report_.device = options_.device;
    report_.processor = processor_name();
    report_.started_unix_ms = clock_.unix_ms();
    report_.quick = options_.quick;
    report_.soak_s = options_.soak_s;
    report_.seed = options_.seed;
    report_.only = options_.only;
    while (!finished_) {
      if (deaths_ == kDeathsMax) {
        note(fmt::format("given up after {} processes in a row were lost", deaths_));
        break;
      }
      ++deaths_;
      TRY(follow_one());
    }
    report_.seconds = clock_.monotonic_s() - begin_s;
    conclude(report_);
    return std::move(report_);
  }

 private:
  void note(const std::string& text) {
    report_.notes.push_back(text);
    listener_.noted(text);
  }

  /// One child to its end, whatever that is.
  Result<void> follow_one() {
    TRY_ASSIGN(Child child, Child::start(command_.program, command_.arguments(next_)));
    running_.reset();
    bool late = false, stopped = false;
    while (!stopped) {
      const double wait_s = running_ ? running_->head.limit_s : options_.limit_s;
      const std::optional<std::string> line = child.next(wait_s, clock_, &late);
      if (!line) break;
      const Json event = Json::parse(*line, nullptr, false);
      if (!event.is_object() || !event.contains("event") || !event.contains("content"))
        return fail(Code::kCorrupt, "doctor: the child wrote \"{}\"", line->substr(0, 200));
      TRY(hear(event.at("event").get<std::string>(), event.at("content")));
      stopped = options_.first_level && above_findings();
    }
    if (stopped) {
      running_.reset();
      finished_ = true;
      return {};  // the child's owner ends it
    }
    if (finished_ && !running_) return {};
    if (late) {
      child.kill();
      lost("hang", fmt::format("no sign of life for {:g} s", silence_s()));
      return {};
    }
    const int status = child.wait();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && !running_) {
      finished_ = true;
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != kDeviceLost || running_) {
      lost("crash",
           WIFSIGNALED(status)
               ? fmt::format("the process was ended by signal {} ({})",
                             WTERMSIG(status),
                             ::strsignal(WTERMSIG(status)))
               : fmt::format("the process ended with exit status {}", WEXITSTATUS(status)));
    }
    return {};
  }

  double silence_s() const { return running_ ? running_->head.limit_s : options_.limit_s; }

  /// The check that was running has its finding; or none was, and there is nothing to go on behind.
  void lost(const char* property, const std::string& how) {
    if (!running_) {
      note(fmt::format("the examination ended outside a check: {}", how));
      Outcome o{.head = {.name = "the process", .subject = "runtime", .level = Level::kRuntime}};
      o.problems.push_back({property, how});
      report_.outcomes.push_back(o);
      finished_ = true;
      return;
    }
    running_->problems.push_back(
        {property,
         running_->used.empty()
             ? how
             : fmt::format(
                   "{}; the kernel launched last was {}", how, running_->used.back().kernel)});
    end(*running_);
  }

  void end(const Outcome& outcome) {
    report_.outcomes.push_back(outcome);
    listener_.ended(outcome);
    running_.reset();
  }

  /// Whether a check began on a higher level than one that has failed.
  bool above_findings() const {
    return running_ &&
           std::any_of(report_.outcomes.begin(), report_.outcomes.end(), [&](const Outcome& o) {
             return !o.problems.empty() && o.head.level < running_->head.level;
           });
  }

  Result<void> hear(const std::string& event, const Json& content) {
    try {
      if (event == "started") {
        report_.device = content.at("device").get<std::string>();
        report_.description = content.at("description").get<std::string>();
        if (next_ == 0) listener_.started(report_.device, report_.description);
      } else if (event == "planned") {
        planned_ = content.get<size_t>();
        if (next_ == 0) listener_.planned(planned_);
        finished_ = next_ >= planned_;
      } else if (event == "began") {
        running_ = Outcome{.head = head_from_json(content.at("head"))};
        next_ = content.at("index").get<size_t>() + 1;
        listener_.began(next_ - 1, running_->head);
      } else if (event == "launched") {
        const auto kernel = content.get<std::string>();
        if (running_) running_->used.push_back({kernel, {}});
        listener_.launched(kernel);
      } else if (event == "alive") {
        listener_.alive(content.get<double>());
      } else if (event == "measured") {
        report_.measurements.push_back(measurement_from_json(content));
        listener_.measured(report_.measurements.back());
      } else if (event == "noted") {
        note(content.get<std::string>());
      } else if (event == "ended") {
        end(outcome_from_json(content));
        if (report_.outcomes.back().problems.empty()) deaths_ = 0;
      } else if (event == "failed" && next_ == 0) {
        return tl::unexpected(Status{static_cast<Code>(content.at("code").get<int>()),
                                     content.at("message").get<std::string>()});
      } else if (event == "failed") {
        lost("device error", "not opened again: " + content.at("message").get<std::string>());
      }
    } catch (const Json::exception& e) {
      return fail(Code::kCorrupt, "doctor: the child's \"{}\": {}", event, e.what());
    }
    return {};
  }

  const Options& options_;
  const Command& command_;
  const Clock& clock_;
  Listener& listener_;
  Report report_;
  std::optional<Outcome> running_;  // the check that began and has not ended
  size_t next_ = 0, planned_ = 0;
  int deaths_ = 0;  // children that ended since a check passed
  bool finished_ = false;
};

}  // namespace

Result<Report> examine_in_child(const Options& options,
                                const Command& command,
                                const Clock& clock,
                                Listener& listener) {
  return Examination(options, command, clock, listener).run();
}

Result<int> examine_as_child(const Options& options, size_t from) {
  struct stat st {};
  if (::fstat(kReportFd, &st) != 0 || !S_ISFIFO(st.st_mode))
    return fail(Code::kInvalidInput,
                "descriptor {} is not the doctor's pipe: start without the child option",
                kReportFd);
  ::fcntl(kReportFd, F_SETFD, FD_CLOEXEC);
  Teller teller;
  const Result<bool> done = examine(options, from, teller);
  if (done) return *done ? 0 : kDeviceLost;
  teller.failed(done.error());
  return exit_status(done.error().code);
}

}  // namespace ferry::doctor
