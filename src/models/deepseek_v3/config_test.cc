// Bad configurations are refused in words that name the field; good ones survive being written.
#include "models/deepseek_v3/config.h"

#include <gtest/gtest.h>

#include "models/deepseek_v3/size.h"
#include "models/deepseek_v3/weights.h"

#include <nlohmann/json.hpp>

namespace ferry::models::deepseek_v3 {
namespace {

using Json = nlohmann::json;

Json small() {
  return Json::parse(
      R"({"model_type": "deepseek_v3", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2,
    "intermediate_size": 128, "moe_intermediate_size": 32, "n_routed_experts": 8, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "num_attention_heads": 4, "kv_lora_rank": 32,
    "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1})");
}

/// The message with which the text is refused; empty if it is not.
std::string refusal(const std::string& text) {
  const Result<Config> config = parse_config(text, "DIR/config.json");
  if (config) return "";
  EXPECT_TRUE(config.error().code == Code::kInvalidInput || config.error().code == Code::kCorrupt);
  EXPECT_EQ(config.error().message.rfind("DIR/config.json", 0), 0u) << config.error().message;
  return config.error().message;
}

std::string refusal_with(const char* field, const Json& value) {
  Json config = small();
  config[field] = value;
  return refusal(config.dump());
}

TEST(Config, GoodOnesSurviveBeingWritten) {
  const Result<Config> config = parse_config(small().dump(), "config.json");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  const std::string text = to_json(*config, "bfloat16");
  const Result<Config> again = parse_config(text, "config.json");
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(to_json(*again, "bfloat16"), text);
  EXPECT_EQ(again->n_group, 2);
}

TEST(Config, EachRequiredFieldIsMissed) {
  for (const char* field : {"vocab_size",
                            "hidden_size",
                            "num_hidden_layers",
                            "intermediate_size",
                            "moe_intermediate_size",
                            "num_experts_per_tok",
                            "num_attention_heads",
                            "kv_lora_rank",
                            "qk_nope_head_dim",
                            "qk_rope_head_dim",
                            "v_head_dim"}) {
    Json config = small();
    config.erase(field);
    const std::string message = refusal(config.dump());
    EXPECT_NE(message.find(std::string("\"") + field + "\" is missing"), std::string::npos)
        << message;
  }
}

TEST(Config, BadValuesAreRefusedByName) {
  const std::vector<std::pair<const char*, Json>> bad = {{"vocab_size", 0},
                                                         {"vocab_size", -5},
                                                         {"vocab_size", 1e30},
                                                         {"vocab_size", "256"},
                                                         {"vocab_size", 2.5},
                                                         {"vocab_size", true},
                                                         {"vocab_size", uint64_t{1} << 63},
                                                         {"hidden_size", Json::array({64})},
                                                         {"num_hidden_layers", 1000000},
                                                         {"num_attention_heads", 0},
                                                         {"qk_rope_head_dim", 7},
                                                         {"q_lora_rank", 0},
                                                         {"rms_norm_eps", 0},
                                                         {"rms_norm_eps", -1e-6},
                                                         {"rope_theta", "10000"},
                                                         {"routed_scaling_factor", 0},
                                                         {"n_group", 3},
                                                         {"topk_group", 3},
                                                         {"num_experts_per_tok", 9},
                                                         {"scoring_func", "relu"},
                                                         {"topk_method", 1},
                                                         {"norm_topk_prob", 1},
                                                         {"hidden_act", "gelu"},
                                                         {"attention_bias", true},
                                                         {"num_nextn_predict_layers", 2},
                                                         {"num_key_value_heads", 2},
                                                         {"bos_token_id", 256},
                                                         {"quantization_config", Json::object()},
                                                         {"a_field_of_tomorrow", 1},
                                                         {"rope_scaling", 3},
                                                         {"tie_word_embeddings", "no"}};
  for (const auto& [field, value] : bad) {
    const std::string message = refusal_with(field, value);
    EXPECT_NE(message.find(field), std::string::npos)
        << field << " = " << value << ": \"" << message << "\"";
  }
}

TEST(Config, EndTokensAreASet) {
  const auto read = [](const Json& bos, const Json& eos) {
    Json config = small();
    config["bos_token_id"] = bos;
    config["eos_token_id"] = eos;
    const Result<Config> c = parse_config(config.dump(), "config.json");
    EXPECT_TRUE(c) << c.error().message;
    return *c;
  };
  const auto written = [](const Config& c, const char* name) {
    return Json::parse(to_json(c, "float32")).at(name);
  };
  const Config one = read(0, 1);
  EXPECT_EQ(one.ids.eos, (std::vector<int64_t>{1}));
  EXPECT_EQ(written(one, "eos_token_id"), 1);
  const Config more = read(0, {7, 3, 7});
  EXPECT_EQ(more.ids.eos, (std::vector<int64_t>{7, 3}));
  EXPECT_EQ(written(more, "eos_token_id"), Json({7, 3}));
  // Neither null nor a field that is not there becomes an id.
  const Config none = read(nullptr, nullptr);
  EXPECT_FALSE(none.ids.bos);
  EXPECT_TRUE(none.ids.eos.empty());
  EXPECT_TRUE(written(none, "bos_token_id").is_null() && written(none, "eos_token_id").is_null());
  const Result<Config> missing = parse_config(small().dump(), "config.json");
  EXPECT_FALSE(missing->ids.bos);
  EXPECT_TRUE(missing->ids.eos.empty());
  for (const Json& bad : {Json(256), Json(-1), Json("</s>"), Json({1, 256}), Json({1, nullptr})})
    EXPECT_NE(refusal_with("eos_token_id", bad).find("eos_token_id"), std::string::npos) << bad;
}

TEST(Config, WhatSaysNothingIsAccepted) {
  EXPECT_EQ(refusal_with("a_field_of_tomorrow", nullptr), "");
  for (const char* field : {"unsloth_version", "_attn_implementation", "temperature", "prefix"})
    EXPECT_EQ(refusal_with(field, "anything"), "") << field;
}

TEST(Config, OnlyDeepSeeksFloat8IsKnown) {
  const Json known = {{"quant_method", "fp8"},
                      {"fmt", "e4m3"},
                      {"weight_block_size", {128, 128}},
                      {"activation_scheme", "dynamic"}};
  EXPECT_EQ(refusal_with("quantization_config", known), "");
  Json more = known;  // as V3.1 and Transformers write it
  more["scale_fmt"] = "ue8m0";
  more["modules_to_not_convert"] = nullptr;
  more["dequantize"] = false;
  EXPECT_EQ(refusal_with("quantization_config", more), "");
  more["modules_to_not_convert"] = {"lm_head"};
  EXPECT_EQ(refusal_with("quantization_config", more), "");
  for (const auto& [field, value] :
       std::vector<std::pair<const char*, Json>>{{"quant_method", "gptq"},
                                                 {"scale_fmt", "e8m23"},
                                                 {"dequantize", true},
                                                 {"fmt", "e5m2"},
                                                 {"weight_block_size", {64, 128}},
                                                 {"activation_scheme", "static"},
                                                 {"bits", 4}}) {
    Json other = known;
    other[field] = value;
    EXPECT_NE(refusal_with("quantization_config", other).find("quantization_config"),
              std::string::npos)
        << field;
  }
}

TEST(Config, RopeScalingIsReadStrictly) {
  const Json yarn = {{"type", "yarn"}, {"factor", 40}, {"original_max_position_embeddings", 4096}};
  EXPECT_EQ(refusal_with("rope_scaling", yarn), "");
  Json both = yarn;
  both["rope_type"] = "yarn";
  EXPECT_EQ(refusal_with("rope_scaling", both), "");
  both["rope_type"] = "default";  // Transformers would not stretch, older code would
  EXPECT_NE(refusal_with("rope_scaling", both).find("contradicts"), std::string::npos);
  for (const auto& [field, value] :
       std::vector<std::pair<const char*, Json>>{{"type", "linear"},
                                                 {"factor", 0},
                                                 {"factor", nullptr},
                                                 {"original_max_position_embeddings", nullptr},
                                                 {"mscale", "big"},
                                                 {"attention_factor", 1.5},
                                                 {"short_factor", Json::array({1})}}) {
    Json broken = yarn;
    broken[field] = value;
    EXPECT_NE(refusal_with("rope_scaling", broken), "") << field << " = " << value;
  }
}

Json changed(std::initializer_list<std::pair<const char*, Json>> fields) {
  Json config = small();
  for (const auto& [field, value] : fields) config[field] = value;
  return config;
}

/// DeepSeek's own code takes 1 and 0 for those that are missing, and 0 as it is: what it computes was trained.
TEST(Config, YarnsScalesAreDeepSeeksOwn) {
  const auto of = [](const Json& fields) {
    Json yarn = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}};
    yarn.update(fields);
    const Result<Config> c = parse_config(changed({{"rope_scaling", yarn}}).dump(), "config.json");
    EXPECT_TRUE(c) << fields;
    return c ? std::pair(c->rope.mscale, c->rope.mscale_all_dim) : std::pair(-1.0, -1.0);
  };
  EXPECT_EQ(of(Json::object()), std::pair(1.0, 0.0));
  EXPECT_EQ(of({{"mscale", 0.7}}), std::pair(0.7, 0.0));
  EXPECT_EQ(of({{"mscale_all_dim", 0.7}}), std::pair(1.0, 0.7));
  EXPECT_EQ(of({{"mscale", 0.0}, {"mscale_all_dim", 0.7}}), std::pair(0.0, 0.7));
}

