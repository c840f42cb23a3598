// Where a model is read from: a directory in the Hugging Face layout, or one GGUF file. What makes,
// fills and asks a model knows no more than this.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/hash_tree.h"
#include "tensor/quantise.h"
#include "tensor/tensor.h"

namespace ferry {

constexpr const char* kConfigName = "config.json";

/// "a.*.b" and 3 give "a.3.b": where one expert of a stack is stored. check: exactly one '*'.
std::string expert_name(std::string_view name_with_star, int64_t expert);

/// A tensor as it is stored. Blocks that have to be decoded count as f32.
struct StoredTensor {
  Shape shape;
  DType dtype = DType::kF32;
};

/// Thread rule: one thread at a time.
class ModelSource {
 public:
  virtual ~ModelSource() = default;

  virtual const std::string& path() const = 0;
  /// How messages name one of its text files: "DIR/config.json".
  virtual std::string path_of(const std::string& file_name) const = 0;

  virtual const std::string& config_json() const = 0;
  virtual std::vector<std::string> names() const = 0;                           // sorted
  virtual std::optional<StoredTensor> stored(std::string_view name) const = 0;  // nothing: none

  /// A copy on the device as `want`; f32, bf16 and f16 convert to each other
  /// (checkpoint/convert.h). Errors: kNotFound; kCorrupt (a hash, a value that is no number);
  /// kInvalidInput (a type that does not convert: FP8 codes are loaded as they are,
  /// checkpoint/weights.h knows their scales). Throws DeviceError when out of memory.
  virtual Result<Tensor> load(std::string_view name, Device& device, DType want) = 0;
  /// Rows [first, first + rows) of a matrix, as load() has them whole: what is rounded or copied
  /// piece by piece is never in memory as numbers. Errors: as load. check: there are such rows.
  virtual Result<Tensor> load_rows(
      std::string_view name, int64_t first, int64_t rows, Device& device, DType want) = 0;
  /// The codes that a matrix is stored as, of those that are kept in memory as they are; nothing: it
  /// is read as numbers. (What quantised directories hold is known by types: checkpoint/weights.h.)
  virtual std::optional<WeightCodes> codes(std::string_view name) const = 0;
  /// Puts these codes and their scales into panels of that kind. Errors: kCorrupt: a scale that is
  /// not finite.
  virtual Result<void> take_codes(std::string_view name,
                                  PanelsInMaking& panels,
                                  int64_t matrix) = 0;
  /// The tensors of `experts` experts as one: "a.*.weight" gives [experts, N, K] from a.0.weight
  /// [N, K], a.1.weight ... Errors: as load; kInvalidInput if shapes differ, or if there are more
  /// experts.
  virtual Result<Tensor> load_stacked(std::string_view name_with_star,
                                      int64_t experts,
                                      Device& device,
                                      DType want) = 0;

  /// A text file, such as tokenizer.json, or nothing if there is none. Errors: kCorrupt.
  virtual Result<std::optional<std::string>> optional_text(const std::string& file_name) = 0;
  /// The names of the text files in one of its folders; none where it has no such folder.
  virtual Result<std::vector<std::string>> texts_in(const std::string& folder) const = 0;
  /// What was decided against what it says, or is left out of it, each a sentence about it: for the notes of its texts
  /// (checkpoint/model_texts.h). Errors: kInvalidInput.
  virtual Result<std::vector<std::string>> reading_notes() const = 0;
  /// Whether hashes say that its files are what was written: then none may be left out.
  virtual bool vouched_for() const = 0;
  /// A hash of the files that hold its weights, 64 hex digits: by which an adapter knows its base. With a
  /// passport what that says of them, which reading them holds them to; else they are read. Errors: of hash_chunks.
  virtual Result<std::string> weights_root(const HashedBytes& hashed) const = 0;
};

/// weights_root() of files with these roots (checkpoint/hash_tree.h), by name.
std::string root_of_weights(const std::map<std::string, Digest>& files);

/// A directory, or a file that begins as GGUF files do. Errors: of ModelDir::open and
/// GgufModel::open.
Result<std::unique_ptr<ModelSource>> open_model_source(const std::string& path);

}  // namespace ferry
