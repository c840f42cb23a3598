#include "checkpoint/undone_checkpoints.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "base/fault.h"
#include "base/file.h"
#include "base/os_error.h"
#include "checkpoint/staged_folder.h"

namespace ferry {
namespace {

struct Name {
  int64_t time = 0, step = 0;  // the n-th time that some were set aside
  auto operator<=>(const Name&) const = default;
};

std::string text_of(const Name& name) { return fmt::format("step-{:08}.{}", name.step, name.time); }

/// In the one spelling that text_of() gives.
std::optional<Name> name_of(const std::string& text) {
  const size_t first = text.find('-'), dot = text.find('.');
  if (first == text.npos || dot == text.npos || dot < first) return std::nullopt;
  Name name;
  std::from_chars(text.data() + first + 1, text.data() + dot, name.step);
  std::from_chars(text.data() + dot + 1, text.data() + text.size(), name.time);
  if (name.step < 0 || name.time < 1 || text_of(name) != text) return std::nullopt;
  return name;
}

Result<std::vector<Name>> names_in(const std::string& aside) {
  std::vector<Name> names;
  TRY_ASSIGN(const bool there, is_there(aside));
  if (!there || !is_folder(aside)) return names;
  TRY_ASSIGN(const std::vector<std::string> texts, list_folder(aside));
  for (const std::string& text : texts)
    if (const std::optional<Name> name = name_of(text)) names.push_back(*name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

Result<std::vector<std::string>> set_aside(const std::string& folder,
                                           const std::set<int64_t>& steps) {
  std::vector<std::string> moved;
  TRY_ASSIGN(std::vector<int64_t> there, step_folders(folder));
  std::erase_if(there, [&](int64_t step) { return !steps.contains(step); });
  if (there.empty()) return moved;
  const std::string aside = join_path(folder, kUndoneFolder);
  TRY(make_folders(aside));
  TRY_ASSIGN(const FolderClaim turn,
             keep_from_being_replaced(checkpoint_path(folder, there.front())));
  TRY_ASSIGN(const std::vector<Name> before, names_in(aside));
  const int64_t time = before.empty() ? 1 : before.back().time + 1;
  std::reverse(there.begin(), there.end());
  std::stable_partition(there.begin(), there.end(), [&](int64_t step) {
    return !inspect_checkpoint(checkpoint_path(folder, step), step);
  });
  for (const int64_t step : there) {
    if (const int error = fault_point("undone.move"))
      return os_error("rename", checkpoint_path(folder, step), error);
    moved.push_back(join_path(aside, text_of({.time = time, .step = step})));
    TRY(rename_path(checkpoint_path(folder, step), moved.back()));
    TRY(sync_folder(folder));
  }
  return moved;
}

Result<std::vector<CheckpointInfo>> list_undone(const std::string& folder) {
  const std::string aside = join_path(folder, kUndoneFolder);
  std::vector<CheckpointInfo> complete;
  TRY_ASSIGN(const std::vector<Name> names, names_in(aside));
  for (const Name& name : names) {
    Result<CheckpointInfo> info = inspect_checkpoint(join_path(aside, text_of(name)), name.step);
    if (info)
      complete.push_back(*std::move(info));
    else if (!is_damage(info.error().code))
      return tl::unexpected(info.error());
  }
  return complete;
}

int64_t count_undone(const std::string& folder) {
  const std::string aside = join_path(folder, kUndoneFolder);
  const Result<std::vector<Name>> names = names_in(aside);
  if (!names) return 0;
  return std::count_if(names->begin(), names->end(), [&](const Name& name) {
    const Result<CheckpointInfo> info =
        inspect_checkpoint(join_path(aside, text_of(name)), name.step);
    return info || !is_damage(info.error().code);
  });
}

Result<bool> has_undone(const std::string& folder) {
  TRY_ASSIGN(const std::vector<Name> names, names_in(join_path(folder, kUndoneFolder)));
  return !names.empty();
}

Result<std::vector<std::string>> prune_undone(const std::string& folder, const KeepRules& keep) {
  TRY_ASSIGN(const std::vector<CheckpointInfo> there, list_undone(folder));
  std::vector<std::string> removed, problems;
  for (const CheckpointInfo& c : not_kept(there, keep)) {
    if (const Result<void> r = remove_folder(c.path); r)
      removed.push_back(c.path);
    else
      problems.push_back(r.error().message);
  }
  const std::string aside = join_path(folder, kUndoneFolder);
  if (is_folder(aside)) {
    TRY_ASSIGN(const std::vector<std::string> texts, list_folder(aside));
    for (const std::string& text : texts)
      if (const auto of = leftover_of(text); of && name_of(*of))
        for (std::string& problem : remove_leftovers(join_path(aside, *of)))
          problems.push_back(std::move(problem));
  }
  if (!problems.empty()) return fail(Code::kUnavailable, "{}", problems.front());
  return removed;
}

}  // namespace ferry
