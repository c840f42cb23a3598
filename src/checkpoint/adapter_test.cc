// Adapters of PEFT's are read as they are; a bad one is refused in words that name the file, the field or the tensor.
#include "checkpoint/adapter.h"

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "checkpoint/model_dir.h"
#include "checkpoint/test_support.h"

namespace ferry {
namespace {

using Json = nlohmann::json;

/// As PEFT 0.21 writes it, but for what it is of.
Json peft_config() {
  return Json::parse(R"({"alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
    "auto_mapping": null, "base_model_name_or_path": "base", "bias": "none", "corda_config": null,
    "ensure_weight_tying": false, "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false,
    "inference_mode": true, "init_lora_weights": true, "kasa_config": null, "layer_replication": null,
    "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 5,
    "lora_bias": false, "lora_dropout": 0.05, "lora_ga_config": null, "megatron_config": null,
    "megatron_core": "megatron.core", "modules_to_save": null, "monteclora_config": null,
    "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 2, "rank_pattern": {},
    "revision": null, "target_modules": ["q_proj"], "target_parameters": null, "task_type": "CAUSAL_LM",
    "trainable_token_indices": null, "use_bdlora": null, "use_dora": false, "use_qalora": false,
    "use_rslora": false, "velora_config": null})");
}

constexpr const char* kWeight = "model.layers.0.self_attn.q_proj.weight";

std::vector<NamedTensor> pair_of(const std::string& weight, int64_t out, int64_t in, int64_t rank) {
  return {{.name = adapter_tensor_name(weight, 'A'), .value = random_tensor({rank, in}, 1)},
          {.name = adapter_tensor_name(weight, 'B'), .value = random_tensor({out, rank}, 2)}};
}

std::string written(const std::string& name,
                    const std::string& config,
                    const std::vector<NamedTensor>& tensors) {
  const std::string path = fresh_folder(name);
  EXPECT_TRUE(write_file_atomic(join_path(path, kAdapterConfigName), config));
  EXPECT_TRUE(write_safetensors(join_path(path, kAdapterWeightsName), tensors));
  return path;
}

std::string base_model(const std::string& name, uint64_t seed, const Shape& shape = {6, 4}) {
  const std::string path = join_path(fresh_folder(name), "model");
  ModelContents c;
  c.tensors = {{.name = kWeight, .value = random_tensor(shape, seed)}};
  c.texts[kConfigName] = "{}";
  EXPECT_TRUE(write_model_dir(path, c));
  return path;
}

TEST(AdapterConfig, WhatPeftWritesIsReadAndWhatIsWrittenIsReadAgain) {
  Json config = peft_config();
  const Result<AdapterConfig> read = parse_adapter_config(config.dump(), "A");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->rank, 2);
  EXPECT_EQ(read->scale(), 2.5f);
  EXPECT_EQ(read->targets, std::vector<std::string>{"q_proj"});
  config["use_rslora"] = true;
  EXPECT_EQ(parse_adapter_config(config.dump(), "A")->scale(),
            static_cast<float>(5 / std::sqrt(2.0)));
  for (const double alpha : {5.0, 0.5}) {
    AdapterConfig c = *read;
    c.alpha = alpha;
    c.rslora = true;
    const Result<AdapterConfig> again = parse_adapter_config(to_json(c), "A");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(to_json(*again), to_json(c));
    EXPECT_EQ(again->scale(), c.scale());
  }
  config["target_modules"] = ".*\\.q_proj";
  EXPECT_EQ(parse_adapter_config(config.dump(), "A")->target_pattern, ".*\\.q_proj");
  for (const Json& task : {Json(), Json("")}) {
    config["task_type"] = task;
    EXPECT_TRUE(parse_adapter_config(config.dump(), "A")) << task;
  }
  config["velora_config_of_tomorrow"] = Json::object();
  EXPECT_TRUE(parse_adapter_config(config.dump(), "A")) << "says nothing";
}

