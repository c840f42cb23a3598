// How a mixture-of-experts layer chooses its experts. Plain data: kernels include it too.
#pragma once

#include <cstdint>

namespace ferry::ops {

/// What a group of experts is worth when only some groups may be chosen from.
enum class GroupScore : uint8_t {
  kTop2Sum,  // sum of its two best biased scores: V3's "noaux_tc"
  kMax,      // its best score: V2's "group_limited_greedy"
};

inline constexpr int kExpertsMax = 1024;

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

}  // namespace ferry::ops
