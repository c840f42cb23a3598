#include "rl/program_judge.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <list>
#include <optional>

#include "base/check.h"
#include "base/child_process.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"

namespace ferry::rl {
namespace {

constexpr size_t kOutputBytesMax = 64 << 10;
constexpr int kFilesMax = 64;  // open, of each process
constexpr int64_t kSharedBytes = 16 << 20;
constexpr int kLookEveryMs = 20;
constexpr double kLateS = 1;                  // between two looks: it is not the programs' time
constexpr size_t kSaidBytes = 1024;           // kept of what one complains of
constexpr size_t kReadAtOnceBytes = 1 << 20;  // of complaints, before others are looked at
constexpr int64_t kFewestAlike = 4;           // verdicts by which a command is called wrong

/// Outside the sandbox. Where memory runs out, programs go before anybody else. Root's processes are never too
/// many, so root becomes nobody first; the signal that ends it with Ferry is kept until bubblewrap asks for its
/// own. The descriptors are ChildProcess's: what was handed, and the pipe, opened anew so that whoever writes more
/// than it holds waits for the reader. $1: the command; then bubblewrap's arguments.
constexpr const char* kOuter = R"sh(command=$1; shift
{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null
drop=
[ "$(id -u)" != 0 ] || drop='setpriv --reuid=65534 --regid=65534 --clear-groups --pdeathsig keep --'
exec $drop bwrap "$@" /bin/sh -c "$command" </proc/self/fd/4 >/proc/self/fd/3 3>&- 4<&-)sh";

/// Inside: limits of a namespace count what is in it alone. $1: the user's command.
std::string inner(const ProgramJudgeOptions& o) {
  return fmt::format(
      "ulimit -t {} && ulimit -v {} && ulimit -f {} && ulimit -p {} && ulimit -n {} && ulimit -c 0 "
      "|| "
      "exit 3\n{}",
      static_cast<int64_t>(std::ceil(o.seconds)),
      o.memory_mb * 1024,
      o.memory_mb * 1024,  // blocks of 512 bytes: half of it
      o.processes,
      kFilesMax,
      o.command);
}

/// The last line that is not empty, without blanks at its ends.
std::string_view last_line_of(std::string_view output) {
  const size_t end = output.find_last_not_of(" \t\r\n");
  if (end == std::string_view::npos) return "";
  output = output.substr(0, end + 1);
  const size_t line_end = output.rfind('\n');
  if (line_end != std::string_view::npos) output.remove_prefix(line_end + 1);
  return output.substr(output.find_first_not_of(" \t"));
}

/// That line, if it is a number from 0 to 1.
std::optional<double> verdict_of(std::string_view output) {
  const std::string_view line = last_line_of(output);
  double value = 0;
  const char* const last = line.data() + line.size();
  const auto [stop, error] = std::from_chars(line.data(), last, value);
  if (line.empty() || error != std::errc() || stop != last || !(value >= 0 && value <= 1))
    return std::nullopt;
  return value;
}

/// A program that runs.
struct Running {
  size_t index;
  ChildProcess process;
  double deadline_s;
  std::string output, said = {};
  bool complains = true;  // it may write more of that

  /// What it has written so far; false: too much.
  bool read() {
    char block[4096];
    ssize_t n = 0;
    for (size_t all = 0; all < kReadAtOnceBytes; all += static_cast<size_t>(n)) {
      if ((n = ::read(process.complaints(), block, sizeof block)) == 0) complains = false;
      if (n <= 0) break;
      said.append(block, static_cast<size_t>(n));
      if (said.size() > kSaidBytes) said.erase(0, said.size() - kSaidBytes);
    }
    if (process.pipe() < 0) return true;
    while ((n = ::read(process.pipe(), block, sizeof block)) > 0) {
      output.append(block, static_cast<size_t>(n));
      if (output.size() > kOutputBytesMax) return false;
    }
    if (n == 0) process.close_pipe();
    return true;
  }