TEST(AdapterConfig, WhatItDoesNotComputeIsRefusedByName) {
  const std::pair<const char*, Json> bad[] = {{"peft_type", "IA3"},
                                              {"r", 0},
                                              {"r", -1},
                                              {"r", 1 << 20},
                                              {"r", 2.5},
                                              {"lora_alpha", 0},
                                              {"lora_alpha", "8"},
                                              {"use_dora", true},
                                              {"use_qalora", true},
                                              {"lora_bias", true},
                                              {"bias", "all"},
                                              {"fan_in_fan_out", true},
                                              {"init_lora_weights", "pissa"},
                                              {"rank_pattern", {{"q_proj", 4}}},
                                              {"alpha_pattern", {{"q_proj", 4}}},
                                              {"modules_to_save", {"lm_head"}},
                                              {"target_parameters", {"experts.down_proj"}},
                                              {"trainable_token_indices", {1, 2}},
                                              {"layer_replication", {{0, 1}}},
                                              {"target_modules", {"q_proj", 3}},
                                              {"target_modules", {""}},
                                              {"target_modules", "(q_proj"},
                                              {"exclude_modules", {""}},
                                              {"layers_to_transform", "0"},
                                              {"layers_to_transform", {-1}},
                                              {"layers_pattern", "h"},
                                              {"task_type", "SEQ_CLS"},
                                              {"a_field_of_tomorrow", 1}};
  for (const auto& [field, value] : bad) {
    Json config = peft_config();
    config[field] = value;
    EXPECT_TRUE(fails(parse_adapter_config(config.dump(), "A"), Code::kInvalidInput, {"A", field}))
        << field << ' ' << value;
  }
  for (const char* field : {"r", "lora_alpha", "peft_type"}) {
    Json config = peft_config();
    config.erase(field);
    EXPECT_TRUE(fails(parse_adapter_config(config.dump(), "A"), Code::kInvalidInput, {field}));
  }
  EXPECT_FALSE(parse_adapter_config("[]", "A"));
  EXPECT_FALSE(parse_adapter_config("", "A"));
}

/// As PEFT 0.21's check_target_module_exists decides it.
TEST(AdapterConfig, TellsWhichModulesAreAdapted) {
  const std::string q0 = "model.layers.0.self_attn.q_proj", q1 = "model.layers.1.self_attn.q_proj",
                    v1 = "model.layers.1.self_attn.v_proj",
                    expert = "model.layers.1.mlp.experts.0.up_proj";
  const struct {
    Json change;
    std::vector<std::string> adapted, not_adapted;
    std::string why;
  } cases[] = {
      {{}, {q0, q1, "q_proj"}, {v1, "model.layers.0.my_q_proj"}, "target_modules"},
      {{{"target_modules", ".*q_proj"}}, {q0, q1}, {v1, q0 + ".x"}, "target_modules"},
      {{{"target_modules",
         R"((?:.*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.mlp))"}},
       {q0, v1, "model.layers.3.mlp"},
       {expert},
       "target_modules"},
      {{{"target_modules", "all-linear"}, {"exclude_modules", {"v_proj"}}},
       {q0, q1, expert},
       {v1},
       "exclude_modules"},
      {{{"target_modules", {"q_proj", "v_proj"}}, {"exclude_modules", ".*1.*q.*"}},
       {q0, v1},
       {q1},
       "exclude_modules"},
      {{{"layers_to_transform", {0, 2}}}, {q0}, {q1, "self_attn.q_proj"}, "layers_to_transform"},
      {{{"layers_to_transform", 1}, {"layers_pattern", "layers"}},
       {q1},
       {q0},
       "layers_to_transform"},
      {{{"layers_to_transform", 0}, {"target_modules", {q1, "v_proj"}}},
       {q1},
       {v1},
       "layers_to_transform"},
      {{{"layers_to_transform", 0}, {"target_modules", "all-linear"}},
       {q0, expert},
       {q1},
       "layers_to_transform"},
      {{{"layers_to_transform", 1},
        {"target_modules", {"up_proj"}},
        {"layers_pattern", {"layers"}}},
       {expert},
       {"model.layers.0.mlp.up_proj"},
       "layers_to_transform"},
  };
  for (const auto& c : cases) {
    Json json = peft_config();
    json.update(c.change.is_null() ? Json::object() : c.change);
    const Result<AdapterConfig> config = parse_adapter_config(json.dump(), "A");
    ASSERT_TRUE(config) << config.error().message;
    for (const std::string& module : c.adapted)
      EXPECT_EQ(config->why_not(module).value(), "") << c.change << module;
    for (const std::string& module : c.not_adapted)
      EXPECT_NE(config->why_not(module).value().find(c.why), std::string::npos)
          << c.change << module;
  }
}

