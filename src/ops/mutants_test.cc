// A test of the tests: one output of one kernel is spoiled as it is launched, and the op's spec must
// find it. A sample, another each day (FERRY_MUTANTS_SEED, which the test prints, repeats one); all
// of them with FERRY_MUTANTS=all, which is `./run mutants`.
//
// Whether a spoiled output matters is decided by the kernel's call rule, from that one call alone;
// whether it is found, by the spec, from the op's outputs and gradients. Rules and tolerances are made of the same
// bounds, so neither may be the other's only measure: a factor of 1 + 2^-6 matters by the output's type alone, and the
// case itself has to find it, or is named with the reason (kWide).
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/threads.h"
#include "device/cpu/cpu_device.h"
#include "ops/call_check.h"
#include "ops/cpu/gemm.h"
#include "ops/spec_check.h"
#include "tensor/bf16.h"

namespace ferry::ops {
namespace {

enum class Spoil {
  kScaled,       // times 1 + 2^-6
  kRowsSwapped,  // the first and the last
  kLastRow,      // zero
  kTail,         // what is beyond the last whole sixteen columns: zero
  kLeft,         // as it was before the launch
  kRounded,      // to half the bits of the mantissa
  kElement,      // one is another
  kDocument,     // the rows of one document (or a quarter of all): zero
};
constexpr std::array kSpoils = {Spoil::kScaled,
                                Spoil::kRowsSwapped,
                                Spoil::kLastRow,
                                Spoil::kTail,
                                Spoil::kLeft,
                                Spoil::kRounded,
                                Spoil::kElement,
                                Spoil::kDocument};
constexpr std::array kNames = {"times 1 + 2^-6",
                               "two rows swapped",
                               "last row zeroed",
                               "tail dropped",
                               "left as it was",
                               "rounded to half the bits",
                               "one element",
                               "one document"};

/// The elements of an output on the CPU, in row order.
class Elements {
 public:
  explicit Elements(const View& v) : view_(v), columns_(v.rank > 1 ? v.shape[v.rank - 1] : 1) {}

  int64_t count() const { return view_.count(); }
  int64_t columns() const { return columns_; }
  /// Rows of dimension 0, and how many elements each has.
  int64_t rows() const { return view_.rank > 0 ? view_.shape[0] : 1; }
  int64_t row_elements() const { return rows() > 0 ? count() / rows() : 0; }
  bool integers() const { return view_.dtype == DType::kI32; }
  std::vector<double> all() const {
    std::vector<double> values;
    for (int64_t i = 0; i < count(); ++i) values.push_back(get(i));
    return values;
  }

  double get(int64_t i) const {
    const int64_t at = place(i);
    switch (view_.dtype) {
      case DType::kI32: return view_.as<int32_t>()[at];
      case DType::kF32: return static_cast<double>(view_.as<float>()[at]);
      case DType::kF64: return view_.as<double>()[at];
      case DType::kBF16: return static_cast<double>(bf16_to_f32(view_.as<bf16_t>()[at]));
      default: check(false, "mutants: no elements of {}", to_string(view_.dtype)); return 0;
    }
  }
  void set(int64_t i, double value) const {
    const int64_t at = place(i);
    switch (view_.dtype) {
      case DType::kI32: view_.as<int32_t>()[at] = static_cast<int32_t>(value); return;
      case DType::kF32: view_.as<float>()[at] = static_cast<float>(value); return;
      case DType::kF64: view_.as<double>()[at] = value; return;
      case DType::kBF16: view_.as<bf16_t>()[at] = f32_to_bf16(static_cast<float>(value)); return;
      default: check(false, "mutants: no elements of {}", to_string(view_.dtype));
    }
  }
  /// As it would be with half of its mantissa's bits (float64: of float32's, which is what is
  /// promised of it).
  void round(int64_t i) const {
    const int digits = view_.dtype == DType::kBF16 ? 4 : 12;
    int exponent = 0;
    const double fraction = std::frexp(get(i), &exponent);
    set(i, std::ldexp(std::nearbyint(std::ldexp(fraction, digits)), exponent - digits));
  }