/// The same settings may stand in several places, but must be the same.
TEST(Config, RopeSettingsThatContradictEachOtherAreRefused) {
  const Json yarn = {{"rope_type", "yarn"},
                     {"factor", 40},
                     {"original_max_position_embeddings", 4096},
                     {"rope_theta", 50000}};
  Json other = yarn, without = yarn, half = yarn, all = yarn;
  other["factor"] = 8;
  without.erase("rope_theta");
  half["partial_rotary_factor"] = 0.5;
  all["partial_rotary_factor"] = 1;
  const auto told = [](std::initializer_list<std::pair<const char*, Json>> fields) {
    return refusal(changed(fields).dump());
  };
  EXPECT_EQ(told({{"rope_theta", 50000}, {"rope_scaling", yarn}, {"rope_parameters", yarn}}), "");
  EXPECT_EQ(told({{"rope_theta", 50000}, {"rope_scaling", without}, {"rope_parameters", yarn}}),
            "");
  EXPECT_EQ(told({{"rope_scaling", without}, {"rope_parameters", yarn}}), "");
  EXPECT_EQ(told({{"rope_parameters", all}, {"partial_rotary_factor", 1.0}}), "");
  const auto contradicts = [&](const std::string& message, const char* field) {
    EXPECT_NE(message.find(field), std::string::npos) << message;
    EXPECT_NE(message.find("contradicts"), std::string::npos) << message;
  };
  contradicts(told({{"rope_theta", 10000}, {"rope_parameters", yarn}}), "rope_parameters");
  contradicts(told({{"rope_theta", 10000}, {"rope_scaling", yarn}}), "rope_scaling");
  contradicts(told({{"rope_scaling", yarn}, {"rope_parameters", other}}), "rope_parameters");
  contradicts(told({{"rope_scaling", yarn}, {"rope_parameters", {{"rope_type", "default"}}}}),
              "rope_parameters");
  Json slower = yarn;
  slower["rope_theta"] = 60000;
  contradicts(told({{"rope_scaling", yarn}, {"rope_parameters", slower}}), "rope_parameters");
  EXPECT_NE(told({{"rope_parameters", half}}).find("partial_rotary_factor"), std::string::npos);
  EXPECT_NE(told({{"partial_rotary_factor", 0.5}}).find("partial_rotary_factor"),
            std::string::npos);
}

