#include "rl/policy_loss.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/math.h"

namespace ferry::rl {
namespace {

constexpr double kDeviationFloor = 1e-4;

bool is_masked(const PolicySample& s, double limit) {
  if (limit <= 0 || s.advantage >= 0) return false;
  const std::span<const float> drawn =
      s.drawn_log_probs.empty() ? s.old_log_probs : s.drawn_log_probs;
  double moved = 0;
  for (size_t t = 0; t < s.log_probs.size(); ++t)
    moved += static_cast<double>(drawn[t]) - static_cast<double>(s.log_probs[t]);
  return moved > limit * static_cast<double>(s.log_probs.size());
}

/// How much more likely the token was to training than to what drew it, up to the cap.
double importance(const PolicySample& s, size_t t, double cap) {
  if (s.drawn_log_probs.empty()) return 1;
  return std::min(cap,
                  math::exp(static_cast<double>(s.old_log_probs[t]) -
                            static_cast<double>(s.drawn_log_probs[t])));
}

}  // namespace

PolicyLoss policy_loss(std::span<const PolicySample> samples, const PolicyLossSettings& o) {
  PolicyLoss out;
  int64_t tokens = 0;
  for (const PolicySample& s : samples) tokens += std::ssize(s.log_probs);
  const auto all_tokens = static_cast<double>(std::max<int64_t>(1, tokens));
  const auto answers = static_cast<double>(samples.size());
  int64_t clipped = 0;
  for (const PolicySample& s : samples) {
    const size_t length = s.log_probs.size();
    check(s.old_log_probs.size() == length &&
              (s.drawn_log_probs.empty() || s.drawn_log_probs.size() == length) &&
              (o.kl == KlTerm::kNone || s.reference_log_probs.size() == length),
          "policy_loss: {} tokens",
          length);
    double divisor = all_tokens;
    if (o.normalise == Normalise::kSequence)
      divisor = answers * static_cast<double>(std::max<size_t>(1, length));
    if (o.normalise == Normalise::kConstant) divisor = answers * static_cast<double>(o.tokens_max);
    std::vector<double>& weights = out.weights.emplace_back(length, 0.0);
    const bool masked = is_masked(s, o.off_policy_mask);
    out.masked += masked;
    for (size_t t = 0; t < length; ++t) {
      const auto now = static_cast<double>(s.log_probs[t]);
      const double apart = now - static_cast<double>(s.old_log_probs[t]);
      const double r = math::exp(apart);
      out.ratio_max = std::max(out.ratio_max, math::exp(std::abs(apart)));
      const double held = std::clamp(r, 1 - o.clip_low, 1 + o.clip_high);
      const bool by_clip = held * s.advantage < r * s.advantage;
      clipped += by_clip;
      const double worth = s.advantage * importance(s, t, o.importance_cap);
      double term = masked ? 0 : -(by_clip ? held : r) * worth;
      double slope = masked || by_clip ? 0 : -r * worth;  // of the term in log p
      if (o.kl != KlTerm::kNone) {
        const double d = static_cast<double>(s.reference_log_probs[t]) - now;
        const double k3 = math::exp(d) - d - 1;
        const bool unbiased = o.kl == KlTerm::kUnbiased;
        out.kl += k3 / all_tokens;
        term += o.kl_weight * (unbiased ? r * k3 : k3);
        slope += o.kl_weight * (unbiased ? -r * d : 1 - math::exp(d));
      }
      out.loss += term / divisor;
      weights[t] = -slope / divisor;
    }
  }
  out.clipped = static_cast<double>(clipped) / all_tokens;
  return out;
}

std::vector<double> advantages(std::span<const double> rewards, bool divide_by_deviation) {
  const auto n = static_cast<double>(rewards.size());
  std::vector<double> out(rewards.size(), 0.0);
  if (std::all_of(rewards.begin(), rewards.end(), [&](double r) { return r == rewards[0]; }))
    return out;
  double mean = 0, square = 0;
  for (const double r : rewards) mean += r / n;
  for (const double r : rewards) square += (r - mean) * (r - mean);
  const double divisor = divide_by_deviation ? std::sqrt(square / (n - 1)) + kDeviationFloor : 1;
  for (size_t i = 0; i < rewards.size(); ++i) out[i] = (rewards[i] - mean) / divisor;
  return out;
}

double overlong_penalty(int64_t tokens, int64_t tokens_max, int64_t margin) {
  const int64_t over = tokens - (tokens_max - margin);
  if (margin <= 0 || over <= 0) return 0;
  return -std::min(1.0, static_cast<double>(over) / static_cast<double>(margin));
}

}  // namespace ferry::rl
