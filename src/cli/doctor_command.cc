#include "cli/doctor_command.h"

#include <fmt/core.h>

#include <charconv>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/stopping.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/examinations.h"
#include "cli/output_file.h"
#include "cli/rehearse_run.h"
#include "ops/run_records.h"
#include "ops/spec.h"
#include "verify/doctor_process.h"
#include "verify/report_html.h"

namespace ferry::cli {
namespace {

struct Arguments {
  doctor::Options options;
  std::string soak = "10s", limit = "2m", json, html, runs;
  bool soak_given = false, only_given = false;
  bool child = false;
  size_t from = 0;
};

// Of silence: a check of a sound chip that is slow, or busy with others, takes as long.
constexpr double kLimitMinS = 10;

/// "90", "90s", "10m", "2h" in seconds.
Result<double> parse_duration(const std::string& option, const std::string& text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  const std::string unit(at, end);
  const double scale = unit.empty() || unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3600 : 0;
  if (error != std::errc() || scale == 0 || !(value >= 0) || value * scale > 30 * 86400.0)
    return fail(Code::kInvalidInput,
                "{} {}: give a duration such as 30s, 10m or 2h, at most 30 days",
                option,
                text);
  return value * scale;
}

/// Colours on a terminal, plain text elsewhere.
class Paint {
 public:
  Paint() : on_(Terminal::of(stdout).colours()) {}
  std::string good(const std::string& text) const { return with("32", text); }
  std::string warn(const std::string& text) const { return with("33", text); }
  std::string bad(const std::string& text) const { return with("31", text); }
  std::string bold(const std::string& text) const { return with("1", text); }
  std::string soft(const std::string& text) const { return with("2", text); }

 private:
  std::string with(const char* code, const std::string& text) const {
    return painted(text, code, on_);
  }
  bool on_;
};

/// Prints a line for each subject when it is done with, and what was measured and noted.
class Table final : public doctor::Listener {
 public:
  explicit Table(const Paint& paint) : paint_(paint) {}

  void started(const std::string& device, const std::string& description) override {
    fmt::print("{}  {}\n", paint_.bold(device), description);
  }
  void planned(size_t checks) override { planned_ = checks; }
  void began(size_t index, const doctor::CheckHead& head) override {
    if (head.subject != subject_ || head.level != level_) close_row();
    if (head.level != level_ || !any_) print_heading(head.level);
    subject_ = head.subject;
    level_ = head.level;
    any_ = true;
    index_ = index;
    name_ = head.name;
    progress_.show([&] { return fmt::format("[{}/{}] {}", index + 1, planned_, name_); });
  }
  void alive(double fraction) override {
    progress_.show([&] {
      return fmt::format("[{}/{}] {} {:.0f} %", index_ + 1, planned_, name_, 100 * fraction);
    });
  }
  void measured(const doctor::Measurement& m) override {
    const std::string share =
        m.peak > 0 ? fmt::format("  {:.0f} % of the peak, {:.4g}", 100 * m.value / m.peak, m.peak)
                   : "";
    say(fmt::format("  {:<36} {:>10.4g} {}{}", m.name, m.value, m.unit, share));
  }
  void noted(const std::string& text) override { say("  " + text); }
  void ended(const doctor::Outcome& o) override {
    ++checks_;
    seconds_ += o.seconds;
    if (o.problems.empty()) return;
    ++wrong_;
    for (const doctor::Problem& p : o.problems)
      details_.push_back(fmt::format("{}: {}: {}", o.head.name, p.property, p.detail));
  }

  void stopping(const std::string& signal) override {
    progress_.clear();
    tell(fmt::format(
        "ferry: {}: the examination ends after the check that runs ({}); once more ends it at once",
        signal,
        name_.empty() ? "none yet" : name_));
  }