TEST(Adapter, ReadsWhatPeftWrites) {
  const std::string path = written("peft", peft_config().dump(), pair_of(kWeight, 6, 4, 2));
  const Result<Adapter> adapter = Adapter::open(path);
  ASSERT_TRUE(adapter) << adapter.error().message;
  ASSERT_NE(adapter->find(kWeight), nullptr);
  EXPECT_EQ(adapter->find(kWeight)->b.to_f32(), random_tensor({6, 2}, 2).to_f32());
  EXPECT_EQ(adapter->find("model.layers.1.self_attn.q_proj.weight"), nullptr);
  EXPECT_FALSE(adapter->base_root());
  const auto base = open_model_source(base_model("peft_base", 3));
  ASSERT_TRUE(base);
  EXPECT_TRUE(adapter->check_fits(**base));
}

TEST(Adapter, ABadOneIsRefusedByName) {
  const std::string a = adapter_tensor_name(kWeight, 'A'), b = adapter_tensor_name(kWeight, 'B');
  const auto says = [&](const std::string& path, Code code, const std::vector<std::string>& words) {
    EXPECT_TRUE(fails(Adapter::open(path), code, words)) << path;
  };
  const std::string config = peft_config().dump();
  const auto with = [&](const char* name,
                        const std::function<void(std::vector<NamedTensor>&)>& change) {
    std::vector<NamedTensor> tensors = pair_of(kWeight, 6, 4, 2);
    change(tensors);
    return written(name, config, tensors);
  };
  says(join_path(test_root(), "nowhere"), Code::kNotFound, {"nowhere", "does not exist"});
  const std::string bare = written("bare", config, pair_of(kWeight, 6, 4, 2));
  ASSERT_TRUE(remove_tree(join_path(bare, kAdapterWeightsName)));
  says(bare, Code::kNotFound, {kAdapterWeightsName});
  ASSERT_TRUE(write_file_atomic(join_path(bare, "adapter_model.bin"), "pickle"));
  says(bare, Code::kNotFound, {"pickle", "safe_serialization"});
  says(with("half", [](auto& t) { t.pop_back(); }), Code::kCorrupt, {b, "missing"});
  says(with("none", [](auto& t) { t.clear(); }), Code::kInvalidInput, {"no tensor"});
  says(with("rank",
            [](auto& t) {
              t[0].value = random_tensor({3, 4}, 1);
            }),
       Code::kInvalidInput,
       {a, "[3, 4]", "rank 2"});
  says(with("vector", [](auto& t) { t[0].value = random_tensor({8}, 1); }),
       Code::kInvalidInput,
       {a, "matrix"});
  says(with("integers",
            [](auto& t) {
              const std::vector<int32_t> ids(8, 1);
              t[0].value = Tensor::from_i32(ids, {2, 4}, cpu());
            }),
       Code::kInvalidInput,
       {a, "matrix of F32"});
  says(with("nan",
            [](auto& t) {
              std::vector<float> values(8, 1);
              values[5] = NAN;
              t[0].value = Tensor::from_f32(values, {2, 4}, cpu());
            }),
       Code::kCorrupt,
       {a, "element 5"});
  says(with("other",
            [](auto& t) {
              t.push_back(
                  {.name = "base_model.model.model.norm.weight", .value = random_tensor({4}, 1)});
            }),
       Code::kInvalidInput,
       {"base_model.model.model.norm.weight", "not supported"});
  says(with("bias",
            [&](auto& t) {
              t.push_back({.name = "base_model.model.x.q_proj.lora_B.bias",
                           .value = random_tensor({4}, 1)});
            }),
       Code::kInvalidInput,
       {"lora_B.bias"});
  says(written("unnamed", config, pair_of("model.layers.0.self_attn.k_proj.weight", 6, 4, 2)),
       Code::kInvalidInput,
       {"target_modules", "k_proj"});
  std::vector<NamedTensor> both = pair_of(kWeight, 6, 4, 2);
  for (NamedTensor& t : pair_of("model.layers.0.self_attn.k_proj.weight", 6, 4, 2))
    both.push_back(std::move(t));
  says(written("more", config, both), Code::kInvalidInput, {"k_proj", "target_modules"});
  Json other_layer = peft_config();
  other_layer["layers_to_transform"] = {1, 2};
  says(written("layer", other_layer.dump(), pair_of(kWeight, 6, 4, 2)),
       Code::kInvalidInput,
       {"q_proj", "whose layer layers_to_transform does not name"});
  const std::string twice = written("twice", config, pair_of(kWeight, 6, 4, 2));
  std::string bytes = *read_file(join_path(twice, kAdapterWeightsName));
  const size_t at = bytes.find("lora_B");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 5] = 'A';
  ASSERT_TRUE(write_file_atomic(join_path(twice, kAdapterWeightsName), bytes));
  says(twice, Code::kCorrupt, {"lora_A"});
}