  /// `status`: as of waitpid, if it ended by itself; `within`: it wrote no more than it may.
  ProgramVerdict verdict(std::optional<int> status, bool within) const {
    ProgramVerdict v{.said = said};
    if (!within) {
      v.end = ProgramEnd::kTooMuch;
    } else if (!status) {
      v.end = ProgramEnd::kTime;
    } else if (WIFSIGNALED(*status) || WEXITSTATUS(*status) > 128) {
      v.end = ProgramEnd::kSignal;
      v.number = WIFSIGNALED(*status) ? WTERMSIG(*status) : WEXITSTATUS(*status) - 128;
    } else if (WEXITSTATUS(*status) != 0) {
      v.end = ProgramEnd::kStatus;
      v.number = WEXITSTATUS(*status);
    } else if (const std::optional<double> worth = verdict_of(output)) {
      v.worth = *worth;
      v.said.clear();
    } else {
      v.end = ProgramEnd::kNoNumber;
      const std::string_view line = last_line_of(output);
      if (v.said.empty()) v.said = line.substr(0, kSaidBytes);
    }
    return v;
  }
};

std::string name_of(ProgramEnd end, int64_t count) {
  switch (end) {
    case ProgramEnd::kVerdict: return fmt::format("{} with a number", count);
    case ProgramEnd::kNoNumber: return fmt::format("{} without a number", count);
    case ProgramEnd::kStatus: return fmt::format("{} with a status other than 0", count);
    case ProgramEnd::kSignal: return fmt::format("{} by a signal", count);
    case ProgramEnd::kTime: return fmt::format("{} beyond their time", count);
    case ProgramEnd::kTooMuch: return fmt::format("{} with too much output", count);
  }
  return "";
}

std::string cause_of(const ProgramVerdict& v) {
  switch (v.end) {
    case ProgramEnd::kStatus: return fmt::format("with status {}", v.number);
    case ProgramEnd::kSignal: return fmt::format("by signal {}", v.number);
    case ProgramEnd::kTime: return "beyond its time";
    case ProgramEnd::kTooMuch: return "with too much output";
    case ProgramEnd::kVerdict:
    case ProgramEnd::kNoNumber: break;
  }
  return "without a number";
}

/// The last of a text, fit for a message: lines become blanks, other control characters and what is no ASCII '?'.
std::string harmless(std::string_view text) {
  constexpr size_t kShown = 400;
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  std::string out = text.size() > kShown ? "..." : "";
  if (text.size() > kShown) text.remove_prefix(text.size() - kShown);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n' || c == '\t')
      out += ' ';
    else
      out += byte < 0x20 || byte >= 0x7F ? '?' : c;
  }
  return out;
}

}  // namespace

void ProgramTally::add(const ProgramVerdict& v) {
  ++judged_;
  ++ends_[static_cast<size_t>(v.end)];
  if (v.end == ProgramEnd::kVerdict) return;
  alike_ =
      alike_ &&
      (!first_ || (first_->end == v.end && first_->number == v.number && first_->said == v.said));
  if (!first_) first_ = v;
}

void ProgramTally::add(const ProgramTally& other) {
  judged_ += other.judged_;
  for (size_t e = 0; e < kProgramEnds; ++e) ends_[e] += other.ends_[e];
  const bool as_first =
      !first_ || !other.first_ ||
      (first_->end == other.first_->end && first_->number == other.first_->number &&
       first_->said == other.first_->said);
  alike_ = alike_ && other.alike_ && as_first;
  if (!first_) first_ = other.first_;
}

int64_t ProgramTally::failed() const {
  return judged_ - ends_[static_cast<size_t>(ProgramEnd::kVerdict)];
}

std::string ProgramTally::told() const {
  check(first_.has_value(), "program_tally: none failed");
  std::string ways;
  for (size_t e = 1; e < kProgramEnds; ++e)
    if (ends_[e] > 0)
      ways += (ways.empty() ? "" : ", ") + name_of(static_cast<ProgramEnd>(e), ends_[e]);
  return fmt::format(
      "{} of {} programs that judged gave no number from 0 to 1, and their answers are worth 0: "
      "they ended {}; the "
      "first ended {}{}",
      failed(),
      judged_,
      ways,
      cause_of(*first_),
      first_->said.empty() ? std::string(" and said nothing")
                           : fmt::format(" and said: {}", harmless(first_->said)));
}

bool ProgramTally::is_broken() const {
  return judged_ >= kFewestAlike && failed() == judged_ && alike_ &&
         first_->end != ProgramEnd::kTime && !first_->said.empty();
}

std::vector<std::string> ProgramJudge::arguments() const {
  std::vector<std::string> a = {"/bin/sh", "-c", kOuter, "sh", inner(options_)};
  const auto add = [&a](std::initializer_list<std::string> more) {
    a.insert(a.end(), more.begin(), more.end());
  };
  add({"--unshare-all", "--die-with-parent", "--new-session", "--clearenv"});
  // Within namespaces of its own a program could reach parts of the kernel that are root's otherwise.
  if (no_more_namespaces_) add({"--unshare-user", "--disable-userns"});
  add({"--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/tmp", "--setenv", "LC_ALL"});
  add({"C.UTF-8", "--ro-bind", "/usr", "/usr"});
  for (const char* name : {"/bin", "/sbin", "/lib", "/lib32", "/lib64"}) {
    std::error_code none;
    if (std::filesystem::is_symlink(name, none))
      add({"--symlink", link_target(name), name});
    else if (is_folder(name))
      add({"--ro-bind", name, name});
  }
  add({"--ro-bind-try", "/etc/alternatives", "/etc/alternatives"});
  add({"--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"});
  add({"--dev", "/dev", "--proc", "/proc"});
  if (!options_.folder.empty()) add({"--ro-bind", options_.folder, "/judge"});
  add({"--size", std::to_string(options_.memory_mb * (1 << 19)), "--tmpfs", "/tmp"});
  add({"--size", std::to_string(kSharedBytes), "--tmpfs", "/dev/shm"});
  // What these hold is memory, too, and nobody counts it: nothing may be written there.
  add({"--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"});
  return a;
}