  /// Prints the row of the subject that came last.
  void close_row() {
    progress_.clear();
    if (checks_ > 0 && (level_ != doctor::Level::kSpeed || wrong_ > 0))
      fmt::print("  {:<28} {:>4} {:<6} {:>8.2f} s  {}\n",
                 subject_,
                 checks_,
                 checks_ == 1 ? "check" : "checks",
                 seconds_,
                 wrong_ == 0 ? paint_.good("ok") : paint_.bad(fmt::format("{} FAILED", wrong_)));
    constexpr size_t kShown = 4;
    for (size_t i = 0; i < details_.size() && i < kShown; ++i)
      fmt::print("      {}\n", details_[i]);
    if (details_.size() > kShown) fmt::print("      and {} more\n", details_.size() - kShown);
    checks_ = wrong_ = 0;
    seconds_ = 0;
    details_.clear();
    std::fflush(stdout);
  }

 private:
  void print_heading(doctor::Level level) {
    static const std::map<doctor::Level, const char*> titles = {
        {doctor::Level::kRuntime, "Copies, memory, streams"},
        {doctor::Level::kPrimitive, "Calls of the vendor's library"},
        {doctor::Level::kOp, "Ops against the float64 reference, forward and backward"},
        {doctor::Level::kLoad, "Under load"},
        {doctor::Level::kSpeed, "Speed"}};
    fmt::print("{}\n", paint_.bold(titles.at(level)));
  }
  void say(const std::string& line) {
    progress_.clear();
    fmt::print("{}\n", line);
  }

