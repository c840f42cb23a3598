#include "checkpoint/quant_description.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "base/python_json.h"

namespace ferry {
namespace {

constexpr const char* kFloat = "FLOAT";

/// Metadata beside the tensors' names, as msModelSlim's documents list them.
constexpr const char* kMetadata[] = {"model_quant_type",
                                     "version",
                                     "group_size",
                                     "kv_quant_type",
                                     "kv_cache_type",
                                     "fa_quant_type",
                                     "reduce_quant_type",
                                     "metadata",
                                     "optional"};

bool is_code(DType t) { return t == DType::kI8 || t == DType::kU8; }

/// Which program's codes these are, as config.json says, or the names beside them; empty: nobody says.
std::string other_program(const std::string& config, const std::vector<std::string>& names) {
  const nlohmann::json json = nlohmann::json::parse(config, nullptr, false);
  if (json.is_object())
    for (const char* field : {"quantization_config", "compression_config"})
      if (const auto it = json.find(field); it != json.end() && it->is_object())
        if (const auto method = it->find("quant_method");
            method != it->end() && method->is_string())
          return method->get<std::string>();
  constexpr std::pair<std::string_view, const char*> kSigns[] = {
      {".weight.absmax", "bitsandbytes"},
      {".SCB", "bitsandbytes"},
      {".weight_packed", "compressed-tensors"},
      {".qzeros", "GPTQ or AWQ"}};
  for (const std::string& name : names)
    for (const auto& [ending, program] : kSigns)
      if (name.ends_with(ending)) return program;
  return "";
}

}  // namespace

const char* quant_type(WeightCodes codes) {
  return codes == WeightCodes::kInt8 ? "W8A8_DYNAMIC" : "FERRY_W4A8_G32";
}

Shape stored_codes_shape(WeightCodes codes, const Shape& matrix) {
  return codes == WeightCodes::kInt8 ? matrix : Shape{matrix[0], (matrix[1] + 1) / 2};
}

std::string quant_description(WeightCodes codes,
                              const std::vector<std::string>& tensors,
                              const std::function<bool(const std::string& name)>& quantised) {
  nlohmann::ordered_json j = {{"model_quant_type", quant_type(codes)},
                              {"version", "1.0.0"},
                              {"group_size", codes == WeightCodes::kInt8 ? 0 : kCodeGroup}};
  for (const std::string& name : tensors) j[name] = quantised(name) ? quant_type(codes) : kFloat;
  return json_text(j, 2) + "\n";
}

Result<void> check_quant_description(
    const std::optional<std::string>& content,
    const std::string& path,
    const std::string& config,
    const std::vector<std::string>& names,
    const std::function<std::optional<StoredTensor>(std::string_view)>& stored) {
  if (!content) {
    for (const std::string& name : names) {
      if (!name.ends_with(".weight") || !is_code(stored(name)->dtype)) continue;
      if (const std::string program = other_program(config, names); !program.empty())
        return fail(Code::kInvalidInput,
                    "{}: {} is stored as {}: its codes are those of {}, which Ferry does not read; "
                    "fetch the model that it was made from",
                    parent_folder(path),
                    printable(name),
                    to_string(stored(name)->dtype),
                    printable(program));
      return fail(Code::kInvalidInput,
                  "{}: missing, but {} is stored as {}: what the numbers mean is not known",
                  path,
                  printable(name),
                  to_string(stored(name)->dtype));
    }
    return {};
  }
  TRY_ASSIGN(const nlohmann::json json, parse_python_json(*content, path));
  if (!json.is_object()) return fail(Code::kCorrupt, "{}: must be a JSON object", path);
  for (const auto& [name, kind] : json.items()) {
    const bool about_all =
        std::find(std::begin(kMetadata), std::end(kMetadata), name) != std::end(kMetadata);
    if (about_all) continue;
    const std::optional<StoredTensor> tensor = stored(name);
    if (!tensor) continue;  // a module's own entry, or a tensor that a model does without
    if (!kind.is_string() || is_not_finite(kind))
      return fail(Code::kCorrupt, "{}: {}: expected the name of a kind", path, printable(name));
    const std::string& text = kind.get_ref<const std::string&>();
    const bool int8 = text == quant_type(WeightCodes::kInt8),
               int4 = text == quant_type(WeightCodes::kInt4);
    if (!int8 && !int4 && text != kFloat)
      return fail(Code::kInvalidInput,
                  "{}: {} is quantised as {}; Ferry reads {}, {} and {}",
                  path,
                  printable(name),
                  printable(text),
                  kFloat,
                  quant_type(WeightCodes::kInt8),
                  quant_type(WeightCodes::kInt4));
    if (!name.ends_with(".weight")) continue;  // scales and biases share their weight's kind
    const DType expected = int8 ? DType::kI8 : DType::kU8;
    if (text == kFloat ? is_code(tensor->dtype) : tensor->dtype != expected)
      return fail(Code::kCorrupt,
                  "{}: {} is said to be {}, but it is stored as {}",
                  path,
                  printable(name),
                  text,
                  to_string(tensor->dtype));
  }
  for (const std::string& name : names)
    if (name.ends_with(".weight") && is_code(stored(name)->dtype) && !json.contains(name))
      return fail(Code::kCorrupt,
                  "{}: does not say how {} is quantised, which is stored as {}",
                  path,
                  printable(name),
                  to_string(stored(name)->dtype));
  return {};
}

}  // namespace ferry