Result<ProgramJudge> ProgramJudge::create(const ProgramJudgeOptions& options) {
  ProgramJudge judge(options);
  if (!options.folder.empty()) {
    if (!is_folder(options.folder))
      return fail(Code::kInvalidInput, "{}: is no folder", options.folder);
    judge.options_.folder = std::filesystem::absolute(options.folder).string();
  }
  const std::string nothing = "{}";
  std::string said;
  // An older bubblewrap, or a container that keeps the kernel's settings, cannot forbid namespaces.
  for (const bool no_more : {true, false}) {
    judge.no_more_namespaces_ = no_more;
    ProgramJudge trial = judge;
    // What the machine is busy with must not decide how strict the sandbox is.
    trial.options_.seconds = std::max(options.seconds, 20.0);
    trial.options_.command = options.folder.empty() ? "echo 1" : "ls /judge/. >/dev/null && echo 1";
    TRY_ASSIGN(const std::vector<ProgramVerdict> verdicts,
               trial.verdicts(std::span(&nothing, 1), [] { return true; }));
    if (verdicts[0].worth == 1) return judge;
    said = harmless(verdicts[0].said);
  }
  return fail(Code::kUnavailable,
              "programs cannot be run in a sandbox here: install bubblewrap, allow namespaces of "
              "unprivileged users and{} let others read what the program needs{}",
              options.folder.empty() ? std::string() : fmt::format(", for {},", options.folder),
              said.empty() ? std::string() : fmt::format(" (what it said: {})", said));
}

std::string ProgramJudge::weakness() const {
  if (no_more_namespaces_) return "";
  return "the sandbox of programs is weaker here: bubblewrap cannot forbid them namespaces of "
         "their own, in which they "
         "reach parts of the kernel that are root's otherwise (it needs bubblewrap 0.8 and, in a "
         "container, a "
         "/proc/sys that can be written)";
}

Result<std::vector<ProgramVerdict>> ProgramJudge::verdicts(
    std::span<const std::string> inputs, const std::function<bool()>& go_on) const {
  const Clock& clock = system_clock();
  const std::vector<std::string> command = arguments();
  std::vector<ProgramVerdict> verdicts(inputs.size());
  std::list<Running> running;
  std::list<ChildProcess> killed;  // until they have ended: nobody waits for that meanwhile
  size_t next = 0;
  double looked_s = clock.monotonic_s();
  while (next < inputs.size() || !running.empty()) {
    while (next < inputs.size() && std::ssize(running) < options_.at_once) {
      static_cast<void>(fault_point("rl.program"));
      TRY_ASSIGN(ChildProcess process,
                 ChildProcess::start({.program = command[0],
                                      .arguments = command,
                                      .nonblocking = true,
                                      .handed = inputs[next],
                                      .heard = true}));
      running.push_back({next++, std::move(process), clock.monotonic_s() + options_.seconds, {}});
    }
    std::vector<pollfd> polled;
    for (const Running& r : running) {
      polled.push_back({r.process.pipe(), POLLIN, 0});
      if (r.complains) polled.push_back({r.process.complaints(), POLLIN, 0});
    }
    ::poll(polled.data(), polled.size(), kLookEveryMs);
    if (!go_on()) return fail(Code::kTimeout, "stopped while programs judged answers");
    const double now_s = clock.monotonic_s(), unseen_s = now_s - looked_s;
    looked_s = now_s;
    killed.remove_if([](ChildProcess& p) { return p.ended().has_value(); });
    for (auto r = running.begin(); r != running.end();) {
      if (unseen_s > kLateS) r->deadline_s += unseen_s;
      // First whether it has ended: what it wrote before that is there then.
      const std::optional<int> status = r->process.ended();
      const bool within = r->read();
      if (within && !status && now_s < r->deadline_s) {
        ++r;
        continue;
      }
      verdicts[r->index] = r->verdict(status, within);
      if (!status) {
        r->process.signal(SIGKILL);  // and its namespace with it
        killed.push_back(std::move(r->process));
      }
      r = running.erase(r);
    }
  }
  return verdicts;
}

}  // namespace ferry::rl