 private:
  int64_t place(int64_t i) const {
    int64_t at = 0;
    for (int d = view_.rank - 1; d >= 0; --d) {
      at += i % view_.shape[d] * view_.stride[d];
      i /= view_.shape[d];
    }
    return at;
  }

  View view_;
  int64_t columns_;
};

/// Which output: of what kernel, of what shape (a case may launch a kernel for several things); no
/// shape: of any.
struct Target {
  std::string kernel, output, shape;
  auto operator<=>(const Target&) const = default;
};

std::string shape_of(const View& v) {
  std::string text = to_string(v.dtype);
  for (int d = 0; d < v.rank; ++d) text += fmt::format(" {}", v.shape[d]);
  return text;
}

/// Lists what a case launches.
class Targets final : public Observer {
 public:
  void after(const OpCall& call) override {
    for (const NamedView& out : call.outputs)
      if (out.view.count() > 0) found.insert({call.op, out.name, shape_of(out.view)});
  }
  std::set<Target> found;
};

/// Spoils one output of every launch that the target names, in the same way each time.
class Spoiler final : public Observer {
 public:
  Spoiler(const Target& target, Spoil how, uint64_t seed)
      : target_(target), how_(how), random_(seed, RandomPurpose::kTest, 31) {}

  bool spoiled = false;  // something was changed
  bool leaves = false;   // the kernel's call rule would not take it
  bool moved = false;    // by more than the output's type explains, whatever the rule takes

  void before(const OpCall& call) override {
    recorded_.reset();
    if (target_.kernel != call.op) return;
    recorded_.emplace(call, [](const View&) { return false; });
    was_.clear();
    for (const NamedView& out : call.outputs) was_.push_back(bytes_of(out.view));
  }

  void after(const OpCall& call) override {
    if (!recorded_) return;
    for (size_t o = 0; o < call.outputs.size(); ++o) {
      const View& v = call.outputs[o].view;
      if (target_.output != call.outputs[o].name ||
          (!target_.shape.empty() && target_.shape != shape_of(v)))
        continue;
      const std::vector<char> right = bytes_of(v);
      const Elements elements(v);
      const std::vector<double> were = elements.all();
      spoil(call, elements, o);
      if (bytes_of(v) == right) continue;
      spoiled = true;
      moved = moved || moves(were, elements.all(), v);
      recorded_->launched(call);
      recorded_->fetch();
      const CallVerdict verdict = CallRules::all().judge(*recorded_);
      if (verdict.finding) leaves = true;
    }
    recorded_.reset();
  }

 private:
  static std::vector<char> bytes_of(const View& v) {
    const Extent e = extent_of(v);
    const char* begin = reinterpret_cast<const char*>(e.begin);
    return {begin, begin + e.bytes};
  }

  /// As tools/scoreboard.py has it: beside the largest number of its row by more than a unit in the last place of
  /// bfloat16, or 32 roundings of float32 or float64; whole numbers by anything.
  static bool moves(const std::vector<double>& right,
                    const std::vector<double>& got,
                    const View& v) {
    const double tolerance = v.dtype == DType::kI32    ? 0
                             : v.dtype == DType::kBF16 ? 0x1p-7
                             : v.dtype == DType::kF32  ? 0x1p-19
                                                       : 0x1p-48;
    const auto columns = static_cast<size_t>(v.rank > 0 ? v.shape[v.rank - 1] : 1);
    for (size_t row = 0; row < right.size(); row += columns) {
      double most = 0, largest = 0;
      for (size_t i = row; i < row + columns; ++i) {
        if (!std::isfinite(right[i])) continue;
        most = std::max(most, std::abs(got[i] - right[i]));
        largest = std::max(largest, std::abs(right[i]));
      }
      if (most > tolerance * largest) return true;
    }
    return false;
  }

  void zero_rows(const Elements& x, int64_t begin, int64_t end) const {
    for (int64_t i = begin * x.row_elements(); i < end * x.row_elements(); ++i) x.set(i, 0);
  }