TEST(Adapter, AnotherModelsIsRefusedByName) {
  const std::string path = written("fits", peft_config().dump(), pair_of(kWeight, 6, 4, 2));
  const Result<Adapter> adapter = Adapter::open(path);
  ASSERT_TRUE(adapter) << adapter.error().message;
  const auto refusal = [&](const std::string& base) {
    const auto source = open_model_source(base);
    EXPECT_TRUE(source);
    return adapter->check_fits(**source);
  };
  EXPECT_TRUE(fails(refusal(base_model("other_shape", 3, {6, 5})),
                    Code::kInvalidInput,
                    {kWeight, "[6, 4]", "[6, 5]"}));
  const std::string elsewhere = base_model("elsewhere", 3);
  ModelContents c;
  c.tensors = {{.name = "model.norm.weight", .value = random_tensor({4}, 3)}};
  c.texts[kConfigName] = "{}";
  ASSERT_TRUE(write_model_dir(elsewhere, c));
  EXPECT_TRUE(fails(refusal(elsewhere), Code::kInvalidInput, {kWeight, "does not have"}));
}

TEST(Adapter, ItsPassportNamesTheWeightsThatItIsOf) {
  const std::string base = base_model("base", 3), copy = base_model("copy", 3),
                    other = base_model("other", 4);
  const auto root = [](const std::string& path) {
    return *(*open_model_source(path))->weights_root({});
  };
  EXPECT_EQ(root(base), root(copy));
  EXPECT_NE(root(base), root(other));
  // A passport changes nothing of it: it says of the files what reading them says.
  Passport of_base;
  of_base.program = "test";
  const std::vector<std::string> files = *files_that_count(base);
  for (const std::string& name : files) ASSERT_TRUE(of_base.add_file(base, name));
  of_base.seal(std::nullopt);
  ASSERT_TRUE(write_file_atomic(join_path(base, kPassportName), of_base.to_json()));
  EXPECT_EQ(root(base), root(copy));

  const std::string path = join_path(fresh_folder("with_passport"), "adapter");
  ModelContents c;
  c.tensors = pair_of(kWeight, 6, 4, 2);
  c.texts[kAdapterConfigName] =
      to_json(AdapterConfig{.rank = 2, .alpha = 4, .targets = {"q_proj"}, .base = "BASE"});
  c.passport = Passport{.program = "test", .base = root(base)};
  ASSERT_TRUE(write_model_dir(path, c));
  const Result<Adapter> adapter = Adapter::open(path);
  ASSERT_TRUE(adapter) << adapter.error().message;
  EXPECT_EQ(adapter->base_root(), root(base));
  EXPECT_TRUE(adapter->check_fits(**open_model_source(base)));
  EXPECT_TRUE(adapter->check_fits(**open_model_source(copy)));
  EXPECT_TRUE(
      fails(adapter->check_fits(**open_model_source(other)),
            Code::kInvalidInput,
            {"other weights", root(base).substr(0, 16), root(other).substr(0, 16), "BASE"}));
  flip_bit(join_path(path, kAdapterWeightsName), 350);
  EXPECT_TRUE(fails(Adapter::open(path), Code::kCorrupt, {kAdapterWeightsName}));
}

}  // namespace
}  // namespace ferry
