#include "checkpoint/adapter.h"

#include <algorithm>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/convert.h"
#include "checkpoint/safetensors.h"
#include "device/cpu/cpu_device.h"

namespace ferry {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kSuffix = ".weight";
constexpr uint64_t kConfigBytesMax = uint64_t{1} << 20;
constexpr uint64_t kWeightsBytesMax = uint64_t{1} << 40;

struct Part {
  std::string weight;  // that it adapts
  char factor = 0;     // 'A' or 'B'
};

/// What a tensor's name says; nothing: it is no factor of a projection.
std::optional<Part> part_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  for (const char factor : {'A', 'B'}) {
    const std::string end = std::string(".lora_") + factor + std::string(kSuffix);
    if (!name.ends_with(end) || name.size() <= kPrefix.size() + end.size()) continue;
    const size_t length = name.size() - kPrefix.size() - end.size();
    return Part{std::string(name.substr(kPrefix.size(), length)) + std::string(kSuffix), factor};
  }
  return std::nullopt;
}

Result<Tensor> factor_of(const SafetensorsFile& file, const TensorInfo& info) {
  const auto bytes = file.bytes(info);
  if (info.shape.rank() != 2 || !can_convert(info.dtype, DType::kF32))
    return fail(Code::kInvalidInput,
                "{}: tensor {} is {} {}; it must be a matrix of F32, BF16 or F16",
                file.path(),
                printable(info.name),
                to_string(info.dtype),
                info.shape.str());
  if (const auto at = first_not_finite(info.dtype, bytes))
    return fail(Code::kCorrupt,
                "{}: tensor {}: element {} is not a finite number",
                file.path(),
                printable(info.name),
                *at);
  Tensor value = Tensor::empty(info.shape, DType::kF32, cpu_device());
  fill_from(value, info.dtype, bytes);
  return value;
}

Result<void> check_pair(const std::string& path,
                        const std::string& weight,
                        const AdapterFactors& f,
                        int64_t rank) {
  for (const char factor : {'A', 'B'})
    if (!(factor == 'A' ? f.a : f.b).defined())
      return fail(Code::kCorrupt,
                  "{}: tensor {} is missing; the other half of the pair is there",
                  path,
                  printable(adapter_tensor_name(weight, factor)));
  if (f.a.dim(0) != rank || f.b.dim(1) != rank)
    return fail(Code::kInvalidInput,
                "{}: {} is {}, {} is {}; {} says rank {} (\"r\")",
                path,
                printable(adapter_tensor_name(weight, 'A')),
                f.a.shape().str(),
                printable(adapter_tensor_name(weight, 'B')),
                f.b.shape().str(),
                kAdapterConfigName,
                rank);
  return {};
}

/// What there is must be what the config says: PEFT leaves out the rest. (It writes the whole list that it was
/// asked for, with names that the model does not have.)
Result<void> check_targets(const std::string& path,
                           const AdapterConfig& config,
                           const std::map<std::string, AdapterFactors, std::less<>>& factors) {
  for (const auto& [weight, factor] : factors) {
    TRY_ASSIGN(const std::string why_not,
               config.why_not(std::string_view(weight).substr(0, weight.size() - kSuffix.size())));
    if (!why_not.empty())
      return fail(Code::kInvalidInput,
                  "{}: {} adapts {}, {}",
                  path,
                  kAdapterWeightsName,
                  printable(weight),
                  why_not);
  }
  return {};
}

}  // namespace

std::string adapter_tensor_name(std::string_view weight, char factor) {
  check(weight.ends_with(kSuffix), "adapter: {} is no module's weight", weight);
  return fmt::format(
      "{}{}.lora_{}{}", kPrefix, weight.substr(0, weight.size() - kSuffix.size()), factor, kSuffix);
}

std::string_view module_of(std::string_view weight) {
  if (weight.ends_with(kSuffix)) weight.remove_suffix(kSuffix.size());
  const size_t dot = weight.rfind('.');
  return dot == weight.npos ? weight : weight.substr(dot + 1);
}

const AdapterFactors* Adapter::find(std::string_view weight) const {
  const auto it = factors_.find(weight);
  return it == factors_.end() ? nullptr : &it->second;
}

