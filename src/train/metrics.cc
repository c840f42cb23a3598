#include "train/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "base/alive.h"
#include "base/check.h"
#include "base/counted.h"
#include "base/fault.h"
#include "base/json.h"
#include "base/os_error.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;
using Record = std::variant<StepRecord, HeldOutRecord>;

/// The fields of each record, once: for writing, reading and TensorBoard's tags.
template <typename Record, typename Visit>
void visit_fields(Record& r, Visit&& v) {
  v("step", r.step);
  v("unix_ms", r.unix_ms);
  if constexpr (requires { r.tokens; }) {
    v("tokens", r.tokens);
    v("loss", r.loss);
    v("bits_per_byte", r.bits_per_byte);
    v("mtp_loss", r.mtp_loss);
    v("balance_loss", r.balance_loss);
    v("gradient_norm", r.gradient_norm);
    v("loss_z", r.loss_z);
    v("gradient_norm_z", r.gradient_norm_z);
    v("lr", r.lr);
    v("seconds", r.seconds);
    v("tokens_per_s", r.tokens_per_s);
    v("mfu", r.mfu);
    v("skipped", r.skipped);
    v("reward", r.reward);
    v("right", r.right);
    v("answer_tokens", r.answer_tokens);
    v("useful_groups", r.useful_groups);
    v("groups_drawn", r.groups_drawn);
    v("updates", r.updates);
    v("empty_answers", r.empty_answers);
    v("program_failed", r.program_failed);
    v("kl", r.kl);
    v("clipped", r.clipped);
    v("masked", r.masked);
    v("ratio_max", r.ratio_max);
    v("logprobs_compared", r.logprobs_compared);
    v("logprob_mismatches", r.logprob_mismatches);
    v("rollout_kl", r.rollout_kl);
    v("rollout_ratio_max", r.rollout_ratio_max);
    v("rollout_capped", r.rollout_capped);
    v("rollout_sent_bytes", r.rollout_sent_bytes);
    v("rewinds", r.rewinds);
    v("skipped_tokens", r.skipped_tokens);
    v("anticipated", r.anticipated);
  } else {
    v("loss", r.loss);
    v("bits_per_byte", r.bits_per_byte);
    v("score", r.score);
    v("score_low", r.score_low);
    v("score_high", r.score_high);
    v("answer_tokens", r.answer_tokens);
    v("program_failed", r.program_failed);
    v("pairs", r.pairs);
    v("pairs_held_out", r.pairs_held_out);
  }
  v("rewards/chosen", r.rewards_chosen);
  v("rewards/rejected", r.rewards_rejected);
  v("rewards/accuracies", r.rewards_accuracies);
  v("rewards/margins", r.rewards_margins);
  v("logps/chosen", r.logps_chosen);
  v("logps/rejected", r.logps_rejected);
}

struct WriteJson {
  Json& out;
  template <typename T>
  void operator()(const char* name, const T& v) {
    out[name] = v;
  }
  template <typename T>
  void operator()(const char* name, const std::optional<T>& v) {
    if (v) out[name] = *v;
  }
};

struct ReadJson {
  const Json& in;
  std::string problem = {};

  void operator()(const char* name, int64_t& v) {
    const auto it = in.find(name);
    if (it == in.end() || !it->is_number_integer())
      problem = fmt::format("\"{}\" is not a whole number", name);
    else
      v = it->get<int64_t>();
  }
  void operator()(const char* name, double& v) {
    const auto it = in.find(name);
    if (it != in.end() && it->is_number())
      v = it->get<double>();
    else if (it != in.end() && it->is_null())
      v = std::numeric_limits<double>::quiet_NaN();
    else
      problem = fmt::format("\"{}\" is not a number", name);
  }
  void operator()(const char* name, std::string& v) {
    const auto it = in.find(name);
    if (it == in.end() || !it->is_string())
      problem = fmt::format("\"{}\" is not text", name);
    else
      v = it->get<std::string>();
  }
  template <typename T>
  void operator()(const char* name, std::optional<T>& v) {
    if (in.contains(name)) (*this)(name, v.emplace());
  }
};