  void spoil(const OpCall& call, const Elements& x, size_t output) {
    const int64_t rows = x.rows(), n = x.row_elements();
    switch (how_) {
      case Spoil::kScaled:
        for (int64_t i = 0; !x.integers() && i < x.count(); ++i) x.set(i, x.get(i) * (1 + 0x1p-6));
        return;
      case Spoil::kRowsSwapped:
        for (int64_t i = 0; i < n; ++i) {
          const double first = x.get(i);
          x.set(i, x.get((rows - 1) * n + i));
          x.set((rows - 1) * n + i, first);
        }
        return;
      case Spoil::kLastRow: return zero_rows(x, rows - 1, rows);
      case Spoil::kTail:
        for (int64_t i = 0; i < x.count(); ++i)
          if (i % x.columns() >= x.columns() / 16 * 16) x.set(i, 0);
        return;
      case Spoil::kLeft: {
        // Numbers that were there before are no indices that a kernel could follow.
        if (x.integers()) return zero_rows(x, 0, rows);
        const View& v = call.outputs[output].view;
        std::memcpy(v.data, was_[output].data(), was_[output].size());
        return;
      }
      case Spoil::kRounded:
        for (int64_t i = 0; !x.integers() && i < x.count(); ++i) x.round(i);
        return;
      case Spoil::kElement: {
        const auto i = static_cast<int64_t>(random_.below(7, static_cast<uint64_t>(x.count())));
        // An index is another's: one that nothing has could lead a kernel out of its memory.
        for (int64_t j = 0; x.integers() && j < x.count(); ++j)
          if (x.get(j) != x.get(i)) return x.set(i, x.get(j));
        if (x.integers()) return;
        return x.set(i, x.get(i) == 0 ? 1 : -1.5 * x.get(i));
      }
      case Spoil::kDocument: {
        const auto [begin, end] = document(call, rows);
        return zero_rows(x, begin, end);
      }
    }
  }

  /// The rows of one document where the call knows of documents; else a quarter of all rows.
  std::pair<int64_t, int64_t> document(const OpCall& call, int64_t rows) const {
    for (const NamedView& in : call.inputs)
      if (std::string_view(in.name) == "position" && in.view.rank == 1 &&
          in.view.shape[0] == rows && target_.kernel.starts_with("attention")) {
        const auto* position = in.view.as<int32_t>();
        auto at = static_cast<int64_t>(random_.below(9, static_cast<uint64_t>(rows)));
        int64_t end = at + 1;
        while (at > 0 && position[at] != 0) --at;
        while (end < rows && position[end] != 0) ++end;
        return {at, end};
      }
    const int64_t quarter = std::max<int64_t>(1, rows / 4);
    const auto begin = static_cast<int64_t>(
        random_.below(9, static_cast<uint64_t>(std::max<int64_t>(1, rows - quarter + 1))));
    return {begin, begin + quarter};
  }

