// Configurations of the models that people have are read, others refused in words that name the
// field; what is written is read again.
#include "models/llama/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "device/cpu/cpu_device.h"
#include "models/llama/size.h"
#include "models/llama/weights.h"
#include "ops/rope/rope.h"

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

/// By its method, with the way out.
TEST(LlamaConfig, OtherProgramsQuantisationIsNamed) {
  for (const char* method : {"bitsandbytes", "compressed-tensors", "gptq", "awq"}) {
    Json config = distill_llama();
    config["quantization_config"] = {{"quant_method", method}, {"load_in_4bit", true}};
    const std::string said = refusal(config);
    for (const std::string& part : {fmt::format("is that of '{}'", method),
                                    std::string("fetch the model that it was made from")})
      EXPECT_NE(said.find(part), std::string::npos) << said;
    // Transformers has that of this one alone.
    EXPECT_EQ(said.find("dequantize()") != std::string::npos,
              std::string_view(method) == "bitsandbytes")
        << said;
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
  config["rope_scaling"]["original_max_position_embeddings"] = 8192.0;  // as some programs write it
  ASSERT_TRUE(read(config)) << read(config).error().message;
  EXPECT_EQ(read(config)->rope.original_max_position, 8192);
  config["rope_scaling"]["original_max_position_embeddings"] = 8192.5;
  EXPECT_NE(refusal(config).find("must be a whole number"), std::string::npos) << refusal(config);
}

/// By what cosines and sines are multiplied: a cosine of position 0 is that.
double yarn_size(const Config& c) {
  return ops::make_rope_table(c.rope, 1, cpu_device()).cos.to_f32()[0];
}

// Expected values are those of Transformers 5.24's _compute_yarn_parameters.
TEST(LlamaConfig, YarnMultipliesAsTransformersDoes) {
  const double factor_alone = 0.1 * std::log(4.0) + 1;
  const std::pair<const char*, double> cases[] = {
      {"{}", factor_alone},
      {R"({"mscale": 0.707})", factor_alone},
      {R"({"mscale_all_dim": 1.0})", factor_alone},
      {R"({"mscale": 0.0, "mscale_all_dim": 0.0})", factor_alone},
      {R"({"mscale": 0.0, "mscale_all_dim": 1.0})", factor_alone},
      {R"({"mscale": 2.0, "mscale_all_dim": 0})", factor_alone},
      {R"({"mscale": 1.0, "mscale_all_dim": 1.0})", 1},
      {R"({"mscale": 2.0, "mscale_all_dim": 0.5})",
       (0.2 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1)},
      {R"({"attention_factor": 1.25})", 1.25},
      {R"({"attention_factor": 1})", 1},
      {R"({"attention_factor": 0.5, "mscale": 2.0, "mscale_all_dim": 0.5})", 0.5},
      {R"({"attention_factor": null})", factor_alone},
  };
  for (const Json& family : {distill_qwen(), distill_llama()})
    for (const auto& [text, expected] : cases) {
      const Json fields = Json::parse(text);
      Json config = family;
      config["rope_scaling"] = {
          {"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 8192}};
      config["rope_scaling"].update(fields);
      const Result<Config> c = read(config);
      ASSERT_TRUE(c) << fields << c.error().message;
      EXPECT_NEAR(yarn_size(*c), expected, 1e-6) << fields;
      // Transformers finds the same in what is written, and so does Ferry.
      const Json written = Json::parse(to_json(*c, "float32"))["rope_scaling"];
      const double mscale = written["mscale"], all_dim = written["mscale_all_dim"];
      EXPECT_EQ(written.contains("attention_factor"),
                fields.value("attention_factor", Json()).is_number());
      if (!written.contains("attention_factor")) {
        EXPECT_NEAR(mscale != 0 && all_dim != 0
                        ? (0.1 * mscale * std::log(4.0) + 1) / (0.1 * all_dim * std::log(4.0) + 1)
                        : factor_alone,
                    expected,
                    1e-6)
            << written;
      }
      const Result<Config> again = parse_config(to_json(*c, "float32"), "config.json");
      ASSERT_TRUE(again) << again.error().message;
      EXPECT_EQ(again->rope, c->rope) << fields;
    }
  Json config = distill_qwen();
  for (const Json& bad : {Json(0), Json(-1.5), Json("1"), Json(1e9)}) {
    config["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}, {"attention_factor", bad}};
    EXPECT_NE(refusal(config).find("attention_factor"), std::string::npos) << bad;
  }
}

}  // namespace
}  // namespace ferry::models::llama