/// Every number but the step, its time and what grows with it, as TRAIN/field or HELD_OUT/field.
struct CollectScalars {
  std::string prefix;
  std::vector<std::pair<std::string, float>> out = {};
  void operator()(const char*, int64_t) {}
  void operator()(const char*, const std::optional<std::string>&) {}
  void operator()(const char* name, double v) {
    out.emplace_back(prefix + name, static_cast<float>(v));
  }
  void operator()(const char* name, const std::optional<double>& v) {
    if (v) (*this)(name, *v);
  }
};

template <typename Record>
std::string json_line(const char* kind, const Record& record) {
  Json j = {{"kind", kind}};
  visit_fields(record, WriteJson{j});
  return json_text(j);
}

template <typename Record>
std::string tensorboard_record(const char* prefix, const Record& record) {
  CollectScalars scalars{prefix};
  visit_fields(record, scalars);
  std::vector<tensorboard::Scalar> list;
  for (const auto& [tag, value] : scalars.out) list.push_back({tag, value});
  return tensorboard::framed(
      tensorboard::scalars_event(static_cast<double>(record.unix_ms) / 1000, record.step, list));
}

Result<Record> parse_line(std::string_view line, const std::string& path, size_t number) {
  const Json j = Json::parse(line, nullptr, false);
  if (!j.is_object()) return fail(Code::kCorrupt, "{}:{}: not a JSON object", path, number);
  const std::string kind =
      j.contains("kind") && j["kind"].is_string() ? j["kind"].get<std::string>() : "";
  ReadJson read{j};
  Record record;
  if (kind == "step")
    visit_fields(std::get<StepRecord>(record), read);
  else if (kind == "held_out")
    visit_fields(record.emplace<HeldOutRecord>(), read);
  else
    read.problem = "\"kind\" is neither \"step\" nor \"held_out\"";
  if (!read.problem.empty()) return fail(Code::kCorrupt, "{}:{}: {}", path, number, read.problem);
  return record;
}

void append(Metrics& metrics, const StepRecord& r) { metrics.steps.push_back(r); }
void append(Metrics& metrics, const HeldOutRecord& r) { metrics.held_out.push_back(r); }

/// The lines that end with a newline, without it.
std::vector<std::string_view> whole_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1))
    lines.push_back(text.substr(0, end));
  return lines;
}

Result<std::string> read_if_there(const std::string& path) {
  TRY_ASSIGN(const bool there, is_there(path));
  if (!there) return std::string();
  return read_file(path);
}

std::string not_written(const Status& why) {
  return fmt::format(
      "what the run reports cannot be written: {}; it is kept, and tried again with each step",
      why.message);
}

/// Of which kind a record is, how often the run had gone back before it, and its step: in a run there is one of each.
using RecordKey = std::tuple<size_t, int64_t, int64_t>;

/// The keys of records that follow each other in a file: those of steps say how often the run had gone back.
class Keys {
 public:
  RecordKey of(const Record& record) {
    if (const auto* step = std::get_if<StepRecord>(&record))
      rewinds_ = static_cast<int64_t>(step->rewinds.value_or(0));
    const int64_t at = std::visit([](const auto& r) { return r.step; }, record);
    return {record.index(), rewinds_, at};
  }

 private:
  int64_t rewinds_ = 0;
};

/// What a resumed run keeps of a file of metrics.
struct Kept {
  Metrics metrics;
  std::string text, unreadable;  // lines that stay, lines that are no records
  std::string undone;            // those of undone steps
  size_t unreadable_lines = 0;
  bool later = false;  // there are records of later steps
};

