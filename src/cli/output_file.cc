#include "cli/output_file.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"

namespace ferry::cli {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kOwnBytesMax = uint64_t{256} << 20;  // what is larger, no such command wrote

/// Why what is there is not replaced, in the middle of a sentence.
const char* describe(OutputKind kind) {
  switch (kind) {
    case OutputKind::kPage: return ", and is not a page that Ferry wrote";
    case OutputKind::kPlot: return ", and is not a plot that Ferry drew";
    case OutputKind::kExamination: return ", and is not an examination that Ferry wrote";
    case OutputKind::kLogits: return ", and is not logits that Ferry wrote";
    case OutputKind::kIds: return ", and is not a list of ids that Ferry wrote";
    case OutputKind::kTokenizer:
    case OutputKind::kModelConfig: break;
  }
  return "";
}

bool has_keys(const std::string& text, std::initializer_list<const char*> keys) {
  const Result<nlohmann::json> json = parse_json(text, "");
  return json && json->is_object() && std::all_of(keys.begin(), keys.end(), [&](const char* key) {
           return json->contains(nlohmann::json::json_pointer(key));
         });
}

/// Lists of ids, each behind its length, to the very end.
bool is_ids(std::string_view bytes) {
  while (bytes.size() >= sizeof(uint32_t)) {
    uint32_t count = 0;
    std::memcpy(&count, bytes.data(), sizeof count);
    bytes.remove_prefix(sizeof count);
    if (count > bytes.size() / sizeof(int32_t)) return false;
    bytes.remove_prefix(count * sizeof(int32_t));
  }
  return bytes.empty();
}

bool is_of_kind(const std::string& path, OutputKind kind) {
  if (kind == OutputKind::kLogits) {
    const Result<SafetensorsFile> file = SafetensorsFile::open(path);
    return file && file->metadata().contains("device") && file->find("0") != nullptr;
  }
  const Result<std::string> text = read_file(path, kOwnBytesMax);
  if (!text) return false;
  switch (kind) {
    case OutputKind::kPage:
      return text->starts_with("<!doctype html>") &&
             text->find("<meta name=\"generator\" content=\"Ferry\">") != std::string::npos;
    case OutputKind::kPlot:
      return text->starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") &&
             text->find("<clipPath id=\"plot\">") != std::string::npos;
    case OutputKind::kExamination: return has_keys(*text, {"/verdict", "/outcomes"});
    case OutputKind::kIds: return is_ids(*text);
    case OutputKind::kLogits:
      break;  // above
    // Nothing in these says whose they are: one that was downloaded, or belongs to weights, looks the same.
    case OutputKind::kTokenizer:
    case OutputKind::kModelConfig: return false;
  }
  return false;
}

}  // namespace

Result<void> check_output_path(const std::string& path, OutputKind kind) {
  if (path.empty()) return {};
  if (is_folder(path)) return fail(Code::kInvalidInput, "{}: is a folder; name a file", path);
  if (!is_folder(parent_folder(path)))
    return fail(Code::kNotFound, "{}: its folder does not exist; make it first", path);
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (!fs::exists(status)) return {};
  if (!fs::is_regular_file(status))
    return fail(Code::kInvalidInput,
                "{}: is a {}, and would be replaced by a file; name a file",
                path,
                fs::is_symlink(status) ? "link" : "device or a pipe");
  if (fs::file_size(path, error) == 0 || is_of_kind(path, kind)) return {};
  return fail(Code::kInvalidInput,
              "{}: is there already{}; name another file, or remove this one yourself",
              path,
              describe(kind));
}

}  // namespace ferry::cli