  const Paint& paint_;
  ProgressLine progress_;
  doctor::Level level_ = doctor::Level::kRuntime;
  std::string subject_, name_;
  bool any_ = false;
  size_t planned_ = 0, index_ = 0;
  int checks_ = 0, wrong_ = 0;
  double seconds_ = 0;
  std::vector<std::string> details_;
};

std::vector<std::string> child_arguments(const doctor::Options& o, size_t from) {
  std::vector<std::string> a = {"doctor", "--child", "--from", fmt::format("{}", from)};
  const auto add = [&](const char* name, std::string value) {
    a.push_back(name);
    a.push_back(std::move(value));
  };
  add("--device", o.device);
  add("--seed", fmt::format("{}", o.seed));
  add("--soak", fmt::format("{}", o.soak_s));
  add("--limit", fmt::format("{}", o.limit_s));
  if (o.quick) a.push_back("--quick");
  if (!o.only.empty()) add("--only", o.only);
  if (!o.for_run.empty()) add("--for", o.for_run);
  return a;
}

void print_verdict(const doctor::Report& report, const Paint& paint) {
  const std::string text = to_string(report.verdict);
  const bool good = passed(report.verdict), stopped = !report.stopped.empty();
  fmt::print("\n{}  {}\n",
             paint.bold(stopped ? "No verdict, for it was stopped; so far" : "Verdict"),
             good && !stopped                                         ? paint.good(text)
             : good || report.verdict == doctor::Verdict::kFitToServe ? paint.warn(text)
                                                                      : paint.bad(text));
  for (const std::string& reason : report.reasons) fmt::print("  {}\n", reason);
}

/// The ops of which everything was tried and nothing found, by their own checks or others.
Result<void> note_runs(const std::string& path, const doctor::Report& report) {
  if (!report.whole) return {};  // some ops were examined in part, nobody knows which
  std::map<std::string, bool> sound;
  for (const doctor::Outcome& o : report.outcomes)
    if (o.head.level == doctor::Level::kOp)
      sound.try_emplace(o.head.subject, true).first->second &= o.problems.empty();
  for (const doctor::Culprit& c : report.culprits) sound[c.op] = false;
  std::vector<ops::RunRecord> records;
  for (const ops::OpSpec& spec : ops::all_op_specs()) {
    const auto it = sound.find(spec.op);
    if (it == sound.end() || !it->second) continue;
    records.push_back(ops::record_of(doctor::kind_of(report.device), report.description));
    records.back().op = spec.op;
  }
  return ops::add_run_records(path, records);
}

Result<int> examine(Arguments& args) {
  TRY_ASSIGN(args.options.soak_s, parse_duration("--soak", args.soak));
  TRY_ASSIGN(args.options.limit_s, parse_duration("--limit", args.limit));
  if (args.options.limit_s < kLimitMinS)
    return fail(Code::kInvalidInput,
                "--limit {}: checks of a sound chip are silent for seconds, too; at least {:.0f}s",
                args.limit,
                kLimitMinS);
  if (args.only_given && args.options.only.empty())
    return fail(Code::kInvalidInput,
                "--only: is empty; name what to examine, or leave it out to examine everything");
  if (args.options.quick && !args.soak_given) args.options.soak_s = 2;
  if (!args.options.for_run
           .empty()) {  // before the child's start, so that a wrong name is told at once
    TRY_ASSIGN(args.options.run, rehearse_run(args.options.for_run, args.options.device));
  }
  if (args.child) return doctor::examine_as_child(args.options, args.from);

  if (!args.runs.empty() &&
      (args.options.quick || !args.options.only.empty() || args.options.first_level))
    return fail(Code::kInvalidInput,
                "--runs notes what passed whole: without --quick, --only and --first-level");
  if (!args.runs.empty()) TRY(ops::add_run_records(args.runs, {}));  // whether it can be written
  const bool prints_report = args.json == "-";
  TRY(check_output_path(args.html, OutputKind::kPage));
  if (!prints_report) TRY(check_output_path(args.json, OutputKind::kExamination));
  if (!prints_report) print_besides();
  const Paint paint;
  Table table(paint);
  const doctor::Command command{
      .program = "/proc/self/exe",
      .arguments = [&](size_t from) { return child_arguments(args.options, from); },
      .stop = stop_signal};
  answer_stop_signals();
  TRY_ASSIGN(const doctor::Report report,
             doctor::examine_in_child(args.options, command, system_clock(), table));
  table.close_row();
  print_verdict(report, paint);
  const nlohmann::ordered_json whole = doctor::to_json(report);
  if (!args.html.empty()) TRY(write_file_atomic(args.html, doctor::to_html(report)));
  if (!args.json.empty() && !prints_report)
    TRY(write_file_atomic(args.json, json_text(whole, 1) + "\n"));
  if (!args.runs.empty()) TRY(note_runs(args.runs, report));
  const Result<std::string> noted = remember_examination(report, args.options.for_run);
  const std::string& note = noted ? *noted : noted.error().message;
  if (!note.empty()) tell("ferry: note: " + note);
  const Result<void> printed = print_json(prints_report ? whole : doctor::summary_json(report));
  TRY(prints_report ? printed : printed_besides(printed));
  if (!passed(report.verdict)) return exit_status(Code::kVerdict);
  return report.stopped.empty() ? 0 : exit_status(Code::kTimeout);
}

}  // namespace

void add_doctor_command(Command& program) {
  Command command =
      program.add("doctor", "May this chip be trusted with a run? Examines it and judges");
  const auto args = std::make_shared<Arguments>();
  command.option("--device", args->options.device, "cpu, cuda[:N], cuda-tensor[:N] or ascend[:N]")
      .shows_default();
  const Option soak = command.option(
      "--soak", args->soak, "look so long for silent corruption: 30s, 10m, 2h (10s; 2s if quick)");
  command.flag("--quick", args->options.quick, "small shapes, few repeats: seconds");
  const Option only = command.option(
      "--only", args->options.only, "an op, copies, memory, streams, links, speed, soak");
  command.option(
      "--for",
      args->options.for_run,
      "a model directory, a file of settings, v3 or v2-lite: try this run's own sizes, too");
  command.option("--json", args->json, "write the whole report here; - ends the output in it");
  command.option("--html", args->html, "write the report here as one page of HTML");
  command.option("--runs", args->runs, "note here which ops' specs passed, for docs/ops.md");
  command.option("--seed", args->options.seed, "of the inputs").shows_default();
  command.option("--limit", args->limit, "a check that is silent for longer hangs").shows_default();
  command.flag("--first-level",
               args->options.first_level,
               "stop behind the most basic level that has a finding");
  command.flag("--child", args->child).hidden();  // the examining process; not for people
  command.option("--from", args->from).hidden();
  command.runs([soak, only, args] {
    args->soak_given = soak.given();
    args->only_given = only.given();
    const Result<int> done = examine(*args);
    return done ? *done : report(done.error());
  });
}

}  // namespace ferry::cli