Kept kept_of(std::string_view before,
             int64_t resumed_step,
             const std::string& path,
             const UndoneSteps& undone) {
  Kept kept;
  Keys keys;
  size_t number = 0;
  for (const std::string_view line : whole_lines(before)) {
    still_alive(line.size());  // a successor of rank 0 reads a long run's while the others wait
    const Result<Record> record = parse_line(line, path, ++number);
    if (!record) {
      kept.unreadable.append(line) += '\n';
      ++kept.unreadable_lines;
      continue;
    }
    const auto [kind, rewinds, step] = keys.of(*record);
    if (rewinds < undone.rewinds && step > undone.after) {
      kept.undone.append(line) += '\n';
      continue;
    }
    std::visit(
        [&](const auto& r) {
          kept.later |= r.step > resumed_step;
          if (r.step > resumed_step) return;
          append(kept.metrics, r);
          kept.text.append(line) += '\n';
        },
        *record);
  }
  return kept;
}

/// Puts lines of undone steps behind those of earlier ones. A run that was killed behind a spike makes steps again, and
/// undoes them again: what is told of them now stands in place of what was told then.
Result<void> add_undone(const std::string& folder, const std::string& lines) {
  const std::string path = join_path(folder, kUndoneName);
  TRY_ASSIGN(const std::string before, read_if_there(path));
  std::set<RecordKey> again;
  Keys of_lines, of_before;
  for (const std::string_view line : whole_lines(lines))
    if (const Result<Record> record = parse_line(line, path, 0)) again.insert(of_lines.of(*record));
  std::string text;
  for (const std::string_view line : whole_lines(before)) {
    const Result<Record> record = parse_line(line, path, 0);
    if (record && again.contains(of_before.of(*record))) continue;
    text.append(line) += '\n';
  }
  return write_file_atomic(path, text + lines);
}

/// Writes a folder's metrics.jsonl anew, with what is kept of it; the rest goes beside it. Returns what is to be told.
Result<std::vector<std::string>> write_kept(const std::string& folder, const Kept& kept) {
  const std::string path = join_path(folder, "metrics.jsonl");
  std::vector<std::string> notes;
  if (!kept.unreadable.empty()) {
    const std::string aside = join_path(folder, "metrics.unreadable.txt");
    TRY_ASSIGN(const std::string earlier, read_if_there(aside));
    TRY(write_file_atomic(aside, earlier + kept.unreadable));
    notes.push_back(fmt::format(
        "{}: {} in {} now",
        path,
        counted(
            kept.unreadable_lines, "line that is no record is", "lines that are no records are"),
        aside));
  }
  if (!kept.undone.empty()) TRY(add_undone(folder, kept.undone));
  TRY(write_file_atomic(path, kept.text));
  return notes;
}

/// FOLDER/metrics.1.jsonl, or the first number that is free.
Result<std::string> free_name(const std::string& folder) {
  for (int n = 1;; ++n) {
    std::string path = join_path(folder, fmt::format("metrics.{}.jsonl", n));
    TRY_ASSIGN(const bool there, is_there(path));
    if (!there) return path;
  }
}

}  // namespace

std::string to_json_line(const StepRecord& record) { return json_line("step", record); }
std::string to_json_line(const HeldOutRecord& record) { return json_line("held_out", record); }

Result<StepRecord> step_record_of(std::string_view line, const std::string& where) {
  TRY_ASSIGN(const Record record, parse_line(line, where, 1));
  if (const auto* step = std::get_if<StepRecord>(&record)) return *step;
  return fail(Code::kCorrupt, "{}: not of a step", where);
}

Result<Metrics> read_metrics(const std::string& path) {
  MetricsFollower file(path);
  TRY(file.look());
  return file.metrics();
}

