// A LoRA adapter in PEFT's layout: a folder with adapter_config.json and adapter_model.safetensors; Ferry's have
// a passport as well, which says whose weights they belong to.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/adapter_config.h"
#include "checkpoint/model_source.h"
#include "checkpoint/passport.h"
#include "tensor/tensor.h"

namespace ferry {

constexpr const char* kAdapterStem = "adapter_model";
constexpr const char* kAdapterWeightsName = "adapter_model.safetensors";

/// How an adapter knows the base again that it was trained on.
struct BaseIdentity {
  std::string root;                                   // ModelSource::weights_root()
  std::optional<text::VocabularyId> vocabulary = {};  // of its tokenizer.json; nothing: it had none
};

/// The two matrices whose product is added to a weight [out, in]: f32, on the CPU.
struct AdapterFactors {
  Tensor a;  // [rank, in]
  Tensor b;  // [out, rank]
};

/// What PEFT calls the factors of "model.layers.0.self_attn.q_proj.weight":
/// "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", and lora_B. check: it ends with ".weight".
std::string adapter_tensor_name(std::string_view weight, char factor);
/// Of "model.layers.0.self_attn.q_proj.weight": "q_proj".
std::string_view module_of(std::string_view weight);

/// Whether a weight of the base can have an adapter: it is stored, as numbers. `who`: for messages, what wants
/// to adapt it. Errors: kInvalidInput, naming the tensor.
Result<void> check_adaptable(const ModelSource& base,
                             const std::string& weight,
                             const std::string& who);

/// Thread rule: plain data.
class Adapter {
 public:
  /// Reads all of it; what its passport lists must have the hashes that it says. Errors: kNotFound (no adapter);
  /// kInvalidInput, kCorrupt, naming file, field or tensor: half a pair, a shape that is not of the rank,
  /// a number that is none, what is no projection's.
  static Result<Adapter> open(const std::string& path);

  const std::string& path() const { return path_; }
  const AdapterConfig& config() const { return config_; }
  /// By the names of the weights that they are added to.
  const std::map<std::string, AdapterFactors, std::less<>>& factors() const { return factors_; }
  const AdapterFactors* find(std::string_view weight) const;  // nullptr: not adapted
  /// weights_root() of its base; nothing: it does not say.
  const std::optional<std::string>& base_root() const { return base_root_; }
  /// Of its base's tokenizer; nothing: it does not say.
  const std::optional<text::VocabularyId>& base_vocabulary() const { return base_vocabulary_; }

  /// Whether it is this model's: the weights that it is of, and a matrix of numbers in the shape of each pair.
  /// Reads no tensor. Errors: kInvalidInput, naming the tensor or the hashes.
  Result<void> check_fits(const ModelSource& base) const;

 private:
  std::string path_;
  AdapterConfig config_;
  std::map<std::string, AdapterFactors, std::less<>> factors_;
  std::optional<std::string> base_root_;
  std::optional<text::VocabularyId> base_vocabulary_;
};

}  // namespace ferry
