// Learning from pairs of answers: at its reference a model differs from it by nothing, the gradient is the loss's, and
// what is preferred becomes likelier. Over each architecture and type.
#include "train/preferences.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/math.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "device/stand_in_device.h"
#include "small_model.h"
#include "train/estimate.h"
#include "train/train_step.h"

namespace ferry {
namespace {

constexpr int kVocab = 61;

/// Answers of some tokens to a prompt of some; those chosen begin with one token, those rejected with another.
std::vector<PreferencePair> pairs_of(uint64_t seed, int count) {
  const Random random(seed, RandomPurpose::kTest, 61);
  uint64_t draw = 0;
  const auto some = [&](int64_t least) {
    std::vector<int32_t> ids(static_cast<size_t>(least) + random.below(draw++, 8));
    for (int32_t& id : ids) id = static_cast<int32_t>(random.below(draw++, kVocab));
    return ids;
  };
  std::vector<PreferencePair> pairs;
  for (int i = 0; i < count; ++i) {
    const std::vector<int32_t> prompt = some(1);
    const std::vector<int32_t> rest = some(0);
    const auto lesson = [&](int32_t first) {
      text::Lesson l{.ids = prompt, .learnt = std::vector<bool>(prompt.size(), false)};
      l.ids.push_back(first);
      l.ids.insert(l.ids.end(), rest.begin(), rest.end());
      if (first == 11) l.ids.push_back(3);
      l.learnt.resize(l.ids.size(), true);
      return l;
    };
    pairs.push_back({.chosen = {lesson(7)}, .rejected = {lesson(11)}});
  }
  // A template that changes the past: an answer of two lessons.
  pairs.front().chosen.push_back(pairs.back().chosen.front());
  return pairs;
}

struct Manner {
  DpoSettings dpo{.pairs_per_step = 5};
  TrainSettings train{.micro_batch_tokens = 40};
};

void set_reference(Preferences& p, models::CausalLm& model) {
  std::vector<float> log_probs;
  EXPECT_TRUE(p.add_reference(model, log_probs, [](int64_t) { return true; }));
  p.set_reference(Tensor::from_f32(log_probs, {std::ssize(log_probs)}, cpu_device()));
}

/// The model is their reference.
Preferences preferences(const Manner& m, models::CausalLm& model, int count = 9) {
  Preferences p(m.dpo, m.train, pairs_of(1, count), pairs_of(2, 20));
  set_reference(p, model);
  return p;
}

class EachModel : public ::testing::TestWithParam<SmallModel> {
 protected:
  EachModel() : model_(small_model(GetParam().architecture, GetParam().compute, cpu_device())) {}