  Target target_;
  Spoil how_;
  Random random_;
  std::optional<RecordedCall> recorded_;
  std::vector<std::vector<char>> was_;
};

/// What leaves a kernel's bounds and no spec can see, each with its reason.
struct Exception {
  std::string_view kernel, output;
  Spoil how;
  std::string_view why;
};
constexpr std::array kExceptions = {
    Exception{"pack_panels",
              "panels",
              Spoil::kElement,
              "zeros that fill the last panel are multiplied with nothing"},
};

bool excused(const Target& t, Spoil how) {
  return std::any_of(kExceptions.begin(), kExceptions.end(), [&](const Exception& e) {
    return e.kernel == t.kernel && e.output == t.output && e.how == how;
  });
}

/// Cases that do not see an output times 1 + 2^-6, or whose call rule takes it, each with its reason.
struct Wide {
  std::string_view kernel, output;
  std::string_view type, kind;  // what the case's name begins with, and what is in it
  std::string_view why;
};
constexpr std::string_view kCancels =
    "weights are 0 and 1, and the gradient what roundings leave of them";
constexpr std::array kWide = {
    Wide{"attention", "lse", "", "in pages", "has no gradient, which alone reads it"},
    Wide{"attention",
         "lse",
         "BF16",
         "sizes 1/1",
         "of one key: nothing follows from its logarithm but roundings"},
    Wide{"cross_entropy", "loss", "", "token losses", "gives the tokens' losses, not their sum"},
    Wide{"balance_loss", "share", "1 documents", "top 1 of 1", "an only expert has no gradient"},
    Wide{"attention_backward", "d_q", "", "one key dominates", kCancels},
    Wide{"attention_backward", "d_k", "", "one key dominates", kCancels},
    Wide{"attention_backward", "d_q", "", "large scores", kCancels},
    Wide{"attention_backward", "d_k", "", "large scores", kCancels},
    Wide{"attention_backward", "d_q", "BF16", "negative scores", "keys nearly alike: sums cancel"},
    Wide{"attention_backward",
         "d_q",
         "BF16",
         "576/512 shared",
         "small beside its terms, 576 of them"},
    Wide{"cast", "y", "F32 to BF16", "scale 1e-37", "within the least normal number"},
    Wide{"matmul", "c", "", "[5, 7168]", "a bound on any order of 7,168 terms"},
};

bool may_be_wide(const Target& t, const OpCase& c) {
  return std::any_of(kWide.begin(), kWide.end(), [&](const Wide& w) {
    return w.kernel == t.kernel && w.output == t.output && c.name.starts_with(w.type) &&
           c.name.find(w.kind) != std::string::npos;
  });
}

struct Tally {
  int spoiled = 0, leave = 0, found = 0, unexcused = 0;
  int elsewhere = 0;              // of those found: by another case of the op
  int by_type = 0;                // of those that leave: their call rule takes them
  std::set<std::string> kernels;  // of which an output was spoiled so that it left its bounds
  std::vector<std::string> missed, too_wide;
};

/// Whether another case of the spec finds the same defect: a case that only combines rows cannot see
/// what only the permutation reads.
bool found_elsewhere(const OpSpec& spec, const OpCase& c, Target target, Spoil how, uint64_t seed) {
  target.shape.clear();
  for (const OpCase& other : spec.cases) {
    if (other.benchmark || &other == &c) continue;
    Spoiler spoiler(target, how, seed);
    CaseJudge judge(other, cpu_device(), seed);
    const Observing observing(spoiler);
    if (!judge.once().empty() && spoiler.spoiled) return true;
  }
  return false;
}

/// Whether another draw of the inputs says so, too: sums may cancel by chance.
bool wide_again(const OpCase& c, const Target& target, uint64_t seed) {
  Spoiler spoiler(target, Spoil::kScaled, seed);
  CaseJudge judge(c, cpu_device(), seed);
  const Observing observing(spoiler);
  const bool missed = judge.once().empty();
  return spoiler.spoiled && (missed || !spoiler.leaves);
}

void try_mutant(const OpSpec& spec,
                const OpCase& c,
                const Target& target,
                Spoil how,
                CaseJudge& judge,
                uint64_t seed,
                Tally& tally) {
  Spoiler spoiler(target, how, seed);
  std::vector<Finding> findings;
  {
    const Observing observing(spoiler);
    findings = judge.once();
  }
  if (!spoiler.spoiled) return;
  ++tally.spoiled;
  const bool by_type = !spoiler.leaves && spoiler.moved && how == Spoil::kScaled;
  if (!spoiler.leaves && !by_type) return;
  ++tally.leave;
  tally.by_type += by_type ? 1 : 0;
  tally.kernels.insert(target.kernel);
  const std::string what = fmt::format("{}, {}: {}: {} {} [{}]",
                                       spec.op,
                                       c.name,
                                       kNames[static_cast<size_t>(how)],
                                       target.kernel,
                                       target.output,
                                       target.shape);
  const bool wide = how == Spoil::kScaled && (by_type || findings.empty());
  if (wide && !may_be_wide(target, c) && wide_again(c, target, seed + 1))
    tally.too_wide.push_back(what +
                             (by_type ? ": within its call rule" : ": within its tolerance"));
  if (!findings.empty()) {
    ++tally.found;
  } else if (found_elsewhere(spec, c, target, how, seed)) {
    ++tally.found;
    ++tally.elsewhere;
  } else {
    tally.unexcused += excused(target, how) ? 0 : 1;
    tally.missed.push_back(what);
  }
}

/// The outputs of launches that the case makes.
std::set<Target> targets_of(const OpSpec& spec, const OpCase& c, CaseJudge& judge) {
  Targets targets;
  const Observing observing(targets);
  for (const Finding& f : judge.once())
    ADD_FAILURE() << "not spoiled: " << spec.op << ", " << c.name << ": " << f.detail;
  return targets.found;
}

/// With inputs that are the same each time: a tolerance that was widened fails whenever the tests run.
TEST(Mutants, EachCaseFindsAFactorItself) {
  constexpr uint64_t kSeed = 1;
  Tally tally;
  for (const OpSpec& spec : all_op_specs())
    for (const OpCase& c : spec.cases) {
      if (c.benchmark) continue;
      CaseJudge judge(c, cpu_device(), kSeed);
      for (const Target& target : targets_of(spec, c, judge))
        try_mutant(spec, c, target, Spoil::kScaled, judge, kSeed, tally);
    }
  for (const std::string& wide : tally.too_wide) ADD_FAILURE() << "too wide: " << wide;
  EXPECT_GT(tally.leave, 500);
}

/// The day's, if none is asked for: what one sample leaves out, another holds.
uint64_t environment_seed() {
  constexpr int64_t kDayMs = 24 * 60 * 60 * 1000;
  const char* text = std::getenv("FERRY_MUTANTS_SEED");
  return text == nullptr ? static_cast<uint64_t>(system_clock().unix_ms() / kDayMs)
                         : std::strtoull(text, nullptr, 10);
}

TEST(Mutants, WhatLeavesTheToleranceIsFound) {
  const char* which = std::getenv("FERRY_MUTANTS");
  const bool all = which != nullptr && std::string_view(which) == "all";
  const uint64_t seed = environment_seed();
  const Random random(seed, RandomPurpose::kTest, 77);
  constexpr uint64_t kOneIn = 24;  // of the sample
  Tally tally;
  uint64_t mutant = 0, number = 0;
  for (const OpSpec& spec : all_op_specs())
    for (const OpCase& c : spec.cases) {
      ++number;
      if (c.benchmark) continue;
      // The sample leaves out whole cases first, so that most references need not be computed.
      if (!all && random.below(1'000'000 + number, 4) != 0) continue;
      CaseJudge judge(c, cpu_device(), seed);
      for (const Target& target : targets_of(spec, c, judge))
        for (const Spoil how : kSpoils) {
          ++mutant;
          if (!all && random.below(mutant, kOneIn / 4) != 0) continue;
          try_mutant(spec, c, target, how, judge, seed + mutant, tally);
        }
    }
  for (const std::string& missed : tally.missed) std::printf("missed: %s\n", missed.c_str());
  // The sample's seed is the day's, and sums cancel on some: it tells; the test above fails, and ./run mutants.
  for (const std::string& wide : tally.too_wide) std::printf("too wide: %s\n", wide.c_str());
  std::printf(
      "{\"command\": \"mutants\", \"seed\": %llu, \"spoiled\": %d, \"leave_tolerance\": %d, "
      "\"found\": %d, \"found_elsewhere\": %d, \"within_rule\": %d}\n",
      static_cast<unsigned long long>(seed),
      tally.spoiled,
      tally.leave,
      tally.found,
      tally.elsewhere,
      tally.by_type);
  for (const KernelRow& row : all_kernel_rows())
    EXPECT_TRUE(!all || tally.kernels.contains(row.kernel) ||
                (std::string_view(row.kernel) == "pack_panels" && !gemm_takes_panels(1, true)))
        << "no output of " << row.kernel << " was spoiled";
  EXPECT_GT(tally.leave, all ? 2000 : 50);
  EXPECT_EQ(tally.unexcused, 0);
  EXPECT_GE(tally.found, std::ceil(0.99 * tally.leave));
  // What a case does not read (a plan's other outputs, a sum that is given apart) others find: 4 in 100.
  if (all) {
    EXPECT_LE(tally.elsewhere, 0.06 * tally.leave);
    EXPECT_TRUE(tally.too_wide.empty());
  }
}

}  // namespace
}  // namespace ferry::ops
