#include "train/run_folder.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/system.h"
#include "checkpoint/model_dir.h"
#include "train/curve.h"
#include "train/metrics.h"
#include "train/reference_file.h"
#include "train/run_begin.h"
#include "train/run_status.h"

namespace ferry {

namespace {

/// Of a place that holds all else: what it is; nullptr for any other.
const char* whose_folder(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::equivalent(folder, "/", error)) return "is the root of the file system";
  const std::string home = home_folder();
  if (!home.empty() && fs::equivalent(folder, home, error)) return "is your home folder";
  return nullptr;
}

}  // namespace

Result<bool> check_run_folder(const std::string& folder) {
  TRY_ASSIGN(const bool there, is_there(folder));
  if (const std::string target = link_target(folder); !there && !target.empty())
    return fail(
        Code::kInvalidInput,
        "checkpoint.dir {}: is a link to {}, which is not there; make that folder, or name another",
        folder,
        target);
  if (!is_folder(folder)) return false;
  TRY_ASSIGN(const std::vector<std::string> names, list_folder(folder));
  const auto has = [&](auto&& is) { return std::any_of(names.begin(), names.end(), is); };
  const auto named = [&](std::string_view name) {
    return has([&](const std::string& n) { return n == name; });
  };
  const auto refused = [&](const char* what) {
    return fail(Code::kInvalidInput,
                "checkpoint.dir {}: {}; name a folder that the run has for itself",
                folder,
                what);
  };
  if (named("manifest.json") && has([](const std::string& n) { return n.ends_with(".tok"); }))
    return refused("holds a dataset");
  if (named(kConfigName) || has([](const std::string& n) { return n.ends_with(".safetensors"); }))
    return refused("is a model directory");
  // A run's own log may have been harmed; that of a folder without a checkpoint is somebody else's.
  if (has([](const std::string& n) { return n.starts_with("step-"); })) return true;
  if (const char* const whose = whose_folder(folder)) return refused(whose);
  // A run writes these anew, whole.
  const auto foreign = [](const std::string& why) {
    return fail(Code::kInvalidInput,
                "{}; no run wrote that: name another checkpoint.dir, or move the file away",
                why);
  };
  const Result<Metrics> metrics = read_metrics(join_path(folder, "metrics.jsonl"));
  if (!metrics && metrics.error().code == Code::kCorrupt) return foreign(metrics.error().message);
  if (const Result<RunStatus> status = read_run_status(folder);
      !status && status.error().code == Code::kCorrupt)
    return foreign(status.error().message);
  if (const Result<void> reference = check_reference_is_ours(folder);
      !reference && reference.error().code == Code::kCorrupt)
    return foreign(reference.error().message);
  if (named(kCurveName) && !named("metrics.jsonl"))  // of which it is drawn
    return foreign(fmt::format("{}: is not a run's curve", join_path(folder, kCurveName)));
  return true;
}

Result<RunFolder> enter_run_folder(const std::string& folder,
                                   bool resume,
                                   const std::function<void(const std::string&)>& say) {
  TRY_ASSIGN(const bool there, check_run_folder(folder));
  if (resume && !there)
    say(fmt::format("resume     {}: there was no such folder; it is made now",
                    std::filesystem::absolute(folder).string()));
  TRY_ASSIGN(FolderLock lock, FolderLock::acquire(folder));
  if (!lock.exclusive())
    say(fmt::format(
        "warning    {}: its file system cannot lock files, so nothing keeps a second run out of "
        "this folder: start none",
        folder));
  TRY(remove_run_leftovers(folder));
  TRY_ASSIGN(NamedFile lock_file, NamedFile::at(join_path(folder, ".lock")));
  return RunFolder{.lock = std::move(lock), .lock_file = std::move(lock_file)};
}

Result<void> stay_in_run_folder(const std::string& folder,
                                RunFolder& held,
                                MetricsLog& metrics,
                                const std::function<void(const std::string&)>& say) {
  TRY_ASSIGN(const bool locked, held.lock_file.in_place());
  TRY_ASSIGN(const bool logged, metrics.in_place());
  if (locked && logged) return {};
  const auto lost = [&](const std::string& why) {
    return fail(
        Code::kExhausted,
        "{}: was removed or moved away under this run, which cannot have it again: {}; what "
        "was trained since the last save is lost",
        folder,
        why);
  };
  if (!locked) {
    Result<RunFolder> anew = enter_run_folder(folder, false, say);
    if (!anew) return lost(anew.error().message);
    TRY_ASSIGN(const std::vector<std::string> names, list_folder(folder));
    const auto checkpoint = [](const std::string& n) { return n.starts_with("step-"); };
    if (!logged && std::any_of(names.begin(), names.end(), checkpoint))
      return lost("another run has left checkpoints there");
    held = *std::move(anew);
    say(fmt::format("warning    {}: was removed or moved away under this run, which takes it anew",
                    folder));
  }
  if (logged) return {};
  TRY(metrics.begin_anew(folder, system_clock()));
  say(fmt::format("note       {}: is written anew, with all that the run has reported",
                  join_path(folder, "metrics.jsonl")));
  for (const std::string& note : metrics.notes()) say("note       " + note);
  return {};
}

}  // namespace ferry
