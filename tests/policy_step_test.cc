// Reinforcement learning keeps the engine's promise: what an answer's log-probabilities were when it was
// drawn, in a crowd, with drafts, from a warm cache, is what training computes for it, bit for bit,
// step after step. Over each architecture and type.
#include "rl/policy_step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "small_model.h"

namespace ferry {
namespace {

constexpr int kPrompts = 4, kAnswers = 4;

std::vector<rl::TaskPrompt> prompts() {
  const Random random(1, RandomPurpose::kTest, 41);
  std::vector<rl::TaskPrompt> all(kPrompts);
  uint64_t draw = 0;
  for (size_t p = 0; p < all.size(); ++p)
    for (size_t t = 0; t < 3 + 20 * p; ++t)
      all[p].ids.push_back(static_cast<int32_t>(random.below(draw++, 61)));
  return all;
}

std::vector<rl::Rollout> rollouts(models::CausalLm& model,
                                  const std::vector<rl::TaskPrompt>& prompts,
                                  uint64_t step) {
  engine::Engine engine(model, {.cache_tokens = 4096, .running = 11, .drafts = 3});
  std::map<engine::RequestId, size_t> place;
  std::vector<rl::Rollout> all(prompts.size() * kAnswers);
  for (size_t i = 0; i < all.size(); ++i) {
    engine::Request r{.prompt = prompts[i / kAnswers].ids, .options = {}, .salt = ""};
    r.options.sampling.temperature = 1;
    r.options.sampling.seed = 100 * step + i;
    r.options.tokens_max = 12;
    r.options.end_tokens = {5, 6, 7};
    r.options.top_log_probs = 0;
    place[*engine.submit(r)] = i;
  }
  while (!engine.idle())
    for (const engine::Progress& p : engine.step()) {
      rl::Rollout& r = all[place.at(p.id)];
      const auto keep = [&](const engine::Token& t) {
        r.tokens.push_back(t.id);
        r.log_probs.push_back(t.log_prob);
      };
      for (const engine::Token& t : p.tokens) keep(t);
      if (p.end) keep(*p.end);
    }
  return all;
}

std::vector<rl::Lesson> lessons_of(const std::vector<rl::TaskPrompt>& prompts,
                                   const std::vector<rl::Rollout>& rollouts) {
  std::vector<rl::Lesson> lessons;
  for (size_t i = 0; i < rollouts.size(); ++i)
    lessons.push_back({&prompts[i / kAnswers], &rollouts[i], i % kAnswers == 0 ? 1.5 : -0.5});
  return lessons;
}

class EachModel : public ::testing::TestWithParam<SmallModel> {
 protected:
  EachModel()
      : model_(small_model(GetParam().architecture, GetParam().compute, cpu_device())),
        reference_(small_model(GetParam().architecture, GetParam().compute, cpu_device())),
        optimizer_({}, model_->weights()),
        step_(*model_, optimizer_, {.mla_form = models::MlaForm::kAbsorbed}) {}

  rl::PolicyStepReport learn(const std::vector<rl::Rollout>& from,
                             const rl::PolicyStepSettings& settings) {
    rl::PolicyStep policy(*model_, step_, reference_.get(), settings);
    return policy.run(lessons_of(prompts_, from), 3e-3, [] {});
  }

