// The loss of preferences (direct preference optimisation and its kin), on the host: it needs nothing of the
// model but the log-probabilities of answers. Its gradient is that of a cross-entropy whose labels are weighted
// by what stands here.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace ferry {

/// What a pair costs, of d = log p / p_ref of what is chosen, less the same of what is rejected. Named as TRL names
/// them (loss_type).
enum class DpoLossType {
  kSigmoid,  // -log sigmoid(beta d), as published; smoothed: labels are wrong that often (cDPO)
  kHinge,    // max(0, 1 - beta d), of SLiC
  kIpo,      // (d - 1 / (2 beta))^2, where d is of means over each answer's tokens
  kRobust,   // the sigmoid's, without the bias that labels have which are wrong that often
};

/// Check: it is one of "sigmoid", "hinge", "ipo", "robust".
DpoLossType dpo_loss_type(std::string_view name);

struct DpoLossSettings {
  DpoLossType type = DpoLossType::kSigmoid;
  double beta = 0.1;
  double label_smoothing = 0;  // of kSigmoid and kRobust; of the latter below 0.5
  double rpo_alpha = 0;        // of the mean loss of chosen tokens, which is added
};

/// Of an answer's tokens together.
struct AnswerLogProb {
  double policy = 0, reference = 0;
  int64_t tokens = 1;
};
struct PairLogProbs {
  AnswerLogProb chosen, rejected;
};

/// Means over pairs, as TRL reports them. A reward is beta log p / p_ref.
struct PreferenceFigures {
  double rewards_chosen = 0, rewards_rejected = 0;
  double rewards_accuracies = 0;  // share of pairs whose chosen answer has the higher reward
  double rewards_margins = 0;
  double logps_chosen = 0, logps_rejected = 0;  // of whole answers
};

struct DpoLoss {
  double loss = 0;
  PreferenceFigures figures;
  /// -d loss / d log p of an answer: what each of its tokens' cross-entropy weighs.
  struct Weights {
    double chosen = 0, rejected = 0;
  };
  std::vector<Weights> weights;  // of each pair
};

/// Check: there are pairs, and answers have tokens.
/// Sources: Rafailov et al. 2023 (2305.18290), IPO (2310.12036), robust DPO (2403.00409), SLiC-HF (2305.10425); the
/// term of chosen tokens: RPO (2404.19733), TRL's loss_type "sft".
DpoLoss dpo_loss(std::span<const PairLogProbs> pairs, const DpoLossSettings& settings);

}  // namespace ferry
