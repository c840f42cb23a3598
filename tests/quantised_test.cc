// Weights of int8 and int4 codes from a directory to logits: what is converted, what is made while
// loading, what is read back, and what is refused; and that none of it depends on instruction sets,
// threads or neighbours.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "base/cpu_tier.h"
#include "base/file.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/quant_description.h"
#include "checkpoint/weight_distance.h"
#include "checkpoint/weights.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/embedding/embedding.h"
#include "ops/linear/linear.h"
#include "probe/quantisation_cost.h"
#include "tensor/quantise.h"
#include "train/model_setup.h"

namespace ferry {
namespace {

// Sizes that neither 16, 32 nor 4 divides.
constexpr const char* kConfig =
    R"({"model_type": "deepseek_v3", "vocab_size": 90, "hidden_size": 70,
  "num_hidden_layers": 2, "first_k_dense_replace": 1, "intermediate_size": 73,
  "moe_intermediate_size": 24, "n_routed_experts": 4, "n_shared_experts": 1,
  "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc",
  "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 1.5,
  "num_attention_heads": 2, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16,
  "qk_rope_head_dim": 8, "v_head_dim": 35, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
  "max_position_embeddings": 64, "num_nextn_predict_layers": 0, "initializer_range": 0.1,
  "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1})";
constexpr WeightCodes kBoth[] = {WeightCodes::kInt8, WeightCodes::kInt4};

using models::TrainableLm;

std::unique_ptr<TrainableLm> make(std::optional<DType> storage) {
  auto model = models::make_model(kConfig, "config", cpu_device(), DType::kBF16, storage);
  if (!model) throw std::runtime_error(model.error().message);
  return std::move(*model);
}

Tensor hidden_of(TrainableLm& model, int32_t tokens) {
  std::vector<int32_t> ids = {3, 14, 15, 89, 2, 6, 5, 35, 8, 9, 7, 9, 32, 38, 46, 2};
  ids.resize(static_cast<size_t>(tokens));
  return model.forward(Tensor::from_i32(ids, {tokens}, cpu_device()),
                       ops::Segments::packed({&tokens, 1}, cpu_device()),
                       {},
                       nullptr);
}

std::vector<float> logits_of(TrainableLm& model, int32_t tokens = 16) {
  std::vector<int64_t> rows(static_cast<size_t>(tokens));
  std::iota(rows.begin(), rows.end(), 0);
  return model.logits(hidden_of(model, tokens), rows).to_f32();
}

class Quantised : public testing::Test {
 protected:
  Quantised() : folder_(join_path(testing::TempDir(), "quantised_" + std::to_string(::getpid()))) {
    EXPECT_TRUE(make_folders(folder_));
  }
  ~Quantised() override { EXPECT_TRUE(remove_tree(folder_)); }

  std::string path(const std::string& name) const { return join_path(folder_, name); }

  ModelDir written(const std::string& name,
                   std::vector<NamedTensor> tensors,
                   std::optional<std::string> description = {}) {
    ModelContents contents{.tensors = std::move(tensors), .texts = {{"config.json", kConfig}}};
    if (description) contents.texts[kQuantDescriptionName] = *description;
    const auto report = write_model_dir(path(name), contents);
    if (!report) throw std::runtime_error(report.error().message);
    auto dir = ModelDir::open(path(name));
    if (!dir) throw std::runtime_error(dir.error().message);
    return std::move(*dir);
  }

  /// A model with numbers in bf16.
  ModelDir source() {
    const auto model = make(DType::kF32);
    models::initialise(*model, 5);
    return written("source", stored_weights(model->weights(), {}, DType::kBF16));
  }

  /// Its tensors as codes, and what describes them.
  std::vector<NamedTensor> tensors(ModelDir& from, WeightCodes codes, std::string* description) {
    plan_ = make(std::nullopt);
    std::vector<NamedTensor> all = weights_to_quantise(from, plan_->weights(), codes, [] {});
    std::vector<std::string> names;
    std::set<std::string> quantised;
    for (const NamedTensor& t : all) {
      names.push_back(t.name);
      if (t.stored == DType::kI8 || t.stored == DType::kU8)
        for (const char* suffix : {"", kCodeScaleSuffix, kCodeOffsetSuffix})
          quantised.insert(t.name + suffix);
    }
    *description = quant_description(
        codes, names, [&](const std::string& name) { return quantised.contains(name); });
    return all;
  }

