#include "checkpoint/checkpoints.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "base/check.h"
#include "base/file.h"
#include "base/json_fields.h"
#include "checkpoint/json.h"

namespace ferry {
namespace {

constexpr std::string_view kPrefix = "step-";
constexpr size_t kDigits = 8;
constexpr uint64_t kDocumentBytesMax = uint64_t{1} << 30;

/// The step of "step-00001200", in the one spelling that checkpoint_path gives.
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (error != std::errc{} || rest != end || step < 0 ||
      name != fmt::format("step-{:0{}}", step, kDigits))
    return std::nullopt;
  return step;
}

Result<CheckpointInfo> read_document(const std::string& text, const std::string& path) {
  TRY_ASSIGN(const nlohmann::json document, parse_json(text, path));
  JsonProblem problem;
  JsonFields f(document, path, problem);
  CheckpointInfo info;
  info.step = f.integer("step", 0, INT64_MAX);
  if (f.has("held_out_loss")) info.held_out_loss = f.real("held_out_loss");
  if (f.has("rewound")) info.rewound = f.integers("rewound", 1, INT64_MAX);
  TRY(problem.done());
  return info;
}

/// Whether somebody left its state/ out. Errors: what cannot be read just now.
Result<bool> is_kept_without_state(const std::string& path) {
  Result<Checksums> sums = Checksums::open(path);
  if (!sums && is_damage(sums.error().code)) return false;
  TRY(sums);
  return sums->leave_out(kStateFolder);
}

/// The step folders that hidden siblings in `names` belong to.
std::set<std::string> with_leftovers(const std::vector<std::string>& names) {
  std::set<std::string> found;
  for (const std::string& name : names)
    if (const auto of = leftover_of(name); of && step_of(*of)) found.insert(*of);
  return found;
}

/// Removes what dead writers left of any step. Returns what could not be removed, in words.
std::vector<std::string> clean(const std::string& folder) {
  const Result<std::vector<std::string>> names = list_folder(folder);
  if (!names) return {names.error().message};
  std::vector<std::string> problems;
  for (const std::string& name : with_leftovers(*names))
    for (std::string& problem : remove_leftovers(join_path(folder, name)))
      problems.push_back(std::move(problem));
  return problems;
}

Result<void> write_checkpoint(StagedFolder& staged,
                              const ModelContents& model,
                              const TrainingStateContents& state) {
  TRY(write_model(staged, model));
  return write_training_state(staged, state);
}

tl::unexpected<Status> not_saved(const Status& why, const std::string& folder) {
  return fail(why.code,
              "{}; this checkpoint was not saved, those already in {} are untouched",
              why.message,
              folder);
}

}  // namespace

std::string checkpoint_path(const std::string& folder, int64_t step) {
  check(step >= 0, "checkpoint: step {}", step);
  return join_path(folder, fmt::format("step-{:0{}}", step, kDigits));
}

bool is_undone(int64_t step, const std::vector<int64_t>& before, const std::vector<int64_t>& now) {
  for (size_t i = before.size(); i < now.size(); ++i)
    if (now[i] < step) return true;
  return false;
}

bool is_damage(Code code) {
  return code == Code::kCorrupt || code == Code::kNotFound || code == Code::kInvalidInput;
}

Result<CheckpointInfo> inspect_checkpoint(const std::string& path, int64_t step) {
  TRY_ASSIGN(Checksums sums, checksums_with_state(path));
  const std::string document = join_path(path, kStateDocument);
  TRY_ASSIGN(const std::string text, read_file(document, kDocumentBytesMax));
  TRY(sums.check_bytes(kStateDocument, text.data(), text.size()));
  TRY_ASSIGN(CheckpointInfo info, read_document(text, document));
  if (info.step != step)
    return fail(Code::kCorrupt, "{}: is of step {}; was the folder renamed?", document, info.step);
  info.path = path;
  return info;
}

Result<std::vector<int64_t>> step_folders(const std::string& folder) {
  std::vector<int64_t> steps;
  TRY_ASSIGN(const bool there, is_there(folder));
  if (!there) return steps;
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(folder));
  for (const std::string& name : names)
    if (const std::optional<int64_t> step = step_of(name)) steps.push_back(*step);
  std::sort(steps.begin(), steps.end());
  return steps;
}

