#include "cli/examinations.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/json.h"
#include "base/system.h"
#include "base/units.h"
#include "base/version.h"
#include "cli/command.h"

namespace ferry::cli {
namespace {

constexpr const char* kFormat = "ferry-examination-1";
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
};

/// Nothing: there is none.
Result<std::optional<Examination>> read_examination(const std::string& description) {
  const std::string path = file_of(description);
  if (path.empty()) return std::nullopt;
  TRY_ASSIGN(const bool there, is_there(path));
  if (!there) return std::nullopt;
  TRY_ASSIGN(const std::string text, read_file(path, kBytesMax));
  TRY_ASSIGN(const nlohmann::json root, parse_json(text, path));
  const auto text_of = [&](const char* key) {
    const auto it = root.find(key);
    return it != root.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  const auto when = root.find("unix_ms");
  if (text_of("format") != kFormat || text_of("verdict").empty() || when == root.end() ||
      !when->is_number_unsigned())
    return fail(Code::kCorrupt, "{}: is not an examination's note; remove it", path);
  if (text_of("description") != description) return std::nullopt;
  return Examination{text_of("verdict"), when->get<int64_t>()};
}

}  // namespace

Result<void> remember_examination(const doctor::Report& report) {
  if (!report.only.empty() && report.verdict == doctor::Verdict::kFitToTrain) return {};
  const std::string path = file_of(report.description);
  if (path.empty())
    return fail(Code::kNotFound, "the verdict is not noted: set XDG_STATE_HOME or HOME");
  const nlohmann::ordered_json note = {{"format", kFormat},
                                       {"device", report.device},
                                       {"description", report.description},
                                       {"verdict", to_string(report.verdict)},
                                       {"program", fmt::format("ferry {}", kVersion)},
                                       {"unix_ms", report.started_unix_ms}};
  TRY(make_folders(parent_folder(path)));
  return write_file_atomic(path, json_text(note, 1) + "\n");
}

void warn_unexamined(const Device& device) {
  if (device.kind() == DeviceKind::kCpu) return;
  const std::string description = device.describe();
  const Result<std::optional<Examination>> last = read_examination(description);
  std::string why;
  if (!last)
    why = last.error().message;
  else if (!*last)
    why = "was never examined";
  else if ((*last)->verdict != to_string(doctor::Verdict::kFitToTrain))
    why = fmt::format("was found {} on {}", (*last)->verdict, format_utc((*last)->unix_ms));
  if (why.empty()) return;
  tell(fmt::format(
      "ferry: note: {}: {}: run ferry doctor --device {}", description, why, device.name()));
}

}  // namespace ferry::cli
