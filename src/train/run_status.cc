#include "train/run_status.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/counted.h"
#include "base/file.h"
#include "base/json_fields.h"
#include "base/system.h"
#include "base/threads.h"
#include "base/units.h"
#include "train/progress.h"

namespace ferry {
namespace {

constexpr int64_t kFormat = 1;
constexpr int64_t kUnixMsMax = int64_t{1} << 53;
constexpr uint64_t kFileBytesMax = 1 << 20;
constexpr int64_t kRankMax = 1 << 20;
constexpr size_t kStepsForPace = 20;
// Longer than any pause between two statuses of a supervisor that lives (Settings::tick_max_s).
constexpr int64_t kStaleMs = 30'000;
// A word that is older is worth telling.
constexpr int64_t kSilentMs = 5'000;

std::string ago(int64_t then_ms, int64_t now_ms) {
  return format_duration(static_cast<double>(std::max<int64_t>(0, now_ms - then_ms)) / 1000) +
         " ago";
}

/// The step of "step-00001200".
std::optional<int64_t> step_of(std::string_view name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return step;
}

/// Of the newest one, by its name and its list of files: what it holds is looked at by who goes on from it.
Result<std::optional<int64_t>> newest_step(const std::string& folder) {
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(folder));
  std::optional<int64_t> newest;
  for (const std::string& name : names) {
    const std::optional<int64_t> step = step_of(name);
    if (!step || (newest && *step <= *newest)) continue;
    TRY_ASSIGN(const bool whole, is_there(join_path(join_path(folder, name), "checksums.json")));
    if (whole) newest = step;
  }
  return newest;
}

/// Seconds a step takes: the median of the last ones, as the run's own line has it.
double pace_of(const Metrics& metrics) {
  std::vector<double> seconds;
  for (auto r = metrics.steps.rbegin(); r != metrics.steps.rend() && seconds.size() < kStepsForPace;
       ++r)
    seconds.push_back(r->seconds);
  if (seconds.empty()) return 0;
  std::nth_element(
      seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size() / 2), seconds.end());
  return seconds[seconds.size() / 2];
}

/// As it was when the status was written.
std::string rank_line(const RankStatus& r, int64_t written_ms) {
  if (r.ended) return "has ended";
  std::string line = fmt::format("{} (process {}", r.doing, r.pid);
  const int64_t silent_ms = written_ms - r.heard_unix_ms;
  if (silent_ms > kSilentMs)
    line += fmt::format(", silent for {}", format_duration(static_cast<double>(silent_ms) / 1000));
  line += ")";
  if (!r.in.empty()) line += "; in " + r.in;
  if (r.stopped) line += "; a signal has stopped it";
  if (r.waits_for) line += fmt::format("; waits for rank {}", *r.waits_for);
  return line;
}

/// Whether somebody is at it, in words; and what to do if nobody is.
std::string stage_line(const RunView& view, int64_t now_ms, std::string& advice) {
  const RunStatus& s = *view.status;
  const std::string go_on = s.go_on.empty() ? "" : "go on with: " + s.go_on;
  if (s.exit_code) {
    const bool whole = !view.metrics.steps.empty() && view.metrics.steps.back().step >= s.steps;
    const bool saved = view.newest_checkpoint && !view.metrics.steps.empty() &&
                       *view.newest_checkpoint >= view.metrics.steps.back().step;
    if (!whole) advice = go_on;
    return fmt::format("ended {} with status {}{}",
                       ago(s.written_unix_ms, now_ms),
                       *s.exit_code,
                       *s.exit_code != 0 ? ""
                       : whole           ? ": it is done"
                       : saved           ? ": it was stopped, having saved"
                                         : ": it was stopped");
  }
  if (view.supervised && !*view.supervised) {
    advice = go_on;
    return fmt::format(
        "nobody is at it: process {} was killed, the machine went down, or its last word could not "
        "be written (see its "
        "output), {} or later",
        s.pid,
        ago(s.written_unix_ms, now_ms));
  }
  std::string line = fmt::format("{} since {} (process {} on {})",
                                 s.stage,
                                 format_local_time(s.began_unix_ms, "%F %H:%M:%S"),
                                 s.pid,
                                 s.host);
  if (s.starts > 1) line += fmt::format(", started {} times", s.starts);
  if (now_ms - s.written_unix_ms > kStaleMs) {
    line += ", last heard of " + ago(s.written_unix_ms, now_ms);
    if (!view.supervised)
      advice = fmt::format("look on {} whether process {} lives; if not, {}", s.host, s.pid, go_on);
  }
  return line;
}

}  // namespace

