// How weights lie in memory is how the directory stores them, and never changes what is computed:
// bf16 stays bf16, DeepSeek's float8 stays codes and scales, both give the bits of the same numbers
// in f32.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <numeric>

#include "base/alive.h"
#include "base/file.h"
#include "base/random.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/weights.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "ops/pair_linear/pair_linear.h"
#include "tensor/f8.h"
#include "verify/verify.h"

namespace ferry {
namespace {

// Sizes that 128 does not divide, so that blocks are cut.
constexpr const char* kConfig =
    R"({"model_type": "deepseek_v3", "vocab_size": 90, "hidden_size": 136,
  "num_hidden_layers": 2, "first_k_dense_replace": 1, "intermediate_size": 140,
  "moe_intermediate_size": 24, "n_routed_experts": 4, "n_shared_experts": 1,
  "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc",
  "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 1.5,
  "num_attention_heads": 2, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16,
  "qk_rope_head_dim": 8, "v_head_dim": 70, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
  "max_position_embeddings": 64, "num_nextn_predict_layers": 0, "initializer_range": 0.1,
  "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1})";

using models::TrainableLm;

std::unique_ptr<TrainableLm> make(DType compute, std::optional<DType> storage) {
  auto model = models::make_model(kConfig, "config", cpu_device(), compute, storage);
  if (!model) throw std::runtime_error(model.error().message);
  return std::move(*model);
}

std::vector<char> logits_of(TrainableLm& model) {
  const std::vector<int32_t> ids = {3, 14, 15, 89, 2, 6, 5};
  const auto n = static_cast<int32_t>(ids.size());
  const Tensor hidden = model.forward(Tensor::from_i32(ids, {n}, cpu_device()),
                                      ops::Segments::packed({&n, 1}, cpu_device()),
                                      {},
                                      nullptr);
  const std::vector<int64_t> rows = {0, 3, 6};
  const Tensor logits = model.logits(hidden, rows);
  std::vector<char> bytes(logits.bytes());
  logits.copy_bytes_to(bytes.data());
  return bytes;
}

class Folder {
 public:
  Folder() : path_(join_path(::testing::TempDir(), "storage_" + std::to_string(::getpid()))) {}
  ~Folder() { remove_tree(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

ModelDir written(const Folder& folder, std::vector<NamedTensor> tensors) {
  const auto report = write_model_dir(
      folder.path(), {.tensors = std::move(tensors), .texts = {{"config.json", kConfig}}});
  if (!report) throw std::runtime_error(report.error().message);
  return *ModelDir::open(folder.path());
}

TEST(Storage, Bf16StaysBf16AndGivesTheBitsOfF32) {
  const Folder folder;
  const auto source = make(DType::kF32, DType::kF32);
  models::initialise(*source, 5);
  ModelDir dir = written(folder, stored_weights(source->weights(), {}, DType::kBF16));
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const auto wide = make(compute, DType::kF32), kept = make(compute, std::nullopt);
    ASSERT_TRUE(load_weights(dir, cpu_device(), wide->weights(), {}));
    ASSERT_TRUE(load_weights(dir, cpu_device(), kept->weights(), {}));
    for (const Weight* w : kept->weights())
      EXPECT_EQ(w->value.dtype(), w->matrix() ? DType::kBF16 : DType::kF32) << w->name;
    EXPECT_EQ(logits_of(*kept), logits_of(*wide)) << to_string(compute);
  }
}

/// Experts, routers, projections and the head, which are products alone; whatever the file stores.
TEST(Storage, PairsGiveTheBitsOfRows) {
  for (const DType stored : {DType::kBF16, DType::kF32, DType::kF16}) {
    SCOPED_TRACE(to_string(stored));
    const Folder folder;
    const auto source = make(DType::kF32, DType::kF32);
    models::initialise(*source, 5);
    ModelDir dir = written(folder, stored_weights(source->weights(), {}, stored));
    const auto rows = make(DType::kBF16, std::nullopt), pairs = make(DType::kBF16, std::nullopt);
    const double announced = bytes_of_weights(dir, cpu_device(), pairs->weights(), {.pairs = true});
    ASSERT_TRUE(load_weights(dir, cpu_device(), rows->weights(), {}));
    ASSERT_TRUE(load_weights(dir, cpu_device(), pairs->weights(), {}, {.pairs = true}));
    EXPECT_EQ(logits_of(*pairs), logits_of(*rows));
    double held = 0;
    int paired = 0;
    for (size_t i = 0; i < pairs->weights().size(); ++i) {
      const Weight &w = *pairs->weights()[i], &same = *rows->weights()[i];
      held += static_cast<double>(w.value.bytes());
      paired += w.paired;
      EXPECT_EQ(w.paired,
                takes_codes(w) || w.role == WeightRole::kRouter || w.role == WeightRole::kHead)
          << w.name;
      EXPECT_EQ(w.packed, nullptr) << w.name;
      EXPECT_EQ(w.shape(), same.shape()) << w.name;
    }
    EXPECT_GT(paired, 8);
    EXPECT_EQ(held, announced);
  }
}

/// A matrix as DeepSeek stores it: each block scaled so that its largest number is 448.
struct F8 {
  Tensor codes, scales;
  std::vector<float> numbers;  // that they stand for
};

uint8_t nearest_code(float number) {
  uint8_t best = 0;
  for (int code = 0; code < 256; ++code) {
    const float at = f8e4m3_to_f32(static_cast<uint8_t>(code));
    if (std::abs(at - number) < std::abs(f8e4m3_to_f32(best) - number))
      best = static_cast<uint8_t>(code);
  }
  return best;
}

F8 quantised(const std::vector<float>& values, const Shape& shape) {
  const int64_t rows = shape[0], columns = shape[1];
  const Shape scale_shape = kF8Blocks.scales_of(shape);
  const auto block = [&](int64_t r, int64_t c) {
    return static_cast<size_t>(r / 128 * scale_shape[1] + c / 128);
  };
  std::vector<float> scales(static_cast<size_t>(scale_shape.count()), 0);
  for (int64_t i = 0; i < shape.count(); ++i) {
    float& scale = scales[block(i / columns, i % columns)];
    scale = std::max(scale, std::abs(values[static_cast<size_t>(i)]) / 448);
  }
  F8 q{Tensor::empty(shape, DType::kF8E4M3, cpu_device()),
       Tensor::from_f32(scales, scale_shape, cpu_device()),
       {}};
  std::vector<uint8_t> codes;
  for (int64_t i = 0; i < rows * columns; ++i) {
    const float scale = scales[block(i / columns, i % columns)];
    codes.push_back(nearest_code(values[static_cast<size_t>(i)] / scale));
    q.numbers.push_back(f8e4m3_to_f32(codes.back()) * scale);
  }
  q.codes.copy_bytes_from(codes.data());
  return q;
}

/// The tensors of a float8 directory, as DeepSeek has it: the embedding, the head, the router and
/// vectors are not in float8. `model`'s weights become the numbers that are stored.
std::vector<NamedTensor> f8_tensors(TrainableLm& model) {
  std::vector<NamedTensor> tensors;
  for (Weight* w : model.weights()) {
    if (w->role != WeightRole::kProjection && w->role != WeightRole::kFine &&
        w->role != WeightRole::kExperts) {
      tensors.push_back({w->name, w->value, DType::kF32});
      continue;
    }
    const std::vector<float> values = w->value.to_f32();
    const bool stack = w->role == WeightRole::kExperts;
    const Shape shape = {w->dim(-2), w->dim(-1)};
    std::vector<float> numbers;
    for (int64_t e = 0; e < (stack ? w->dim(0) : 1); ++e) {
      const auto begin = values.begin() + e * shape.count();
      const F8 q = quantised({begin, begin + shape.count()}, shape);
      std::string name = w->name;
      if (stack) name.replace(name.find('*'), 1, std::to_string(e));
      tensors.push_back({name, q.codes, std::nullopt});
      tensors.push_back({name + "_scale_inv", q.scales, std::nullopt});
      numbers.insert(numbers.end(), q.numbers.begin(), q.numbers.end());
    }
    w->value.assign_f32(numbers);
    w->changed();
  }
  return tensors;
}

TEST(Storage, Float8StaysCodesAndGivesTheBitsOfItsNumbers) {
  const Folder folder;
  const auto source = make(DType::kF32, DType::kF32);
  models::initialise(*source, 6);
  ModelDir dir = written(folder, f8_tensors(*source));
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const auto numbers = make(compute, DType::kF32), wide = make(compute, DType::kF32),
               kept = make(compute, std::nullopt);
    for (size_t i = 0; i < numbers->weights().size(); ++i)
      numbers->weights()[i]->store_as(*source->weights()[i]);
    ASSERT_TRUE(load_weights(dir, cpu_device(), wide->weights(), {}));
    ASSERT_TRUE(load_weights(dir, cpu_device(), kept->weights(), {}));
    int scaled = 0;
    for (const Weight* w : kept->weights()) scaled += w->scaled();
    EXPECT_EQ(scaled, 2 * 5 + 3 + 3 + 3);  // attention, a dense MLP, experts, the shared one
    const std::vector<char> expected = logits_of(*numbers);
    EXPECT_EQ(logits_of(*wide), expected) << "as f32, computing in " << to_string(compute);
    EXPECT_EQ(logits_of(*kept), expected) << "as codes, computing in " << to_string(compute);
  }
}

/// Who rehearses a run has weights of the types that it would load.
TEST(Storage, RoomIsWhatLoadingFills) {
  const Folder folder;
  const auto source = make(DType::kF32, DType::kF32);
  models::initialise(*source, 6);
  const auto same = [](const Tensor& a, const Tensor& b) {
    return a.defined() == b.defined() &&
           (!a.defined() || (a.dtype() == b.dtype() && a.shape() == b.shape()));
  };
  std::vector<std::vector<NamedTensor>> directories = {
      stored_weights(source->weights(), {}, DType::kBF16),
      stored_weights(source->weights(), {}, DType::kF32),
      f8_tensors(*source)};
  for (std::vector<NamedTensor>& tensors : directories) {
    ModelDir dir = written(folder, std::move(tensors));
    const WeightLoading ways[] = {
        {}, {.quantise = WeightCodes::kInt8}, {.quantise = WeightCodes::kInt4}, {.pairs = true}};
    for (const WeightLoading& way : ways) {
      const auto loaded = make(DType::kBF16, std::nullopt),
                 empty = make(DType::kBF16, std::nullopt);
      ASSERT_TRUE(load_weights(dir, cpu_device(), loaded->weights(), {}, way));
      ASSERT_TRUE(make_room_for_weights(dir, cpu_device(), empty->weights(), {}, way));
      for (size_t i = 0; i < loaded->weights().size(); ++i) {
        const Weight &a = *loaded->weights()[i], &b = *empty->weights()[i];
        EXPECT_TRUE(same(a.value, b.value) && same(a.scales, b.scales) && a.blocks == b.blocks &&
                    a.codes() == b.codes() && a.paired == b.paired)
            << a.name;
      }
    }
  }
}

/// Which kernels a device is judged by is decided by how weights lie there.
TEST(Storage, VerifyJudgesWhatGeneratingComputes) {
  struct Count final : ops::Observer {
    void after(const ops::OpCall& call) override {
      dequantized += std::string_view(call.op) == "dequantize";
      by_pairs += std::string_view(call.op) == "pair_linear";
    }
    int dequantized = 0, by_pairs = 0;
  };
  const Folder folder;
  const auto source = make(DType::kF32, DType::kF32);
  models::initialise(*source, 6);
  written(folder, f8_tensors(*source));
  for (const bool train : {false, true}) {
    Count count;
    const ops::Observing observing(count);
    // Of training the report alone counts here: one look at its ops is enough.
    const auto report = verify::verify(
        {.directory = folder.path(), .quick = train, .stream = false, .train = train});
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->reasons.empty()) << report->reasons.front();
    EXPECT_EQ(count.dequantized > 0, !train) << "training has numbers, generating codes";
    // The head, the router and the embedding are in f32 there.
    const bool pairs = ops::pairs_wanted(cpu_device(), DType::kBF16);
    EXPECT_EQ(count.by_pairs > 0, pairs && !train);
  }
}

/// Weights that are drawn or loaded, also without any hash of theirs being computed, show that the
/// work goes on: not once for each, which may be an expert stack of gigabytes.
TEST(Storage, DrawingAndLoadingShowLife) {
  const Folder folder;
  const auto source = make(DType::kF32, DType::kF32);
  const auto beats = [](const std::function<void()>& work) {
    std::atomic<int64_t> heard{0};
    const AliveListener listener([&](uint64_t) { ++heard; });
    work();
    return heard.load();
  };
  int64_t blocks = 0, parts = 0, rows = 0;
  for (const Weight* w : source->weights()) {
    blocks += w->matrix() ? (w->value.count() + (1 << 14) - 1) / (1 << 14) : 0;
    parts += w->value.rank() == 3 ? w->dim(0) : 1;
  }
  ASSERT_GT(parts, static_cast<int64_t>(source->weights().size()));
  EXPECT_GE(beats([&] { models::initialise(*source, 6); }),
            blocks + static_cast<int64_t>(source->weights().size()));
  ModelDir dir = written(folder, f8_tensors(*source));
  ASSERT_TRUE(remove_tree(join_path(folder.path(), "checksums.json")));
  dir = *ModelDir::open(folder.path());
  const auto kept = make(DType::kF32, std::nullopt), wide = make(DType::kF32, DType::kF32);
  EXPECT_GE(beats([&] { ASSERT_TRUE(load_weights(dir, cpu_device(), kept->weights(), {})); }),
            parts);
  for (const Weight* w : kept->weights())
    if (w->scaled()) rows += w->value.count() / w->dim(-1);
  EXPECT_GE(beats([&] { ASSERT_TRUE(load_weights(dir, cpu_device(), wide->weights(), {})); }),
            parts + rows);
}

TEST(Storage, Float8WithoutGoodScalesIsRefusedByName) {
  const auto source = make(DType::kF32, DType::kF32);
  models::initialise(*source, 6);
  const std::vector<NamedTensor> good = f8_tensors(*source);
  const std::string victim = "model.layers.1.mlp.experts.2.up_proj.weight_scale_inv";
  const auto refusal = [&](const std::function<void(std::vector<NamedTensor>&, size_t)>& spoil) {
    const Folder folder;
    std::vector<NamedTensor> tensors = good;
    size_t at = 0;
    while (tensors[at].name != victim) ++at;
    spoil(tensors, at);
    ModelDir dir = written(folder, tensors);
    const auto kept = make(DType::kF32, std::nullopt);
    const Result<void> loaded = load_weights(dir, cpu_device(), kept->weights(), {});
    return loaded ? std::string("loaded") : loaded.error().message;
  };
  EXPECT_EQ(refusal([](auto&, size_t) {}), "loaded");
  EXPECT_NE(refusal([](auto& t, size_t at) {
              t.erase(t.begin() + static_cast<long>(at));
            }).find(victim + "\" is missing"),
            std::string::npos);
  EXPECT_NE(refusal([](auto& t, size_t at) {
              t[at].value = Tensor::zeros({1, 1}, DType::kF32, cpu_device());
            }).find(victim),
            std::string::npos);
  for (const float bad : {0.0f, -1.0f, NAN, INFINITY}) {
    const std::string message = refusal([&](auto& t, size_t at) {
      std::vector<float> scales = t[at].value.to_f32();
      scales.back() = bad;
      t[at].value = Tensor::from_f32(scales, t[at].value.shape(), cpu_device());
    });
    EXPECT_NE(message.find("up_proj.weight_scale_inv"), std::string::npos) << bad << message;
    EXPECT_NE(message.find(std::isfinite(bad) ? "positive" : "not finite"), std::string::npos)
        << bad << message;
  }
}

}  // namespace
}  // namespace ferry