Result<void> MetricsFollower::look() {
  TRY_ASSIGN(const std::string text, read_if_there(path_));
  // A line has its time in it: the same one at the same place stands behind the same ones.
  const std::string_view before = std::string_view(text).substr(0, at_);
  if (before.size() < at_ || !before.ends_with(last_line_)) *this = MetricsFollower(path_);
  for (const std::string_view line : whole_lines(std::string_view(text).substr(at_))) {
    TRY_ASSIGN(const Record record, parse_line(line, path_, lines_ + 1));
    std::visit([this](const auto& r) { append(metrics_, r); }, record);
    ++lines_;
    at_ += line.size() + 1;
    last_line_ = std::string(line) + "\n";
  }
  return {};
}

Result<MetricsLog> MetricsLog::open(const std::string& folder,
                                    int64_t resumed_step,
                                    bool with_tensorboard,
                                    const Clock& clock,
                                    const UndoneSteps& undone) {
  TRY(make_folders(folder));
  const std::string path = join_path(folder, "metrics.jsonl");
  TRY_ASSIGN(const std::string before, read_if_there(path));
  Kept kept = kept_of(before, resumed_step, path, undone);
  std::vector<std::string> notes;
  if (resumed_step == 0 && kept.later) {
    TRY_ASSIGN(const std::string aside, free_name(folder));
    TRY(rename_path(path, aside));
    notes.push_back(fmt::format("the records of an earlier beginning are in {}", aside));
    kept = {};
  } else if (kept.text != before) {
    TRY_ASSIGN(notes, write_kept(folder, kept));
  }
  TRY_ASSIGN(FileWriter lines, FileWriter::append(path));
  std::optional<Output> events;
  bool behind = false;
  if (with_tensorboard) {
    const std::string events_folder = join_path(folder, "tensorboard");
    TRY(make_folders(events_folder));
    // TensorBoard reads the files of a folder in the order of their names, hence the time in front.
    std::string name;
    int64_t ms = clock.unix_ms();
    do {
      name = join_path(events_folder, fmt::format("events.out.tfevents.{:014}.ferry", ms++));
    } while (path_exists(name));
    TRY_ASSIGN(FileWriter file, FileWriter::create(name));
    const double now = static_cast<double>(clock.unix_ms()) / 1000;
    TRY_ASSIGN(NamedFile named, NamedFile::at(name));
    events.emplace(Output{std::move(file), std::move(named)});
    events->kept = tensorboard::framed(tensorboard::version_event(now)) +
                   tensorboard::framed(tensorboard::session_start_event(now, resumed_step + 1));
    const Result<void> begun = events->flush();
    behind = !begun;
    if (behind) notes.push_back(not_written(begun.error()));
  }
  TRY_ASSIGN(NamedFile named, NamedFile::at(path));
  MetricsLog log(folder, Output{std::move(lines), std::move(named)}, std::move(events));
  log.behind_ = behind;
  log.metrics_ = std::move(kept.metrics);
  log.notes_ = std::move(notes);
  return log;
}

Result<void> MetricsLog::begin_anew(const std::string& folder, const Clock& clock) {
  TRY_ASSIGN(MetricsLog anew, open(folder, 0, events_.has_value(), clock));
  auto held_out = metrics_.held_out.begin();
  for (const StepRecord& r : metrics_.steps) {
    still_alive();
    anew.keep(r);
    for (; held_out != metrics_.held_out.end() && held_out->step <= r.step; ++held_out)
      anew.keep(*held_out);
  }
  for (; held_out != metrics_.held_out.end(); ++held_out) anew.keep(*held_out);
  anew.undone_ = undone_;
  TRY(anew.flush());
  *this = std::move(anew);
  return {};
}

Result<void> MetricsLog::Output::flush() {
  TRY(file.write(kept));
  kept.clear();
  return {};
}