std::string to_json(const RunStatus& s) {
  nlohmann::ordered_json j = {{"format", kFormat},
                              {"stage", s.stage},
                              {"written_unix_ms", s.written_unix_ms},
                              {"began_unix_ms", s.began_unix_ms},
                              {"pid", s.pid},
                              {"process_began", s.process_began},
                              {"process_namespace", s.process_namespace},
                              {"host", s.host},
                              {"starts", s.starts},
                              {"steps", s.steps},
                              {"go_on", s.go_on}};
  if (s.exit_code) j["exit_code"] = *s.exit_code;
  if (s.verdict) {
    j["verdict"] = {{"hangs", s.verdict->hangs},
                    {"rank", s.verdict->rank},
                    {"in", s.verdict->in},
                    {"seconds", s.verdict->seconds},
                    {"text", s.verdict->text}};
    if (s.verdict->peer >= 0) j["verdict"]["peer"] = s.verdict->peer;
  }
  j["ranks"] = nlohmann::ordered_json::array();
  for (const RankStatus& r : s.ranks) {
    nlohmann::ordered_json rank = {{"pid", r.pid},
                                   {"step", r.step},
                                   {"doing", r.doing},
                                   {"heard_unix_ms", r.heard_unix_ms},
                                   {"stopped", r.stopped},
                                   {"ended", r.ended},
                                   {"in", r.in}};
    if (r.waits_for) rank["waits_for"] = *r.waits_for;
    j["ranks"].push_back(std::move(rank));
  }
  j["said"] = nlohmann::ordered_json::array();
  for (const RunMessage& m : s.said)
    j["said"].push_back({{"unix_ms", m.unix_ms}, {"text", m.text}});
  return json_text(j) + "\n";
}

Result<RunStatus> read_run_status(const std::string& folder) {
  const std::string path = join_path(folder, kRunStatusName);
  TRY_ASSIGN(const std::string text, read_file(path, kFileBytesMax));
  TRY_ASSIGN(const nlohmann::json document, parse_json(text, path));
  JsonProblem problem;
  JsonFields f(document, path, problem);
  constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
  f.integer("format", kFormat, kFormat);
  RunStatus s{.stage = f.text("stage"),
              .written_unix_ms = f.integer("written_unix_ms", 0, kUnixMsMax),
              .began_unix_ms = f.integer("began_unix_ms", 0, kUnixMsMax),
              .pid = f.integer("pid", 1, std::numeric_limits<int32_t>::max()),
              .process_began = f.integer("process_began", 0, kAny),
              .process_namespace = f.text("process_namespace"),
              .host = f.text("host"),
              .starts = f.integer("starts", 0, kAny),
              .steps = f.integer("steps", 0, kAny),
              .go_on = f.text("go_on")};
  if (f.has("exit_code")) s.exit_code = static_cast<int>(f.integer("exit_code", 0, 255));
  if (f.has("verdict")) {
    JsonFields v = f.object("verdict");
    HangStatus verdict{.hangs = v.boolean("hangs"),
                       .rank = static_cast<int>(v.integer("rank", 0, kRankMax)),
                       .in = v.text("in"),
                       .seconds = v.real("seconds"),
                       .text = v.text("text")};
    if (v.has("peer")) verdict.peer = static_cast<int>(v.integer("peer", 0, kRankMax));
    s.verdict = std::move(verdict);
  }
  size_t i = 0;
  for (const nlohmann::json& item : f.list("ranks")) {
    JsonFields r = f.item("ranks", item, i++);
    RankStatus rank{.pid = r.integer("pid", 0, std::numeric_limits<int32_t>::max()),
                    .step = r.integer("step", -1, kAny),
                    .doing = r.text("doing"),
                    .heard_unix_ms = r.integer("heard_unix_ms", 0, kUnixMsMax),
                    .stopped = r.boolean("stopped"),
                    .ended = r.boolean("ended"),
                    .in = r.text("in", "")};
    if (r.has("waits_for")) rank.waits_for = static_cast<int>(r.integer("waits_for", 0, kRankMax));
    s.ranks.push_back(std::move(rank));
  }
  i = 0;
  for (const nlohmann::json& item : f.list("said")) {
    JsonFields m = f.item("said", item, i++);
    s.said.push_back({.unix_ms = m.integer("unix_ms", 0, kUnixMsMax), .text = m.text("text")});
  }
  TRY(problem.done());
  return s;
}