  ModelDir converted(ModelDir& from, WeightCodes codes) {
    std::string description;
    std::vector<NamedTensor> all = tensors(from, codes, &description);
    return written(to_string(codes), std::move(all), description);
  }

 private:
  std::string folder_;
  std::unique_ptr<TrainableLm> plan_;
};

TEST_F(Quantised, ADirectoryHoldsWhatLoadingMakes) {
  ModelDir from = source();
  for (const WeightCodes codes : kBoth) {
    ModelDir dir = converted(from, codes);
    const auto read = make(std::nullopt), made = make(std::nullopt);
    ASSERT_TRUE(load_weights(dir, cpu_device(), read->weights(), {}));
    ASSERT_TRUE(load_weights(from, cpu_device(), made->weights(), {}, {.quantise = codes}));
    int kept = 0;
    for (size_t i = 0; i < read->weights().size(); ++i) {
      const Weight &w = *read->weights()[i], &same = *made->weights()[i];
      EXPECT_EQ(w.codes().has_value(), takes_codes(w)) << w.name;
      kept += w.codes().has_value();
      if (w.role != WeightRole::kHead) {
        EXPECT_EQ(same.codes(), w.codes()) << w.name;
        continue;
      }
      EXPECT_EQ(same.codes(), WeightCodes::kInt8);  // while loading the head is rounded, too
    }
    EXPECT_EQ(kept, 2 * 4 + 3 + 3 + 3);  // attention, a dense MLP, experts, the shared one
    EXPECT_NE(logits_of(*read), logits_of(*made)) << to_string(codes);
    const auto both = make(std::nullopt);
    ASSERT_TRUE(load_weights(dir, cpu_device(), both->weights(), {}, {.quantise = codes}));
    EXPECT_EQ(logits_of(*both), logits_of(*made)) << to_string(codes);
  }
}

/// What is stored as codes may be wanted as others, or as the numbers that they stand for.
TEST_F(Quantised, StoredCodesBecomeOthersOrNumbers) {
  ModelDir from = source();
  ModelDir dir = converted(from, WeightCodes::kInt8);
  const auto stored = make(std::nullopt), rougher = make(std::nullopt),
             numbers = make(std::nullopt), wide = make(DType::kF32);
  ASSERT_TRUE(load_weights(dir, cpu_device(), wide->weights(), {}));
  ASSERT_TRUE(load_weights(dir, cpu_device(), stored->weights(), {}));
  ASSERT_TRUE(
      load_weights(dir, cpu_device(), rougher->weights(), {}, {.quantise = WeightCodes::kInt4}));
  ASSERT_TRUE(load_weights(dir, cpu_device(), numbers->weights(), {}, {.keep_codes = false}));
  for (size_t i = 0; i < stored->weights().size(); ++i) {
    const Weight& w = *stored->weights()[i];
    if (!w.codes()) continue;
    EXPECT_EQ(rougher->weights()[i]->codes(), WeightCodes::kInt4) << w.name;
    const Weight& as_numbers = *numbers->weights()[i];
    ASSERT_FALSE(as_numbers.codes()) << w.name;
    EXPECT_EQ(as_numbers.value.to_f32(), wide->weights()[i]->value.to_f32()) << w.name;
  }
  const auto near = [&](TrainableLm& a, double bound) {
    const std::vector<float> x = logits_of(a), y = logits_of(*stored);
    double off = 0, size = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      off += (x[i] - y[i]) * (x[i] - y[i]);
      size += y[i] * y[i];
    }
    return off > 0 && off < bound * bound * size;
  };
  EXPECT_TRUE(near(*numbers, 0.05));  // activations are rounded, or not
  EXPECT_TRUE(near(*rougher, 0.5));
}

/// An embedding that is the head, too, as codes: looked up, multiplied and scored.
TEST_F(Quantised, ATiedEmbeddingIsOneMatrixOfCodes) {
  Weight table{.name = "embed", .role = WeightRole::kEmbedding, .global_shape = {45, 70}};
  std::vector<float> numbers(45 * 70);
  for (size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = static_cast<float>(static_cast<int>(i * 7919 % 2001) - 1000) / 500;
  for (const WeightCodes codes : kBoth) {
    PanelsInMaking made(codes, table.global_shape);
    const CodeRows rows = quantise_rows(codes, numbers, 70);
    made.put(0, 0, rows);
    made.store_in(table);
    std::vector<float> meant(numbers.size());
    for (int64_t r = 0; r < 45; ++r)
      numbers_of_row(made.layout(),
                     rows.codes.data() + r * 70,
                     rows.scales.data() + r * made.layout().groups(),
                     meant.data() + r * 70);
    const std::vector<int32_t> ids = {44, 0, 17, 15, 16, 45, -1};
    const Tensor looked_up =
        ops::embedding(Tensor::from_i32(ids, {7}, cpu_device()), table, DType::kF32);
    const std::vector<float> values = looked_up.to_f32();
    for (size_t t = 0; t < ids.size(); ++t)
      for (size_t c = 0; c < 70; ++c) {
        const bool known = 0 <= ids[t] && ids[t] < 45;
        EXPECT_EQ(values[t * 70 + c], known ? meant[static_cast<size_t>(ids[t]) * 70 + c] : 0.0f);
      }
    // The loss is that of the logits, which are linear's.
    const std::vector<int32_t> labels = {1, 44, -1, 16, 3, 0, 7};
    const std::vector<float> losses =
        ops::cross_entropy(looked_up, table, Tensor::from_i32(labels, {7}, cpu_device()), 1)
            .token_losses.to_f32();
    const std::vector<float> logits = ops::linear(looked_up, table).to_f32();
    for (size_t t = 0; t < labels.size(); ++t) {
      const float* const row = logits.data() + t * 45;
      double sum = 0;
      for (size_t v = 0; v < 45; ++v) sum += std::exp(static_cast<double>(row[v]));
      const double expected =
          labels[t] < 0 ? 0
                        : std::log(sum) - static_cast<double>(row[static_cast<size_t>(labels[t])]);
      EXPECT_NEAR(losses[t], expected, 1e-4 + 1e-5 * std::abs(expected)) << t;
    }
  }
}

TEST_F(Quantised, TheBitsDependOnNothingElse) {
  ModelDir from = source();
  for (const WeightCodes codes : kBoth) {
    const auto model = make(std::nullopt);
    ASSERT_TRUE(load_weights(from, cpu_device(), model->weights(), {}, {.quantise = codes}));
    const CpuTier before = cpu_tier();
    const std::vector<float> expected = logits_of(*model);
    for (const CpuTier tier : kCpuTiers) {
      if (!cpu_has(tier)) continue;
      set_cpu_tier(tier);
      EXPECT_EQ(logits_of(*model), expected) << to_string(tier);
    }
    set_cpu_tier(before);
    for (const int32_t tokens : {1, 5, 13}) {
      const std::vector<float> fewer = logits_of(*model, tokens);
      EXPECT_TRUE(std::equal(fewer.begin(), fewer.end(), expected.begin())) << tokens;
    }
  }
}

/// In memory for numbers, codes become the numbers that they stand for; those are near the
/// source's.
TEST_F(Quantised, CodesStandForNumbersNearTheSources) {
  ModelDir from = source();
  const auto numbers = make(DType::kF32);
  ASSERT_TRUE(load_weights(from, cpu_device(), numbers->weights(), {}));
  for (const WeightCodes codes : kBoth) {
    ModelDir dir = converted(from, codes);
    const auto wide = make(DType::kF32);
    ASSERT_TRUE(load_weights(dir, cpu_device(), wide->weights(), {}));
    for (size_t i = 0; i < numbers->weights().size(); ++i) {
      const Weight& w = *numbers->weights()[i];
      const std::vector<float> a = w.value.to_f32(), b = wide->weights()[i]->value.to_f32();
      if (!takes_codes(w)) {
        EXPECT_EQ(a, b) << w.name;
        continue;
      }
      const auto columns = static_cast<size_t>(w.dim(-1));
      const size_t group = codes == WeightCodes::kInt8 ? columns : size_t{kCodeGroup};
      for (size_t row = 0; row < a.size(); row += columns)
        for (size_t begin = row; begin < row + columns; begin += group) {
          const size_t end = std::min(row + columns, begin + group);
          float largest = 0, worst = 0;
          for (size_t k = begin; k < end; ++k) {
            largest = std::max(largest, std::abs(a[k]));
            worst = std::max(worst, std::abs(a[k] - b[k]));
          }
          // Half a step of int8; int4 may cut what is beyond 7 steps of its smallest scale.
          const float bound = codes == WeightCodes::kInt8 ? largest / 253 : largest / 3;
          EXPECT_LE(worst, bound) << w.name << " row " << row / columns;
        }
    }
  }
}

/// What `ferry verify --source` judges by.
TEST_F(Quantised, NumbersAreAsNearTheSourcesAsTheirFormatSays) {
  ModelDir from = source();
  const auto plan = make(std::nullopt), wide = make(DType::kF32);
  const auto distance = [&](ModelDir& of) {
    int64_t tensors = 0;
    const auto d = distance_of_weights(of, from, plan->weights(), [&] { ++tensors; });
    if (!d) throw std::runtime_error(d.error().message);
    EXPECT_GT(tensors, 20);
    EXPECT_EQ(d->numbers, plan->parameters_total());
    return *d;
  };
  const WeightDistance none = distance(from);
  EXPECT_EQ(none.worst, 0);
  EXPECT_EQ(none.tensor, "");
  for (const WeightCodes codes : kBoth) {
    ModelDir dir = converted(from, codes);
    const WeightDistance d = distance(dir);
    EXPECT_LE(d.worst, 1) << to_string(codes) << ", " << d.tensor;
    EXPECT_GT(d.worst, 0.3) << to_string(codes);
  }
  // One number of many: as bf16, which must be the very one, and, changed before that, as codes.
  ASSERT_TRUE(load_weights(from, cpu_device(), wide->weights(), {}));
  const std::vector<Weight*> weights = wide->weights();
  Weight* const w = *std::find_if(
      weights.begin(), weights.end(), [](const Weight* each) { return takes_codes(*each); });
  std::vector<float> numbers = w->value.to_f32();
  numbers[37] += 0.5f;
  w->value.assign_f32(numbers);
  ModelDir changed = written("changed", stored_weights(wide->weights(), {}, DType::kBF16));
  EXPECT_GT(distance(changed).worst, 1);
  EXPECT_EQ(distance(changed).tensor, w->name);
  for (const WeightCodes codes : kBoth) {
    std::string description;
    std::vector<NamedTensor> all = tensors(changed, codes, &description);
    ModelDir dir = written(std::string("changed_") + to_string(codes), std::move(all), description);
    const WeightDistance d = distance(dir);
    EXPECT_GT(d.worst, 1) << to_string(codes);
    EXPECT_EQ(d.tensor, w->name) << to_string(codes);
  }
}

TEST_F(Quantised, DistancesAreThoseOfAllRowsAndOfTypesThatHaveABound) {
  // More than one piece of rows, and one number of the last that differs.
  Weight w{.name = "a.weight", .role = WeightRole::kProjection, .global_shape = {300, 8192}};
  w.value = Tensor::zeros(w.global_shape, DType::kF32, cpu_device());
  ModelDir from = written("zeros", stored_weights({&w}, {}, DType::kF32));
  std::vector<float> numbers(static_cast<size_t>(w.global_shape.count()));
  numbers.back() = 1;
  w.value.assign_f32(numbers);
  ModelDir differs = written("ends_in_one", stored_weights({&w}, {}, DType::kF32));
  const auto equal = distance_of_weights(from, from, {&w}, [] {}),
             far = distance_of_weights(differs, from, {&w}, [] {});
  ASSERT_TRUE(equal && far);
  EXPECT_EQ(equal->worst, 0);
  EXPECT_EQ(equal->numbers, w.global_shape.count());
  EXPECT_GT(far->worst, 1);
  EXPECT_EQ(far->tensor, w.name);
  // Of F16 nothing follows.
  ModelDir half = written("half", stored_weights({&w}, {}, DType::kF16));
  const auto refused = distance_of_weights(half, from, {&w}, [] {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kInvalidInput);
  for (const char* const part : {"a.weight", "F16", "cannot be judged"})
    EXPECT_NE(refused.error().message.find(part), std::string::npos) << refused.error().message;
}

/// The layout that msModelSlim's documents give, made here without Ferry's writer of it.
TEST_F(Quantised, MsModelSlimsLayoutIsRead) {
  ModelDir from = source();
  const auto model = make(std::nullopt);
  std::vector<NamedTensor> tensors;
  std::map<std::string, std::vector<float>> expected;
  nlohmann::ordered_json description = {{"model_quant_type", "W8A8_DYNAMIC"}, {"version", "1.0.0"}};
  for (const Weight* w : model->weights()) {
    const bool stack = w->name.find('*') != std::string::npos;
    for (int64_t e = 0; e < (stack ? w->global_shape[0] : 1); ++e) {
      const std::string name = stack ? expert_name(w->name, e) : w->name;
      const Tensor value = *from.load(name, cpu_device(), DType::kF32);
      if (!takes_codes(*w)) {
        tensors.push_back({name, value, DType::kBF16});
        description[name] = "FLOAT";
        continue;
      }
      const int64_t rows = value.dim(0), columns = value.dim(1);
      const std::vector<float> numbers = value.to_f32();
      std::vector<int8_t> codes(numbers.size());
      std::vector<float> scales(static_cast<size_t>(rows)), zeros(scales.size());
      for (int64_t r = 0; r < rows; ++r) {
        float largest = 0;
        for (int64_t c = 0; c < columns; ++c)
          largest = std::max(largest, std::abs(numbers[static_cast<size_t>(r * columns + c)]));
        scales[static_cast<size_t>(r)] = largest / 127;
        for (int64_t c = 0; c < columns; ++c)
          codes[static_cast<size_t>(r * columns + c)] = static_cast<int8_t>(std::lrint(
              numbers[static_cast<size_t>(r * columns + c)] / scales[static_cast<size_t>(r)]));
      }
      for (int64_t i = 0; i < rows * columns; ++i)
        expected[w->name].push_back(static_cast<float>(codes[static_cast<size_t>(i)]) *
                                    scales[static_cast<size_t>(i / columns)]);
      Tensor stored = Tensor::empty({rows, columns}, DType::kI8, cpu_device());
      stored.copy_bytes_from(codes.data());
      tensors.push_back({name, stored});
      tensors.push_back({name + "_scale", Tensor::from_f32(scales, {rows, 1}, cpu_device())});
      tensors.push_back({name + "_offset", Tensor::from_f32(zeros, {rows, 1}, cpu_device())});
      for (const char* suffix : {"", "_scale", "_offset"})
        description[name + suffix] = "W8A8_DYNAMIC";
    }
  }
  ModelDir dir = written("theirs", tensors, description.dump());
  EXPECT_TRUE(path_exists(path("theirs/quant_model_weights.safetensors")));
  const auto kept = make(std::nullopt), wide = make(DType::kF32);
  ASSERT_TRUE(load_weights(dir, cpu_device(), kept->weights(), {}));
  ASSERT_TRUE(load_weights(dir, cpu_device(), wide->weights(), {}));
  for (size_t i = 0; i < wide->weights().size(); ++i) {
    const Weight& w = *wide->weights()[i];
    EXPECT_EQ(kept->weights()[i]->codes().has_value(), takes_codes(w));
    if (!takes_codes(w)) continue;
    const auto it = expected.find(w.name);
    ASSERT_NE(it, expected.end());
    EXPECT_EQ(w.value.to_f32(), it->second) << w.name;
  }

  // Older versions have other names, of one file or of parts with an index.
  const auto renamed = [&](const char* from_name, const char* to_name) {
    ASSERT_TRUE(rename_path(path("theirs/") + from_name, path("theirs/") + to_name));
  };
  ASSERT_TRUE(remove_tree(path("theirs/checksums.json")));
  renamed("quant_model_weights.safetensors", "quant_model_weight_w8a8_dynamic.safetensors");
  renamed("quant_model_description.json", "quant_model_description_w8a8_dynamic.json");
  const auto same = [&] {
    Result<ModelDir> older = ModelDir::open(path("theirs"));
    ASSERT_TRUE(older) << older.error().message;
    const auto again = make(DType::kF32);
    ASSERT_TRUE(load_weights(*older, cpu_device(), again->weights(), {}));
    for (size_t i = 0; i < wide->weights().size(); ++i)
      EXPECT_EQ(again->weights()[i]->value.to_f32(), wide->weights()[i]->value.to_f32());
  };
  same();
  const std::string part = "quant_model_weight_w8a8_dynamic-00001-of-00001.safetensors";
  renamed("quant_model_weight_w8a8_dynamic.safetensors", part.c_str());
  nlohmann::json map;
  for (const NamedTensor& t : tensors) map[t.name] = part;
  const nlohmann::json index = {{"metadata", nlohmann::json::object()}, {"weight_map", map}};
  ASSERT_TRUE(write_file_atomic(
      path("theirs/quant_model_weight_w8a8_dynamic.safetensors.index.json"), index.dump()));
  same();
  // So are weights under two names: one of them is another model's, or an older one's.
  ASSERT_TRUE(write_file_atomic(path("theirs/quant_model_weights.safetensors"), "{}"));
  const Result<ModelDir> stale = ModelDir::open(path("theirs"));
  ASSERT_FALSE(stale);
  EXPECT_NE(stale.error().message.find("has quant_model_weights.safetensors and "
                                       "quant_model_weight_w8a8_dynamic.safetensors.index.json"),
            std::string::npos)
      << stale.error().message;
  ASSERT_TRUE(remove_tree(path("theirs/quant_model_weights.safetensors")));
  // Two descriptions are of two models; none is told.
  ASSERT_TRUE(write_file_atomic(path("theirs/quant_model_description.json"), "{}"));
  const Result<ModelDir> two = ModelDir::open(path("theirs"));
  ASSERT_FALSE(two);
  EXPECT_NE(two.error().message.find("remove the one"), std::string::npos) << two.error().message;
  ASSERT_TRUE(remove_tree(path("theirs/quant_model_description.json")));
  ASSERT_TRUE(remove_tree(path("theirs/quant_model_description_w8a8_dynamic.json")));
  const Result<ModelDir> none = ModelDir::open(path("theirs"));
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find(part + " is here, and quant_model_description.json"),
            std::string::npos)
      << none.error().message;
}

TEST_F(Quantised, WhatCannotBeMeantIsRefusedByName) {
  ModelDir from = source();
  const std::string weight = "model.layers.0.self_attn.o_proj.weight", scale = weight + "_scale";
  const auto with = [&](WeightCodes codes,
                        const std::string& changed,
                        const std::function<void(NamedTensor&)>& change,
                        const std::function<void(nlohmann::json&)>& describe) {
    std::string description;
    std::vector<NamedTensor> all = tensors(from, codes, &description);
    for (NamedTensor& t : all) {
      if (t.name != changed) continue;
      t.value = *t.load();
      t.load = nullptr;
      change(t);
    }
    auto json = nlohmann::json::parse(description);
    describe(json);
    ModelContents contents{.tensors = std::move(all), .texts = {{"config.json", kConfig}}};
    if (!json.is_null()) contents.texts[kQuantDescriptionName] = json.dump();
    EXPECT_TRUE(remove_tree(path("bad")));
    EXPECT_TRUE(write_model_dir(path("bad"), contents));
    auto dir = ModelDir::open(path("bad"));
    if (!dir) return dir.error().message;
    const auto model = make(std::nullopt);
    const Result<void> loaded = load_weights(*dir, cpu_device(), model->weights(), {});
    return loaded ? std::string() : loaded.error().message;
  };
  const auto nothing = [](auto&) {};
  const auto says = [](const std::string& message, std::initializer_list<const char*> parts) {
    for (const char* part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << part << ": " << message;
  };
  for (const WeightCodes codes : kBoth) {
    EXPECT_EQ(with(codes, "", nothing, nothing), "");
    for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(), 1e-38f})
      says(with(
               codes,
               scale,
               [&](NamedTensor& t) {
                 std::vector<float> values = t.value.to_f32();
                 values.back() = bad;
                 t.value.assign_f32(values);
               },
               nothing),
           {scale.c_str(), std::isnan(bad) ? "not finite" : "a scale is"});
    says(with(
             codes, scale, [](NamedTensor& t) { t.value = t.value.slice(0, 0, 1); }, nothing),
         {scale.c_str(), "config.json asks for"});
    says(with(codes, "", nothing, [&](nlohmann::json& j) { j[weight] = "W4A4_FLATQUANT"; }),
         {kQuantDescriptionName, weight.c_str(), "W4A4_FLATQUANT", "W8A8_DYNAMIC"});
    says(with(codes, "", nothing, [&](nlohmann::json& j) { j[weight] = "FLOAT"; }),
         {weight.c_str(), "FLOAT", "stored as"});
    says(with(codes, "", nothing, [&](nlohmann::json& j) { j.erase(weight); }),
         {weight.c_str(), "does not say"});
    says(with(codes, "", nothing, [&](nlohmann::json& j) { j = nullptr; }),
         {kQuantDescriptionName, "missing"});
    says(with(codes, "", nothing, [&](nlohmann::json& j) { j[weight] = 8; }), {weight.c_str()});
  }
  says(with(
           WeightCodes::kInt8,
           weight + "_offset",
           [](NamedTensor& t) {
             std::vector<float> values = t.value.to_f32();
             values[1] = 3;
             t.value.assign_f32(values);
           },
           nothing),
       {"_offset", "symmetric"});
}

TEST_F(Quantised, IsNotTrained) {
  ModelDir from = source();
  static_cast<void>(converted(from, WeightCodes::kInt8));
  const Result<InitModel> opened = InitModel::open(path("int8"));
  ASSERT_FALSE(opened);
  for (const char* part : {"int8", "whole numbers", "--to bf16"})
    EXPECT_NE(opened.error().message.find(part), std::string::npos) << opened.error().message;
  EXPECT_TRUE(InitModel::open(path("source")));
}

TEST_F(Quantised, ItsCostIsTold) {
  ModelDir from = source();
  const auto model = make(std::nullopt);
  ASSERT_TRUE(load_weights(from, cpu_device(), model->weights(), {}));
  const std::vector<float> before = logits_of(*model);
  std::vector<int32_t> ids(50);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 37 % 90);
  double int8_kl = 0;
  for (const WeightCodes codes : kBoth) {
    const auto quantised = make(std::nullopt);
    ASSERT_TRUE(load_weights(from, cpu_device(), quantised->weights(), {}, {.quantise = codes}));
    std::vector<probe::CostProgress> told;
    const probe::QuantisationCost cost =
        probe::quantisation_cost(*model,
                                 *quantised,
                                 ids,
                                 {.context = 20, .layer_tokens = 16},
                                 [&](const probe::CostProgress& at) { told.push_back(at); });
    ASSERT_EQ(told.size(), 3u + 2u);  // windows, and layers
    EXPECT_EQ(told[0].tokens, 20);
    EXPECT_EQ(told[2].tokens, told[2].tokens_total);
    EXPECT_EQ(told[3].layers, 1);
    EXPECT_EQ(told[4].layers, told[4].layers_total);
    EXPECT_EQ(cost.tokens, 19 + 19 + 9);
    EXPECT_GT(cost.kl, 0);
    EXPECT_GE(cost.kl_largest, cost.kl);
    EXPECT_GT(cost.nats, 0);
    ASSERT_EQ(cost.layers.size(), 2u);
    EXPECT_GE(cost.layers[0].kl, cost.layers[1].kl);
    EXPECT_GT(cost.layers[1].kl, 0);
    if (codes == WeightCodes::kInt8)
      int8_kl = cost.kl;
    else
      EXPECT_GT(cost.kl, 4 * int8_kl);
    EXPECT_EQ(logits_of(*model), before);
  }
  const probe::QuantisationCost none =
      probe::quantisation_cost(*model, *model, ids, {.layer_tokens = 0}, [](const auto&) {});
  EXPECT_LT(std::abs(none.kl), 1e-12);
  EXPECT_TRUE(none.layers.empty());
}

}  // namespace
}  // namespace ferry
