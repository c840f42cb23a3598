// The sized ops (sized_ops.h) at sizes from 1 to those of a large step: powers of two and their neighbours, every small
// length, and some by the seed. What goes wrong only beyond a size, or beside a tile's edge, shows
// here; the specs know a few shapes.
#include <algorithm>
#include <cmath>
#include <set>

#include "base/check.h"
#include "base/math.h"
#include "verify/call_judge.h"
#include "verify/checks.h"
#include "verify/sized_ops.h"

namespace ferry::doctor {
namespace {

// Of work (SizedOp::work), for one rung: milliseconds, and a second or so, of a slow device.
constexpr double kQuickBudget = 2e7, kBudget = 1e9;
// Every length up to these: two tiles of 64, or two pages of 128 keys, and what comes behind.
constexpr int64_t kEveryLength = 130, kEveryCacheLength = 258;
constexpr size_t kProblemsMax = 3;  // in a check: more would be no news

bool flag(const Dimension& d) { return d.most == 1; }
/// One that has but one size.
bool fixed(const Dimension& d) { return d.small == d.most; }

Sizes small_sizes(const SizedOp& op, const Random& random, uint64_t at) {
  Sizes s;
  for (const Dimension& d : op.dims)
    s.push_back(flag(d) ? static_cast<int64_t>(random.below(at + s.size(), 2)) : d.small);
  return s;
}

/// Powers of two, their neighbours, and a few by the seed, ascending.
std::vector<int64_t> rungs(const Dimension& d, bool quick, const Random& random) {
  std::vector<int64_t> all;
  for (int64_t p = 1; p - 1 <= d.most; p *= 2)
    for (const int64_t n : {p - 1, p, p + 1})
      if (n >= 1 && n <= d.most) all.push_back(n);
  uint64_t at = 0;
  const auto some = [&](int64_t most) {
    return 1 + static_cast<int64_t>(random.below(at++, static_cast<uint64_t>(most)));
  };
  std::set<int64_t> chosen;
  if (quick) {
    chosen = {d.most, all[random.below(at++, all.size())], some(std::min(d.most, kEveryLength))};
  } else {
    chosen.insert(all.begin(), all.end());
    for (int i = 0; i < 4; ++i)
      chosen.insert({some(d.most), some(std::min<int64_t>(d.most, 1000))});
  }
  return {chosen.begin(), chosen.end()};
}

Check sized_check(const SizedOp& op,
                  DType dtype,
                  std::string what,
                  std::vector<Sizes> all,
                  const Choices& choices = {}) {
  Check check;
  check.head = {.name = fmt::format("{}, {}, {}", op.name, to_string(dtype), what),
                .subject = op.op,
                .level = Level::kOp,
                .training_only = false};
  check.run = [&op, dtype, all = std::move(all), choices](Running& r) {
    for (size_t i = 0; i < all.size() && r.outcome.problems.size() < kProblemsMax; ++i) {
      run_sized(r, op, dtype, all[i], r.options.seed + i, choices);
      r.listener.alive(static_cast<double>(i + 1) / static_cast<double>(all.size()));
    }
  };
  return check;
}

std::vector<DType> types_of(const SizedOp& op) {
  return op.bf16 ? std::vector<DType>{DType::kF32, DType::kBF16} : std::vector<DType>{DType::kF32};
}

}  // namespace

void judge_run(Running& r,
               DType dtype,
               uint64_t seed,
               const std::string& where,
               const std::function<void(Maker&)>& run,
               const Choices& choices) {
  const auto wrong = [&](const char* property, const std::string& kernel, const std::string& what) {
    if (r.outcome.problems.size() < kProblemsMax)
      r.outcome.problems.push_back({property, where + what, "", kernel});
  };
  CallJudge judge([&](const std::string& property, const ops::CallFinding& f) {
    wrong(property.c_str(), f.op, ops::describe(f) + " of " + f.shapes);
  });
  Maker maker(r.device, dtype, seed, choices);
  {
    const ops::Observing observing(judge);
    run(maker);
  }
  for (const auto& [kernel, what] : maker.wrong()) wrong("reference", kernel, what);
}

void run_sized(Running& r,
               const SizedOp& op,
               DType dtype,
               const Sizes& sizes,
               uint64_t seed,
               const Choices& choices) {
  judge_run(
      r, dtype, seed, describe(op, sizes) + ": ", [&](Maker& m) { op.run(m, sizes); }, choices);
}

std::vector<Check> ladder_checks(const Options& options) {
  std::vector<Check> checks;
  const double budget = options.quick ? kQuickBudget : kBudget;
  uint64_t number = 0;
  for (const SizedOp& op : sized_ops()) {
    if (!runs_on(op, kind_of(options.device))) continue;
    for (const DType dtype : types_of(op)) {
      for (size_t d = 0; d < op.dims.size(); ++d) {
        if (flag(op.dims[d]) || fixed(op.dims[d])) continue;
        const Random random(options.seed, RandomPurpose::kTest, 0x1ADD00 + number++);
        std::vector<Sizes> all;
        for (const int64_t n : rungs(op.dims[d], options.quick, random)) {
          Sizes s = small_sizes(op, random, 1000 + 10 * all.size());
          s[d] = n;
          for (Sizes& a : affordable(op, s, budget))
            if (std::find(all.begin(), all.end(), a) == all.end()) all.push_back(std::move(a));
        }
        checks.push_back(
            sized_check(op, dtype, fmt::format("sizes of {}", op.dims[d].name), std::move(all)));
      }
      if (options.quick) continue;
      const Random random(options.seed, RandomPurpose::kTest, 0x1ADD00 + number++);
      std::vector<Sizes> every;
      const bool cache = op.dims[0].name == std::string_view("keys");
      const int64_t most = cache ? kEveryCacheLength : kEveryLength;
      for (int64_t n = 1; n <= most; ++n) {
        every.push_back(small_sizes(op, random, 10 * every.size()));
        // matmul's first dimension is a batch; its rows come second.
        every.back()[op.dims[0].name == std::string_view("batch") ? 1 : 0] = n;
      }
      checks.push_back(
          sized_check(op, dtype, fmt::format("every length up to {}", most), std::move(every)));
    }
  }
  return checks;
}

void run_any_sizes(Running& r, const Random& random, uint64_t at) {
  std::vector<const SizedOp*> there;
  for (const SizedOp& o : sized_ops())
    if (runs_on(o, r.device.kind())) there.push_back(&o);
  const SizedOp& op = *there[random.below(at, there.size())];
  const std::vector<DType> types = types_of(op);
  Sizes sizes;
  for (const Dimension& d : op.dims) {
    const uint64_t i = at + 1 + sizes.size();
    if (flag(d) || fixed(d)) {
      sizes.push_back(d.small == d.most ? d.most : static_cast<int64_t>(random.below(i, 2)));
      continue;
    }
    // Every power of two as likely as the next, and any number below it.
    const double logarithm = random.uniform(i) * math::log(static_cast<double>(d.most));
    sizes.push_back(std::clamp<int64_t>(std::llround(math::exp(logarithm)), 1, d.most));
  }
  const std::vector<Sizes> parts = affordable(op, sizes, kQuickBudget * 3);
  run_sized(r,
            op,
            types[random.below(at + 20, types.size())],
            parts[random.below(at + 21, parts.size())],
            random.bits(at + 22));
}

std::vector<Sizes> run_parts(const RunCall& call, const Options& options) {
  // A run's own calls are few and matter most.
  const double budget = 4 * (options.quick ? kQuickBudget : kBudget);
  return affordable(sized_op(call.sized_op), call.sizes, budget);
}

std::vector<Check> run_checks(const Options& options) {
  std::vector<Check> checks;
  for (const RunCall& call : options.run.calls) {
    const SizedOp& op = sized_op(call.sized_op);
    std::vector<Sizes> parts = run_parts(call, options);
    // Said before the parts are given away: arguments are evaluated in any order.
    std::string told;
    for (const auto& [name, value] : call.choices) told += fmt::format(", {} {}", name, value);
    const std::string what =
        fmt::format("as in {}: {}{}{}",
                    options.run.name,
                    describe(op, call.sizes),
                    told,
                    parts.front() == call.sizes ? "" : fmt::format(", in {} parts", parts.size()));
    checks.push_back(sized_check(op, call.dtype, what, std::move(parts), call.choices));
  }
  return checks;
}

}  // namespace ferry::doctor