  const std::unique_ptr<models::TrainableLm> model_;
};

TEST_P(EachModel, AtItsReferenceItDiffersByNothing) {
  for (const char* form : {"expanded", "absorbed"}) {
    Manner m;
    m.train.mla_form = form;
    const Preferences p = preferences(m, *model_);
    Optimizer optimizer({}, model_->weights());
    TrainStep step(*model_, optimizer, step_settings(m.train));
    for (const int64_t position : {0, 7, 16}) {  // the second one's pairs are of two epochs
      const PreferenceStep s = p.gradients(*model_, step, position, [] {});
      EXPECT_NEAR(s.of.loss, math::kLn2, 1e-15);
      EXPECT_TRUE(s.of.finite);
      EXPECT_GT(s.of.norm, 0);
      EXPECT_EQ(s.figures.rewards_chosen, 0);
      EXPECT_EQ(s.figures.rewards_rejected, 0);
      EXPECT_LT(s.figures.logps_chosen, 0);
      EXPECT_EQ(s.mismatches, 0) << "of " << s.compared;
      EXPECT_GE(s.compared, 10);
    }
    EXPECT_EQ(p.evaluate(*model_, 1 << 20, [](int64_t) { return true; })->figures.rewards_margins,
              0);
    EXPECT_FALSE(p.evaluate(*model_, 1 << 20, [](int64_t) { return false; }));
    // A reference that is computed in two parts is that of one.
    std::vector<float> whole, parts;
    EXPECT_TRUE(p.add_reference(*model_, whole, [](int64_t) { return true; }));
    EXPECT_FALSE(p.add_reference(*model_, parts, [](int64_t done) { return done == 0; }));
    EXPECT_GT(parts.size(), 0u);
    EXPECT_LT(parts.size(), whole.size());
    parts.resize(2);
    EXPECT_TRUE(p.add_reference(*model_, parts, [](int64_t) { return true; }));
    EXPECT_EQ(parts, whole);
  }
}

TEST_P(EachModel, WhatIsPreferredBecomesLikelier) {
  const Manner m{.dpo = {.pairs_per_step = 10}};
  const Preferences p = preferences(m, *model_, 50);
  Optimizer optimizer({}, model_->weights());
  TrainStep step(*model_, optimizer, step_settings(m.train));
  double first = 0, last = 0;
  for (int64_t i = 0; i < 40; ++i) {
    const PreferenceStep s = p.gradients(*model_, step, 10 * i, [] {});
    EXPECT_EQ(s.mismatches, 0) << "of " << s.compared << " in step " << i;
    (i == 0 ? first : last) = s.of.loss;
    step.update(3e-3);
    cpu_device().stream().synchronize();
  }
  EXPECT_LT(last, 0.5 * first);
  const auto held_out = p.evaluate(*model_, 1 << 20, [](int64_t) { return true; });
  ASSERT_TRUE(held_out);
  EXPECT_GT(held_out->figures.rewards_accuracies, 0.8);
  EXPECT_GT(held_out->figures.rewards_margins, 0.1);
  // At least one pair, however few tokens may be looked at.
  EXPECT_NE(p.evaluate(*model_, 1, [](int64_t) { return true; })->loss, held_out->loss);
}

INSTANTIATE_TEST_SUITE_P(Models,
                         EachModel,
                         ::testing::ValuesIn(small_models()),
                         [](const auto& model) { return name_of(model.param); });

class EachArchitecture : public ::testing::TestWithParam<const char*> {};

/// A step so small that it goes straight down the gradient lowers the loss by its square. In f32: bf16
/// would round it away.
TEST_P(EachArchitecture, TheGradientIsTheLosss) {
  for (const char* type : {"sigmoid", "ipo"}) {
    const std::unique_ptr<models::TrainableLm> model =
        small_model(GetParam(), DType::kF32, cpu_device());
    Manner m{.dpo = {.pairs_per_step = 5, .loss_type = type, .beta = 0.3, .rpo_alpha = 0.1}};
    m.train.balance_alpha = m.train.bias_update_speed = m.train.clip = 0;
    const Preferences p = preferences(m, *model);
    // Far above every gradient: Adam's first step is then the gradient times the rate.
    constexpr double kEps = 1e8;
    Optimizer optimizer({.eps = kEps, .weight_decay = 0}, model->weights());
    TrainStep step(*model, optimizer, step_settings(m.train));
    const PreferenceStep before = p.gradients(*model, step, 0, [] {});
    const double square = before.of.norm * before.of.norm;
    // Large against the roundings of the log-probabilities, some 1e-6; small against the loss.
    const double fall = 2e-3 * before.of.loss;
    step.update(kEps * fall / square);
    cpu_device().stream().synchronize();
    const PreferenceStep after = p.gradients(*model, step, 0, [] {});
    EXPECT_NEAR((before.of.loss - after.of.loss) / fall, 1, 0.05) << type;
  }
}

INSTANTIATE_TEST_SUITE_P(Models,
                         EachArchitecture,
                         ::testing::Values("deepseek_v3", "llama", "qwen2"),
                         [](const auto& name) { return std::string(name.param); });

TEST(Preferences, EachEpochHasEveryPairOnce) {
  const std::unique_ptr<models::TrainableLm> model =
      small_model("llama", DType::kF32, cpu_device());
  const Manner m{.dpo = {.pairs_per_step = 9}};
  Preferences p(m.dpo, m.train, pairs_of(1, 9), {});
  set_reference(p, *model);
  Optimizer optimizer({}, model->weights());
  TrainStep step(*model, optimizer, step_settings(m.train));
  // Sums over all pairs, whatever their order: but for the order of the sum the same.
  const PreferenceStep one = p.gradients(*model, step, 0, [] {});
  const PreferenceStep other = p.gradients(*model, step, 9, [] {});
  EXPECT_EQ(one.compared, other.compared);
  EXPECT_NEAR(one.figures.logps_chosen, other.figures.logps_chosen, 1e-9);
  EXPECT_NEAR(one.figures.logps_rejected, other.figures.logps_rejected, 1e-9);
  const PreferenceStep across = p.gradients(*model, step, 4, [] {});
  EXPECT_NE(across.figures.logps_chosen, one.figures.logps_chosen) << "epochs share their order";
}

/// A step of pairs is a pass to score them, one forward, and twice that much backward.
TEST(Preferences, ScoringIsInTheEstimate) {
  const std::unique_ptr<models::TrainableLm> model =
      small_model("llama", DType::kF32, cpu_device());
  Settings s;
  s.dpo.pairs = "pairs";
  s.train.tokens_per_step = 400;
  const Estimate steps = estimate(*model, s, 0, nullptr, 0, 0, 1e9);
  Estimate all = steps;
  add_scoring(all, *model, s, 1000);
  EXPECT_NEAR(
      all.flops_total - steps.flops_total, 2.5 * steps.flops_step / 4, 1e-6 * all.flops_total);
  EXPECT_NEAR(all.seconds / steps.seconds, all.flops_total / steps.flops_total, 1e-9);
  const Preferences p({}, {}, pairs_of(1, 3), pairs_of(2, 2));
  const Preferences fewer({}, {}, pairs_of(1, 3), {});
  EXPECT_GT(p.tokens(), fewer.tokens());
}

/// Of a run that goes on what is left is said, with the steps of MTP among it: here 0, 4, 8 of ten.
TEST(Estimate, ARunThatGoesOnHasWhatIsLeft) {
  const std::unique_ptr<models::TrainableLm> model =
      small_model("deepseek_v3", DType::kF32, cpu_device());
  Settings s;
  s.train.tokens_per_step = 400;
  s.train.steps = 10;
  s.train.mtp_every = 4;
  s.train.mtp_weight = 0.1;
  const auto after = [&](int64_t done) { return estimate(*model, s, done, nullptr, 0, 0, 1e9); };
  const Estimate all = after(0), rest = after(5), none = after(12);
  ASSERT_GT(all.flops_mtp_step, all.flops_step) << "it has a module";
  EXPECT_NEAR(all.flops_total, 7 * all.flops_step + 3 * all.flops_mtp_step, 1);
  EXPECT_NEAR(rest.flops_total, 4 * all.flops_step + all.flops_mtp_step, 1);
  EXPECT_NEAR(rest.seconds / all.seconds, rest.flops_total / all.flops_total, 1e-9);
  EXPECT_EQ(none.flops_total, 0);
  const auto to_come = [](const Estimate& e) { return e.memory_bytes - e.memory_bytes_there; };
  EXPECT_NEAR(to_come(rest), to_come(all), 1);
  EXPECT_NE(describe(all, s).find("tokens in 10 steps, "), std::string::npos) << describe(all, s);
  EXPECT_NE(describe(rest, s).find("2.00 k tokens in 5 steps that are left of 10, "),
            std::string::npos)
      << describe(rest, s);
  EXPECT_NE(describe(after(9), s).find("tokens in 1 step that is left of 10, "), std::string::npos)
      << describe(after(9), s);
}

/// A small run fits where little is free: what is asked for is what it takes, not a part for the largest model.
TEST(Estimate, OfASmallModelIsSmall) {
  const std::unique_ptr<models::TrainableLm> model =
      small_model("deepseek_v3", DType::kF32, cpu_device());
  Settings s;
  s.train.tokens_per_step = s.train.micro_batch_tokens = 400;
  s.data.sequence_length = 100;
  set_cpu_threads(2);
  const Estimate e = estimate(*model, s, 0, nullptr, 1000, 0, 1e9);
  EXPECT_LT(e.memory_bytes - e.memory_bytes_there, 64e6);
  // Each thread has some of its own.
  set_cpu_threads(32);
  EXPECT_GT(estimate(*model, s, 0, nullptr, 1000, 0, 1e9).memory_bytes, e.memory_bytes + 128e6);
  set_cpu_threads(0);
  EXPECT_GE(e.memory_bytes_there, e.weight_bytes + 1000);
}

/// Tensor cores read trained weights as bf16 numbers, which lie beside them; nobody else does.
TEST(Estimate, WeightsThatAreRoundedForTensorCoresAreInIt) {
  StandInDevice plain(DeviceKind::kCuda), tensor(DeviceKind::kCuda, kAnyMemory, true);
  double parameters = 0;
  const auto bytes = [&](Device& device, DType compute) {
    const std::unique_ptr<models::TrainableLm> model = small_model("llama", compute, device);
    parameters = static_cast<double>(model->parameters_total());
    Settings s;
    s.train.compute = compute == DType::kF32 ? "f32" : "bf16";
    return estimate(*model, s, 0, nullptr, 0, 0, 1e9).memory_bytes;
  };
  const double more = bytes(tensor, DType::kBF16) - bytes(plain, DType::kBF16);
  EXPECT_GT(parameters, 0);
  EXPECT_NEAR(more, 2 * parameters, 1);
  EXPECT_EQ(bytes(tensor, DType::kF32), bytes(plain, DType::kF32));
}

TEST(Preferences, AnotherTokenIsAnotherFingerprint) {
  const Manner m;
  const auto print = [&](const auto& change) {
    std::vector<PreferencePair> pairs = pairs_of(1, 3), held_out = pairs_of(2, 3);
    change(pairs, held_out);
    return Preferences(m.dpo, m.train, pairs, held_out).fingerprint();
  };
  using Set = std::vector<PreferencePair>;
  const std::string same = print([](Set&, Set&) {});
  EXPECT_EQ(same, print([](Set&, Set&) {}));
  EXPECT_NE(same, print([](Set& a, Set&) { ++a[1].rejected[0].ids[0]; }));
  EXPECT_NE(same, print([](Set& a, Set&) { a[1].chosen[0].learnt.back() = false; }));
  EXPECT_NE(same, print([](Set&, Set& b) { b.pop_back(); }));
  EXPECT_NE(same, print([](Set& a, Set&) { std::swap(a[1].chosen, a[1].rejected); }));
}

}  // namespace
}  // namespace ferry
