// Fuzzer of the GGUF reader: any bytes are refused, or every tensor can be decoded, and what the
// header says becomes a config and a tokenizer, and matrices numbers or codes, or a refusal.
#include <cstdint>

#include "base/check.h"
#include "checkpoint/gguf_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferry;
  Result<GgufFile> file = GgufFile::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
  if (!file) {
    check(!file.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  for (const auto& [name, t] : file->tensors()) {
    const auto bytes = file->bytes(t);
    check(bytes.size() <= size, "fuzz: {} bytes of {}", bytes.size(), size);
    std::vector<float> values(static_cast<size_t>(t.shape.count()));
    decode_blocks(t.type, bytes, values);
  }
  Result<GgufModel> model = GgufModel::of(*std::move(file));
  if (!model) return 0;
  check(!model->config_json().empty(), "fuzz: no config");
  for (const char* text : {"tokenizer.json", "tokenizer_config.json"})
    (void)model->optional_text(text);
  Device& cpu = **open_device("cpu");
  for (const std::string& name : model->names()) {
    (void)model->load(name, cpu, DType::kBF16);
    const std::optional<WeightCodes> codes = model->codes(name);
    if (!codes) continue;
    PanelsInMaking panels(*codes, model->stored(name)->shape);
    (void)model->take_codes(name, panels, 0);
  }
  return 0;
}
