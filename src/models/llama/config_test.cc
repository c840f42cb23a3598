// Configurations of the models that people have are read, others refused in words that name the
// field; what is written is read again.
#include "models/llama/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "device/cpu/cpu_device.h"
#include "models/llama/size.h"
#include "models/llama/weights.h"

namespace ferry::models::llama {
namespace {

using Json = nlohmann::json;

/// DeepSeek-R1-Distill-Qwen-1.5B's file.
Json distill_qwen() {
  return Json::parse(R"({"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
    "bos_token_id": 151643, "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 1536,
    "initializer_range": 0.02, "intermediate_size": 8960, "max_position_embeddings": 131072,
    "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 12,
    "num_hidden_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 10000,
    "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.44.0", "use_cache": true, "use_mrope": false,
    "use_sliding_window": false, "vocab_size": 151936})");
}

/// Llama-3.1-8B's, as DeepSeek-R1-Distill-Llama-8B has it.
Json distill_llama() {
  return Json::parse(R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false,
    "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0.dev0", "use_cache": true, "vocab_size": 128256})");
}

Result<Config> read(const Json& json) { return parse_config(json.dump(), "DIR/config.json"); }

std::string refusal(const Json& json) {
  const Result<Config> config = read(json);
  return config ? "" : config.error().message;
}

TEST(LlamaConfig, ModelsThatPeopleHave) {
  const Result<Config> qwen = read(distill_qwen()), llama = read(distill_llama());
  ASSERT_TRUE(qwen) << qwen.error().message;
  ASSERT_TRUE(llama) << llama.error().message;
  EXPECT_EQ(qwen->head_dim, 128);
  EXPECT_EQ(parameters_total(*qwen), 1777088000);  // as safetensors' index of it says
  EXPECT_EQ(parameters_total(*llama), 8030261248);
  EXPECT_EQ(llama->rope.scaling, ops::RopeScaling::kLlama3);
  EXPECT_EQ(llama->ids.eos, (std::vector<int64_t>{128001, 128008, 128009}));
  for (const Config& c : {*qwen, *llama}) {
    const std::string text = to_json(c, "bfloat16");
    const Result<Config> again = parse_config(text, "config.json");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(to_json(*again, "bfloat16"), text);
    EXPECT_EQ(again->rope, c.rope);
    ModelWeights weights = make_weights(c, std::nullopt, cpu_device());
    double sum = 0;
    for_each_weight(weights,
                    [&](Weight& w) { sum += static_cast<double>(w.global_shape.count()); });
    EXPECT_EQ(sum, parameters_total(c));
  }
}

TEST(LlamaConfig, WhatItDoesNotComputeIsRefusedByName) {
  const std::pair<const char*, Json> bad[] = {{"attention_bias", true},
                                              {"mlp_bias", true},
                                              {"hidden_act", "gelu"},
                                              {"num_key_value_heads", 5},
                                              {"num_key_value_heads", 0},
                                              {"num_attention_heads", 0},
                                              {"num_attention_heads", 1 << 20},
                                              {"head_dim", 3},
                                              {"vocab_size", 1},
                                              {"max_position_embeddings", int64_t{1} << 40},
                                              {"use_sliding_window", true},
                                              {"layer_types", {"sliding_attention"}},
                                              {"rope_scaling", {{"rope_type", "dynamic"}}},
                                              {"rope_scaling", {{"rope_type", "llama3"}}},
                                              {"quantization_config", {{"bits", 4}}},
                                              {"bos_token_id", 151936},
                                              {"intermediate_size", uint64_t{1} << 50},
                                              {"a_field_of_tomorrow", 1}};
  for (const auto& [field, value] : bad) {
    Json config = distill_qwen();
    config[field] = value;
    const std::string message = refusal(config);
    EXPECT_NE(message.find(field), std::string::npos) << field << ' ' << value << ": " << message;
  }
  for (const char* field : {"vocab_size",
                            "hidden_size",
                            "intermediate_size",
                            "num_hidden_layers",
                            "num_attention_heads"}) {
    Json config = distill_llama();
    config.erase(field);
    EXPECT_NE(refusal(config).find(fmt::format("\"{}\" is missing", field)), std::string::npos);
  }
}

TEST(LlamaConfig, YarnStretchesWhatTheModelSaysUnlessItSaysItself) {
  Json config = distill_qwen();
  config["max_position_embeddings"] = 32768;
  config["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}};
  const Result<Config> silent = read(config);
  ASSERT_TRUE(silent) << silent.error().message;
  EXPECT_EQ(silent->rope.original_max_position, 32768);
  config["rope_scaling"]["original_max_position_embeddings"] = 8192;
  EXPECT_EQ(read(config)->rope.original_max_position, 8192);
}

}  // namespace
}  // namespace ferry::models::llama
