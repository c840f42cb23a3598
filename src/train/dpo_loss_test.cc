// The loss of preferences: TRL's, closed forms, and weights that are its gradient.
#include "train/dpo_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/math.h"
#include "base/random.h"

namespace ferry {
namespace {

constexpr DpoLossType kTypes[] = {
    DpoLossType::kSigmoid, DpoLossType::kHinge, DpoLossType::kIpo, DpoLossType::kRobust};

/// Margins of both signs, and answers of several lengths.
std::vector<PairLogProbs> some() {
  const Random random(1, RandomPurpose::kTest, 51);
  std::vector<PairLogProbs> pairs(6);
  uint64_t draw = 0;
  for (PairLogProbs& p : pairs)
    for (AnswerLogProb* a : {&p.chosen, &p.rejected}) {
      a->tokens = 1 + static_cast<int64_t>(random.below(draw++, 20));
      a->policy = -2 * static_cast<double>(a->tokens) + random.normal(draw++);
      a->reference = a->policy + 4 * random.normal(draw++);
    }
  return pairs;
}

/// TRL computes in float32: a few roundings of sums of some tens, and of their differences.
TEST(DpoLoss, IsTrls) {
  const std::string path = FERRY_SOURCE_DIR "/testdata/goldens/dpo.json";
  const auto text = read_file(path);
  ASSERT_TRUE(text) << text.error().message;
  const auto golden = parse_json(*text, path);
  ASSERT_TRUE(golden) << golden.error().message;
  const auto log_probs = (*golden)["log_probs"].get<std::vector<std::vector<double>>>();
  const auto reference = (*golden)["reference_log_probs"].get<std::vector<double>>();
  std::vector<AnswerLogProb> answers;
  for (size_t i = 0; i < log_probs.size(); ++i) {
    answers.push_back({0, reference[i], std::ssize(log_probs[i])});
    for (const double p : log_probs[i]) answers.back().policy += p;
  }
  std::vector<PairLogProbs> pairs;  // TRL's batches are what is chosen, then what is rejected
  for (size_t i = 0; i < answers.size() / 2; ++i)
    pairs.push_back({answers[i], answers[answers.size() / 2 + i]});
  ASSERT_EQ((*golden)["cases"].size(), 20u);
  for (const auto& c : (*golden)["cases"]) {
    const DpoLoss loss = dpo_loss(pairs,
                                  {.type = dpo_loss_type(c["loss_type"].get<std::string>()),
                                   .beta = c["beta"],
                                   .label_smoothing = c["label_smoothing"],
                                   .rpo_alpha = c["rpo_alpha"]});
    const double expected = c["loss"];
    EXPECT_NEAR(loss.loss, expected, 1e-5 * std::max(1.0, std::abs(expected))) << c["loss_type"];
    const auto gradient = c["gradient"].get<std::vector<std::vector<double>>>();
    for (size_t i = 0; i < gradient.size(); ++i) {
      const DpoLoss::Weights& w = loss.weights[i % pairs.size()];
      for (const double g : gradient[i])
        EXPECT_NEAR(-(i < pairs.size() ? w.chosen : w.rejected), g, 1e-5 * std::abs(g) + 1e-7)
            << c["loss_type"] << " " << i;
    }
    const PreferenceFigures& f = loss.figures;
    const auto& theirs = c["figures"];
    for (const auto& [name, ours] : {std::pair{"rewards/chosen", f.rewards_chosen},
                                     {"rewards/rejected", f.rewards_rejected},
                                     {"rewards/accuracies", f.rewards_accuracies},
                                     {"rewards/margins", f.rewards_margins},
                                     {"logps/chosen", f.logps_chosen},
                                     {"logps/rejected", f.logps_rejected}})
      EXPECT_NEAR(ours, theirs[name].get<double>(), 1e-5) << name;
  }
}

TEST(DpoLoss, WeightsAreItsGradient) {
  std::vector<PairLogProbs> pairs = some();
  for (const DpoLossType type : kTypes)
    for (const double smoothing : {0.0, 0.2})
      for (const double alpha : {0.0, 0.3}) {
        const DpoLossSettings s{
            .type = type, .beta = 0.3, .label_smoothing = smoothing, .rpo_alpha = alpha};
        const DpoLoss at = dpo_loss(pairs, s);
        for (size_t i = 0; i < pairs.size(); ++i)
          for (const bool chosen : {true, false}) {
            double& x = chosen ? pairs[i].chosen.policy : pairs[i].rejected.policy;
            const double kept = x;
            const auto loss_at = [&](double value) {
              x = value;
              return dpo_loss(pairs, s).loss;
            };
            constexpr double kStep = 0x1p-12;
            const double slope = (loss_at(kept + kStep) - loss_at(kept - kStep)) / (2 * kStep);
            x = kept;
            // The cubic term of the difference, of slopes of about 1.
            EXPECT_NEAR(-(chosen ? at.weights[i].chosen : at.weights[i].rejected), slope, 1e-7)
                << static_cast<int>(type) << ", pair " << i;
          }
      }
}

/// At the reference every margin is nothing: log 2, half of beta to each side, whatever the answers are.
TEST(DpoLoss, AtItsReferenceIsLogTwo) {
  std::vector<PairLogProbs> pairs = some();
  for (PairLogProbs& p : pairs)
    for (AnswerLogProb* a : {&p.chosen, &p.rejected}) a->reference = a->policy;
  const DpoLoss loss = dpo_loss(pairs, {.beta = 0.2});
  EXPECT_DOUBLE_EQ(loss.loss, math::kLn2);
  for (const DpoLoss::Weights& w : loss.weights) {
    EXPECT_DOUBLE_EQ(w.chosen, 0.1 / 6);
    EXPECT_DOUBLE_EQ(w.rejected, -0.1 / 6);
  }
  EXPECT_EQ(loss.figures.rewards_margins, 0);
  EXPECT_EQ(loss.figures.rewards_accuracies, 0);  // neither is the better one
  EXPECT_DOUBLE_EQ(dpo_loss(pairs, {.type = DpoLossType::kIpo, .beta = 0.2}).loss, 6.25);
  EXPECT_DOUBLE_EQ(dpo_loss(pairs, {.type = DpoLossType::kHinge}).loss, 1);
}

TEST(DpoLoss, SmoothedLabelsAreWrongThatOften) {
  const std::vector<PairLogProbs> pairs = {{{3, 0, 1}, {0, 0, 1}}};
  const double right = math::log(1 + math::exp(-0.3)), wrong = math::log(1 + math::exp(0.3));
  EXPECT_NEAR(dpo_loss(pairs, {.label_smoothing = 0.1}).loss, 0.9 * right + 0.1 * wrong, 1e-15);
  // Half of the labels wrong: nothing is preferred, and nothing rather than the reference.
  const std::vector<PairLogProbs> even = {{{1, 1, 1}, {2, 2, 1}}};
  EXPECT_EQ(dpo_loss(even, {.label_smoothing = 0.5}).weights[0].chosen, 0);
}

/// What is far from the reference neither overflows nor vanishes.
TEST(DpoLoss, IsFiniteFarAway) {
  for (const double d : {-1e5, 1e5}) {
    const DpoLoss loss = dpo_loss(std::vector<PairLogProbs>{{{d, 0, 9}, {0, 0, 9}}}, {.beta = 1});
    EXPECT_DOUBLE_EQ(loss.loss, d < 0 ? 1e5 : 0);
    EXPECT_DOUBLE_EQ(loss.weights[0].chosen, d < 0 ? 1 : 0);
    EXPECT_EQ(loss.figures.rewards_accuracies, d < 0 ? 0 : 1);
  }
}

}  // namespace
}  // namespace ferry