Result<Adapter> Adapter::open(const std::string& path) {
  const std::string config_path = join_path(path, kAdapterConfigName),
                    weights_path = join_path(path, kAdapterWeightsName),
                    passport_path = join_path(path, kPassportName);
  TRY_ASSIGN(const bool there, is_there(config_path));
  if (!there)
    return fail(
        Code::kNotFound,
        "{}: is no adapter: {}; name the folder that PEFT wrote, or a step-... of the run "
        "that trained it",
        path,
        path_exists(path) ? fmt::format("it has no {}", kAdapterConfigName) : "it does not exist");
  TRY_ASSIGN(const bool weights, is_there(weights_path));
  if (!weights)
    return fail(Code::kNotFound,
                "{}: has no {}{}",
                path,
                kAdapterWeightsName,
                path_exists(join_path(path, "adapter_model.bin"))
                    ? "; adapter_model.bin is PyTorch's pickle: save the adapter again with "
                      "save_pretrained(safe_serialization=True)"
                    : "; fetch it");
  Adapter adapter;
  adapter.path_ = path;
  TRY_ASSIGN(const std::string config, read_listed_file(config_path, kConfigBytesMax));
  TRY_ASSIGN(adapter.config_, parse_adapter_config(config, config_path));
  TRY_ASSIGN(const std::string bytes, read_listed_file(weights_path, kWeightsBytesMax));
  TRY_ASSIGN(const SafetensorsFile file,
             SafetensorsFile::parse(std::as_bytes(std::span(bytes)), weights_path));
  for (const TensorInfo& info : file.tensors()) {
    const std::optional<Part> part = part_of(info.name);
    if (!part)
      return fail(Code::kInvalidInput,
                  "{}: tensor {} is not supported; Ferry reads pairs of "
                  "base_model.model.MODULE.lora_A.weight and lora_B.weight",
                  weights_path,
                  printable(info.name));
    AdapterFactors& f = adapter.factors_[part->weight];
    Tensor& factor = part->factor == 'A' ? f.a : f.b;
    TRY_ASSIGN(factor, factor_of(file, info));
  }
  if (adapter.factors_.empty())
    return fail(Code::kInvalidInput, "{}: holds no tensor", weights_path);
  for (const auto& [weight, f] : adapter.factors_)
    TRY(check_pair(weights_path, weight, f, adapter.config_.rank));
  TRY(check_targets(config_path, adapter.config_, adapter.factors_));
  TRY_ASSIGN(const bool vouched, is_there(passport_path));
  if (!vouched) return adapter;
  TRY_ASSIGN(const std::string text, read_file(passport_path));
  TRY_ASSIGN(const Passport passport, Passport::parse(text, passport_path));
  adapter.base_root_ = passport.base;
  adapter.base_vocabulary_ = passport.base_vocabulary;
  return adapter;
}

Result<void> check_adaptable(const ModelSource& base,
                             const std::string& weight,
                             const std::string& who) {
  const std::optional<StoredTensor> stored = base.stored(weight);
  if (!stored)
    return fail(Code::kInvalidInput,
                "{}: adapts {}, which {} does not have: it is another model's",
                who,
                printable(weight),
                base.path());
  if (can_convert(stored->dtype, DType::kF32)) return {};
  return fail(Code::kInvalidInput,
              "{}: adapts {}, which {} stores as codes ({}); ferry convert {} --to bf16 --out DIR "
              "makes numbers of them",
              who,
              printable(weight),
              base.path(),
              to_string(stored->dtype),
              base.path());
}

Result<void> Adapter::check_fits(const ModelSource& base) const {
  for (const auto& [weight, f] : factors_) {
    TRY(check_adaptable(base, weight, path_));
    const Shape shape = {f.b.dim(0), f.a.dim(1)}, stored = base.stored(weight)->shape;
    if (stored != shape)
      return fail(Code::kInvalidInput,
                  "{}: adapts {} as {}, which is {} in {}: it is another model's",
                  path_,
                  printable(weight),
                  shape.str(),
                  stored.str(),
                  base.path());
  }
  if (!base_root_) return {};
  TRY_ASSIGN(const std::string root, base.weights_root({}));
  if (root == *base_root_) return {};
  return fail(
      Code::kInvalidInput,
      "{}: is an adapter of other weights than those of {}: its passport says {:.16}..., these "
      "are {:.16}...{}",
      path_,
      base.path(),
      *base_root_,
      root,
      config_.base.empty() ? "" : fmt::format("; it was made from {}", config_.base));
}

}  // namespace ferry
