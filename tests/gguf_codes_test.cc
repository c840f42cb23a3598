// Models in GGUF files from bytes to logits: codes that are kept in memory stand for the file's own
// numbers, and take what was announced; DeepSeek's parts come from where files have them.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/cpu_tier.h"
#include "base/file.h"
#include "base/system.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/weights.h"
#include "device/cpu/cpu_device.h"
#include "ops/dequantize/dequantize.h"
#include "probe/directory_model.h"
#include "small_gguf.h"

namespace ferry {
namespace {

using models::TrainableLm;

constexpr GgufType kCoded[] = {
    GgufType::kQ4_0, GgufType::kQ4_1, GgufType::kQ8_0, GgufType::kQ4_K, GgufType::kQ6_K};
const WeightLoading kNumbers{.keep_codes = false};

/// A file in memory, which outlives what reads it.
class Gguf {
 public:
  explicit Gguf(const GgufBuilder& b) : bytes_(b.bytes()) {
    auto file = GgufFile::parse(std::as_bytes(std::span(bytes_)), "test.gguf");
    if (!file) throw std::runtime_error(file.error().message);
    auto model = GgufModel::of(*std::move(file));
    if (!model) throw std::runtime_error(model.error().message);
    source_ = std::make_unique<GgufModel>(std::move(*model));
  }
  GgufModel& source() { return *source_; }
  std::unique_ptr<TrainableLm> load(const WeightLoading& loading = {},
                                    DType compute = DType::kF32) {
    auto m = probe::model_of(*source_, cpu_device(), compute, true, loading);
    if (!m) throw std::runtime_error(m.error().message);
    return std::move(m->model);
  }

 private:
  std::string bytes_;
  std::unique_ptr<GgufModel> source_;
};

std::vector<float> logits_of(TrainableLm& model, int32_t tokens = 24) {
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 37 % 96);
  const Tensor hidden = model.forward(Tensor::from_i32(ids, {tokens}, cpu_device()),
                                      ops::Segments::packed({&tokens, 1}, cpu_device()),
                                      {},
                                      nullptr);
  std::vector<int64_t> rows(ids.size());
  std::iota(rows.begin(), rows.end(), 0);
  return model.logits(hidden, rows).to_f32();
}

/// Mean KL divergence of the second's distributions from the first's, nats a token.
double mean_kl(const std::vector<float>& p, const std::vector<float>& q, size_t vocab) {
  double kl = 0;
  for (size_t row = 0; row < p.size(); row += vocab) {
    double sum_p = 0, sum_q = 0;
    for (size_t i = 0; i < vocab; ++i) {
      sum_p += std::exp(static_cast<double>(p[row + i]));
      sum_q += std::exp(static_cast<double>(q[row + i]));
    }
    for (size_t i = 0; i < vocab; ++i) {
      const double log_p = static_cast<double>(p[row + i]) - std::log(sum_p),
                   log_q = static_cast<double>(q[row + i]) - std::log(sum_q);
      kl += std::exp(log_p) * (log_p - log_q);
    }
  }
  return kl / static_cast<double>(p.size() / vocab);
}

bool of_products(const Weight& w) {
  return takes_codes(w) || w.role == WeightRole::kHead || w.role == WeightRole::kEmbedding;
}

/// The weights of two loads of one file stand for the same numbers, and where the file has codes the
/// first holds them.
void expect_same_numbers(TrainableLm& kept, TrainableLm& numbers, GgufType type) {
  int codes = 0;
  for (size_t i = 0; i < kept.weights().size(); ++i) {
    const Weight &w = *kept.weights()[i], &same = *numbers.weights()[i];
    EXPECT_FALSE(same.codes()) << w.name;
    EXPECT_EQ(w.codes(), of_products(w) ? codes_of(type) : std::nullopt) << w.name;
    codes += w.codes().has_value();
    const Tensor a = w.matrix() ? ops::weight_values(w, DType::kF32) : w.value;
    EXPECT_EQ(a.to_f32(), same.value.to_f32()) << w.name;
  }
  EXPECT_GE(codes, 15);
}

TEST(GgufCodes, StandForTheNumbersOfTheFile) {
  for (const GgufType type : kCoded)
    for (const bool tied : {false, true}) {
      SCOPED_TRACE(to_string(type));
      Gguf file(small_llama_gguf(type, tied));
      const auto kept = file.load(), numbers = file.load(kNumbers);
      expect_same_numbers(*kept, *numbers, type);
      // Activations are rounded, and that is all.
      const double kl = mean_kl(logits_of(*numbers), logits_of(*kept), 96);
      EXPECT_GT(kl, 0);
      EXPECT_LT(kl, 1e-3);
    }
}

TEST(GgufCodes, WhatHasNoneIsReadAsNumbers) {
  for (const GgufType type : {GgufType::kQ5_0, GgufType::kQ5_K, GgufType::kF16, GgufType::kBF16}) {
    Gguf file(small_llama_gguf(type, true));
    for (const Weight* w : file.load()->weights()) EXPECT_FALSE(w->codes()) << w->name;
  }
}

TEST(GgufCodes, TheBitsDependOnNothingElse) {
  for (const GgufType type : kCoded) {
    SCOPED_TRACE(to_string(type));
    Gguf file(small_deepseek_gguf({.type = type}));
    const auto model = file.load({}, DType::kBF16);
    const CpuTier before = cpu_tier();
    const std::vector<float> expected = logits_of(*model);
    for (const CpuTier tier : kCpuTiers) {
      if (!cpu_has(tier)) continue;
      set_cpu_tier(tier);
      EXPECT_EQ(logits_of(*model), expected) << to_string(tier);
    }
    set_cpu_tier(before);
    for (const int threads : {1, 3}) {
      set_cpu_threads(threads);
      EXPECT_EQ(logits_of(*model), expected) << threads << " threads";
    }
    set_cpu_threads(0);
    for (const int32_t tokens : {1, 5, 13}) {
      const std::vector<float> fewer = logits_of(*model, tokens);
      EXPECT_TRUE(std::equal(fewer.begin(), fewer.end(), expected.begin())) << tokens;
    }
  }
}

TEST(GgufCodes, AScaleThatIsNoNumberIsRefused) {
  for (const GgufType type : kCoded) {
    GgufBuilder b = small_llama_gguf(type, true);
    std::string blocks = random_blocks(type, 96 * 256, 1, 3);
    const size_t scale = type == GgufType::kQ6_K ? 208 : 0;
    const auto row = static_cast<size_t>(256 / block_of(type).elements * block_of(type).bytes);
    blocks[7 * row + scale] = 1;  // NaN
    blocks[7 * row + scale + 1] = 0x7C;
    b.tensor("output.weight", {96, 256}, type, blocks);
    Gguf file(b);
    const auto refused = probe::model_of(file.source(), cpu_device(), DType::kF32, true);
    ASSERT_FALSE(refused) << to_string(type);
    EXPECT_EQ(refused.error().code, Code::kCorrupt);
    EXPECT_NE(refused.error().message.find("row 7"), std::string::npos) << refused.error().message;
  }
}

/// The most memory this process had from now on.
void reset_memory_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";  // proc(5): resets VmHWM
}

