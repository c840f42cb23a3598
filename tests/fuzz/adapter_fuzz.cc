// Fuzzer of adapters: any bytes as adapter_config.json beside a pair of factors, and any bytes as the factors' file,
// are refused with words, or are an adapter whose factors are finite and of its rank.
#include <cmath>
#include <cstdint>

#include "checkpoint/adapter.h"
#include "checkpoint/safetensors.h"
#include "fuzz_folder.h"

namespace {

using namespace ferry;

constexpr const char* kWeight = "m.q_proj.weight";
constexpr const char* kConfig =
    R"({"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]})";

void try_adapter(const std::string& path) {
  const Result<Adapter> adapter = Adapter::open(path);
  if (!adapter) {
    check(!adapter.error().message.empty(), "fuzz: refused without a word");
    return;
  }
  check(std::isfinite(adapter->config().scale()), "fuzz: scale {}", adapter->config().scale());
  check(!adapter->factors().empty(), "fuzz: an adapter of nothing");
  for (const auto& [weight, f] : adapter->factors()) {
    check(f.a.dim(0) == adapter->config().rank && f.b.dim(1) == adapter->config().rank,
          "fuzz: {} {}",
          f.a.shape().str(),
          f.b.shape().str());
    for (const Tensor& t : {f.a, f.b})
      for (const float v : t.to_f32()) check(std::isfinite(v), "fuzz: {} holds {}", weight, v);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const FuzzFolder folder;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  folder.write(kAdapterConfigName, kConfig);
  folder.write(kAdapterWeightsName, bytes);
  try_adapter(folder.path());

  const std::vector<NamedTensor> pair = {
      {.name = adapter_tensor_name(kWeight, 'A'),
       .value = Tensor::zeros({1, 2}, DType::kF32, **open_device("cpu"))},
      {.name = adapter_tensor_name(kWeight, 'B'),
       .value = Tensor::zeros({2, 1}, DType::kF32, **open_device("cpu"))}};
  check(write_safetensors(folder / kAdapterWeightsName, pair).has_value(), "fuzz: no factors");
  folder.write(kAdapterConfigName, bytes);
  try_adapter(folder.path());
  return 0;
}