Result<RunView> look_at_run(const std::string& folder) { return RunViewer(folder).look(); }

RunViewer::RunViewer(const std::string& folder)
    : folder_(folder), metrics_(join_path(folder, "metrics.jsonl")) {}

Result<RunView> RunViewer::look() {
  if (!is_folder(folder_)) return fail(Code::kNotFound, "{}: there is no such folder", folder_);
  RunView view{.folder = folder_};
  Result<RunStatus> status = read_run_status(folder_);
  if (status)
    view.status = *std::move(status);
  else if (status.error().code != Code::kNotFound)
    view.unread.push_back(status.error().message);
  if (const Result<void> looked = metrics_.look(); !looked) {
    view.unread.push_back(looked.error().message);
  } else {
    const Metrics& all = metrics_.metrics();
    const auto few = static_cast<std::ptrdiff_t>(std::min(all.steps.size(), kStepsForPace));
    view.metrics = {.steps = {all.steps.end() - few, all.steps.end()}, .held_out = all.held_out};
  }
  TRY_ASSIGN(view.newest_checkpoint, newest_step(folder_));
  if (!view.status && view.metrics.steps.empty() && !view.newest_checkpoint && view.unread.empty())
    return fail(Code::kNotFound,
                "{}: nothing of a run lies there; name the folder that is checkpoint.dir of one",
                folder_);
  // Where processes have other numbers, or are hidden from this user, nothing is known of it.
  if (view.status && view.status->host == host_name() && !view.status->process_namespace.empty() &&
      view.status->process_namespace == process_namespace() && view.status->process_began > 0) {
    const std::optional<int64_t> began = process_began(view.status->pid);
    const bool hidden =
        !began && ::kill(static_cast<pid_t>(view.status->pid), 0) != 0 && errno == EPERM;
    if (!hidden) view.supervised = began == view.status->process_began;
  }
  return view;
}

std::vector<std::string> lines_of(const RunView& view, int64_t now_ms, int columns) {
  std::string advice;
  std::vector<std::string> lines = {"run        " + view.folder};
  const Metrics& m = view.metrics;
  if (view.status)
    lines.push_back("           " + stage_line(view, now_ms, advice));
  else
    lines.push_back("           no supervisor has left word here (status.json)");
  // A time that is left, where somebody is at it.
  const bool goes_on = view.status && !view.status->exit_code && view.supervised.value_or(true) &&
                       now_ms - view.status->written_unix_ms <= kStaleMs;
  // It may have made more than it is to have now.
  const int64_t steps =
      std::max(view.status ? view.status->steps : 0, m.steps.empty() ? 0 : m.steps.back().step);
  if (!m.steps.empty())
    lines.push_back("step       " +
                    progress_line(m.steps.back(),
                                  goes_on ? pace_of(m) : 0,
                                  {.steps = steps, .columns = columns > 20 ? columns - 11 : 0}));
  if (!m.held_out.empty()) {
    const HeldOutRecord& last = m.held_out.back();
    lines.push_back("           " +
                    held_out_line(last, best_before(last.step, m), {.steps = steps}));
  }
  if (view.newest_checkpoint)
    lines.push_back(fmt::format(
        "checkpoint of step {}{}",
        *view.newest_checkpoint,
        m.steps.empty() || m.steps.back().step <= *view.newest_checkpoint
            ? ""
            : fmt::format(", {} ago",
                          counted(m.steps.back().step - *view.newest_checkpoint, "step"))));
  else
    lines.emplace_back("checkpoint none yet");
  // What holds while somebody is at it.
  if (view.status && !view.status->exit_code && view.supervised.value_or(true)) {
    const std::vector<RankStatus>& ranks = view.status->ranks;
    for (size_t r = 0; r < ranks.size(); ++r)
      lines.push_back(fmt::format("{:<10} {}",
                                  ranks.size() == 1 ? "worker" : fmt::format("rank {}", r),
                                  rank_line(ranks[r], view.status->written_unix_ms)));
    if (const auto& verdict = view.status->verdict)
      lines.push_back(fmt::format("{:<10} {}", verdict->hangs ? "hangs" : "slow", verdict->text));
  }
  if (view.status)
    for (const RunMessage& said : view.status->said)
      lines.push_back(
          fmt::format("said       {} {}", format_local_time(said.unix_ms, "%H:%M:%S"), said.text));
  for (const std::string& why : view.unread) lines.push_back("unread     " + why);
  if (!advice.empty()) lines.push_back(advice);
  // Whoever may write into the folder writes on no terminal.
  for (std::string& line : lines)
    for (char& c : line)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return lines;
}

