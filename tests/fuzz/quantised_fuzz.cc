// Fuzzer of quantised directories: any numbers as codes, scales and offsets, with any bytes as the
// description of them, are refused with words, or are weights that products can take.
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "checkpoint/model_dir.h"
#include "checkpoint/quant_description.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weights.h"
#include "fuzz_folder.h"

namespace {

using namespace ferry;

struct Part {
  const char* name;
  DType dtype;
  Shape shape;
};

/// int8 and int4, of columns that no group divides.
const std::array<Part, 5>& parts() {
  static const std::array<Part, 5> all = {
      Part{"a.weight", DType::kI8, {2, 5}},
      Part{"a.weight_scale", DType::kF32, {2, 1}},
      Part{"a.weight_offset", DType::kF32, {2, 1}},
      Part{"b.weight", DType::kU8, {2, 17}},
      Part{"b.weight_scale", DType::kBF16, {2, 2}},
  };
  return all;
}

/// A shard of bytes from the input, as far as it reaches; the rest are zeros. Returns how many.
size_t write_shard(const FuzzFolder& folder, const uint8_t* data, size_t size) {
  std::vector<TensorDecl> declared;
  for (const Part& p : parts()) declared.push_back({p.name, p.dtype, p.shape});
  Result<SafetensorsWriter> writer =
      SafetensorsWriter::create(folder / "quant_model_weights.safetensors", declared, {});
  check(writer.has_value(), "fuzz: no shard");
  size_t used = 0;
  for (const TensorInfo& t : writer->layout()) {
    std::vector<std::byte> bytes(t.end - t.begin);
    const size_t some = std::min(bytes.size(), size - used);
    if (some > 0) std::memcpy(bytes.data(), data + used, some);
    used += some;
    check(writer->write(t.name, bytes).has_value(), "fuzz");
  }
  check(writer->finish().has_value(), "fuzz: no shard");
  return used;
}

void try_weight(ModelDir& dir, const char* name, const Shape& shape) {
  Weight w{.name = name, .role = WeightRole::kProjection, .global_shape = shape};
  const Result<void> loaded = load_weight(dir, **open_device("cpu"), w);
  if (!loaded) {
    check(!loaded.error().message.empty(), "fuzz: refused without a word");
    return;
  }
  w.check_stored();
  check(w.codes().has_value(), "fuzz: {} is no codes", name);
  for (const float scale : w.scales.to_f32())
    check(scale > 0 && std::isfinite(scale), "fuzz: {} has a scale {}", name, scale);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const FuzzFolder folder;
  folder.write("config.json", "{}");
  const size_t used = write_shard(folder, data, size);
  folder.write(kQuantDescriptionName, {reinterpret_cast<const char*>(data) + used, size - used});
  Result<ModelDir> dir = ModelDir::open(folder.path());
  if (!dir) {
    check(!dir.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  try_weight(*dir, "a.weight", {2, 5});
  try_weight(*dir, "b.weight", {2, 33});
  return 0;
}
