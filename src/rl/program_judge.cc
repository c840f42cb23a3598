#include "rl/program_judge.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <list>
#include <optional>

#include "base/child_process.h"
#include "base/clock.h"
#include "base/file.h"

namespace ferry::rl {
namespace {

constexpr size_t kOutputBytesMax = 64 << 10;
constexpr int kFilesMax = 64;  // open, of each process
constexpr int64_t kSharedBytes = 16 << 20;
constexpr int kLookEveryMs = 20;

/// Outside the sandbox. Where memory runs out, programs go before anybody else. Root's processes are never too
/// many, so root becomes nobody first. The descriptors are ChildProcess's: what was handed, and the pipe. $1: the
/// command; then bubblewrap's arguments.
constexpr const char* kOuter = R"sh(command=$1; shift
{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null
drop=
[ "$(id -u)" != 0 ] || drop='setpriv --reuid=65534 --regid=65534 --clear-groups --'
exec $drop bwrap "$@" /bin/sh -c "$command" </proc/self/fd/4 >&3 2>/dev/null 3>&- 4<&-)sh";

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

/// The last line that is not empty, if it is a number from 0 to 1.
double verdict_of(const std::string& output) {
  const size_t end = output.find_last_not_of(" \t\r\n");
  if (end == std::string::npos) return 0;
  size_t begin = output.rfind('\n', end);
  begin = begin == std::string::npos ? 0 : begin + 1;
  begin = output.find_first_not_of(" \t", begin);
  double value = 0;
  const char* const last = output.data() + end + 1;
  const auto [stop, error] = std::from_chars(output.data() + begin, last, value);
  const bool valid = error == std::errc() && stop == last && value >= 0 && value <= 1;
  return valid ? value : 0;
}

/// A program that runs.
struct Running {
  size_t index;
  ChildProcess process;
  double deadline_s;
  std::string output;

  /// What it has written so far; false: too much.
  bool read() {
    char block[4096];
    ssize_t n = 0;
    while ((n = ::read(process.pipe(), block, sizeof block)) > 0) {
      output.append(block, static_cast<size_t>(n));
      if (output.size() > kOutputBytesMax) return false;
    }
    if (n == 0) process.close_pipe();
    return true;
  }
};

}  // namespace

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
  // An older bubblewrap, or a container that keeps the kernel's settings, cannot forbid namespaces.
  for (const bool no_more : {true, false}) {
    judge.no_more_namespaces_ = no_more;
    ProgramJudge trial = judge;
    // What the machine is busy with must not decide how strict the sandbox is.
    trial.options_.seconds = std::max(options.seconds, 20.0);
    trial.options_.command = options.folder.empty() ? "echo 1" : "ls /judge/. >/dev/null && echo 1";
    TRY_ASSIGN(const std::vector<double> worth,
               trial.verdicts(std::span(&nothing, 1), [] { return true; }));
    if (worth[0] == 1) return judge;
  }
  return fail(Code::kUnavailable,
              "programs cannot be run in a sandbox here: install bubblewrap, allow namespaces of "
              "unprivileged users and{} let others read what the program needs",
              options.folder.empty() ? std::string() : fmt::format(", for {},", options.folder));
}

std::string ProgramJudge::weakness() const {
  if (no_more_namespaces_) return "";
  return "the sandbox of programs is weaker here: bubblewrap cannot forbid them namespaces of "
         "their own, in which they "
         "reach parts of the kernel that are root's otherwise (it needs bubblewrap 0.8 and, in a "
         "container, a "
         "/proc/sys that can be written)";
}

Result<std::vector<double>> ProgramJudge::verdicts(std::span<const std::string> inputs,
                                                   const std::function<bool()>& go_on) const {
  const Clock& clock = system_clock();
  const std::vector<std::string> command = arguments();
  std::vector<double> worth(inputs.size(), 0);
  std::list<Running> running;
  size_t next = 0;
  while (next < inputs.size() || !running.empty()) {
    while (next < inputs.size() && std::ssize(running) < options_.at_once) {
      TRY_ASSIGN(ChildProcess process,
                 ChildProcess::start({.program = command[0],
                                      .arguments = command,
                                      .nonblocking = true,
                                      .handed = inputs[next]}));
      running.push_back({next++, std::move(process), clock.monotonic_s() + options_.seconds, {}});
    }
    std::vector<pollfd> polled;
    for (const Running& r : running) polled.push_back({r.process.pipe(), POLLIN, 0});
    ::poll(polled.data(), polled.size(), kLookEveryMs);
    if (!go_on()) return fail(Code::kTimeout, "stopped while programs judged answers");
    for (auto r = running.begin(); r != running.end();) {
      const bool within =
          (r->process.pipe() < 0 || r->read()) && clock.monotonic_s() < r->deadline_s;
      const std::optional<int> status = within ? r->process.ended() : std::nullopt;
      if (within && !status) {
        ++r;
        continue;
      }
      // What is erased is killed, and its namespace with it.
      if (status && WIFEXITED(*status) && WEXITSTATUS(*status) == 0 &&
          (r->process.pipe() < 0 || r->read()))
        worth[r->index] = verdict_of(r->output);
      r = running.erase(r);
    }
  }
  return worth;
}

}  // namespace ferry::rl