TEST(Config, WhatNoOpTakesIsRefusedByName) {
  const auto named = [](const Json& config, const char* what) {
    const std::string message = refusal(config.dump());
    EXPECT_NE(message.find(what), std::string::npos) << config << ": \"" << message << "\"";
  };
  named(changed({{"n_routed_experts", 1025}, {"n_group", 1}}), "n_routed_experts");
  named(changed({{"rope_theta", 1}}), "theta must be above 1");
  named(changed({{"qk_rope_head_dim", 7}}), "qk_rope_head_dim");
  const Json yarn = {{"type", "yarn"},
                     {"factor", 40},
                     {"original_max_position_embeddings", 4096},
                     {"beta_fast", 1},
                     {"beta_slow", 32}};
  named(changed({{"rope_scaling", yarn}}), "beta_slow");
  named(changed({{"max_position_embeddings", (1 << 24) + 1}}), "max_position_embeddings");
  named(changed({{"max_position_embeddings", 1 << 24}, {"qk_rope_head_dim", 256}}),
        "max_position_embeddings times half of qk_rope_head_dim");
  named(changed({{"num_attention_heads", 65536}, {"kv_lora_rank", 1 << 20}}), "kv_lora_rank");
  named(changed({{"n_shared_experts", 1024}, {"moe_intermediate_size", 1 << 20}}),
        "n_shared_experts");
  EXPECT_EQ(refusal(changed({{"n_routed_experts", 1024}}).dump()), "");
  EXPECT_EQ(refusal(changed({{"rope_theta", 1.5}}).dump()), "");
}