TEST(GgufCodes, LoadingTakesWhatIsAnnounced) {
  constexpr int64_t kVocab = 40000;  // 10 M numbers in the embedding, of 12 M
  const std::string folder =
      join_path(testing::TempDir(), "gguf_codes_" + std::to_string(::getpid()));
  ASSERT_TRUE(make_folders(folder));
  const std::string path = join_path(folder, "model.gguf");
  struct Way {
    const char* name;
    GgufType type;
    WeightLoading loading;
  };
  const Way ways[] = {{"kept", GgufType::kQ8_0, {}},
                      {"kept", GgufType::kQ4_K, {}},
                      {"int8", GgufType::kBF16, {.quantise = WeightCodes::kInt8}},
                      {"int4", GgufType::kQ8_0, {.quantise = WeightCodes::kInt4}},
                      {"as stored", GgufType::kBF16, {}},
                      {"pairs", GgufType::kBF16, {.pairs = true}},
                      {"pairs", GgufType::kQ5_0, {.pairs = true}}};
  for (const auto& [name, type, loading] : ways) {
    SCOPED_TRACE(fmt::format("{} {}", to_string(type), name));
    ASSERT_TRUE(write_file_atomic(path, small_llama_gguf(type, true, kVocab).bytes()));
    auto source = GgufModel::open(path);
    ASSERT_TRUE(source) << source.error().message;
    const auto before = static_cast<double>(memory_resident_bytes());
    reset_memory_peak();
    ASSERT_LT(static_cast<double>(memory_peak_bytes()), before + 8e6);
    const auto m = probe::model_of(*source, cpu_device(), DType::kBF16, true, loading);
    ASSERT_TRUE(m) << m.error().message;
    const double peak = static_cast<double>(memory_peak_bytes()) - before;
    double held = 0;
    for (Weight* w : m->model->weights())
      held += static_cast<double>(w->value.bytes() + (w->scales.defined() ? w->scales.bytes() : 0));
    const auto unloaded = probe::model_of(*source, cpu_device(), DType::kBF16, false);
    ASSERT_TRUE(unloaded);
    const double announced =
        bytes_of_weights(*source, cpu_device(), unloaded->model->weights(), loading);
    EXPECT_EQ(held, announced);
    // Pieces of 4 MiB as numbers, a copy, and codes of them; blocks of memory come in some sizes.
    EXPECT_LT(peak, 1.05 * announced + 16e6) << announced / 1e6 << " MB announced";
    // As the file has it, but for vectors and what rows of a panel are rounded up to.
    if (!loading.quantise && (!loading.pairs || type == GgufType::kBF16)) {
      EXPECT_NEAR(announced / static_cast<double>(file_size(path).value()), 1, 0.05);
    }
  }
  EXPECT_TRUE(remove_tree(folder));
}