Result<CheckpointList> list_checkpoints(const std::string& folder) {
  CheckpointList list;
  TRY_ASSIGN(const bool there, is_there(folder));
  if (!there) return list;
  TRY_ASSIGN(std::vector<std::string> names, list_folder(folder));
  for (const std::string& name : with_leftovers(names)) {
    const std::string path = join_path(folder, name);
    const Result<void> recovered = recover_folder(path);
    if (recovered) continue;
    // A leftover beside its checkpoint is only in the way; without it, it is the checkpoint.
    TRY_ASSIGN(const bool in_place, is_there(path));
    if (!in_place) return tl::unexpected(recovered.error());
  }
  TRY_ASSIGN(names, list_folder(folder));
  for (const std::string& name : names) {
    const std::optional<int64_t> step = step_of(name);
    if (!step) continue;
    Result<CheckpointInfo> info = inspect_checkpoint(join_path(folder, name), *step);
    if (info) {
      list.complete.push_back(*std::move(info));
    } else if (is_damage(info.error().code)) {
      const std::string path = join_path(folder, name);
      TRY_ASSIGN(const bool kept, is_kept_without_state(path));
      list.ignored.push_back({*step, path, info.error().message, kept});
    } else {
      return tl::unexpected(info.error());
    }
  }
  std::vector<int64_t> rewound;
  for (const CheckpointInfo& c : list.complete)
    if (c.rewound.size() > rewound.size()) rewound = c.rewound;
  const auto undone = [&](const CheckpointInfo& c) {
    return is_undone(c.step, c.rewound, rewound);
  };
  std::copy_if(list.complete.begin(), list.complete.end(), std::back_inserter(list.undone), undone);
  std::erase_if(list.complete, undone);
  const auto by_step = [](const auto& a, const auto& b) { return a.step < b.step; };
  std::sort(list.complete.begin(), list.complete.end(), by_step);
  std::sort(list.ignored.begin(), list.ignored.end(), by_step);
  std::sort(list.undone.begin(), list.undone.end(), by_step);
  return list;
}

Result<CheckpointInfo> newest_checkpoint(const std::string& folder) {
  TRY_ASSIGN(const CheckpointList list, list_checkpoints(folder));
  if (!list.complete.empty()) return list.complete.back();
  std::vector<std::string> why;
  for (const IgnoredCheckpoint& i : list.ignored) why.push_back(i.why);
  return fail(Code::kNotFound,
              "{}: no complete checkpoint{}{}",
              folder,
              why.empty() ? "" : "; ignored: ",
              fmt::join(why, "; "));
}

Result<SaveReport> save_checkpoint(const std::string& folder,
                                   int64_t step,
                                   const ModelContents& model,
                                   const TrainingStateContents& state) {
  const std::string path = checkpoint_path(folder, step);
  const Result<CheckpointInfo> described = read_document(state.document, "training state");
  check(described && described->step == step,
        "checkpoint {}: its document: {}",
        path,
        described ? "names another step" : described.error().message);
  TRY(make_folders(folder));
  std::vector<std::string> warnings = clean(folder);  // first: leftovers take space
  if (const auto space = require_space(folder, bytes_needed(model) + bytes_needed(state)); !space)
    return not_saved(space.error(), folder);
  Result<StagedFolder> staged = StagedFolder::create(path);
  if (!staged) return not_saved(staged.error(), folder);
  if (const auto written = write_checkpoint(*staged, model, state); !written)
    return not_saved(written.error(), folder);
  Result<SaveReport> report = commit_folder(*staged);
  if (!report && !staged->published()) return not_saved(report.error(), folder);
  if (report) report->warnings.insert(report->warnings.begin(), warnings.begin(), warnings.end());
  return report;
}

std::vector<CheckpointInfo> not_kept(const std::vector<CheckpointInfo>& list,
                                     const KeepRules& keep) {
  std::set<size_t> kept;
  const auto last = static_cast<size_t>(std::max(keep.keep_last, 1));
  std::vector<size_t> ranked;
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].step == keep.keep_step || list.size() - i <= last) kept.insert(i);
    if (list[i].held_out_loss && std::isfinite(*list[i].held_out_loss)) ranked.push_back(i);
  }
  std::sort(ranked.begin(), ranked.end(), [&](size_t a, size_t b) {
    return *list[a].held_out_loss < *list[b].held_out_loss ||
           (*list[a].held_out_loss == *list[b].held_out_loss && a > b);
  });
  const auto best = static_cast<size_t>(std::max(keep.keep_best, 0));
  for (size_t i = 0; i < std::min(best, ranked.size()); ++i) kept.insert(ranked[i]);
  std::vector<CheckpointInfo> others;
  for (size_t i = 0; i < list.size(); ++i)
    if (!kept.contains(i)) others.push_back(list[i]);
  return others;
}

Result<std::vector<std::string>> prune_checkpoints(const std::string& folder, KeepRules keep) {
  TRY_ASSIGN(const CheckpointList list, list_checkpoints(folder));
  std::vector<std::string> removed, problems;
  for (const CheckpointInfo& c : not_kept(list.complete, keep)) {
    if (const Result<void> r = remove_folder(c.path); r) {
      removed.push_back(c.path);
    } else {
      problems.push_back(r.error().message);
    }
  }
  for (std::string& problem : clean(folder)) problems.push_back(std::move(problem));
  if (!problems.empty()) return fail(Code::kUnavailable, "{}", problems.front());
  return removed;
}

}  // namespace ferry
