// How a mixture-of-experts layer chooses its experts. Plain data: kernels include it too.
#pragma once

#include <cstdint>

namespace ferry::ops {

/// What a group of experts is worth when only some groups may be chosen from.
enum class GroupScore : uint8_t {
  kTop2Sum,  // sum of its two best biased scores: V3's "noaux_tc"
  kMax,      // its best score: V2's "group_limited_greedy"
};

inline constexpr int kExpertsMax = 1024;  // kernels hold the scores of a token on their stack

struct RouterConfig {
  bool sigmoid = true;  // scores: sigmoid of each logit (V3); false: softmax over the experts (V2)
  int experts = 0;      // [1, kExpertsMax]
  int top_k = 0;        // [1, experts]
  int groups = 1;       // divides experts; consecutive experts form a group
  int groups_kept = 1;  // [1, groups]; they hold at least top_k experts
  GroupScore group_score =
      GroupScore::kTop2Sum;  // needs two experts in a group when groups_kept < groups
  bool normalize = true;     // weights are divided by their sum (norm_topk_prob)
  float scale = 1;           // then multiplied by this (routed_scaling_factor)
};

/// What of it no router computes, or nullptr: the op checks it, and readers of configs refuse it.
constexpr const char* problem_of(const RouterConfig& c) {
  if (c.experts < 1 || c.experts > kExpertsMax) return "there must be 1 to 1024 experts";
  if (c.top_k < 1 || c.top_k > c.experts)
    return "each token chooses at least one expert and at most all";
  if (c.groups < 1 || c.experts % c.groups != 0) return "the groups must divide the experts";
  if (c.groups_kept < 1 || c.groups_kept > c.groups)
    return "at least one group is kept and at most all";
  const int size = c.experts / c.groups;
  if (c.groups_kept * size < c.top_k)
    return "the groups that are kept hold fewer experts than a token chooses";
  if (c.groups_kept < c.groups && c.group_score == GroupScore::kTop2Sum && size < 2)
    return "a group's score is the sum of its two best, and the groups have one expert";
  return nullptr;
}
static_assert(kExpertsMax == 1024, "problem_of names the limit");

}  // namespace ferry::ops