/// What the hub calls kv_b_proj lies in two tensors, the keys turned over, or in one.
TEST(GgufDeepSeek, KeysAndValuesOfTheLatentArePutTogether) {
  for (const GgufType type : {GgufType::kF32, GgufType::kQ8_0}) {
    Gguf file(small_deepseek_gguf({.type = type}));
    constexpr int64_t kHeads = 4, kLatent = 256, kKeys = 64, kValues = 64;
    const auto decoded = [&](const std::string& name, const Shape& shape) {
      uint64_t seed = 0;  // as GgufBuilder::drawn draws
      for (const char c : name) seed = seed * 131 + static_cast<unsigned char>(c);
      const std::string blocks = random_blocks(type, shape.count(), 1.0 / 16, seed);
      std::vector<float> values(static_cast<size_t>(shape.count()));
      decode_blocks(type, std::as_bytes(std::span(blocks)), values);
      return values;
    };
    const auto k = decoded("blk.1.attn_k_b.weight", {kHeads, kLatent, kKeys}),
               v = decoded("blk.1.attn_v_b.weight", {kHeads, kValues, kLatent});
    const std::string name = "model.layers.1.self_attn.kv_b_proj.weight";
    const Tensor whole = file.source().load(name, cpu_device(), DType::kF32).value();
    ASSERT_EQ(whole.shape(), Shape({kHeads * (kKeys + kValues), kLatent}));
    EXPECT_EQ(file.source().stored(name)->shape, whole.shape());
    EXPECT_FALSE(file.source().codes(name));
    const std::vector<float> all = whole.to_f32();
    for (int64_t h = 0; h < kHeads; ++h)
      for (int64_t r = 0; r < kKeys + kValues; ++r)
        for (int64_t l = 0; l < kLatent; ++l) {
          const float expected =
              r < kKeys ? k[static_cast<size_t>((h * kLatent + l) * kKeys + r)]
                        : v[static_cast<size_t>((h * kValues + r - kKeys) * kLatent + l)];
          ASSERT_EQ(all[static_cast<size_t>((h * (kKeys + kValues) + r) * kLatent + l)], expected);
        }
    for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 1}, {50, 100}, {200, 312}}) {
      const std::vector<float> part =
          file.source().load_rows(name, first, rows, cpu_device(), DType::kF32).value().to_f32();
      EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + first * kLatent)) << first;
    }
  }
}

TEST(GgufDeepSeek, TheHeaderIsTheConfigOfTheHub) {
  Gguf v3(small_deepseek_gguf({}));
  auto config = nlohmann::json::parse(v3.source().config_json());
  const auto expected = nlohmann::json::parse(R"({"model_type": "deepseek_v3",
    "scoring_func": "sigmoid", "topk_method": "noaux_tc", "n_group": 4, "topk_group": 2,
    "norm_topk_prob": true, "routed_scaling_factor": 2.5, "q_lora_rank": 256,
    "kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
    "first_k_dense_replace": 1, "n_routed_experts": 8, "num_experts_per_tok": 3,
    "n_shared_experts": 1, "moe_intermediate_size": 256})");
  for (const auto& [name, value] : expected.items()) EXPECT_EQ(config.at(name), value) << name;
  const auto yarn = nlohmann::json::parse(R"({"type": "yarn", "mscale": 0.707,
    "mscale_all_dim": 0.707, "factor": 8.0, "original_max_position_embeddings": 64,
    "beta_fast": 32.0, "beta_slow": 1.0})");
  EXPECT_EQ(config.at("rope_scaling"), yarn);
  for (const bool split : {false, true}) {
    Gguf lite(small_deepseek_gguf({.v3 = false, .split = split}));
    config = nlohmann::json::parse(lite.source().config_json());
    EXPECT_EQ(config.at("model_type"), "deepseek_v2");
    EXPECT_EQ(config.at("topk_method"), "greedy");
    EXPECT_TRUE(config.at("q_lora_rank").is_null());
    EXPECT_EQ(config.at("qk_nope_head_dim"), 64);
    EXPECT_EQ(config.at("v_head_dim"), 64);
    static_cast<void>(lite.load());
  }
}

