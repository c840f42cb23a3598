// Small GGUF files of random weights, of every type of element, made here byte by byte: what the
// tests of models in GGUF files load.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/gguf_blocks.h"
#include "tensor/tensor.h"

namespace ferry {

/// Builds the bytes of a file.
class GgufBuilder {
 public:
  GgufBuilder& number(const std::string& key, uint32_t v);
  GgufBuilder& real(const std::string& key, float v);
  GgufBuilder& truth(const std::string& key, bool v);
  GgufBuilder& text(const std::string& key, const std::string& v);
  /// `shape` outermost first. `bytes` are its blocks.
  GgufBuilder& tensor(const std::string& name,
                      const Shape& shape,
                      GgufType type,
                      std::string bytes);
  /// Random blocks of numbers of about this deviation; another for each name.
  GgufBuilder& drawn(const std::string& name, const Shape& shape, GgufType type, double deviation);
  std::string bytes() const;

 private:
  GgufBuilder& key(const std::string& name, uint32_t type);

  std::string values_, table_, data_;
  uint64_t value_count_ = 0, tensor_count_ = 0;
};

/// Random blocks of numbers of about this deviation.
std::string random_blocks(GgufType type, int64_t elements, double deviation, uint64_t seed);

/// A llama of two blocks with all matrices of the type; `tied`: no head of its own.
GgufBuilder small_llama_gguf(GgufType type, bool tied, int64_t vocab = 96);

/// A deepseek2 of two blocks, dense and with experts, with all matrices of the type but the router's.
struct SmallDeepSeek {
  GgufType type = GgufType::kF32;
  bool v3 = true;         // a sigmoid gate with a bias and groups, queries of low rank
  bool split = true;      // keys and values of the latent in two tensors
  bool stretched = true;  // RoPE, by YaRN
  /// One more block, which predicts further tokens, is announced; whether it is there.
  enum class Prediction { kNone, kAnnounced, kStored } prediction = Prediction::kNone;
};
GgufBuilder small_deepseek_gguf(const SmallDeepSeek& of);

}  // namespace ferry
