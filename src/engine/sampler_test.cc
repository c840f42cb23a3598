#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <ctime>
#include <limits>
#include <map>
#include <span>
#include <vector>

#include "engine/draft.h"

namespace ferry::engine {
namespace {

TEST(Sampler, GreedyTakesTheLowestIdOfEquals) {
  const std::vector<float> logits = {1, 3, 3, -2};
  EXPECT_EQ(sample(logits, {}, 0)->token, 1);
  EXPECT_EQ(sample(logits, {}, 0)->log_probability, 0);  // no other could have come
  const Sampled drawn = *sample(logits, {.temperature = 1}, 0);
  const double sum = std::exp(1.0) + 2 * std::exp(3.0) + std::exp(-2.0);
  EXPECT_NEAR(drawn.log_probability,
              static_cast<double>(logits[static_cast<size_t>(drawn.token)]) - std::log(sum),
              1e-12);
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

std::vector<int32_t> kept(const std::vector<float>& logits, SamplingOptions o) {
  o.temperature = o.temperature > 0 ? o.temperature : 1;
  return sample(logits, o, 0)->kept;
}

TEST(Sampler, KeepsWhatTopKThenTopPThenMinPLeave) {
  std::vector<float> logits;
  for (const double p : {0.05, 0.4, 0.1, 0.3, 0.15})
    logits.push_back(std::log(static_cast<float>(p)));
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(kept(logits, {.top_k = 3}), (Ids{1, 3, 4}));
  EXPECT_EQ(kept(logits, {.top_k = 1}), (Ids{1}));
  EXPECT_EQ(kept(logits, {.top_k = 9}), (Ids{1, 3, 4, 2, 0}));
  EXPECT_EQ(kept(logits, {.top_p = 0.69}), (Ids{1, 3}));
  EXPECT_EQ(kept(logits, {.top_p = 0.8, .top_k = 3}), (Ids{1, 3}));  // of 0.85
  EXPECT_EQ(kept(logits, {.top_p = 0.83, .top_k = 3}), (Ids{1, 3, 4}));
  EXPECT_EQ(kept(logits, {.min_p = 0.3}), (Ids{1, 3, 4}));
  EXPECT_EQ(kept(logits, {.min_p = 1}), (Ids{1}));
  EXPECT_EQ(kept(logits, {.temperature = 0.5, .min_p = 0.3}), (Ids{1, 3}));  // of squares
  const Sampled s = *sample(logits, {.temperature = 1, .top_k = 2, .seed = 4}, 0);
  EXPECT_NEAR(s.log_probability, std::log(s.token == 1 ? 0.4 / 0.7 : 0.3 / 0.7), 1e-6);
}

TEST(Sampler, PenaltiesLookAtWhatWasThere) {
  const std::vector<float> logits = {2, 1.9f, -1, 1.8f};
  const std::vector<int32_t> text = {0, 2, 1, 1};  // a prompt of two, an answer of two
  TextBefore before, first;
  before.follow(text, 2);
  first.follow(std::span(text).first(1), 1);
  const auto chosen = [&](const SamplingOptions& o) { return sample(logits, o, 4, before)->token; };
  EXPECT_EQ(chosen({}), 0);
  EXPECT_EQ(chosen({.repetition_penalty = 1.2}), 3);   // 0 and 1 were seen
  EXPECT_EQ(chosen({.presence_penalty = -0.2}), 1);    // answered
  EXPECT_EQ(chosen({.frequency_penalty = -0.06}), 1);  // twice
  EXPECT_EQ(chosen({.presence_penalty = -0.06}), 0);   // once is not enough
  EXPECT_EQ(chosen({.logit_bias = {{2, 3.5}}}), 2);
  EXPECT_EQ(chosen({.repetition_penalty = 2, .logit_bias = {{2, 3.5}}}), 3);  // after the bias
  // A negative logit moves away from zero, too.
  const Sampled s =
      *sample(std::vector<float>{-1, -1.5f}, {.temperature = 1, .repetition_penalty = 2}, 1, first);
  EXPECT_NEAR(s.log_probability, -std::log(1 + std::exp(s.token == 1 ? -0.5 : 0.5)), 1e-6);
}

TEST(Sampler, WhatFollowsATextIsWhatReadsItWhole) {
  std::vector<int32_t> text;
  TextBefore following;
  const auto expect_whole = [&] {
    TextBefore whole;
    whole.follow(text, 3);
    following.follow(text, 3);
    EXPECT_EQ(following.seen(), whole.seen());
    EXPECT_EQ(following.answered(), whole.answered());
  };
  for (int32_t t = 0; t < 20; ++t) {
    text.push_back(t * t % 7);
    if (t % 3 != 1) expect_whole();
  }
  EXPECT_EQ(following.answered().at(2), 6);
  text.resize(11);  // a pass failed that had chosen more, and what follows is chosen again
  expect_whole();
  text.push_back(6);
  expect_whole();
  text.resize(2);
  expect_whole();
  EXPECT_TRUE(following.answered().empty());
}

/// Processor time of the answer's choices behind a prompt so long.
double seconds_of_choices(int64_t prompt) {
  std::vector<int32_t> text;
  for (int64_t t = 0; t < prompt; ++t) text.push_back(static_cast<int32_t>(t % 61));
  const std::vector<float> logits(64, 0.5f);
  const SamplingOptions o{
      .temperature = 1, .repetition_penalty = 1.1, .frequency_penalty = 0.1, .seed = 1};
  TextBefore before;
  before.follow(text, prompt);
  const std::clock_t begin = std::clock();
  for (int i = 0; i < 1000; ++i) {
    before.follow(text, prompt);
    text.push_back(sample(logits, o, text.size(), before)->token);
  }
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

TEST(Sampler, PenaltiesTakeNoLongerBehindALongText) {
  const double one = seconds_of_choices(50000), four = seconds_of_choices(200000);
  EXPECT_LT(four, 2 * one + 0.05);
}

TEST(Sampler, LargestLogitsAreSorted) {
  std::vector<float> logits(300);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i * 7919 % 300 / 2);
  const std::vector<int32_t> top = largest_logits(logits, 200);
  ASSERT_EQ(top.size(), 200u);
  for (size_t i = 1; i < top.size(); ++i) {
    const float a = logits[static_cast<size_t>(top[i - 1])],
                b = logits[static_cast<size_t>(top[i])];
    EXPECT_TRUE(a > b || (a == b && top[i - 1] < top[i]));
  }
  EXPECT_EQ(largest_logits(logits, 0), std::vector<int32_t>{});
  EXPECT_EQ(largest_logits(std::vector<float>{1, 2}, 9), (std::vector<int32_t>{1, 0}));
}

TEST(Draft, IsWhatFollowedTheSameWordsLast) {
  using Ids = std::vector<int32_t>;
  const Ids text = {1, 2, 3, 4, 9, 1, 2, 3, 5, 6, 1, 2, 3};
  EXPECT_EQ(draft_from_text(text, 2), (Ids{5, 6}));
  EXPECT_EQ(draft_from_text(text, 99), (Ids{5, 6, 1, 2, 3}));
  EXPECT_EQ(draft_from_text(Ids{7, 2, 3, 4, 8, 2, 3}, 2), (Ids{4, 8}));  // two words do
  EXPECT_EQ(draft_from_text(Ids{1, 2, 3, 4}, 2), Ids{});
  EXPECT_EQ(draft_from_text(Ids{1, 1, 1}, 2), (Ids{1}));
  EXPECT_EQ(draft_from_text(Ids{}, 2), Ids{});
}

TEST(Sampler, RefusesNonsense) {
  EXPECT_FALSE(validate({.temperature = -1}));
  EXPECT_FALSE(validate({.temperature = std::numeric_limits<double>::quiet_NaN()}));
  EXPECT_FALSE(validate({.top_p = 0}));
  EXPECT_FALSE(validate({.top_p = 1.5}));
  EXPECT_FALSE(validate({.top_k = -1}));
  EXPECT_FALSE(validate({.min_p = 1.5}));
  EXPECT_FALSE(validate({.repetition_penalty = 0}));
  EXPECT_FALSE(validate({.repetition_penalty = 1e-39}));
  EXPECT_FALSE(validate({.presence_penalty = std::numeric_limits<double>::quiet_NaN()}));
  EXPECT_FALSE(validate({.frequency_penalty = 1e9}));
  EXPECT_FALSE(validate({.logit_bias = {{5, 1.0}}}, 5));
  EXPECT_FALSE(validate({.logit_bias = {{0, std::numeric_limits<double>::infinity()}}}, 5));
  EXPECT_TRUE(validate({.logit_bias = {{4, -100.0}}}, 5));
}

/// An id below 0 is none of any vocabulary, one behind its end is none of this. (Fails where both
/// are told of the size.)
TEST(Sampler, SaysWhyATokensBiasIsRefused) {
  const auto why = [](int32_t id) {
    return validate({.logit_bias = {{id, 1.0}}}, 5).error().message;
  };
  EXPECT_EQ(why(-1), "logit bias of token -1: ids of tokens begin at 0");
  EXPECT_NE(why(5).find("logit bias of token 5: the vocabulary has 5 tokens"), std::string::npos)
      << why(5);
}

}  // namespace
}  // namespace ferry::engine