/// What Transformers 5.23 was seen to compute (tools/oracle/check_settings.py): each gate is written
/// under the name of the class that has it, or is said to be nobody's.
TEST(Config, IsWrittenForTheClassOfTransformersThatComputesIt) {
  for (const char* const scoring : {"sigmoid", "softmax"})
    for (const char* const method : {"noaux_tc", "greedy", "group_limited_greedy"})
      for (const bool norm : {true, false})
        for (const int freq : {1, 2}) {
          const bool grouped = std::string(method) != "greedy";
          const Json json = changed({{"scoring_func", scoring},
                                     {"topk_method", method},
                                     {"norm_topk_prob", norm},
                                     {"moe_layer_freq", freq},
                                     {"n_group", grouped ? 2 : 1},
                                     {"topk_group", 1}});
          const Result<Config> config = parse_config(json.dump(), "config.json");
          ASSERT_TRUE(config) << config.error().message;
          const std::string written = to_json(*config, "float32");
          const bool sigmoid = std::string(scoring) == "sigmoid";
          const bool v3 = sigmoid && std::string(method) == "noaux_tc";
          const bool v2 = !sigmoid && std::string(method) != "noaux_tc" && !norm;
          EXPECT_EQ(Json::parse(written)["model_type"], v2 ? "deepseek_v2" : "deepseek_v3") << json;
          EXPECT_EQ(differs_in_transformers(*config).empty(), (v3 || v2) && freq == 1) << json;
          // What is written is the same model, and stays as it is.
          const Result<Config> again = parse_config(written, "config.json");
          ASSERT_TRUE(again) << again.error().message;
          EXPECT_EQ(to_json(*again, "float32"), written);
          EXPECT_EQ(differs_in_transformers(*again), differs_in_transformers(*config));
        }
  const auto yarn = [](double mscale, double all_dim) {
    const Result<Config> config = parse_config(changed({{"rope_scaling",
                                                         {{"type", "yarn"},
                                                          {"factor", 4.0},
                                                          {"original_max_position_embeddings", 64},
                                                          {"mscale", mscale},
                                                          {"mscale_all_dim", all_dim}}}})
                                                   .dump(),
                                               "config.json");
    return config ? differs_in_transformers(*config) : config.error().message;
  };
  EXPECT_EQ(yarn(1, 0), "");
  EXPECT_EQ(yarn(1, 0.7), "");
  EXPECT_EQ(yarn(0, 0.7), "rope_scaling.mscale");
  EXPECT_EQ(yarn(0.7, 0), "rope_scaling.mscale");
}

TEST(Config, SizesWhoseProductsAreNoModelsAreRefused) {
  // Each within its own bounds; [experts, inner, hidden] would be 2^58 elements, and its bytes more.
  const std::string experts = refusal(changed({{"n_routed_experts", 1024},
                                               {"moe_intermediate_size", 1 << 24},
                                               {"hidden_size", 1 << 24},
                                               {"n_shared_experts", 0}})
                                          .dump());
  EXPECT_NE(experts.find("parameters"), std::string::npos) << experts;
  const std::string layers = refusal(changed({{"num_hidden_layers", 10000},
                                              {"first_k_dense_replace", 10000},
                                              {"intermediate_size", 1 << 24},
                                              {"hidden_size", 1 << 24}})
                                         .dump());
  EXPECT_NE(layers.find("parameters"), std::string::npos) << layers;
}

TEST(Config, SizeCountsTheParametersThatTheWeightsHave) {
  Device& cpu = **open_device("cpu");
  const std::initializer_list<Json> configs = {
      small(),
      changed({{"n_routed_experts", 0}}),
      changed({{"q_lora_rank", 24}, {"num_nextn_predict_layers", 1}}),
      changed({{"n_shared_experts", 0}, {"tie_word_embeddings", true}, {"moe_layer_freq", 2}}),
      changed({{"topk_method", "group_limited_greedy"}, {"num_hidden_layers", 5}})};
  for (const Json& json : configs) {
    const Result<Config> config = parse_config(json.dump(), "config.json");
    ASSERT_TRUE(config) << config.error().message;
    ModelWeights weights = make_weights(*config, std::nullopt, cpu);
    int64_t sum = 0;
    for_each_weight(weights, [&](Weight& w) { sum += w.global_shape.count(); });
    EXPECT_EQ(parameters_total(*config), static_cast<double>(sum)) << json;
  }
}

TEST(Config, DamagedTextIsRefused) {
  const std::string good = small().dump();
  for (size_t n = 0; n < good.size(); n += 7)
    EXPECT_NE(refusal(good.substr(0, n)), "") << "cut to " << n << " bytes";
  std::string not_a_number = good;
  not_a_number.replace(not_a_number.find("256"), 3, "NaN");
  EXPECT_NE(refusal(not_a_number), "");
  EXPECT_NE(refusal("[]"), "");
  EXPECT_NE(refusal("{\"model_type\": \"llama\"}").find("llama"), std::string::npos);
}

TEST(Config, AKeyTwiceIsRefused) {
  std::string twice = small().dump();
  twice.insert(1, "\"vocab_size\": 300,");
  EXPECT_NE(refusal(twice).find("vocab_size"), std::string::npos);
}

TEST(Config, DeepNestingDoesNotExhaustTheStack) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  std::string config = small().dump();
  config.insert(1, "\"rope_scaling\": " + deep + ",");
  EXPECT_NE(refusal(config), "");
}

}  // namespace
}  // namespace ferry::models::deepseek_v3
