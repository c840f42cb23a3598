#include "verify/comparison.h"

#include <algorithm>
#include <cmath>

namespace ferry::verify {
namespace {

using probe::Answers;
using probe::kNoiseFactor;

/// Notes the largest distance of the logits that the reference thinks most of. Returns the
/// tolerance.
double compare_logits(Report& report,
                      const Probes& probes,
                      const Probe& probe,
                      size_t position,
                      const std::vector<float>& logits) {
  const TopLogits& top = probe.logits[position];
  double noise = 0;  // one probe's largest is of a few numbers; that of all is steadier
  for (const Probe& p : probes.list) noise = std::max(noise, static_cast<double>(p.logit_noise));
  double largest_logit = 1;
  for (const float v : top.values)
    largest_logit = std::max(largest_logit, std::abs(static_cast<double>(v)));
  const double tolerance = kNoiseFactor * noise + 0x1p-20 * largest_logit;
  double distance = std::abs(static_cast<double>(probe::log_sum_exp(logits)) -
                             static_cast<double>(top.log_sum_exp));
  for (size_t i = 0; i < top.tokens.size(); ++i)
    distance = std::max(distance,
                        std::abs(static_cast<double>(logits[static_cast<size_t>(top.tokens[i])]) -
                                 static_cast<double>(top.values[i])));
  if (std::isnan(distance)) distance = INFINITY;
  report.equal_bits &= distance == 0;
  // No tolerance yet: nothing was compared. Ratios, so that an infinite distance stays one.
  if (report.logit_tolerance == 0 ||
      distance / tolerance >= report.logit_distance / report.logit_tolerance) {
    report.logit_distance = distance;
    report.logit_tolerance = tolerance;
  }
  return tolerance;
}

bool same_experts(const int32_t* a, const int32_t* b, int64_t top_k) {
  std::vector<int32_t> x(a, a + top_k), y(b, b + top_k);
  std::sort(x.begin(), x.end());
  std::sort(y.begin(), y.end());
  return x == y;
}

/// Whether token t of a probe went to other experts in router l.
bool went_otherwise(const Probe& probe,
                    const Answers& answers,
                    const Rows& rows,
                    int64_t top_k,
                    size_t l,
                    int64_t t) {
  return !same_experts(&answers.experts[l][static_cast<size_t>((rows.begin + t) * top_k)],
                       &probe.routers[l].experts[static_cast<size_t>(t * top_k)],
                       top_k);
}

/// Judges the choices of a probe's tokens. Returns the first token that went another way; the
/// probe's number of tokens if none did.
int64_t compare_choices(Report& report,
                        const Probes& probes,
                        const Probe& probe,
                        const Answers& answers,
                        const Rows& rows) {
  const size_t blocks = report.layers.size() - 1, routers = answers.experts.size();
  int64_t first_other = rows.tokens;
  for (size_t l = 0; l < routers; ++l) {
    LayerReport& layer = report.layers[blocks - routers + l];
    const int64_t other_before = first_other;
    double noise = 0;
    for (const Probe& other : probes.list)
      noise = std::max(noise, static_cast<double>(other.routers[l].noise));
    const double tolerance = 2 * (kNoiseFactor * noise + 0x1p-22);
    for (int64_t t = 0; t < rows.tokens; ++t) {
      if (!went_otherwise(probe, answers, rows, probes.top_k, l, t)) continue;
      ++layer.routed_otherwise;
      first_other = std::min(first_other, t);
      const double gap = static_cast<double>(probe.routers[l].gaps[static_cast<size_t>(t)]);
      if (t >= other_before) {
        ++layer.followed;  // its activations are another computation's already
      } else if (gap <= tolerance) {
        ++layer.near_ties;
      } else {
        report.reasons.push_back(fmt::format(
            "{}: token {} of probe \"{}\" went to other experts, although the reference's "
            "scores differ by {:.3g} (tolerance {:.3g})",
            layer.name,
            t,
            probe.name,
            gap,
            tolerance));
      }
    }
  }
  return first_other;
}

/// The token that these logits write, beside the reference's.
TokenReport compare_token(Report& report,
                          const Probe& probe,
                          size_t position,
                          const std::vector<float>& logits,
                          double tolerance) {
  const int64_t next = probe.prompt + static_cast<int64_t>(position);
  TokenReport token{.expected = probe.tokens[static_cast<size_t>(next)],
                    .got = probe::best(logits)};
  ++report.tokens;
  if (token.got == token.expected) {
    ++report.tokens_agree;
    return token;
  }
  const TopLogits& top = probe.logits[position];
  const auto it = std::find(top.tokens.begin(), top.tokens.end(), token.got);
  const float other = it == top.tokens.end()
                          ? top.values.back()  // at least this far away
                          : top.values[static_cast<size_t>(it - top.tokens.begin())];
  token.margin = static_cast<double>(top.values[0] - other);
  token.right = token.margin <= 2 * tolerance;
  if (token.right)
    ++report.tokens_near_tie;
  else
    report.reasons.push_back(fmt::format(
        "probe \"{}\": token {} of the text is {}, the reference's is {} by a margin of {:.4g} "
        "(tolerance {:.4g})",
        probe.name,
        position,
        token.got,
        token.expected,
        token.margin,
        2 * tolerance));
  return token;
}

}  // namespace

void compare_routed(Report& report, const Probes& probes, const Answers& answers) {
  const std::vector<Rows> rows = rows_of(probes);
  const size_t layers = answers.layers.size();
  const auto hidden = std::ssize(answers.layers[0]) / answers.tokens;
  report.equal_bits = true;
  for (size_t l = 0; l < layers; ++l) {
    LayerReport layer{.name = l + 1 == layers ? "norm" : fmt::format("block {}", l)};
    double worst = -1;
    for (size_t p = 0; p < rows.size(); ++p) {
      const LayerSummary& summary = probes.list[p].layers[l];
      const auto mine = std::span(answers.layers[l])
                            .subspan(static_cast<size_t>(rows[p].begin * hidden),
                                     static_cast<size_t>(rows[p].tokens * hidden));
      const double distance = probe::distance(summary, mine, rows[p].tokens);
      const double tolerance =
          kNoiseFactor * static_cast<double>(summary.noise) + unit_roundoff(report.dtype);
      const double ratio = std::isnan(distance) ? INFINITY : distance / tolerance;
      report.equal_bits &= distance == 0;
      if (ratio <= worst) continue;
      worst = ratio;
      layer.distance = distance;
      layer.tolerance = tolerance;
    }
    report.layers.push_back(layer);
  }
  size_t position = 0;
  for (const Probe& probe : probes.list)
    for (size_t i = 0; i < probe.logits.size(); ++i, ++position)
      compare_logits(report, probes, probe, i, answers.logits[position]);
}

bool routed_otherwise(const Probes& probes, const Answers& answers) {
  const std::vector<Rows> rows = rows_of(probes);
  for (size_t p = 0; p < rows.size(); ++p)
    for (size_t l = 0; l < answers.experts.size(); ++l)
      for (int64_t t = 0; t < rows[p].tokens; ++t)
        if (went_otherwise(probes.list[p], answers, rows[p], probes.top_k, l, t)) return true;
  return false;
}

void compare_served(Report& report,
                    const Probes& probes,
                    const Answers& answers,
                    const Answers& guided) {
  const std::vector<Rows> rows = rows_of(probes);
  size_t position = 0;
  for (size_t p = 0; p < rows.size(); ++p) {
    const Probe& probe = probes.list[p];
    const int64_t first_other = compare_choices(report, probes, probe, answers, rows[p]);
    TextReport text{.name = probe.name,
                    .prompt = {probe.tokens.begin(), probe.tokens.begin() + probe.prompt}};
    for (size_t i = 0; i < probe.logits.size(); ++i, ++position) {
      const int64_t at = probe.prompt - 1 + static_cast<int64_t>(i);
      const bool own = at < first_other;
      const std::vector<float>& logits = (own ? answers : guided).logits[position];
      const double tolerance = compare_logits(report, probes, probe, i, logits);
      if (at + 1 >= rows[p].tokens) continue;  // nothing was written after the last token
      text.tokens.push_back(compare_token(report, probe, i, logits, tolerance));
      text.tokens.back().guided = !own;
      report.tokens_guided += own ? 0 : 1;
    }
    report.texts.push_back(std::move(text));
  }
}

}  // namespace ferry::verify
