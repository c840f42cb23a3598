// Fuzzer of the config.json readers: any bytes are refused with words, or give a configuration that
// obeys the rules between fields, survives being written and read again, and from which the model's
// shapes and its estimate can be made.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "models/config_fields.h"
#include "models/deepseek_v3/config.h"
#include "models/deepseek_v3/size.h"
#include "models/deepseek_v3/weights.h"
#include "models/llama/config.h"
#include "models/llama/size.h"
#include "models/llama/weights.h"

namespace {

using namespace ferry;
using namespace ferry::models;

constexpr double kMost = 64 * kParametersMax;

/// Shapes whose products overflow stop in Shape::count; so does an estimate that is no number.
template <class Config>
void build(const Config& config) {
  auto weights = make_weights(config, std::nullopt, **open_device("cpu"));
  double sum = 0;
  for_each_weight(weights, [&](Weight& w) { sum += static_cast<double>(w.global_shape.count()); });
  check(sum == parameters_total(config),
        "fuzz: {} parameters, said to be {}",
        sum,
        parameters_total(config));
  for (const Recompute recompute : {Recompute::kNone, Recompute::kCheap, Recompute::kLayers}) {
    const double bytes = activation_bytes_per_token(config, DType::kBF16, recompute);
    check(bytes > 0 && bytes < kMost, "fuzz: {} bytes a token", bytes);
  }
}

void check_flops(double flops, double context) {
  check(flops > 0 && flops < kMost * context, "fuzz: {} operations a token", flops);
}

template <class Config, class Parse>
bool survives(Parse&& parse, std::string_view bytes, Config* read) {
  const Result<Config> config = parse(bytes, "fuzz.json");
  if (!config) {
    check(!config.error().message.empty(), "fuzz: refused without a word");
    return false;
  }
  const Result<void> valid = validate(*config, "fuzz.json");
  check(valid.has_value(), "fuzz: parsed, but {}", valid ? "" : valid.error().message);
  const std::string text = to_json(*config, "bfloat16");
  const Result<Config> again = parse(text, "written.json");
  check(again.has_value(), "fuzz: refuses its own file: {}", again ? "" : again.error().message);
  check(to_json(*again, "bfloat16") == text,
        "fuzz: changed by writing and reading:\n{}\n{}",
        text,
        to_json(*again, "bfloat16"));
  build(*config);
  *read = *config;
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (deepseek_v3::Config c; survives(deepseek_v3::parse_config, bytes, &c))
    for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
      const auto context = static_cast<double>(c.max_position_embeddings);
      check_flops(deepseek_v3::flops_per_token(c, context, form, true), context);
    }
  if (llama::Config c; survives(llama::parse_config, bytes, &c)) {
    const auto context = static_cast<double>(c.max_position_embeddings);
    check_flops(llama::flops_per_token(c, context), context);
  }
  return 0;
}
