// Fuzzer of a checkpoint's list of the tensors that training goes on from: beside one good part any
// bytes are refused with words, or name tensors that load.
#include <cstdint>
#include <string>

#include "base/hash.h"
#include "checkpoint/training_state.h"
#include "fuzz_folder.h"

namespace {

using namespace ferry;

/// A folder with state/state.json and one part that holds "a", and "b" in two pieces.
const FuzzFolder& folder() {
  static const FuzzFolder made;
  static const bool filled = [] {
    check(make_folders(made / kStateFolder).has_value(), "fuzz: no folder");
    made.write(kStateDocument, R"({"step": 1})");
    Result<SafetensorsWriter> writer =
        SafetensorsWriter::create(made / "state/part-00000.safetensors",
                                  {{"a[0:2]", DType::kF32, {2}},
                                   {"b[0:2]", DType::kF32, {2, 3}},
                                   {"b[2:3]", DType::kF32, {1, 3}}},
                                  {});
    check(writer.has_value(), "fuzz: no part");
    const std::byte zeros[24] = {};
    for (const auto& [name, bytes] : {std::pair{"a[0:2]", 8}, {"b[0:2]", 24}, {"b[2:3]", 12}})
      check(writer->write(name, std::span(zeros).first(static_cast<size_t>(bytes))).has_value(),
            "fuzz: no part");
    check(writer->finish().has_value(), "fuzz: no part");
    return true;
  }();
  check(filled, "fuzz");
  return made;
}

FileDigest digest_of(const std::string& name) {
  const std::string content = *read_file(folder() / name);
  return {content.size(), blake2b_hex(content.data(), content.size())};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  folder().write("state/tensors.json", {reinterpret_cast<const char*>(data), size});
  std::map<std::string, FileDigest> files;
  for (const char* name :
       {"state/state.json", "state/tensors.json", "state/part-00000.safetensors"})
    files[name] = digest_of(name);
  folder().write(kChecksumsName, Checksums::to_json(files));
  Result<TrainingStateReader> state = TrainingStateReader::open(folder().path());
  if (!state) {
    check(!state.error().message.empty(), "fuzz: refused without a word");
    return 0;
  }
  Device& cpu = **open_device("cpu");
  for (const std::string& name : state->names()) {
    const StateTensor* info = state->info(name);
    check(info != nullptr, "fuzz: {} is named and unknown", name);
    const Result<Tensor> tensor = state->load(name, cpu);
    check(tensor.has_value(), "fuzz: {}", tensor ? "" : tensor.error().message);
    check(tensor->shape() == info->shape, "fuzz: {} has another shape", name);
  }
  return 0;
}