Result<void> MetricsLog::forget_undone() {
  if (cut_) {
    TRY_ASSIGN(const bool ours, in_place());
    if (!ours)  // the next save begins it anew, or leaves it to whoever has it
      return fail(Code::kUnavailable,
                  "{}: is not the file any more that this run has written",
                  join_path(folder_, "metrics.jsonl"));
  }
  if (!cut_ && undone_.empty()) return {};
  if (const int error = fault_point("metrics.forget"))
    return os_error("write", join_path(folder_, kUndoneName), error);
  if (!undone_.empty()) TRY(add_undone(folder_, undone_));
  undone_.clear();
  if (!cut_) return {};
  const std::string path = join_path(folder_, "metrics.jsonl");
  TRY_ASSIGN(const std::string before, read_if_there(path));
  TRY_ASSIGN(std::vector<std::string> notes, write_kept(folder_, kept_of(before, *cut_, path, {})));
  notes_.insert(notes_.end(), notes.begin(), notes.end());
  TRY_ASSIGN(lines_.file, FileWriter::append(path));
  TRY_ASSIGN(lines_.named, NamedFile::at(path));
  cut_.reset();
  return {};
}

/// Each has its try, whatever becomes of the other.
Result<void> MetricsLog::flush() {
  Result<void> lines = forget_undone();
  if (lines) lines = lines_.flush();
  const Result<void> events = events_ ? events_->flush() : Result<void>();
  return lines ? events : lines;
}

void MetricsLog::keep(const StepRecord& record) {
  metrics_.steps.push_back(record);
  lines_.kept += to_json_line(record) + "\n";
  if (events_) events_->kept += tensorboard_record("train/", record);
}

void MetricsLog::keep(const HeldOutRecord& record) {
  metrics_.held_out.push_back(record);
  lines_.kept += to_json_line(record) + "\n";
  if (events_) events_->kept += tensorboard_record("held_out/", record);
}

std::optional<std::string> MetricsLog::put() {
  const Result<void> written = flush();
  const bool was_behind = std::exchange(behind_, !written);
  if (!written && !was_behind) return "warning    " + not_written(written.error());
  if (written && was_behind)
    return "note       what the run reports is written again, and all of it";
  return std::nullopt;
}

std::optional<std::string> MetricsLog::write(const StepRecord& record) {
  keep(record);
  return put();
}

std::optional<std::string> MetricsLog::go_back(int64_t step, const Clock& clock) {
  auto held_out = std::find_if(metrics_.held_out.begin(),
                               metrics_.held_out.end(),
                               [&](const HeldOutRecord& r) { return r.step > step; });
  const auto steps = std::find_if(metrics_.steps.begin(),
                                  metrics_.steps.end(),
                                  [&](const StepRecord& r) { return r.step > step; });
  const auto first = held_out;
  for (auto s = steps; s != metrics_.steps.end(); ++s) {
    undone_ += to_json_line(*s) + "\n";
    for (; held_out != metrics_.held_out.end() && held_out->step <= s->step; ++held_out)
      undone_ += to_json_line(*held_out) + "\n";
  }
  metrics_.held_out.erase(first, metrics_.held_out.end());
  metrics_.steps.erase(steps, metrics_.steps.end());
  lines_.kept = kept_of(lines_.kept, step, "", {}).text;
  cut_ = std::min(step, cut_.value_or(step));
  if (events_)
    events_->kept += tensorboard::framed(
        tensorboard::session_start_event(static_cast<double>(clock.unix_ms()) / 1000, step + 1));
  return put();
}

bool MetricsLog::tells_of_held_out(int64_t step) const {
  return !metrics_.held_out.empty() && metrics_.held_out.back().step == step;
}

std::optional<std::string> MetricsLog::write(const HeldOutRecord& record) {
  if (tells_of_held_out(record.step)) return std::nullopt;
  keep(record);
  return put();
}

std::optional<std::string> MetricsLog::finish() {
  if (!behind_) return std::nullopt;
  const Result<void> written = flush();
  behind_ = !written;
  if (written) return std::nullopt;
  return fmt::format("warning    the last records of metrics.jsonl and tensorboard/ are lost: {}",
                     written.error().message);
}

}  // namespace ferry
