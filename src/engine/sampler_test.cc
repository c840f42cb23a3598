#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace ferry::engine {
namespace {

TEST(Sampler, GreedyTakesTheLowestIdOfEquals) {
  const std::vector<float> logits = {1, 3, 3, -2};
  EXPECT_EQ(sample(logits, {}, 0)->token, 1);
  const double p = std::exp(3.0) / (std::exp(1.0) + 2 * std::exp(3.0) + std::exp(-2.0));
  EXPECT_NEAR(sample(logits, {}, 0)->log_probability, std::log(p), 1e-12);
}

TEST(Sampler, DrawsWithTheRightFrequencies) {
  const std::vector<float> logits = {0, 1, 2};
  std::map<int32_t, int> counts;
  constexpr int kDraws = 20000;
  for (uint64_t i = 0; i < kDraws; ++i)
    counts[sample(logits, {.temperature = 0.5, .top_p = 1, .seed = 9}, i)->token]++;
  const double z = 1 + std::exp(2.0) + std::exp(4.0);
  EXPECT_NEAR(counts[0], kDraws / z, 5 * std::sqrt(kDraws / z));
  EXPECT_NEAR(counts[2], kDraws * std::exp(4.0) / z, 5 * std::sqrt(kDraws * 0.1));
}

TEST(Sampler, TopPKeepsTheFewestThatReachTheSumAndSaysWhich) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.6f), std::log(0.3f)};
  for (uint64_t i = 0; i < 200; ++i) {
    const Sampled s = *sample(logits, {.temperature = 1, .top_p = 0.8, .seed = 1}, i);
    EXPECT_EQ(s.kept, (std::vector<int32_t>{1, 2}));
    EXPECT_NE(s.token, 0);
    EXPECT_NEAR(s.log_probability, std::log(s.token == 1 ? 2.0 / 3 : 1.0 / 3), 1e-6);
  }
}

TEST(Sampler, IsAFunctionOfSeedAndPosition) {
  std::vector<float> logits(50);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  const SamplingOptions o{.temperature = 1, .top_p = 0.95, .seed = 3};
  int differing = 0;
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(sample(logits, o, i)->token, sample(logits, o, i)->token);
    differing += sample(logits, o, i)->token != sample(logits, o, i + 1)->token;
  }
  EXPECT_GT(differing, 5);
}

/// No token is made up from an answer that is none.
TEST(Sampler, NumbersThatAreNoneAreAnError) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const double temperature : {0.0, 1.0})
    for (const double top_p : {1.0, 0.9}) {
      const SamplingOptions o{.temperature = temperature, .top_p = top_p, .seed = 1};
      for (const std::vector<float>& logits : {std::vector<float>{nan, nan, nan},
                                               std::vector<float>{1, nan, 2},
                                               std::vector<float>{nan, 1, 2},
                                               std::vector<float>{1, 2, nan},
                                               std::vector<float>{-inf, -inf, -inf},
                                               std::vector<float>{1, inf, 2}}) {
        const auto s = sample(logits, o, 7);
        ASSERT_FALSE(s);
        EXPECT_EQ(s.error().code, Code::kVerdict);
        EXPECT_NE(s.error().message.find("position 7"), std::string::npos);
      }
      EXPECT_EQ(sample(std::vector<float>{-inf, 1, -inf}, o, 7)->token, 1);
    }
}

TEST(Sampler, RefusesNonsense) {
  EXPECT_FALSE(validate({.temperature = -1}));
  EXPECT_FALSE(validate({.temperature = std::numeric_limits<double>::quiet_NaN()}));
  EXPECT_FALSE(validate({.top_p = 0}));
  EXPECT_FALSE(validate({.top_p = 1.5}));
}

}  // namespace
}  // namespace ferry::engine
