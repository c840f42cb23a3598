#include "verify/doctor_process.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/check.h"
#include "base/child_process.h"
#include "base/json.h"
#include "base/stopping.h"
#include "base/system.h"

namespace ferry::doctor {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kDeviceLost = 4, kStopped = 5;
constexpr double kStopPatienceS = 10;  // for the check at hand to end
constexpr double kLookForStopS = 0.2;
constexpr int kDeathsMax = 12;  // in a row: the device is not examined further

std::string line_of(const char* event, Json content) {
  return json_text(Json{{"event", event}, {"content", std::move(content)}}) + "\n";
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
      const ssize_t n = ::write(ChildProcess::kPipeFd, line.data() + at, line.size() - at);
      if (n < 0 && errno != EINTR) return;
      if (n > 0) at += static_cast<size_t>(n);
    }
  }
};

/// The lines that a child writes.
class Lines {
 public:
  explicit Lines(const ChildProcess& child) : child_(child) {}

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
      pollfd polled{child_.pipe(), POLLIN, 0};
      if (::poll(&polled, 1, static_cast<int>(std::ceil(left_s * 1000))) <= 0) continue;
      char buffer[1 << 14];
      const ssize_t n = ::read(child_.pipe(), buffer, sizeof buffer);
      if (n == 0) return std::nullopt;
      if (n > 0) text_.append(buffer, static_cast<size_t>(n));
    }
  }

 private:
  const ChildProcess& child_;
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
    while (!finished_ && !stopping()) {
      if (deaths_ == kDeathsMax) {
        note(fmt::format("given up after {} processes in a row were lost", deaths_));
        break;
      }
      ++deaths_;
      TRY(follow_one());
    }
    const bool all = planned_ > 0 && report_.outcomes.size() == planned_;
    if (all && !report_.outcomes.back().cut_short)
      report_.stopped.clear();  // nothing was left to be stopped
    if (stopping())
      note(planned_ == 0 ? fmt::format("stopped by {} before the first check", report_.stopped)
                         : fmt::format("stopped by {}: {} of {} checks were made",
                                       report_.stopped,
                                       report_.outcomes.size(),
                                       planned_));
    report_.seconds = clock_.monotonic_s() - begin_s;
    report_.whole = all && !stopping();
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
    std::vector<std::string> arguments = command_.arguments(next_);
    arguments.insert(arguments.begin(), command_.program);
    TRY_ASSIGN(ChildProcess child,
               ChildProcess::start({.program = command_.program,
                                    .arguments = arguments,
                                    .ignored = stop_signals_of_parents()}));
    Lines lines(child);
    running_.reset();
    bool late = false, enough = false;
    double heard_s = clock_.monotonic_s();
    while (!enough) {
      look_for_stop(child);
      const double until_s = std::min(heard_s + silence_s(), end_at_s_);
      const double left_s = until_s - clock_.monotonic_s();
      const std::optional<std::string> line =
          lines.next(std::min(left_s, kLookForStopS), clock_, &late);
      if (!line && late && left_s > kLookForStopS) {
        late = false;
        continue;
      }
      if (!line) break;
      heard_s = clock_.monotonic_s();
      const Json event = Json::parse(*line, nullptr, false);
      if (!event.is_object() || !event.contains("event") || !event.contains("content"))
        return fail(Code::kCorrupt, "doctor: the child wrote \"{}\"", line->substr(0, 200));
      TRY(hear(event.at("event").get<std::string>(), event.at("content")));
      enough = options_.first_level && above_findings();
    }
    if (enough) {
      note("not tried: what comes behind the level that has a finding (--first-level)");
      running_.reset();
      finished_ = true;
      return {};  // the child's owner ends it
    }
    if (finished_ && !running_) return {};
    if (late && stopping()) {
      if (running_) note(running_->head.name + ": did not end in time, and was cut short");
      return {};  // the child's owner ends it
    }
    if (late) {
      child.signal(SIGKILL);
      lost("hang", fmt::format("no sign of life for {:g} s", silence_s()));
      return {};
    }
    const int status = child.wait();
    const bool told = WIFEXITED(status) && WEXITSTATUS(status) == kStopped;
    if (told && !stopping()) report_.stopped = signal_name(SIGTERM);  // it alone was told
    if (!running_ && (told || stopping())) return {};
    // It had not come so far as to answer it.
    if (stopping() && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) return {};
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

  bool stopping() const { return !report_.stopped.empty(); }

  /// The child ends after the check that runs, or soon.
  void look_for_stop(const ChildProcess& child) {
    if (stopping() || !command_.stop) return;
    const int signal = command_.stop();
    if (signal == 0) return;
    report_.stopped = signal_name(signal);
    end_at_s_ = clock_.monotonic_s() + kStopPatienceS;
    listener_.stopping(report_.stopped);
    child.signal(SIGTERM);
  }

  /// How long the child may be silent. Opening a device takes its time, and so does a busy machine.
  double silence_s() const {
    constexpr double kStartS = 120;
    return running_ ? running_->head.limit_s : std::max(kStartS, options_.limit_s);
  }

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
  double end_at_s_ = std::numeric_limits<double>::infinity();
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
  if (!ChildProcess::claim_pipe())
    return fail(Code::kInvalidInput,
                "descriptor {} is not the doctor's pipe: start without the child option",
                ChildProcess::kPipeFd);
  answer_stop_signals();
  Teller teller;
  const Result<Examined> done = examine(options, from, teller);
  if (done)
    return *done == Examined::kAll ? 0 : *done == Examined::kStopped ? kStopped : kDeviceLost;
  teller.failed(done.error());
  return exit_status(done.error().code);
}

}  // namespace ferry::doctor
