// Fuzzer of the safetensors reader: any bytes are refused, or every tensor can be read whole.
#include <cstdint>

#include "base/check.h"
#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry;
  const Result<SafetensorsFile> file =
      SafetensorsFile::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
  if (!file) {
    check(!file.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  Device& cpu = **open_device("cpu");
  uint64_t covered = 0;
  for (const TensorInfo& info : file->tensors()) {
    covered += file->bytes(info).size();
    const Result<Tensor> tensor = file->load(info.name, cpu);
    check(tensor.has_value() && tensor->bytes() == file->bytes(info).size(),
          "fuzz: {} does not load",
          info.name);
    check(file->find(info.name) == &info, "fuzz: {} is not found", info.name);
  }
  check(covered <= size, "fuzz: {} bytes of tensors in {}", covered, size);
  return 0;
}
