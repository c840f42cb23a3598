// Fuzzer of the config.json reader: any bytes are refused with words, or give a configuration that
// obeys the rules between fields, survives being written and read again, and from which the model's
// shapes and its estimate can be made.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "models/deepseek_v3/config.h"
#include "models/deepseek_v3/size.h"
#include "models/deepseek_v3/weights.h"

namespace {

using namespace ferry;
using namespace ferry::models;

/// Shapes whose products overflow stop in Shape::count; so does an estimate that is no number.
void build(const deepseek_v3::Config& config) {
  Device& cpu = **open_device("cpu");
  deepseek_v3::ModelWeights weights = deepseek_v3::make_weights(config, std::nullopt, cpu);
  double sum = 0;
  deepseek_v3::for_each_weight(
      weights, [&](Weight& w) { sum += static_cast<double>(w.global_shape.count()); });
  check(sum == deepseek_v3::parameters_total(config),
        "fuzz: {} parameters, said to be {}",
        sum,
        deepseek_v3::parameters_total(config));
  const double most = 64 * models::kParametersMax;
  for (const Recompute recompute : {Recompute::kNone, Recompute::kCheap, Recompute::kLayers}) {
    const double bytes = deepseek_v3::activation_bytes_per_token(config, DType::kBF16, recompute);
    check(bytes > 0 && bytes < most, "fuzz: {} bytes a token", bytes);
  }
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    const auto context = static_cast<double>(config.max_position_embeddings);
    const double flops = deepseek_v3::flops_per_token(config, context, form, true);
    check(flops > 0 && flops < most * context, "fuzz: {} operations a token", flops);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry::models::deepseek_v3;
  const Result<Config> config =
      parse_config({reinterpret_cast<const char*>(data), size}, "fuzz.json");
  if (!config) {
    check(!config.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  const Result<void> valid = validate(*config, "fuzz.json");
  check(valid.has_value(), "fuzz: parsed, but {}", valid ? "" : valid.error().message);
  const std::string text = to_json(*config, "bfloat16");
  const Result<Config> again = parse_config(text, "written.json");
  check(again.has_value(), "fuzz: refuses its own file: {}", again ? "" : again.error().message);
  check(to_json(*again, "bfloat16") == text,
        "fuzz: changed by writing and reading:\n{}\n{}",
        text,
        to_json(*again, "bfloat16"));
  build(*config);
  return 0;
}