  const std::vector<rl::TaskPrompt> prompts_ = prompts();
  std::unique_ptr<models::TrainableLm> model_, reference_;
  Optimizer optimizer_;
  TrainStep step_;
};

TEST_P(EachModel, RolloutsAreWhatIsTrained) {
  const rl::PolicyStepSettings settings{
      .loss = {.kl = rl::KlTerm::kUnbiased, .kl_weight = 0.01, .off_policy_mask = 0.5},
      .minibatches = 2,
      .micro_batch_tokens = 100,
      .keep_routing = true};
  double moved = 1;
  for (uint64_t step = 0; step < 4; ++step) {
    const std::vector<rl::Rollout> drawn = rollouts(*model_, prompts_, step);
    size_t tokens = 0;
    for (const rl::Rollout& r : drawn) tokens += r.tokens.size();
    const rl::PolicyStepReport report = learn(drawn, settings);
    EXPECT_EQ(report.mismatches, 0) << "of " << report.compared << " in step " << step;
    EXPECT_GE(report.compared, static_cast<int64_t>(tokens));
    EXPECT_EQ(report.updates, 2);
    EXPECT_FALSE(report.refused);
    moved = std::max(moved, report.ratio_max);
    EXPECT_TRUE(step == 0 || report.kl > 0);
  }
  EXPECT_GT(moved, 1.0001);  // the second minibatch is off the policy that drew it
}

/// Answers that are all worth the same: neither momentum nor decay nor what balances experts moves the weights. They
/// are compared all the same.
TEST_P(EachModel, WhatTellsNothingMovesNothing) {
  TrainStep balancing(
      *model_,
      optimizer_,
      {.mla_form = models::MlaForm::kAbsorbed, .balance_alpha = 0.01, .bias_update_speed = 0.01});
  rl::PolicyStep policy(*model_, balancing, nullptr, {.minibatches = 2, .micro_batch_tokens = 100});
  const auto weights = [&] {
    std::vector<std::vector<float>> all;
    for (const Weight* w : model_->weights()) all.push_back(w->value.to_f32());
    return all;
  };
  for (const bool tells : {true, false}) {
    std::vector<rl::Rollout> drawn = rollouts(*model_, prompts_, 4);
    std::vector<rl::Lesson> lessons = lessons_of(prompts_, drawn);
    if (!tells)
      for (rl::Lesson& l : lessons) l.advantage = 0;
    int64_t tokens = 0;
    for (const rl::Rollout& r : drawn) tokens += std::ssize(r.tokens);
    const auto before = weights();
    const rl::PolicyStepReport report = policy.run(lessons, 3e-3, [] {});
    EXPECT_EQ(weights() == before, !tells);
    EXPECT_EQ(report.updates, tells ? 2 : 0);
    EXPECT_FALSE(report.refused);
    EXPECT_EQ(report.mismatches, 0);
    EXPECT_GE(report.compared, tokens);
    if (tells) continue;
    float& x = drawn[5].log_probs.back();
    x = std::nextafter(x, 0.0f);
    EXPECT_EQ(policy.run(lessons, 3e-3, [] {}).mismatches, 1);
  }
}

TEST_P(EachModel, WhatIsRewardedBecomesLikelier) {
  const std::vector<rl::Rollout> drawn = rollouts(*model_, prompts_, 9);
  const rl::PolicyStepSettings once{.loss = {.clip_low = 1, .clip_high = 100}};
  const auto likelihood = [&] {  // of the rewarded ones less that of the others
    double sum = 0;
    const auto lessons = lessons_of(prompts_, drawn);
    for (const rl::Lesson& l : lessons) {
      std::vector<int32_t> text = l.prompt->ids, labels(l.prompt->ids.size() - 1, -1);
      text.insert(text.end(), l.rollout->tokens.begin(), l.rollout->tokens.end() - 1);
      labels.insert(labels.end(), l.rollout->tokens.begin(), l.rollout->tokens.end());
      const auto length = static_cast<int32_t>(text.size());
      const Tensor hidden =
          model_->forward(Tensor::from_i32(text, {length}, cpu_device()),
                          ops::Segments::packed(std::vector<int32_t>{length}, cpu_device()),
                          {},
                          nullptr);
      for (const float loss :
           model_->token_losses(hidden, Tensor::from_i32(labels, {length}, cpu_device())).to_f32())
        sum -= l.advantage * static_cast<double>(loss);
    }
    return sum;
  };
  const double before = likelihood();
  learn(drawn, once);
  EXPECT_GT(likelihood(), before);
}

TEST_P(EachModel, ALogProbabilityThatIsOffIsCounted) {
  std::vector<rl::Rollout> drawn = rollouts(*model_, prompts_, 3);
  float& x = drawn[5].log_probs.back();
  x = std::nextafter(x, 0.0f);
  EXPECT_EQ(learn(drawn, {}).mismatches, 1);
}

/// Training is held against its own engine, whoever else draws.
TEST_P(EachModel, WhatTrainingScoresOtherwiseThanItDrawsIsCounted) {
  std::vector<rl::Rollout> drawn = rollouts(*model_, prompts_, 3);
  const rl::PolicyStep policy(
      *model_, step_, nullptr, {.micro_batch_tokens = 100, .drawn_elsewhere = true});
  EXPECT_EQ(policy.scored_otherwise(lessons_of(prompts_, drawn), [] {}), 0);
  float& x = drawn[5].log_probs.back();
  x = std::nextafter(x, 0.0f);
  EXPECT_EQ(policy.scored_otherwise(lessons_of(prompts_, drawn), [] {}), 1);
}

/// Of later minibatches, too: by weights that have changed when their turn comes.
TEST_P(EachModel, OneOfALaterMinibatchIsCounted) {
  for (const bool keep_routing : {true, false}) {
    std::vector<rl::Rollout> drawn = rollouts(*model_, prompts_, 3);
    float& x = drawn.back().log_probs.back();
    x = std::nextafter(x, 0.0f);
    EXPECT_EQ(learn(drawn, {.minibatches = 4, .keep_routing = keep_routing}).mismatches, 1);
  }
}

/// Answers that another device drew to the same bits are learnt from as those that were drawn here.
TEST_P(EachModel, ElsewhereWithTheSameBitsIsHere) {
  const std::vector<rl::Rollout> drawn = rollouts(*model_, prompts_, 3);
  const rl::PolicyStepSettings here{
      .loss = {.kl = rl::KlTerm::kK3, .kl_weight = 0.01, .off_policy_mask = 0.5},
      .minibatches = 2,
      .keep_routing = true};
  rl::PolicyStepSettings elsewhere = here;
  elsewhere.drawn_elsewhere = true;
  const auto weights_after = [&](const rl::PolicyStepSettings& settings) {
    const auto model = small_model(GetParam().architecture, GetParam().compute, cpu_device());
    Optimizer optimizer({}, model->weights());
    TrainStep step(*model, optimizer, {.mla_form = models::MlaForm::kAbsorbed});
    rl::PolicyStep policy(*model, step, reference_.get(), settings);
    const rl::PolicyStepReport report = policy.run(lessons_of(prompts_, drawn), 3e-3, [] {});
    EXPECT_EQ(report.updates, 2);
    EXPECT_EQ(report.mismatches, 0);
    EXPECT_EQ(report.mismatch.has_value(), settings.drawn_elsewhere);
    EXPECT_EQ(report.mismatch.value_or(rl::Mismatch{}).kl, 0);
    std::vector<std::vector<char>> bytes;
    for (const Weight* w : model->weights()) bytes.push_back(bytes_of(w->value));
    return bytes;
  };
  EXPECT_EQ(weights_after(here), weights_after(elsewhere));
}

/// What parts the two is measured and corrected, and beyond its bound nothing is learnt.
TEST_P(EachModel, WhatAnotherDeviceDrewIsCorrectedUpToABound) {
  std::vector<rl::Rollout> drawn = rollouts(*model_, prompts_, 3);
  const Random random(7, RandomPurpose::kTest, 3);
  uint64_t draw = 0;
  for (rl::Rollout& r : drawn)
    for (float& p : r.log_probs) p += static_cast<float>(0.05 * random.normal(draw++));
  rl::PolicyStepSettings settings{.drawn_elsewhere = true, .mismatch_max = 1e-4};
  const auto bytes = [&] {
    std::vector<std::vector<char>> all;
    for (const Weight* w : model_->weights()) all.push_back(bytes_of(w->value));
    return all;
  };
  const auto before = bytes();
  const rl::PolicyStepReport stopped = learn(drawn, settings);
  EXPECT_TRUE(stopped.too_far);
  EXPECT_EQ(stopped.updates, 0);
  EXPECT_EQ(bytes(), before);
  // Of normal numbers with this deviation.
  EXPECT_NEAR(stopped.mismatch->kl, 0.05 * 0.05 / 2, 5e-4);
  EXPECT_GT(stopped.mismatch->ratio_max, 1.05);
  settings.mismatch_max = 1e-2;
  const rl::PolicyStepReport learnt = learn(drawn, settings);
  EXPECT_FALSE(learnt.too_far);
  EXPECT_EQ(learnt.updates, 1);
  EXPECT_EQ(learnt.mismatches, 0);  // of training's own passes
  EXPECT_EQ(learnt.ratio_max, 1);   // these are the weights that drew
  EXPECT_NE(bytes(), before);
}

INSTANTIATE_TEST_SUITE_P(Models,
                         EachModel,
                         ::testing::ValuesIn(small_models()),
                         [](const auto& model) { return name_of(model.param); });

}  // namespace
}  // namespace ferry
