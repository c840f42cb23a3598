// The loss of policy gradients: its gradient is that of its value, and each setting does what it is for.
#include "rl/policy_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"

namespace ferry::rl {
namespace {

struct Answers {
  std::vector<double> advantages;
  std::vector<std::vector<float>> old_log_probs, log_probs, reference, drawn;

  /// `elsewhere`: another device drew them.
  std::vector<PolicySample> samples(bool elsewhere = false) const {
    std::vector<PolicySample> all;
    for (size_t i = 0; i < advantages.size(); ++i) {
      all.push_back({advantages[i], old_log_probs[i], log_probs[i], reference[i]});
      if (elsewhere) all.back().drawn_log_probs = drawn[i];
    }
    return all;
  }
};

/// Ratios on both sides of both bounds, advantages of both signs and none.
Answers some() {
  const Random random(1, RandomPurpose::kTest, 31);
  Answers a{.advantages = {1.5, -0.7, 0, -1.2, 0.4},
            .old_log_probs = {},
            .log_probs = {},
            .reference = {},
            .drawn = {}};
  uint64_t draw = 0;
  for (const size_t length : {7, 3, 5, 1, 12}) {
    for (auto* of : {&a.old_log_probs, &a.log_probs, &a.reference, &a.drawn}) {
      of->emplace_back();
      for (size_t t = 0; t < length; ++t)
        of->back().push_back(static_cast<float>(-1.5 + 0.4 * random.normal(draw++)));
    }
  }
  return a;
}

std::vector<PolicyLossSettings> manners() {
  std::vector<PolicyLossSettings> all;
  for (const KlTerm kl : {KlTerm::kNone, KlTerm::kK3, KlTerm::kUnbiased})
    for (const Normalise n : {Normalise::kToken, Normalise::kSequence, Normalise::kConstant})
      all.push_back({.clip_low = 0.2,
                     .clip_high = 0.28,
                     .kl = kl,
                     .kl_weight = 0.3,
                     .normalise = n,
                     .tokens_max = 16});
  return all;
}

/// TRL computes in float32: a few roundings of numbers of about 1, and of their sums.
TEST(PolicyLoss, IsTrls) {
  const std::string path = FERRY_SOURCE_DIR "/testdata/goldens/grpo.json";
  const auto text = read_file(path);
  ASSERT_TRUE(text) << text.error().message;
  const auto golden = parse_json(*text, path);
  ASSERT_TRUE(golden) << golden.error().message;
  using Rows = std::vector<std::vector<float>>;
  const Answers a{
      .advantages = advantages((*golden)["rewards"].get<std::vector<double>>(), true),
      .old_log_probs = (*golden)["old_log_probs"].get<Rows>(),
      .log_probs = (*golden)["log_probs"].get<Rows>(),
      .reference = (*golden)["reference_log_probs"].get<Rows>(),
      .drawn = (*golden)["drawn_log_probs"].get<Rows>(),
  };
  const auto expected = (*golden)["advantages"].get<std::vector<double>>();
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(a.advantages[i], expected[i], 1e-6);
  int64_t masked = 0;
  for (const auto& c : (*golden)["cases"]) {
    const std::string kl = c["kl"], normalise = c["normalise"];
    const double cap = c["importance_cap"];
    const PolicyLoss loss =
        policy_loss(a.samples(cap > 0),
                    {.clip_low = c["clip_low"],
                     .clip_high = c["clip_high"],
                     .kl = kl == "none" ? KlTerm::kNone
                           : kl == "k3" ? KlTerm::kK3
                                        : KlTerm::kUnbiased,
                     .kl_weight = c["kl_weight"],
                     .normalise = normalise == "token"      ? Normalise::kToken
                                  : normalise == "sequence" ? Normalise::kSequence
                                                            : Normalise::kConstant,
                     .tokens_max = c["tokens_max"],
                     .off_policy_mask = c["off_policy_mask"],
                     .importance_cap = cap});
    masked += loss.masked;
    EXPECT_NEAR(loss.loss, c["loss"].get<double>(), 1e-6) << c;
    const auto gradient = c["gradient"].get<std::vector<std::vector<double>>>();
    for (size_t i = 0; i < gradient.size(); ++i)
      for (size_t t = 0; t < gradient[i].size(); ++t)
        EXPECT_NEAR(-loss.weights[i][t], gradient[i][t], 1e-5 * std::abs(gradient[i][t]) + 1e-8)
            << c["kl"] << ", " << normalise << ": " << i << ", " << t;
  }
  EXPECT_EQ(masked, 2 * 2 * 9);  // both that moved far, in each case that masks
}

TEST(PolicyLoss, WeightsAreItsGradient) {
  Answers a = some();
  for (const bool elsewhere : {false, true})
    for (const PolicyLossSettings& o : manners()) {
      const PolicyLoss at = policy_loss(a.samples(elsewhere), o);
      int64_t none = 0;
      for (size_t i = 0; i < a.log_probs.size(); ++i)
        for (size_t t = 0; t < a.log_probs[i].size(); ++t) {
          float& x = a.log_probs[i][t];
          const float kept = x;
          const auto loss_at = [&](float value) {
            x = value;
            return policy_loss(a.samples(elsewhere), o).loss;
          };
          const float up = kept + 0x1p-10f, down = kept - 0x1p-10f;
          const double slope =
              (loss_at(up) - loss_at(down)) / (static_cast<double>(up) - static_cast<double>(down));
          x = kept;
          // The cubic term of the difference, of values of about 1.
          EXPECT_NEAR(-at.weights[i][t], slope, 1e-5) << i << ", " << t;
          none += at.weights[i][t] == 0;
        }
      EXPECT_TRUE(o.kl != KlTerm::kNone || none > 5);  // clipped, or of advantage 0
    }
}

TEST(PolicyLoss, AtTheWeightsThatDrewItIsTheAdvantage) {
  Answers a = some();
  a.log_probs = a.old_log_probs;
  const PolicyLoss loss = policy_loss(a.samples(), {.normalise = Normalise::kSequence});
  for (size_t i = 0; i < a.advantages.size(); ++i)
    for (const double w : loss.weights[i])
      EXPECT_DOUBLE_EQ(w, a.advantages[i] / 5 / static_cast<double>(loss.weights[i].size()));
  EXPECT_EQ(loss.clipped, 0);
  EXPECT_EQ(loss.ratio_max, 1);
}

TEST(PolicyLoss, AnswersThatLeftThePolicyAreMasked) {
  Answers a = some();
  for (float& x : a.log_probs[1]) x = -9;  // advantage below 0
  for (float& x : a.log_probs[4]) x = -9;  // above 0: it counts
  const PolicyLoss loss = policy_loss(a.samples(), {.clip_low = 1, .off_policy_mask = 5});
  EXPECT_EQ(loss.masked, 1);
  for (const double w : loss.weights[1]) EXPECT_EQ(w, 0);  // without a KL term nothing is left
  for (const double w : loss.weights[4]) EXPECT_GT(w, 0);
  EXPECT_EQ(policy_loss(a.samples(), {.off_policy_mask = 50}).masked, 0);
}

TEST(PolicyLoss, AdvantagesAreOfTheGroup) {
  const std::vector<double> rewards = {1, 0, 0, 1, 0, 0, 0, 0};
  const std::vector<double> mean = advantages(rewards, false), scaled = advantages(rewards, true);
  double sum = 0;
  for (size_t i = 0; i < rewards.size(); ++i) {
    EXPECT_DOUBLE_EQ(mean[i], rewards[i] - 0.25);
    EXPECT_NEAR(scaled[i], mean[i] / (std::sqrt(1.5 / 7) + 1e-4), 1e-12);
    sum += mean[i];
  }
  EXPECT_EQ(sum, 0);
  for (const double a : advantages(std::vector<double>(4, 0.1), true)) EXPECT_EQ(a, 0);
}

TEST(PolicyLoss, LongAnswersCostMore) {
  EXPECT_EQ(overlong_penalty(80, 100, 20), 0);
  EXPECT_EQ(overlong_penalty(90, 100, 20), -0.5);
  EXPECT_EQ(overlong_penalty(100, 100, 20), -1);
  EXPECT_EQ(overlong_penalty(100, 100, 0), 0);
}

}  // namespace
}  // namespace ferry::rl
