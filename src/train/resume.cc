#include "train/resume.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/shell.h"
#include "checkpoint/model_dir.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "train/model_setup.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;

tl::unexpected<Status> refused(const ResumePoint& point, const std::string& what) {
  return fail(
      Code::kInvalidInput,
      "{}: {}, and a run that goes on keeps it. Give it back, or begin a new run from {} and "
      "another checkpoint.dir",
      point.path,
      what,
      weights_to_begin_with(point));
}

/// As the model that it describes would write it: every field, in one order.
Result<std::string> normal_config(const std::string& json, const std::string& path) {
  TRY_ASSIGN(const std::unique_ptr<models::TrainableLm> model,
             models::make_model(json, path, cpu_device(), DType::kF32, std::nullopt));
  return model->config_json("float32");
}

bool in_model(const SettingChange& change) { return change.key.starts_with("model."); }

/// "hidden_size is 192 there, 256 in the settings; ..." for what differs.
std::string differences(const Json& there, const Json& here) {
  std::string list;
  const auto text = [](const Json& json, const std::string& key) {
    return json.contains(key) ? json_text(json[key]) : std::string("not set");
  };
  const auto compare = [&](const std::string& key) {
    if (text(there, key) != text(here, key))
      list += fmt::format("{}model.{} is {} there, {} in the settings",
                          list.empty() ? "" : "; ",
                          key,
                          text(there, key),
                          text(here, key));
  };
  for (const auto& [key, value] : there.items()) compare(key);
  for (const auto& [key, value] : here.items())
    if (!there.contains(key)) compare(key);
  return list;
}

/// The settings must describe the checkpoint's model. How they say it may differ: a preset, its
/// config.json, the fields themselves.
Result<void> check_architecture(const ResumePoint& point,
                                const Settings& now,
                                const std::vector<SettingChange>& changes,
                                const RunData& data) {
  const ModelSettings& was = point.settings.model;
  if (!now.model.init.empty()) {
    std::error_code not_there;  // then their names alone can be compared
    if (now.model.init != was.init &&
        !std::filesystem::equivalent(now.model.init, was.init, not_there))
      return refused(point,
                     fmt::format("the run began with model.init {}, which is {} in the settings",
                                 was.init.empty() ? "not set" : was.init,
                                 now.model.init));
    return {};  // it gave the first weights: what became of it since does not matter
  }
  TRY_ASSIGN(const nlohmann::json there, parse_json(point.config_json, point.path));
  const int64_t positions = there.value("max_position_embeddings", int64_t{0});
  const Result<std::string> resolved = resolve_config(now.model, nullptr, data, positions);
  if (!resolved) {
    // A config.json that is no longer there, and that nobody changed the name of, is not needed.
    if (std::none_of(changes.begin(), changes.end(), in_model)) return {};
    return tl::unexpected(resolved.error());
  }
  TRY_ASSIGN(const std::string here, normal_config(*resolved, "[model]"));
  TRY_ASSIGN(const std::string stored,
             normal_config(point.config_json, join_path(point.path, kConfigName)));
  const std::string list = differences(Json::parse(stored), Json::parse(here));
  return list.empty() ? Result<void>{} : refused(point, list);
}

}  // namespace

std::string weights_to_begin_with(const ResumePoint& point) {
  if (point.settings.lora.rank == 0)
    return fmt::format("these weights: {}{}",
                       shell_quoted("--model.init=" + point.path),
                       point.settings.model.init.empty() ? " without what else [model] says" : "");
  return fmt::format(
      "what ferry convert {} --adapter {} --to f32 --out DIR makes: --model.init=DIR",
      shell_quoted(point.settings.model.init),
      shell_quoted(point.path));
}

Result<std::vector<SettingChange>> changes_on_resume(const ResumePoint& point,
                                                     const Settings& now,
                                                     const RunData& data) {
  const std::vector<SettingChange> changes = changed_settings(point.settings, now);
  std::vector<SettingChange> told;
  std::string fixed;
  for (const SettingChange& c : changes) {
    if (in_model(c)) continue;
    // What pairs are compared with was computed so, once.
    const bool of_reference = !now.dpo.pairs.empty() && c.key == "train.compute";
    if (c.change == Change::kFixed || of_reference)
      fixed += fmt::format(
          "{}{} was {} so far, and is {} now", fixed.empty() ? "" : "; ", c.key, c.was, c.now);
    if (c.change == Change::kFollows) told.push_back(c);
  }
  if (!fixed.empty()) return refused(point, fixed);
  TRY(check_architecture(point, now, changes, data));
  return told;
}

}  // namespace ferry