/// A file with the module that predicts further tokens, or that announces one and has none, is the same model as one
/// without: bit for bit. (Fails where the module is taken for a layer, or refused.)
TEST(GgufDeepSeek, WhatPredictsFurtherTokensIsLeftOut) {
  using Prediction = SmallDeepSeek::Prediction;
  for (const GgufType type : {GgufType::kF32, GgufType::kQ8_0}) {
    SCOPED_TRACE(to_string(type));
    Gguf without(small_deepseek_gguf({.type = type}));
    const std::vector<float> expected = logits_of(*without.load());
    for (const Prediction prediction : {Prediction::kAnnounced, Prediction::kStored}) {
      Gguf with(small_deepseek_gguf({.type = type, .prediction = prediction}));
      EXPECT_EQ(with.source().names(), without.source().names());
      EXPECT_EQ(with.source().config_json(), without.source().config_json());
      EXPECT_EQ(logits_of(*with.load()), expected);
      EXPECT_EQ(with.source().reading_notes().value(),
                std::vector<std::string>{
                    "its multi-token prediction is not read: the model is made without"});
    }
    EXPECT_EQ(without.source().reading_notes().value(), std::vector<std::string>{});
  }
}

/// (What is computed with: llama.cpp's own reader of deepseek2.)
TEST(GgufDeepSeek, StretchedRopeIsReadAsLlamaCppDoes) {
  const auto scaling = [](const char* type, float factor, float multiplier) {
    GgufBuilder b = small_deepseek_gguf({.stretched = false});
    if (type != nullptr) b.text("deepseek2.rope.scaling.type", type);
    b.real("deepseek2.rope.scaling.factor", factor)
        .real("deepseek2.rope.scaling.yarn_log_multiplier", multiplier)
        .real("deepseek2.rope.scaling.yarn_beta_fast", 16);
    const std::string bytes = b.bytes();
    const auto model =
        GgufModel::of(GgufFile::parse(std::as_bytes(std::span(bytes)), "test.gguf").value());
    return model ? nlohmann::json::parse(model->config_json()).at("rope_scaling")
                 : nlohmann::json(model.error().message);
  };
  EXPECT_EQ(scaling("yarn", 8, 0.1f),
            (nlohmann::json{{"type", "yarn"},
                            {"mscale", 1.0},
                            {"mscale_all_dim", 1.0},
                            {"factor", 8.0},
                            {"beta_fast", 32.0},
                            {"beta_slow", 1.0},
                            {"original_max_position_embeddings", 512}}));  // context_length
  EXPECT_TRUE(scaling("yarn", 1, 0.1f).is_null());
  EXPECT_TRUE(scaling("none", 8, 0.1f).is_null());
  EXPECT_TRUE(scaling(nullptr, 1, 0.1f).is_null());
  EXPECT_NE(scaling("yarn", 8, 0).get<std::string>().find("yarn_log_multiplier\" is 0"),
            std::string::npos);
  EXPECT_NE(scaling(nullptr, 8, 0.1f).get<std::string>().find("without the kind of stretching"),
            std::string::npos);
}

TEST(GgufDeepSeek, ExpertsKeepTheirCodes) {
  for (const GgufType type : kCoded) {
    SCOPED_TRACE(to_string(type));
    Gguf file(small_deepseek_gguf({.type = type}));
    const auto kept = file.load(), numbers = file.load(kNumbers);
    expect_same_numbers(*kept, *numbers, type);
    const double kl = mean_kl(logits_of(*numbers), logits_of(*kept), 96);
    EXPECT_GT(kl, 0);
    EXPECT_LT(kl, 0.02);  // a token may choose another expert
  }
}

