#include "checkpoint/gguf_keys.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/json.h"

namespace ferry {
namespace {

/// Those that checkpoint/gguf_model.cc reads, and checks.
constexpr std::string_view kRead[] = {"attention.head_count",
                                      "attention.head_count_kv",
                                      "attention.key_length",
                                      "attention.layer_norm_rms_epsilon",
                                      "attention.value_length",
                                      "block_count",
                                      "context_length",
                                      "embedding_length",
                                      "expert_count",
                                      "feed_forward_length",
                                      "rope.dimension_count",
                                      "rope.freq_base",
                                      "rope.scaling.factor",
                                      "rope.scaling.original_context_length",
                                      "rope.scaling.type"};

/// The same of llama and qwen2 alone.
constexpr std::string_view kReadOfLlama[] = {"rope.scale_linear"};

/// The same of deepseek2 alone.
constexpr std::string_view kReadOfDeepSeek[] = {"attention.key_length_mla",
                                                "attention.kv_lora_rank",
                                                "attention.q_lora_rank",
                                                "attention.value_length_mla",
                                                "expert_feed_forward_length",
                                                "expert_gating_func",
                                                "expert_group_count",
                                                "expert_group_used_count",
                                                "expert_shared_count",
                                                "expert_used_count",
                                                "expert_weights_norm",
                                                "expert_weights_scale",
                                                "leading_dense_block_count",
                                                "nextn_predict_layers",
                                                "rope.scaling.yarn_log_multiplier"};

/// Those that say nothing: of LayerNorm, which these architectures have not; of llama's and qwen2's
/// experts, of which there are none (expert_count); of YaRN what llama.cpp does not read of these
/// architectures (checkpoint/gguf_model.cc tells where it is not what is computed with); of the order
/// of the rows of queries and keys, which converters name as they all write it; of what an embedding
/// is made from the last layer; of the shape, which the tensors have.
constexpr std::string_view kSaysNothing[] = {"attention.layer_norm_epsilon",
                                             "expert_used_count",
                                             "pooling_type",
                                             "rope.scaling.finetuned",
                                             "rope.scaling.yarn_attn_factor",
                                             "rope.scaling.yarn_beta_fast",
                                             "rope.scaling.yarn_beta_slow",
                                             "rope.scaling.yarn_ext_factor",
                                             "tensor_data_layout",
                                             "vocab_size"};

/// Those that say nothing while they have one of these values. Of a factor, llama.cpp takes 0 for
/// "none given"; but it multiplies RoPE's cosines and sines by rope.scaling.attn_factor, whatever it is.
struct Neutral {
  std::string_view key;
  double first, second;
};
constexpr Neutral kNeutral[] = {{"attention.causal", 1, 1},
                                {"attention.clamp_kqv", 0, 0},
                                {"attention.max_alibi_bias", 0, 0},
                                {"attention.scale", 0, 0},
                                {"attention.sliding_window", 0, 0},
                                {"attn_logit_softcapping", 0, 0},
                                {"embedding_scale", 0, 1},
                                {"expert_shared_count", 0, 0},
                                {"final_logit_softcapping", 0, 0},
                                {"logit_scale", 0, 1},
                                {"nextn_predict_layers", 0, 0},
                                {"residual_scale", 0, 1},
                                {"rope.scale_linear", 0, 1},
                                {"rope.scaling.attn_factor", 1, 1},
                                {"rope.scaling.yarn_log_multiplier", 0, 0}};

std::optional<double> number_of(const GgufValue& value) {
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<double>(*i);
  if (const auto* d = std::get_if<double>(&value)) return *d;
  if (const auto* b = std::get_if<bool>(&value)) return *b ? 1 : 0;
  return std::nullopt;
}

}  // namespace

// Source of the names: gguf-py's constants (llama.cpp), and what its converters write for these
// architectures.
Result<void> check_gguf_keys(const GgufFile& file, const std::string& arch) {
  for (const auto& [name, value] : file.values()) {
    if (!name.starts_with(arch + ".")) continue;
    const std::string_view key = std::string_view(name).substr(arch.size() + 1);
    const auto is_key = [&](std::string_view k) { return k == key; };
    if (std::any_of(std::begin(kRead), std::end(kRead), is_key) ||
        (arch != "deepseek2" &&
         std::any_of(std::begin(kReadOfLlama), std::end(kReadOfLlama), is_key)) ||
        (arch == "deepseek2" &&
         std::any_of(std::begin(kReadOfDeepSeek), std::end(kReadOfDeepSeek), is_key)) ||
        std::any_of(std::begin(kSaysNothing), std::end(kSaysNothing), is_key))
      continue;
    const auto neutral = std::find_if(
        std::begin(kNeutral), std::end(kNeutral), [&](const Neutral& n) { return n.key == key; });
    if (neutral == std::end(kNeutral))
      return fail(Code::kInvalidInput,
                  "{}: the header's {} is not known to Ferry: it may change what the model "
                  "computes",
                  file.path(),
                  printable(name));
    const std::optional<double> number = number_of(value);
    if (number != neutral->first && number != neutral->second)
      return fail(Code::kInvalidInput,
                  "{}: the header's {}{} changes what the model computes, and Ferry has not "
                  "got that",
                  file.path(),
                  printable(name),
                  number ? fmt::format(" {}", *number) : "");
  }
  return {};
}

}  // namespace ferry