Result<std::unique_ptr<RunStatusFile>> RunStatusFile::open(
    const std::string& folder, std::function<void(const Status&)> failed) {
  std::unique_ptr<RunStatusFile> file(new RunStatusFile());
  file->shared_->path = join_path(folder, kRunStatusName);
  file->shared_->failed = std::move(failed);
  if (!start_thread([shared = file->shared_] { shared->work(); }))
    return fail(Code::kExhausted, "the system gives no further thread (ulimit -u, pids.max)");
  return file;
}

RunStatusFile::~RunStatusFile() {
  const Changes::Lock lock = shared_->changes.lock();
  shared_->over = true;
  shared_->changes.tell();
}

namespace {

/// Whether the folder's lock names one of these processes, or there is none. Two runs may have a folder after each
/// other: of the lock's file only what stands in it tells them apart.
Result<bool> belongs_to(const std::string& folder, const std::set<int64_t>& workers) {
  constexpr uint64_t kLockBytesMax = 64;
  const Result<std::string> lock = read_file(join_path(folder, ".lock"), kLockBytesMax);
  if (!lock && lock.error().code == Code::kNotFound) return true;
  TRY(lock);
  int64_t holder = 0;
  std::from_chars(lock->data(), lock->data() + lock->size(), holder);
  return workers.contains(holder);
}

}  // namespace

Result<bool> RunStatusFile::ours() const {
  Changes::Lock lock = shared_->changes.lock();
  const std::set<int64_t> workers = shared_->workers;
  lock.unlock();
  return belongs_to(parent_folder(shared_->path), workers);
}

void RunStatusFile::Shared::work() {
  Changes::Lock lock = changes.lock();
  while (true) {
    changes.wait(lock, [this] { return over || next.has_value(); });
    if (!next) return;
    const RunStatus status = *std::exchange(next, std::nullopt);
    const std::set<int64_t> known = workers;
    writing = true;
    lock.unlock();
    const auto write = [&]() -> Result<void> {
      TRY_ASSIGN(const bool ours, belongs_to(parent_folder(path), known));
      return ours ? write_file_atomic(path, to_json(status)) : Result<void>();
    };
    const Result<void> written = write();
    if (!written && !std::exchange(told, true)) failed(written.error());
    lock.lock();
    writing = false;
    changes.tell();
  }
}

void RunStatusFile::add_worker(int64_t pid) {
  const Changes::Lock lock = shared_->changes.lock();
  shared_->workers.insert(pid);
}

void RunStatusFile::put(RunStatus status) {
  const Changes::Lock lock = shared_->changes.lock();
  shared_->next = std::move(status);
  shared_->changes.tell();
}

bool RunStatusFile::flush(double seconds_max) {
  Changes::Lock lock = shared_->changes.lock();
  return shared_->changes.wait(
      lock, [this] { return !shared_->writing && !shared_->next.has_value(); }, seconds_max);
}

}  // namespace ferry
