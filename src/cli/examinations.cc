#include "cli/examinations.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/shell.h"
#include "base/system.h"
#include "base/units.h"
#include "base/version.h"
#include "cli/command.h"

namespace ferry::cli {
namespace {

constexpr const char* kFormat = "ferry-examination-2";
constexpr const char* kFirstFormat = "ferry-examination-1";
constexpr double kUsualSoakS = 10;  // of a doctor who is not told otherwise
constexpr uint64_t kBytesMax = 64 << 10;

/// The file of the device that describes itself so. Chips of one kind share no file: their
/// descriptions name their numbers. Empty: there is no state folder.
std::string file_of(const std::string& description) {
  const std::string state = state_folder();
  if (state.empty()) return "";
  std::string name;
  for (const char c : description.substr(0, 200)) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (plain || (!name.empty() && name.back() != '-')) name += plain ? c : '-';
  }
  return join_path(state, "ferry/doctor/" + name + ".json");
}

struct Examination {
  std::string verdict;
  int64_t unix_ms = 0;
  // How much was tried.
  bool quick = false;
  double soak_s = 0;
  std::string only;     // this subject alone; empty: all
  std::string for_run;  // at this run's sizes, too; empty: at none
  bool fit() const {
    return verdict == to_string(doctor::Verdict::kFitToTrain) ||
           verdict == to_string(doctor::Verdict::kNothingFound);
  }
};

/// Whether `a` tried all that `b` did: finding nothing, it answers what `b` found.
bool covers(const Examination& a, const Examination& b) {
  return (a.only.empty() || a.only == b.only) && (!a.quick || b.quick) && a.soak_s >= b.soak_s &&
         (b.for_run.empty() || a.for_run == b.for_run);
}

/// What stands after one more. A failure stands until an examination that tried as much finds
/// nothing, and is then forgotten; a pass until one that tried as much, or a failure.
std::vector<Examination> with(std::vector<Examination> before, const Examination& now) {
  std::erase_if(before, [&](const Examination& e) { return covers(now, e); });
  if (now.fit()) {
    const bool known = std::any_of(before.begin(), before.end(), [&](const Examination& e) {
      return e.fit() && covers(e, now);
    });
    if (now.only.empty() && !known) before.push_back(now);
    return before;
  }
  std::erase_if(before, [](const Examination& e) { return e.fit(); });
  before.push_back(now);
  return before;
}

const Examination* failure_of(const std::vector<Examination>& all) {
  const auto it =
      std::find_if(all.rbegin(), all.rend(), [](const Examination& e) { return !e.fit(); });
  return it == all.rend() ? nullptr : &*it;
}

/// ", quickly", for what was not the whole of it.
std::string depth_of(const Examination& e) {
  std::string text;
  if (e.quick) text += ", --quick";
  if (!e.only.empty()) text += fmt::format(", --only {}", e.only);
  if (e.soak_s > kUsualSoakS) text += fmt::format(", --soak {}s", e.soak_s);
  if (!e.for_run.empty()) text += fmt::format(", --for {}", shell_quoted(e.for_run));
  return text;
}

/// The command that may show that a failure is gone.
std::string command_for(const Examination& failure, const std::string& device) {
  std::string command = fmt::format("ferry doctor --device {}", device);
  if (failure.soak_s > kUsualSoakS) command += fmt::format(" --soak {}s", failure.soak_s);
  if (!failure.for_run.empty()) command += " --for " + shell_quoted(failure.for_run);
  return command;
}

Result<Examination> examination_of(const nlohmann::json& json, const std::string& path) {
  const auto text_of = [&](const char* key) {
    const auto it = json.find(key);
    return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  const auto when = json.find("unix_ms");
  if (text_of("verdict").empty() || when == json.end() || !when->is_number_unsigned())
    return fail(Code::kCorrupt, "{}: is not an examination's note; remove it", path);
  Examination e{.verdict = text_of("verdict"), .unix_ms = when->get<int64_t>()};
  e.only = text_of("only");
  e.for_run = text_of("for");
  if (const auto it = json.find("quick"); it != json.end() && it->is_boolean())
    e.quick = it->get<bool>();
  if (const auto it = json.find("soak_s"); it != json.end() && it->is_number())
    e.soak_s = it->get<double>();
  return e;
}

/// Those that stand, the newest last; none: it was not examined. A note of the first format has one,
/// of which it does not say how much was tried: all that is usual.
Result<std::vector<Examination>> read_examinations(const std::string& description) {
  const std::string path = file_of(description);
  std::vector<Examination> all;
  if (path.empty()) return all;
  TRY_ASSIGN(const bool there, is_there(path));
  if (!there) return all;
  TRY_ASSIGN(const std::string text, read_file(path, kBytesMax));
  TRY_ASSIGN(const nlohmann::json root, parse_json(text, path));
  const auto corrupt = [&] {
    return fail(Code::kCorrupt, "{}: is not an examination's note; remove it", path);
  };
  if (!root.is_object() || !root.contains("format") || !root.contains("description"))
    return corrupt();
  if (root["description"] != description) return all;
  if (root["format"] == kFirstFormat) {
    TRY_ASSIGN(Examination only, examination_of(root, path));
    only.soak_s = kUsualSoakS;
    all.push_back(std::move(only));
    return all;
  }
  const auto list = root.find("examinations");
  if (root["format"] != kFormat || list == root.end() || !list->is_array()) return corrupt();
  for (const nlohmann::json& each : *list) {
    if (!each.is_object()) return corrupt();
    TRY_ASSIGN(Examination e, examination_of(each, path));
    all.push_back(std::move(e));
  }
  return all;
}

}  // namespace

Result<std::string> remember_examination(const doctor::Report& report, const std::string& for_run) {
  const std::string path = file_of(report.description);
  if (path.empty())
    return fail(Code::kNotFound, "the verdict is not noted: set XDG_STATE_HOME or HOME");
  // What was not tried may be anything.
  if (!report.stopped.empty() && passed(report.verdict))
    return fmt::format("stopped by {}: no verdict on the device is noted", report.stopped);
  const Examination now{.verdict = to_string(report.verdict),
                        .unix_ms = report.started_unix_ms,
                        .quick = report.quick,
                        .soak_s = report.soak_s,
                        .only = report.only,
                        .for_run = for_run};
  // A note that cannot be read is replaced: it tells nobody anything.
  const Result<std::vector<Examination>> before = read_examinations(report.description);
  const std::vector<Examination> all = with(before.value_or(std::vector<Examination>()), now);
  const Examination* const failure = failure_of(all);
  if (all.empty() && (!before || before->empty()))
    return fmt::format("only {} was tried: no verdict on the device is noted", report.only);
  if (all.empty()) {
    TRY(remove_tree(path));
    return std::string();
  }
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Examination& e : all) {
    nlohmann::ordered_json j = {{"verdict", e.verdict},
                                {"unix_ms", static_cast<uint64_t>(e.unix_ms)},
                                {"quick", e.quick},
                                {"soak_s", e.soak_s}};
    if (!e.only.empty()) j["only"] = e.only;
    if (!e.for_run.empty()) j["for"] = e.for_run;
    list.push_back(std::move(j));
  }
  const nlohmann::ordered_json note = {
      {"format", kFormat},
      {"device", report.device},
      {"description", report.description},
      {"verdict", failure != nullptr ? failure->verdict : all.back().verdict},
      {"examinations", list},
      {"program", fmt::format("ferry {}", kVersion)}};
  TRY(make_folders(parent_folder(path)));
  TRY(write_file_atomic(path, json_text(note, 1) + "\n"));
  if (now.fit() && failure != nullptr)
    return fmt::format(
        "it was found {} on {}{}, and this examination tried less: that verdict stands until {} "
        "finds nothing",
        failure->verdict,
        format_utc(failure->unix_ms),
        depth_of(*failure),
        command_for(*failure, report.device));
  if (now.fit() && !now.only.empty())
    return fmt::format("only {} was tried: no verdict on the device is noted", report.only);
  return std::string();
}

void warn_unexamined(const Device& device) {
  if (device.kind() == DeviceKind::kCpu) return;
  const std::string description = device.describe();
  const Result<std::vector<Examination>> all = read_examinations(description);
  std::string why, command = fmt::format("ferry doctor --device {}", device.name());
  if (!all) {
    why = all.error().message;
  } else if (all->empty()) {
    why = "was never examined";
  } else if (const Examination* failure = failure_of(*all); failure != nullptr) {
    why = fmt::format(
        "was found {} on {}{}", failure->verdict, format_utc(failure->unix_ms), depth_of(*failure));
    command = command_for(*failure, device.name());
  } else if (std::all_of(all->begin(), all->end(), [](const Examination& e) { return e.quick; })) {
    why = fmt::format("was examined only quickly, on {}", format_utc(all->back().unix_ms));
  }
  if (!why.empty()) tell(fmt::format("ferry: note: {}: {}: run {}", description, why, command));
}

}  // namespace ferry::cli
