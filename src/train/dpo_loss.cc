#include "train/dpo_loss.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/math.h"

namespace ferry {
namespace {

/// log(1 + e^x), without overflow: -log sigmoid(-x).
double softplus(double x) { return std::max(x, 0.0) + math::log(1 + math::exp(-std::abs(x))); }

double sigmoid(double x) {
  const double e = math::exp(-std::abs(x));
  return (x >= 0 ? 1 : e) / (1 + e);
}

struct Term {
  double value = 0, slope = 0;  // in d
};

Term term_of(double d, const DpoLossSettings& s) {
  const double x = s.beta * d;
  const double right = softplus(-x), wrong = softplus(x);  // if the label is
  const double right_slope = -s.beta * sigmoid(-x), wrong_slope = s.beta * sigmoid(x);
  const double e = s.label_smoothing;
  switch (s.type) {
    case DpoLossType::kSigmoid:
      return {(1 - e) * right + e * wrong, (1 - e) * right_slope + e * wrong_slope};
    case DpoLossType::kRobust:
      return {((1 - e) * right - e * wrong) / (1 - 2 * e),
              ((1 - e) * right_slope - e * wrong_slope) / (1 - 2 * e)};
    case DpoLossType::kHinge: return x < 1 ? Term{1 - x, -s.beta} : Term{};
    case DpoLossType::kIpo: {
      const double off = d - 1 / (2 * s.beta);
      return {off * off, 2 * off};
    }
  }
  return {};
}

}  // namespace

DpoLossType dpo_loss_type(std::string_view name) {
  constexpr std::pair<const char*, DpoLossType> kTypes[] = {{"sigmoid", DpoLossType::kSigmoid},
                                                            {"hinge", DpoLossType::kHinge},
                                                            {"ipo", DpoLossType::kIpo},
                                                            {"robust", DpoLossType::kRobust}};
  for (const auto& [known, type] : kTypes)
    if (name == known) return type;
  check(false, "dpo_loss: no loss {}", name);
  return {};
}

DpoLoss dpo_loss(std::span<const PairLogProbs> pairs, const DpoLossSettings& s) {
  check(!pairs.empty(), "dpo_loss: no pairs");
  const double share = 1 / static_cast<double>(pairs.size());
  int64_t chosen_tokens = 0;
  for (const PairLogProbs& p : pairs) {
    check(p.chosen.tokens > 0 && p.rejected.tokens > 0, "dpo_loss: an answer without tokens");
    chosen_tokens += p.chosen.tokens;
  }
  const double alpha = s.rpo_alpha / static_cast<double>(chosen_tokens);
  DpoLoss out;
  PreferenceFigures& f = out.figures;
  for (const PairLogProbs& p : pairs) {
    const double chosen = p.chosen.policy - p.chosen.reference;
    const double rejected = p.rejected.policy - p.rejected.reference;
    const bool means = s.type == DpoLossType::kIpo;
    const double of_chosen = means ? 1 / static_cast<double>(p.chosen.tokens) : 1;
    const double of_rejected = means ? 1 / static_cast<double>(p.rejected.tokens) : 1;
    const Term term = term_of(of_chosen * chosen - of_rejected * rejected, s);
    out.loss += share * term.value - alpha * p.chosen.policy;
    out.weights.push_back({.chosen = -share * of_chosen * term.slope + alpha,
                           .rejected = share * of_rejected * term.slope});
    f.rewards_chosen += s.beta * chosen;
    f.rewards_rejected += s.beta * rejected;
    f.rewards_accuracies += chosen > rejected ? 1 : 0;
    f.rewards_margins += s.beta * (chosen - rejected);
    f.logps_chosen += p.chosen.policy;
    f.logps_rejected += p.rejected.policy;
  }
  for (double* sum : {&f.rewards_chosen,
                      &f.rewards_rejected,
                      &f.rewards_accuracies,
                      &f.rewards_margins,
                      &f.logps_chosen,
                      &f.logps_rejected})
    *sum /= static_cast<double>(pairs.size());
  return out;
}

}  // namespace ferry
