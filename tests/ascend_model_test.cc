// The small model on software Ascend: it computes what the CPU computes, and a row is a row there
// too: cached = uncached and alone = batched, bit for bit. Wants FERRY_ASCEND_LIBRARIES in the
// environment (software Ascend lies in build/ascend_sim).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "ops/attention/attention.h"
#include "small_model.h"

namespace ferry {
namespace {

using models::ForwardOptions;
using models::MlaForm;

Device& ascend() {
  const Result<Device*> device = open_device("ascend");
  if (!device) throw std::runtime_error(device.error().message);
  return **device;
}

/// Two devices add in different orders. A result is at the end of about 500 roundings in sequence
/// (the lengths of three layers' contractions, one after the other), of which each is within the
/// type's roundoff of what it rounds; independent ones add up to the root of their number. Eight
/// such deviations are a bound that chance does not reach. bf16 rounds after each op, not in it:
/// 120 ops.
double tolerance(DType compute) {
  const double roundings = compute == DType::kF32 ? 500 : 120;
  return 8 * std::sqrt(roundings) * unit_roundoff(compute);
}

void expect_close(const Tensor& got,
                  const Tensor& expected,
                  double relative,
                  const std::string& what) {
  const std::vector<float> a = got.to_f32(), b = expected.to_f32();
  ASSERT_EQ(a.size(), b.size()) << what;
  double largest = 0, worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
    const double error = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  EXPECT_LE(worst, relative * largest) << what << ": largest value " << largest;
}

class EachModel : public ::testing::TestWithParam<SmallModel> {
 protected:
  std::unique_ptr<models::TrainableLm> model_on(Device& device) const {
    return small_model(GetParam().architecture, GetParam().compute, device);
  }
};

// The chosen experts are the CPU's: near a tie, roundings may choose otherwise.
TEST_P(EachModel, LogitsAndGradientsAreTheCpus) {
  const auto on_cpu = model_on(cpu_device()), on_ascend = model_on(ascend());
  const Packed p = pack(small_documents(), cpu_device()), q = pack(small_documents(), ascend());
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    models::Losses expected, got;
    const auto grads = gradients(*on_cpu, p, {.mla_form = form}, &expected);
    std::vector<Tensor> experts;
    for (const Tensor& e : expected.trace.experts)
      experts.push_back(Tensor::from_i32(e.to_i32(), e.shape(), ascend()));
    const ForwardOptions options{.mla_form = form, .given_experts = experts};
    const auto grads_there =
        gradients(*on_ascend, q, {.mla_form = form, .given_experts = experts}, &got);
    expect_close(
        got.token_losses, expected.token_losses, tolerance(GetParam().compute), "token losses");
    ASSERT_EQ(got.mtp.defined(), expected.mtp.defined());
    if (got.mtp.defined())
      expect_close(got.mtp, expected.mtp, tolerance(GetParam().compute), "MTP's loss");
    ASSERT_EQ(grads.size(), grads_there.size());
    // Back through the model as well as forward.
    for (const auto& [name, g] : grads)
      expect_close(grads_there.at(name), g, 2 * tolerance(GetParam().compute), name);
    const auto logits = [&](auto& model, const Packed& packed, const ForwardOptions& o) {
      return all_logits(*model,
                        model->forward(packed.batch.tokens, packed.batch.segments, o, nullptr));
    };
    expect_close(logits(on_ascend, q, options),
                 logits(on_cpu, p, {.mla_form = form}),
                 tolerance(GetParam().compute),
                 "logits");
  }
}

class EachType : public ::testing::TestWithParam<DType> {};

TEST_P(EachType, TheChosenExpertsAreTheCpus) {
  const auto on_cpu = random_model(small_config(), GetParam(), cpu_device()),
             on_ascend = random_model(small_config(), GetParam(), ascend());
  const Packed p = pack(small_documents(), cpu_device()), q = pack(small_documents(), ascend());
  const auto expected = on_cpu->losses(p.batch, {.scale = 1}).trace.experts,
             got = on_ascend->losses(q.batch, {.scale = 1}).trace.experts;
  ASSERT_EQ(got.size(), expected.size());
  size_t same = 0, all = 0;
  for (size_t layer = 0; layer < got.size(); ++layer) {
    const std::vector<int32_t> a = got[layer].to_i32(), b = expected[layer].to_i32();
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) same += a[i] == b[i];
    all += a.size();
  }
  if (GetParam() == DType::kF32)
    EXPECT_EQ(same, all);
  else  // scores that bf16's roundoff cannot tell apart may change places
    EXPECT_GE(same, all - all / 10) << "of " << all;
}

