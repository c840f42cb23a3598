// The loss of policy gradients (GRPO and its kin), on the host: it needs nothing of the model but the
// log-probabilities of what was answered. Its gradient is that of a cross-entropy whose labels are weighted
// by what stands here, so no device has a kernel for it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ferry::rl {

enum class KlTerm {
  kNone,
  kK3,        // e^d - d - 1 with d = log p_ref - log p (Schulman's k3, as R1 has it)
  kUnbiased,  // the same times p / p_old, so that its gradient is the divergence's (V3.2)
};

/// What a token's term is divided by.
enum class Normalise {
  kToken,     // the tokens of all answers (DAPO)
  kSequence,  // its answer's tokens, and the answers (GRPO as published)
  kConstant,  // the longest length that an answer may have, and the answers (Dr.GRPO)
};

struct PolicyLossSettings {
  double clip_low = 0.2, clip_high = 0.2;  // the ratio's bounds: 1 - low, 1 + high
  KlTerm kl = KlTerm::kNone;
  double kl_weight = 0;
  Normalise normalise = Normalise::kToken;
  int64_t tokens_max = 0;  // of kConstant
  /// An answer that is worse than its group, and has become less likely by more than this since it was
  /// drawn, in nats a token, counts for its KL term alone (V3.2's off-policy masking); 0: all count.
  double off_policy_mask = 0;
  /// What the weight of a token is cut to that another device drew: of p_old / p_drawn.
  double importance_cap = 2;
};

/// One answer. Log-probabilities of each of its tokens: by the weights that drew it, now, and of the reference
/// (empty without a KL term).
struct PolicySample {
  double advantage = 0;
  std::span<const float> old_log_probs, log_probs, reference_log_probs;
  /// As the device had them that drew it, where that is not the one that trains; empty: they are old_log_probs.
  std::span<const float> drawn_log_probs = {};
};

struct PolicyLoss {
  double loss = 0;
  /// -d loss / d log p of each token, for each answer: the weight of its cross-entropy.
  std::vector<std::vector<double>> weights;
  double kl = 0;         // mean of the KL term over tokens, unweighted
  double clipped = 0;    // share of tokens whose ratio the clip takes the gradient from
  int64_t masked = 0;    // answers
  double ratio_max = 1;  // the largest of p / p_old and its inverse
};

/// With ratio r = p / p_old and advantage A, a token's term is
///     -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl_weight * kl
/// Where another device drew the answer the first part is times min(p_old / p_drawn, importance_cap): truncated
/// importance sampling, as TRL and verl have it; the KL term is not. "Since it was drawn" is then since p_drawn.
/// Sources: DeepSeekMath (2402.03300), Dr.GRPO (2503.20783), DAPO (2503.14476), DeepSeek-V3.2 (2512.02556).
PolicyLoss policy_loss(std::span<const PolicySample> samples, const PolicyLossSettings& settings);

/// Advantages of one group's answers: their rewards less the mean, and, if asked for, divided by the standard
/// deviation (of a sample, plus 1e-4, as TRL has it). Where all rewards are equal: zeros.
std::vector<double> advantages(std::span<const double> rewards, bool divide_by_deviation);

/// DAPO's soft penalty: 0 up to tokens_max - margin, from there down to -1 at tokens_max.
double overlong_penalty(int64_t tokens, int64_t tokens_max, int64_t margin);

}  // namespace ferry::rl
