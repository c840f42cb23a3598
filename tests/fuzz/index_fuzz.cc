// Fuzzer of a model directory's index of shards: beside one good shard any bytes are refused with
// words, or place exactly that shard's tensors.
#include <cstdint>

#include "checkpoint/model_dir.h"
#include "checkpoint/safetensors.h"
#include "fuzz_folder.h"

namespace {

/// A folder with config.json and one shard that holds "a" and "b".
const ferry::FuzzFolder& folder() {
  using namespace ferry;
  static const FuzzFolder made;
  static const bool filled = [] {
    made.write("config.json", "{}");
    Result<SafetensorsWriter> writer =
        SafetensorsWriter::create(made / "model-00001-of-00001.safetensors",
                                  {{"a", DType::kF32, {2}}, {"b", DType::kF32, {1, 2}}},
                                  {});
    check(writer.has_value(), "fuzz: no shard");
    const std::byte zeros[8] = {};
    for (const char* name : {"a", "b"}) check(writer->write(name, zeros).has_value(), "fuzz");
    check(writer->finish().has_value(), "fuzz: no shard");
    return true;
  }();
  check(filled, "fuzz");
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry;
  folder().write("model.safetensors.index.json", {reinterpret_cast<const char*>(data), size});
  Result<ModelDir> dir = ModelDir::open(folder().path());
  if (!dir) {
    check(!dir.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  Device& cpu = **open_device("cpu");
  for (const char* name : {"a", "b"})
    check(dir->load(name, cpu, DType::kF32).has_value(),
          "fuzz: {} is placed and does not load",
          name);
  return 0;
}
