// See small_gguf.h.
#include "small_gguf.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/random.h"
#include "tensor/bf16.h"
#include "tensor/f16.h"

namespace ferry {
namespace {

constexpr uint32_t kNumber = 4, kReal = 6, kTruth = 7, kText = 8;  // types of values
constexpr size_t kAlignment = 32;

template <class T>
void put(std::string& to, T v) {
  to.append(reinterpret_cast<const char*>(&v), sizeof v);
}

void put_text(std::string& to, const std::string& s) {
  put(to, uint64_t{s.size()});
  to += s;
}

/// As files number them.
uint32_t number_of(GgufType type) {
  for (uint32_t n = 0; n < 64; ++n)
    if (gguf_type(n) == type) return n;
  throw_bug("gguf: a type without a number");
}

void put_half(std::string& block, size_t at, double v) {
  const uint16_t half = f32_to_f16(static_cast<float>(v));
  std::memcpy(block.data() + at, &half, sizeof half);
}

/// Gives a block of random bytes scales with which its numbers have this deviation.
void set_scales(GgufType type, std::string& block, double deviation) {
  // Deviations of codes that are uniformly random, and of six bits or eight of a scale.
  constexpr double kOf16 = 4.61, kOf32 = 9.23, kOf64 = 18.5, kOf256 = 73.9, kMean64 = 31.5;
  switch (type) {
    case GgufType::kQ4_0: return put_half(block, 0, deviation / kOf16);
    case GgufType::kQ5_0: return put_half(block, 0, deviation / kOf32);
    case GgufType::kQ8_0: return put_half(block, 0, deviation / kOf256);
    case GgufType::kQ4_1:
      put_half(block, 0, deviation / kOf16);
      return put_half(block, 2, -7.5 * deviation / kOf16);
    case GgufType::kQ5_1:
      put_half(block, 0, deviation / kOf32);
      return put_half(block, 2, -15.5 * deviation / kOf32);
    case GgufType::kQ4_K:
      put_half(block, 0, deviation / kOf16 / kMean64);
      return put_half(block, 2, 7.5 * deviation / kOf16 / kMean64);
    case GgufType::kQ5_K:
      put_half(block, 0, deviation / kOf32 / kMean64);
      return put_half(block, 2, 15.5 * deviation / kOf32 / kMean64);
    case GgufType::kQ6_K: return put_half(block, 208, deviation / kOf64 / kOf256);
    default: throw_bug("gguf: a type without blocks");
  }
}

}  // namespace

std::string random_blocks(GgufType type, int64_t elements, double deviation, uint64_t seed) {
  const Random random(seed, RandomPurpose::kTest, 31);
  const GgufBlock block = block_of(type);
  std::string out;
  if (block.elements == 1) {
    for (int64_t i = 0; i < elements; ++i) {
      const auto v = static_cast<float>(deviation * random.normal(static_cast<uint64_t>(i)));
      if (type == GgufType::kF32)
        put(out, v);
      else
        put(out, type == GgufType::kBF16 ? f32_to_bf16(v) : f32_to_f16(v));
    }
    return out;
  }
  uint64_t draw = 0;
  std::string one(static_cast<size_t>(block.bytes), '\0');
  for (int64_t i = 0; i < elements; i += block.elements) {
    for (char& c : one) c = static_cast<char>(random.bits(draw++));
    set_scales(type, one, deviation);
    out += one;
  }
  return out;
}

GgufBuilder& GgufBuilder::key(const std::string& name, uint32_t type) {
  ++value_count_;
  put_text(values_, name);
  put(values_, type);
  return *this;
}
GgufBuilder& GgufBuilder::number(const std::string& name, uint32_t v) {
  key(name, kNumber);
  put(values_, v);
  return *this;
}
GgufBuilder& GgufBuilder::real(const std::string& name, float v) {
  key(name, kReal);
  put(values_, v);
  return *this;
}
GgufBuilder& GgufBuilder::truth(const std::string& name, bool v) {
  key(name, kTruth);
  put(values_, static_cast<char>(v));
  return *this;
}
GgufBuilder& GgufBuilder::text(const std::string& name, const std::string& v) {
  key(name, kText);
  put_text(values_, v);
  return *this;
}

GgufBuilder& GgufBuilder::tensor(const std::string& name,
                                 const Shape& shape,
                                 GgufType type,
                                 std::string bytes) {
  ++tensor_count_;
  put_text(table_, name);
  put(table_, static_cast<uint32_t>(shape.rank()));
  for (int d = shape.rank() - 1; d >= 0; --d) put(table_, static_cast<uint64_t>(shape[d]));
  put(table_, number_of(type));
  put(table_, uint64_t{data_.size()});
  data_ += bytes;
  data_.resize((data_.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
  return *this;
}

GgufBuilder& GgufBuilder::drawn(const std::string& name,
                                const Shape& shape,
                                GgufType type,
                                double deviation) {
  uint64_t seed = 0;
  for (const char c : name) seed = seed * 131 + static_cast<unsigned char>(c);
  return tensor(name, shape, type, random_blocks(type, shape.count(), deviation, seed));
}

std::string GgufBuilder::bytes() const {
  std::string out = "GGUF";
  put(out, uint32_t{3});
  put(out, tensor_count_);
  put(out, value_count_);
  out += values_ + table_;
  out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
  return out + data_;
}

namespace {

constexpr int64_t kHidden = 256, kInner = 512;

/// A vector of numbers about 1.
void add_norm(GgufBuilder& b, const std::string& name, int64_t size) {
  std::string ones;
  for (int64_t i = 0; i < size; ++i) put(ones, 1.0f + 0.01f * static_cast<float>(i % 7 - 3));
  b.tensor(name, {size}, GgufType::kF32, std::move(ones));
}

void add_matrix(
    GgufBuilder& b, const std::string& name, int64_t rows, int64_t columns, GgufType type) {
  b.drawn(name, {rows, columns}, type, 1 / std::sqrt(static_cast<double>(columns)));
}

void add_mlp(
    GgufBuilder& b, const std::string& at, const char* kind, int64_t inner, GgufType type) {
  add_matrix(b, at + "ffn_gate" + kind + ".weight", inner, kHidden, type);
  add_matrix(b, at + "ffn_up" + kind + ".weight", inner, kHidden, type);
  add_matrix(b, at + "ffn_down" + kind + ".weight", kHidden, inner, type);
}

GgufBuilder begin_model(
    const std::string& arch, GgufType type, bool tied, int64_t vocab, uint32_t blocks = 2) {
  GgufBuilder b;
  b.text("general.architecture", arch)
      .number(arch + ".block_count", blocks)
      .number(arch + ".embedding_length", kHidden)
      .number(arch + ".feed_forward_length", kInner)
      .number(arch + ".context_length", 512)
      .real(arch + ".attention.layer_norm_rms_epsilon", 1e-5f)
      .number("tokenizer.ggml.eos_token_id", 5);
  b.drawn("token_embd.weight", {vocab, kHidden}, type, tied ? 1.0 / 16 : 1);
  if (!tied) add_matrix(b, "output.weight", vocab, kHidden, type);
  add_norm(b, "output_norm.weight", kHidden);
  return b;
}

}  // namespace

GgufBuilder small_llama_gguf(GgufType type, bool tied, int64_t vocab) {
  GgufBuilder b = begin_model("llama", type, tied, vocab);
  b.number("llama.attention.head_count", 4).number("llama.attention.head_count_kv", 2);
  for (const char* at : {"blk.0.", "blk.1."}) {
    const std::string block = at;
    add_norm(b, block + "attn_norm.weight", kHidden);
    add_matrix(b, block + "attn_q.weight", kHidden, kHidden, type);
    add_matrix(b, block + "attn_k.weight", kHidden / 2, kHidden, type);
    add_matrix(b, block + "attn_v.weight", kHidden / 2, kHidden, type);
    add_matrix(b, block + "attn_output.weight", kHidden, kHidden, type);
    add_norm(b, block + "ffn_norm.weight", kHidden);
    add_mlp(b, block, "", kInner, type);
  }
  return b;
}

GgufBuilder small_deepseek_gguf(const SmallDeepSeek& of) {
  constexpr int64_t kHeads = 4, kLatent = 256, kTurned = 32, kKeys = 64, kValues = 64;
  constexpr int64_t kExperts = 8, kExpertInner = 256, kQueries = 256;
  const std::string arch = "deepseek2";
  const GgufType type = of.type;
  // Rows of keys that are turned over have few columns: no block of 256 is one.
  const GgufType narrow = block_of(type).elements > kKeys ? GgufType::kQ8_0 : type;
  using Prediction = SmallDeepSeek::Prediction;
  const bool predicts = of.prediction != Prediction::kNone;
  GgufBuilder b = begin_model(arch, type, false, 96, predicts ? 3 : 2);
  const auto number = [&](const char* key, int64_t v) {
    b.number(arch + "." + key, static_cast<uint32_t>(v));
  };
  number("attention.head_count", kHeads);
  number("attention.kv_lora_rank", kLatent);
  number("rope.dimension_count", kTurned);
  if (of.split) {
    number("attention.head_count_kv", 1);
    number("attention.key_length", kLatent + kTurned);
    number("attention.value_length", kLatent);
    number("attention.key_length_mla", kKeys + kTurned);
    number("attention.value_length_mla", kValues);
  } else {
    number("attention.head_count_kv", kHeads);
    number("attention.key_length", kKeys + kTurned);
    number("attention.value_length", kValues);
  }
  number("leading_dense_block_count", 1);
  number("expert_count", kExperts);
  number("expert_used_count", 3);
  number("expert_shared_count", 1);
  number("expert_feed_forward_length", kExpertInner);
  b.real(arch + ".expert_weights_scale", of.v3 ? 2.5f : 1.0f);
  b.truth(arch + ".expert_weights_norm", of.v3);
  number("expert_gating_func", of.v3 ? 2 : 1);
  if (of.v3) {
    number("expert_group_count", 4);
    number("expert_group_used_count", 2);
    number("attention.q_lora_rank", kQueries);
  }
  if (of.stretched) {
    b.text(arch + ".rope.scaling.type", "yarn");
    b.real(arch + ".rope.scaling.factor", 8.0f);
    number("rope.scaling.original_context_length", 64);
    b.real(arch + ".rope.scaling.yarn_log_multiplier", 0.0707f);
  }
  if (predicts) number("nextn_predict_layers", 1);
  std::vector<std::string> blocks = {"blk.0.", "blk.1."};
  if (of.prediction == Prediction::kStored) blocks.emplace_back("blk.2.");
  for (const std::string& block : blocks) {
    add_norm(b, block + "attn_norm.weight", kHidden);
    if (of.v3) {
      add_matrix(b, block + "attn_q_a.weight", kQueries, kHidden, type);
      add_norm(b, block + "attn_q_a_norm.weight", kQueries);
      add_matrix(b, block + "attn_q_b.weight", kHeads * (kKeys + kTurned), kQueries, type);
    } else {
      add_matrix(b, block + "attn_q.weight", kHeads * (kKeys + kTurned), kHidden, type);
    }
    add_matrix(b, block + "attn_kv_a_mqa.weight", kLatent + kTurned, kHidden, type);
    add_norm(b, block + "attn_kv_a_norm.weight", kLatent);
    if (of.split) {
      b.drawn(block + "attn_k_b.weight", {kHeads, kLatent, kKeys}, narrow, 1.0 / 16);
      b.drawn(block + "attn_v_b.weight", {kHeads, kValues, kLatent}, type, 1.0 / 16);
    } else {
      add_matrix(b, block + "attn_kv_b.weight", kHeads * (kKeys + kValues), kLatent, type);
    }
    add_matrix(b, block + "attn_output.weight", kHidden, kHeads * kValues, type);
    add_norm(b, block + "ffn_norm.weight", kHidden);
    if (block == "blk.0.") {
      add_mlp(b, block, "", kInner, type);
      continue;
    }
    add_matrix(b, block + "ffn_gate_inp.weight", kExperts, kHidden, GgufType::kF32);
    if (of.v3) b.drawn(block + "exp_probs_b.bias", {kExperts}, GgufType::kF32, 0.1);
    b.drawn(block + "ffn_gate_exps.weight", {kExperts, kExpertInner, kHidden}, type, 1.0 / 16);
    b.drawn(block + "ffn_up_exps.weight", {kExperts, kExpertInner, kHidden}, type, 1.0 / 16);
    b.drawn(block + "ffn_down_exps.weight", {kExperts, kHidden, kExpertInner}, type, 1.0 / 16);
    add_mlp(b, block, "_shexp", kExpertInner, type);
  }
  if (of.prediction ==
      Prediction::kStored) {  // what such a block has more, as llama.cpp's converter names it
    add_matrix(b, "blk.2.nextn.eh_proj.weight", kHidden, 2 * kHidden, type);
    for (const char* norm : {"enorm", "hnorm", "shared_head_norm"})
      add_norm(b, fmt::format("blk.2.nextn.{}.weight", norm), kHidden);
    add_matrix(b, "blk.2.nextn.embed_tokens.weight", 96, kHidden, type);
    add_matrix(b, "blk.2.nextn.shared_head_head.weight", 96, kHidden, type);
  }
  return b;
}

}  // namespace ferry