TEST(GgufDeepSeek, WhatDoesNotBelongTogetherIsRefused) {
  const auto refusal = [](GgufBuilder b) {
    const std::string bytes = b.bytes();
    auto file = GgufFile::parse(std::as_bytes(std::span(bytes)), "test.gguf");
    if (!file) return file.error().message;
    const auto model = GgufModel::of(*std::move(file));
    return model ? std::string() : model.error().message;
  };
  const auto says = [](const std::string& message, const char* part) {
    EXPECT_NE(message.find(part), std::string::npos) << part << ": " << message;
  };
  const auto f32 = GgufType::kF32;
  says(refusal(small_deepseek_gguf({.split = false})
                   .drawn("blk.0.attn_k_b.weight", {4, 256, 64}, f32, 1)),
       "attn_v_b");
  says(refusal(small_deepseek_gguf({.split = false})
                   .drawn("blk.0.attn_k_b.weight", {4, 256, 64}, f32, 1)
                   .drawn("blk.0.attn_v_b.weight", {4, 64, 255}, f32, 1)),
       "do not belong together");
  says(refusal(small_deepseek_gguf({.split = false})
                   .drawn("blk.0.attn_k_b.weight", {4, 256, 64}, f32, 1)
                   .drawn("blk.0.attn_v_b.weight", {4, 64, 256}, f32, 1)),
       "twice");
  says(refusal(small_deepseek_gguf({}).drawn("blk.0.ffn_gate_exps.weight", {8, 256}, f32, 1)),
       "number of dimensions");
  says(refusal(small_deepseek_gguf({}).drawn(
           "blk.0.ffn_gate_exps.weight", {int64_t{1} << 20, 1, 1}, f32, 1)),
       "is a stack of 1048576 matrices, and the header tells of");
  says(refusal(small_deepseek_gguf({}).number("deepseek2.attention.sliding_window", 5)),
       "sliding_window");
}

/// A first file with the header alone, and a second with all tensors; `name`'s first scale is no number there.
std::string write_in_two(const std::string& folder, const std::string& name) {
  GgufBuilder whole = small_deepseek_gguf({.type = GgufType::kQ8_0});
  const std::string bytes = whole.bytes();
  const GgufFile file = GgufFile::parse(std::as_bytes(std::span(bytes)), "whole").value();
  GgufBuilder second;
  second.number("split.no", 1).number("split.count", 2);
  for (const auto& [of, tensor] : file.tensors()) {
    const std::span<const std::byte> from = file.bytes(tensor);
    std::string to(reinterpret_cast<const char*>(from.data()), from.size());
    if (of == name) to.replace(0, 2, std::string("\x00\x7e", 2));  // in f16
    second.tensor(of, tensor.shape, tensor.type, std::move(to));
  }
  std::string first = whole.number("split.no", 0).number("split.count", 2).bytes();
  first.resize(first.find("token_embd.weight") - sizeof(uint64_t));  // its table of tensors
  constexpr size_t kTensors = 8;                                     // where it counts them
  first.replace(kTensors, sizeof(uint64_t), sizeof(uint64_t), '\0');
  first.resize((first.size() + 31) / 32 * 32, '\0');
  EXPECT_TRUE(make_folders(folder));
  EXPECT_TRUE(write_file_atomic(folder + "/m-00001-of-00002.gguf", first));
  EXPECT_TRUE(write_file_atomic(folder + "/m-00002-of-00002.gguf", second.bytes()));
  return folder + "/m-00001-of-00002.gguf";
}

/// What is wrong with the codes, or the experts, of a model in several files is said of the file that has them.
TEST(GgufCodes, WhatIsWrongIsSaidOfTheFileThatHasIt) {
  const std::string folder = fmt::format("{}ferry_two.{}", ::testing::TempDir(), ::getpid());
  Result<GgufModel> model = GgufModel::open(write_in_two(folder, "blk.1.ffn_down_exps.weight"));
  ASSERT_TRUE(model) << model.error().message;
  const std::string second = folder + "/m-00002-of-00002.gguf: 'blk.1.ffn_down_exps.weight' ";
  const std::string name = "model.layers.1.mlp.experts.0.down_proj.weight";
  const auto said = [](const auto& result) {
    return result ? std::string("nothing") : result.error().message;
  };
  const std::string number = said(model->load(name, cpu_device(), DType::kF32));
  EXPECT_TRUE(number.starts_with(second + "holds a number that is not finite")) << number;
  PanelsInMaking panels(model->codes(name).value(), model->stored(name)->shape);
  const std::string scale = said(model->take_codes(name, panels, 0));
  EXPECT_TRUE(scale.starts_with(second + "has a scale that is not finite in row 0")) << scale;
  const std::string experts = said(model->load_stacked(
      "model.layers.1.mlp.experts.*.down_proj.weight", 7, cpu_device(), DType::kF32));
  EXPECT_TRUE(experts.starts_with(second + "holds more than the 7 experts")) << experts;
  ASSERT_TRUE(remove_tree(folder));
}

}  // namespace
}  // namespace ferry