TEST_P(EachModel, CachedIsUncachedAndBatchedIsAlone) {
  const auto model = model_on(ascend());
  const auto docs = small_documents();
  const Packed p = pack(docs, ascend());
  const auto logits = [&](const Packed& packed) {
    return bytes_of(all_logits(
        *model, model->forward(packed.batch.tokens, packed.batch.segments, {}, nullptr)));
  };
  const std::vector<char> whole = logits(p);
  std::vector<std::vector<char>> expected;
  auto at = whole.begin();
  for (const auto& d : docs) {
    const auto end = at + static_cast<int64_t>(d.size() * sizeof(float)) * model->vocab_size();
    expected.emplace_back(at, end);
    at = end;
  }
  for (size_t d = 0; d < docs.size(); ++d)
    EXPECT_TRUE(logits(pack({docs[d]}, ascend())) == expected[d]) << "document " << d << " alone";
  for (const int64_t chunk : {5, 1})
    EXPECT_TRUE(cached_logits(*model, docs, chunk) == expected) << "chunks of " << chunk;
}

TEST_P(EachModel, TrainingForwardIsServingForwardAndRecomputedIsKept) {
  const auto model = model_on(ascend());
  const Packed p = pack(small_documents(), ascend());
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    const Tensor serving = model->losses(p.batch, {.mla_form = form}).token_losses;
    models::Losses kept, again;
    const auto a = gradients(*model, p, {.mla_form = form}, &kept);
    const auto b =
        gradients(*model, p, {.mla_form = form, .recompute = models::Recompute::kLayers}, &again);
    EXPECT_EQ(bytes_of(serving), bytes_of(kept.token_losses));
    EXPECT_EQ(bytes_of(serving), bytes_of(again.token_losses));
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, g] : a) EXPECT_EQ(bytes_of(g), bytes_of(b.at(name))) << name;
  }
}

/// bf16 of normal numbers, with NaN in rows from `end` on.
Tensor normal_rows(const Shape& shape, int64_t end, uint64_t stream) {
  const Random random(6, RandomPurpose::kTest, stream);
  std::vector<float> values(static_cast<size_t>(shape.count()), NAN);
  const int64_t row = shape.count() / shape[0];
  for (int64_t i = 0; i < end * row; ++i)
    values[static_cast<size_t>(i)] = static_cast<float>(random.normal(static_cast<uint64_t>(i)));
  Tensor t = Tensor::empty(shape, DType::kBF16, ascend());
  t.assign_f32(values);
  return t;
}

// The small model's attention is composed; this is the vendor's op for DeepSeek's sizes, 512 + 64.
TEST(FusedAttention, AQueryAloneIsAQueryAmongOthers) {
  constexpr int32_t kTokens = 140;  // beyond one block of keys
  const Tensor q = normal_rows({kTokens, 2, 576}, kTokens, 0);
  const auto attend = [&](const Tensor& queries, int64_t keys_written, const ops::Segments& s) {
    const Tensor keys = normal_rows({200, 1, 576}, keys_written, 1);
    return bytes_of(ops::attention(queries, keys, keys.slice(2, 0, 512), s, 0.05f));
  };
  // Two documents: keys from row 0, and from row 30 of what both share.
  std::vector<int32_t> position(kTokens), key_begin(kTokens);
  for (int32_t t = 0; t < kTokens; ++t) {
    position[static_cast<size_t>(t)] = t < 10 ? t : t - 10;
    key_begin[static_cast<size_t>(t)] = t < 10 ? 0 : 30;
  }
  const std::vector<char> whole =
      attend(q, 30 + kTokens, ops::Segments::cached(position, key_begin, ascend()));
  const size_t row = whole.size() / kTokens;
  for (const int32_t t : {0, 9, 10, 100, 137, 138, 139}) {
    const auto at = static_cast<size_t>(t);
    const std::vector<char> alone =
        attend(q.slice(0, t, t + 1),
               key_begin[at] + position[at] + 1,  // later ones are not yet in the cache
               ops::Segments::cached({position[at]}, {key_begin[at]}, ascend()));
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), whole.begin() + static_cast<long>(at * row)))
        << "query " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(DeepSeek,
                         EachType,
                         ::testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& type) { return std::string(to_string(type.param)); });
INSTANTIATE_TEST_SUITE_P(Small,
                         EachModel,
                         ::testing::ValuesIn(small_models()),
                         [](const auto& model) { return name_of(model.param); });

}  // namespace
}  // namespace ferry
