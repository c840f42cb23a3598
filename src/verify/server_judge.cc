#include "verify/server_judge.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/math.h"
#include "probe/probe.h"

namespace ferry::verify {
namespace {

constexpr double kRounding = 2;
constexpr double kDigitsLost = 2e-8;  // in KL: what six digits of a log-probability lose
constexpr double kLeastRest = 1e-9;   // what a sum of rounded probabilities can still tell from 1
constexpr double kTrimmed = 0.1;
constexpr size_t kRun = 8;          // places that must agree on where a text parts
constexpr size_t kLeastPlaces = 4;  // of fewer, one near tie would be half
constexpr double kFewPlaces = 4;    // times the bound: few places share their noise

double mean(std::span<const double> of) {
  return of.empty() ? 0
                    : std::accumulate(of.begin(), of.end(), 0.0) / static_cast<double>(of.size());
}

double trimmed_mean(std::vector<double> of) {
  std::sort(of.begin(), of.end());
  const auto kept = of.size() - static_cast<size_t>(kTrimmed * static_cast<double>(of.size()));
  return mean(std::span(of).first(kept));
}

/// The upper one of two.
double median(std::vector<double> of) {
  const auto middle = of.begin() + static_cast<long>(of.size() / 2);
  std::nth_element(of.begin(), middle, of.end());
  return *middle;
}

double bound_of(double kl) { return kRounding * kRounding * kl + kDigitsLost; }

/// The server's (id, log-probability) pairs, none twice.
std::vector<std::pair<int32_t, double>> named(const Seen& seen) {
  std::vector<std::pair<int32_t, double>> out;
  const auto add = [&](int32_t id, double log_prob) {
    if (std::none_of(out.begin(), out.end(), [&](const auto& o) { return o.first == id; }))
      out.emplace_back(id, log_prob);
  };
  if (seen.log_prob) add(seen.id, *seen.log_prob);
  for (const auto& [id, log_prob] : seen.top) add(id, log_prob);
  return out;
}

/// As if a server had said what a model thinks.
Seen said(const Seen& seen, const Thought& thought) {
  Seen out = seen;
  const std::vector<int32_t> ids = ids_of(seen);
  if (out.log_prob) out.log_prob = thought.log_probs[0];
  for (auto& [id, log_prob] : out.top)
    log_prob =
        thought.log_probs[static_cast<size_t>(std::find(ids.begin(), ids.end(), id) - ids.begin())];
  return out;
}

/// Whether the server's own numbers hold another token more probable than the one that it chose. One
/// that tells only of what it chose is taken at its word where that is the reference's.
bool is_against_itself(const Seen& seen, const Thought& reference, double margin) {
  if (!seen.log_prob) return false;
  if (seen.top.empty()) return std::abs(*seen.log_prob - reference.log_probs[0]) <= margin;
  return std::any_of(seen.top.begin(), seen.top.end(), [&](const auto& other) {
    return other.first != seen.id && other.second > *seen.log_prob;
  });
}

/// f(seen, its thoughts...), where all are there.
template <typename F>
void each_place(std::span<const Exchange> exchanges,
                std::span<const std::vector<std::optional<Thought>>> thoughts,
                const F& f) {
  check(exchanges.size() == thoughts.size(), "judge: thoughts of other exchanges");
  for (size_t e = 0; e < exchanges.size(); ++e) {
    check(exchanges[e].seen.size() == thoughts[e].size(), "judge: thoughts of other places");
    for (size_t i = 0; i < exchanges[e].seen.size(); ++i)
      if (thoughts[e][i]) f(exchanges[e].seen[i], *thoughts[e][i], e, i);
  }
}

}  // namespace

std::vector<int32_t> ids_of(const Seen& seen) {
  std::vector<int32_t> ids = {seen.id};
  for (const auto& [id, log_prob] : seen.top)
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  return ids;
}

std::optional<double> divergence(const Seen& seen, const Thought& reference) {
  const auto pairs = named(seen);
  if (pairs.empty()) return std::nullopt;
  const std::vector<int32_t> ids = ids_of(seen);
  double kl = 0, ours = 0, theirs = 0;
  for (const auto& [id, log_prob] : pairs) {
    const double log_p =
        reference
            .log_probs[static_cast<size_t>(std::find(ids.begin(), ids.end(), id) - ids.begin())];
    const double p = math::exp(log_p);
    kl += p * (log_p - log_prob);
    ours += p;
    theirs += math::exp(log_prob);
  }
  const double rest = std::max(1 - ours, kLeastRest), their_rest = std::max(1 - theirs, kLeastRest);
  kl += rest * (math::log(rest) - math::log(their_rest));
  return std::max(kl, 0.0);  // below: rounding
}

Closeness closeness(std::span<const Exchange> exchanges,
                    std::span<const std::vector<std::optional<Thought>>> thoughts,
                    double margin) {
  Closeness c;
  each_place(exchanges, thoughts, [&](const Seen& seen, const Thought& t, size_t, size_t) {
    if (const auto kl = divergence(seen, t)) c.kl.push_back(*kl);
    if (!seen.greedy) return;
    ++c.tokens;
    c.log_chance += t.log_probs[0];
    if (t.best == seen.id) return;
    const double apart = t.best_log_prob - t.log_probs[0];
    c.margin_max = std::max(c.margin_max, apart);
    ++c.other;
    if (apart <= margin) return;
    ++c.wrong;
    if (is_against_itself(seen, t, margin)) ++c.against_itself;
  });
  c.compared = std::ssize(c.kl);
  c.kl_mean = mean(c.kl);
  c.kl_typical = trimmed_mean(c.kl);
  if (!c.kl.empty()) c.kl_max = *std::max_element(c.kl.begin(), c.kl.end());
  return c;
}

Noise noise(std::span<const Exchange> exchanges,
            std::span<const std::vector<std::optional<Thought>>> reference,
            std::span<const std::vector<std::optional<Thought>>> rounded) {
  Noise n;
  std::vector<std::vector<double>> kl_of(exchanges.size());
  double apart = 0;
  each_place(exchanges, reference, [&](const Seen& seen, const Thought& t, size_t e, size_t i) {
    if (!rounded[e][i]) return;
    Seen as_server = said(seen, *rounded[e][i]);
    // Without the server's log-probabilities, of the token alone.
    if (named(as_server).empty()) as_server.log_prob = rounded[e][i]->log_probs[0];
    kl_of[e].push_back(*divergence(as_server, t));
    // Of what is improbable, a log-probability moves far, and changes no answer.
    for (size_t k = 0; k < t.log_probs.size(); ++k)
      if (t.log_probs[k] > t.best_log_prob - 5)
        apart = std::max(apart, std::abs(t.log_probs[k] - rounded[e][i]->log_probs[k]));
  });
  std::vector<double> kl;
  for (const std::vector<double>& of : kl_of) {
    n.kl_of.push_back(trimmed_mean(of));
    kl.insert(kl.end(), of.begin(), of.end());
  }
  n.kl = trimmed_mean(kl);
  if (!kl.empty()) n.kl_max = *std::max_element(kl.begin(), kl.end());
  n.margin = 2 * probe::kNoiseFactor * apart;
  return n;
}

double kl_bound(const Noise& noise) { return bound_of(noise.kl); }

std::vector<Exchange> strays(std::span<const Exchange> exchanges,
                             std::span<const std::vector<std::optional<Thought>>> thoughts,
                             const Noise& noise) {
  check(exchanges.size() == noise.kl_of.size(), "judge: noise of other exchanges");
  struct Part {
    std::vector<double> kl;
    std::vector<Seen> seen;
  };
  std::vector<Part> prompts(exchanges.size()), answers(exchanges.size());
  each_place(exchanges, thoughts, [&](const Seen& seen, const Thought& t, size_t e, size_t) {
    const auto kl = divergence(seen, t);
    if (!kl) return;
    Part& part = seen.at < exchanges[e].prompt ? prompts[e] : answers[e];
    part.kl.push_back(*kl);
    part.seen.push_back(seen);
  });
  std::vector<Exchange> out;
  for (size_t e = 0; e < exchanges.size(); ++e) {
    const double bound = kFewPlaces * bound_of(std::max(noise.kl, noise.kl_of[e]));
    Exchange astray = exchanges[e];
    astray.seen.clear();
    for (const Part* part : {&prompts[e], &answers[e]})
      if (part->kl.size() >= kLeastPlaces && median(part->kl) > bound)
        astray.seen.insert(astray.seen.end(), part->seen.begin(), part->seen.end());
    if (!astray.seen.empty()) out.push_back(std::move(astray));
  }
  return out;
}

bool penalises(std::span<const Exchange> exchanges,
               std::span<const std::vector<std::optional<Thought>>> reference,
               double margin) {
  constexpr double kProbable = 5;  // in nats from the best: of others a log-probability moves far
  constexpr int64_t kPlaces = 12, kLower = 4;  // of an honest server none is
  int64_t agree = 0, differ = 0, lower = 0, higher = 0;
  each_place(exchanges, reference, [&](const Seen& seen, const Thought& t, size_t e, size_t) {
    const Exchange& x = exchanges[e];
    if (seen.at < x.prompt) return;
    const std::span<const int32_t> before = std::span(x.text).first(static_cast<size_t>(seen.at));
    const std::vector<int32_t> ids = ids_of(seen);
    std::vector<double> fresh,
        repeated;  // by how much the server's numbers are above the reference's
    for (const auto& [id, log_prob] : named(seen)) {
      const auto at = static_cast<size_t>(std::find(ids.begin(), ids.end(), id) - ids.begin());
      if (t.log_probs[at] < t.best_log_prob - kProbable) continue;
      const bool stands = std::find(before.begin(), before.end(), id) != before.end();
      (stands ? repeated : fresh).push_back(log_prob - t.log_probs[at]);
    }
    if (fresh.empty()) return;
    const auto [low, high] = std::minmax_element(fresh.begin(), fresh.end());
    if (fresh.size() > 1) ++(*high - *low <= margin ? agree : differ);
    for (const double r : repeated) {
      lower += r < *low - margin;
      higher += r > *high + margin;
    }
  });
  return agree >= kPlaces && 10 * differ <= agree && lower >= kLower && 4 * higher <= lower;
}

std::optional<size_t> parts_from(std::span<const double> kl, double bound) {
  if (kl.size() < 2 * kRun) return std::nullopt;
  // A single place may be off by much for honest reasons: medians of runs.
  const auto median_of = [&](size_t from, size_t count) {
    const std::span<const double> some = kl.subspan(from, count);
    return median({some.begin(), some.end()});
  };
  size_t from = 0;
  while (from + kRun <= kl.size() && median_of(from, kRun) <= bound) ++from;
  if (from == 0 || from + kRun > kl.size()) return std::nullopt;
  // The run's first place that is off.
  while (kl[from] <= bound && from + 1 < kl.size()) ++from;
  // From there on, it stays so.
  if (median_of(from, kl.size() - from) <= bound) return std::nullopt;
  return from;
}

}  // namespace ferry::verify
