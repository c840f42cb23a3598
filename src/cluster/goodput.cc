#include "cluster/goodput.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/math.h"

namespace ferry::cluster {
namespace {

/// e^x - 1. Below the bound the terms left out are less than a rounding; above it the difference loses four digits.
double exp_minus_1(double x) {
  constexpr double kSmall = 1e-4;
  if (std::abs(x) < kSmall) return x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4)));
  return math::exp(x) - 1;
}

/// ln(1 + x), x >= 0, as exact.
double log_of_1_plus(double x) {
  constexpr double kSmall = 1e-4;
  if (x < kSmall) return x * (1 - x * (1.0 / 2 - x * (1.0 / 3 - x / 4)));
  return math::log(1 + x);
}

/// What never happens costs nothing, were it ever so long.
double expected(double probability, double seconds) {
  return probability == 0 ? 0 : probability * seconds;
}

/// What follows a fault until steps are made again.
struct Outage {
  double seconds = 0;    // expected
  double from_disk = 0;  // the probability that it comes to that
};

/// In an outage whose recovery takes s, a fault comes before its end with probability 1 - q, q = e^(-rate s); until
/// then, or until its end, (1 - q) / rate passes on average. Such a fault leads, with probability `escalates`, to the
/// recovery from the disk, and otherwise to that of the longer one of both kinds. So, with the kinds in the order of
/// their recoveries,
///
///   O_k = (1 - q_k) / rate + (1 - q_k) (e O_disk + (1 - e) (P_k O_k + sum over j > k of p_j O_j)),
///
/// P_k being the share of kinds up to k, which is solved from the last kind down; O_disk = (e^(rate s) - 1) / rate,
/// since from there no fault leads anywhere else. The probability of the disk follows in the same way.
Outage outage_of(const GoodputCase& c, std::vector<FaultKind> kinds) {
  std::sort(kinds.begin(), kinds.end(), [](const FaultKind& a, const FaultKind& b) {
    return a.recovery_s < b.recovery_s;
  });
  const double rate = c.faults_per_s;
  const double escalates = c.together_at_once + (1 - c.together_at_once) * c.together_later;
  const double disk_s = std::max(c.from_disk_s, kinds.back().recovery_s);
  const Outage disk{.seconds = exp_minus_1(rate * disk_s) / rate, .from_disk = 1};
  // Sums over the kinds behind the one at hand; at the end over all.
  Outage behind;
  double share_behind = 0;
  for (size_t i = kinds.size(); i-- > 0;) {
    const double again = -exp_minus_1(-rate * kinds[i].recovery_s);  // 1 - q
    const double stays = again * (1 - escalates) * (1 - share_behind);
    const Outage here{
        .seconds =
            again *
            (1 / rate + expected(escalates, disk.seconds) + (1 - escalates) * behind.seconds) /
            (1 - stays),
        .from_disk = again * (escalates + (1 - escalates) * behind.from_disk) / (1 - stays)};
    behind.seconds += kinds[i].share * here.seconds;
    behind.from_disk += kinds[i].share * here.from_disk;
    share_behind += kinds[i].share;
  }
  const double at_once = c.together_at_once;
  return {.seconds = expected(at_once, disk.seconds) + (1 - at_once) * behind.seconds,
          .from_disk = at_once + (1 - at_once) * behind.from_disk};
}

void check_case(const GoodputCase& c) {
  const auto is_share = [](double x) { return x >= 0 && x <= 1; };
  check(c.faults_per_s > 0 && std::isfinite(c.faults_per_s), "goodput: rate {}", c.faults_per_s);
  check(c.step_s > 0 && c.checkpoint_s > 0, "goodput: step {}, work {}", c.step_s, c.checkpoint_s);
  check(is_share(c.together_at_once) && is_share(c.together_later) && c.from_disk_s >= 0,
        "goodput: together {} and {}, from disk in {} s",
        c.together_at_once,
        c.together_later,
        c.from_disk_s);
  check(!c.kinds.empty(), "goodput: no kind of fault");
  double shares = 0;
  for (const FaultKind& k : c.kinds) {
    check(is_share(k.share) && k.recovery_s >= 0,
          "goodput: a kind of fault with share {} and recovery {} s",
          k.share,
          k.recovery_s);
    shares += k.share;
  }
  check(std::abs(shares - 1) < 1e-9, "goodput: shares of faults add up to {}", shares);
}

}  // namespace

/// A step is tried until it is made: a try lasts (1 - q) / rate on average, succeeds with probability
/// q = e^(-rate step), and is followed otherwise by an outage, which with probability d is one from the disk. Tries
/// until the step is made, or undone with all before it, are a trial: it ends at each try with probability
/// q + (1 - q) d, and well with w = q / (q + (1 - q) d). Between two checkpoints m steps must go well one after the
/// other, which takes (w^-m - 1) / (1 - w) trials on average (de Moivre's runs of successes). Tries, and trials, are
/// alike and independent, and whether one is the last depends on nothing behind it, so the time is the product of the
/// means (Wald), and
///
///   goodput = m step / (trials x tries in a trial x ((1 - q) / rate + (1 - q) outage)).
///
/// For d = 0 and one kind of fault that is Daly's e^(-rate recovery) rate step / (e^(rate step) - 1) (2006).
Goodput goodput_of(const GoodputCase& c) {
  check_case(c);
  const double rate = c.faults_per_s;
  const Outage outage = outage_of(c, c.kinds);
  double recovery_s = 0;
  for (const FaultKind& k : c.kinds) recovery_s += k.share * k.recovery_s;
  const double steps = std::max(1.0, std::round(c.checkpoint_s / c.step_s));

  const double made = math::exp(-rate * c.step_s);       // q
  const double undone = -exp_minus_1(-rate * c.step_s);  // 1 - q
  const double ends = made + undone * outage.from_disk;  // of tries: a trial's last
  Goodput g;
  g.first_order = 1 - rate * (recovery_s + c.step_s / 2);
  g.outages = 1;  // where no step is ever made, in double's range
  if (made == 0) return g;
  const double x = log_of_1_plus(undone * outage.from_disk / made);  // -ln w
  const double trials = x == 0 ? steps : exp_minus_1(steps * x) / -exp_minus_1(-x);
  const double tries = trials / ends;
  const double seconds = tries * undone * (1 / rate + outage.seconds);
  if (!std::isfinite(seconds)) return g;
  g.share = steps * c.step_s / seconds;
  g.outages = tries * undone * outage.seconds / seconds;
  g.made_again = std::max(0.0, 1 - g.share - g.outages);
  g.from_disk_per_day = tries * undone * outage.from_disk / seconds * 86400;
  return g;
}

}  // namespace ferry::cluster
