// Load: many launches without waiting in between, whose results must be those of one alone. And the
// soak: products and copies whose results are known, and ops whose bits are, until the time is up.
#include <algorithm>
#include <array>
#include <map>

#include "base/random.h"
#include "base/stopping.h"
#include "base/units.h"
#include "ops/matmul/matmul.h"
#include "ops/spec_check.h"
#include "verify/checked_specs.h"
#include "verify/checks.h"

namespace ferry::doctor {
namespace {

using Bits = std::vector<std::byte>;

/// A case with its inputs on the device and the bits that it gave when nothing else ran.
class Replay {
 public:
  Replay(const ops::OpCase& c, Device& device, uint64_t seed)
      : case_(c), inputs_(ops::make_inputs(c, device, seed)) {
    const std::vector<Tensor> outputs = c.run(inputs_);
    if (ops::has_gradient(c)) cotangents_ = ops::make_cotangents(c, outputs, seed);
    device.stream().synchronize();
    const std::vector<Tensor> results = launch();
    device.stream().synchronize();
    for (const Tensor& t : results) expected_.push_back(bits_of(t));
  }

  std::vector<Tensor> launch() {
    return cotangents_.empty() ? case_.run(inputs_)
                               : ops::run_with_gradients(case_, inputs_, cotangents_);
  }

  /// "output 1 of 3: 2 of 1032 bytes differ, the first at 7"; empty if the bits are the same.
  std::string difference(const std::vector<Tensor>& results) const {
    for (size_t i = 0; i < results.size(); ++i) {
      const Bits got = bits_of(results[i]);
      if (got == expected_[i]) continue;
      size_t count = 0, first = 0;
      for (size_t k = 0; k < got.size(); ++k)
        if (got[k] != expected_[i][k] && count++ == 0) first = k;
      return fmt::format("result {} of {}: {} of {} bytes differ, the first at {}",
                         i + 1,
                         results.size(),
                         count,
                         got.size(),
                         first);
    }
    return "";
  }

  const std::string& name() const { return case_.name; }

 private:
  ops::OpCase case_;
  std::vector<Tensor> inputs_, cotangents_;
  std::vector<Bits> expected_;
};

/// Of an op the cases fit for launching often: two of middling size, so that loads and types
/// differ.
std::vector<ops::OpCase> light_cases(const ops::OpSpec& spec, DeviceKind device) {
  constexpr int64_t kLeast = 100, kMost = 20'000;
  std::vector<ops::OpCase> cases;
  for (const ops::OpCase& c : spec.cases)
    if (ops::can_run(c, device) && elements_of(c) >= kLeast && elements_of(c) <= kMost)
      cases.push_back(c);
  std::stable_sort(cases.begin(), cases.end(), [](const auto& a, const auto& b) {
    return elements_of(a) < elements_of(b);
  });
  // The smallest of each type of the first input.
  std::vector<ops::OpCase> out;
  for (const ops::OpCase& c : cases) {
    const auto same = [&](const auto& o) { return o.inputs[0].dtype == c.inputs[0].dtype; };
    if (std::none_of(out.begin(), out.end(), same)) out.push_back(c);
  }
  return out;
}

/// One op many times in a row; nothing is waited for until all are launched.
void back_to_back(Running& r, const ops::OpSpec& spec) {
  const int launches = r.options.quick ? 8 : 64;
  for (const ops::OpCase& c : light_cases(spec, r.device.kind())) {
    Replay replay(c, r.device, r.options.seed);
    std::vector<std::vector<Tensor>> results;
    for (int i = 0; i < launches; ++i) results.push_back(replay.launch());
    r.device.stream().synchronize();
    for (size_t i = 0; i < results.size(); ++i)
      if (const std::string d = replay.difference(results[i]); !d.empty())
        return r.found("back to back", "{}, launch {} of {}: {}", c.name, i + 1, launches, d);
  }
}

/// All ops in turn, so that memory and workspaces go from one to the next.
void all_together(Running& r) {
  std::vector<std::pair<std::string, Replay>> replays;
  for (const ops::OpSpec& spec : checked_specs())
    for (const ops::OpCase& c : light_cases(spec, r.device.kind()))
      replays.emplace_back(spec.op, Replay(c, r.device, r.options.seed));
  for (int round = 0; round < (r.options.quick ? 2 : 8); ++round) {
    std::vector<std::vector<Tensor>> results;
    for (auto& [op, replay] : replays) results.push_back(replay.launch());
    r.device.stream().synchronize();
    for (size_t i = 0; i < replays.size(); ++i)
      if (const std::string d = replays[i].second.difference(results[i]); !d.empty())
        r.outcome.problems.push_back({"all ops in turn",
                                      fmt::format("{}: {}", replays[i].second.name(), d),
                                      replays[i].first});
    if (!r.outcome.problems.empty()) return;
  }
}

/// Mismatches of a kind: how many, and where the first was.
struct Tally {
  int64_t runs = 0, wrong = 0;
  std::string first;

  void add(const std::string& difference) {
    ++runs;
    if (difference.empty()) return;
    if (wrong++ == 0) first = difference;
  }
};

/// A product of -1, 0 and 1, whose sums every type holds exactly in any order.
std::string exact_product(Running& r, const Random& random, uint64_t at) {
  const auto pick = [&](uint64_t i, uint64_t n) {
    return static_cast<int64_t>(random.below(at + i, n));
  };
  const int64_t m = 1 + pick(0, 160), n = 1 + pick(1, 160), k = 1 + pick(2, 160);
  const DType dtype = pick(3, 2) == 0 ? DType::kF32 : DType::kBF16;
  const auto fill = [&](int64_t count, uint64_t stream) {
    std::vector<float> v(static_cast<size_t>(count));
    for (size_t i = 0; i < v.size(); i += 32) {
      uint64_t bits = random.bits(at + stream + i);
      for (size_t j = i; j < std::min(v.size(), i + 32); ++j, bits >>= 2)
        v[j] = static_cast<float>(bits & 1) - static_cast<float>(bits >> 1 & 1);
    }
    return v;
  };
  const std::vector<float> a = fill(m * k, 1'000'000), b = fill(n * k, 2'000'000);
  Tensor on_a = Tensor::empty({m, k}, dtype, r.device),
         on_b = Tensor::empty({n, k}, dtype, r.device);
  on_a.assign_f32(a);
  on_b.assign_f32(b);
  const std::vector<float> c = ops::matmul(on_a, on_b, {.transpose_b = true}).to_f32();
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t l = 0; l < k; ++l)
        sum += a[static_cast<size_t>(i * k + l)] * b[static_cast<size_t>(j * k + l)];
      const float got = c[static_cast<size_t>(i * n + j)];
      if (got != sum)
        return fmt::format("{} [{}, {}] x [{}, {}], row {} column {}: {}, expected {}",
                           to_string(dtype),
                           m,
                           k,
                           k,
                           n,
                           i,
                           j,
                           got,
                           sum);
    }
  return "";
}

/// There, across and back.
std::string known_copy(Running& r, const Random& random, uint64_t at) {
  const auto words = static_cast<int64_t>(1 + random.below(at, 1 << 16));
  std::vector<int32_t> sent(static_cast<size_t>(words));
  for (size_t i = 0; i < sent.size(); ++i) {
    if (i % 2 == 0) {
      const uint64_t bits = random.bits(at + 1 + i);
      sent[i] = static_cast<int32_t>(bits);
      if (i + 1 < sent.size()) sent[i + 1] = static_cast<int32_t>(bits >> 32);
    }
  }
  const Tensor a = Tensor::from_i32(sent, {words}, r.device),
               b = Tensor::empty({words}, DType::kI32, r.device);
  r.device.copy(b.data(), a.data(), a.bytes());
  const std::vector<int32_t> got = b.to_i32();
  for (size_t i = 0; i < got.size(); ++i)
    if (got[i] != sent[i])
      return fmt::format("word {} of {}: {:#010x}, expected {:#010x}",
                         i,
                         words,
                         static_cast<uint32_t>(got[i]),
                         static_cast<uint32_t>(sent[i]));
  return "";
}

void soak(Running& r) {
  const Random random(r.options.seed, RandomPurpose::kTest, 0x50A4);
  std::vector<std::pair<std::string, Replay>> replays;
  for (const ops::OpSpec& spec : checked_specs())
    for (const ops::OpCase& c : light_cases(spec, r.device.kind()))
      replays.emplace_back(spec.op, Replay(c, r.device, r.options.seed));
  std::map<std::string, Tally> tallies;
  const double begin_s = r.clock.monotonic_s();
  double told_s = begin_s, now_s = begin_s;
  int64_t sized = 0;
  for (uint64_t round = 0; now_s - begin_s < r.options.soak_s && stop_signal() == 0; ++round) {
    const uint64_t at = round << 24;
    switch (round % 6) {
      case 0: tallies["products"].add(exact_product(r, random, at)); break;
      case 1: tallies["copies"].add(known_copy(r, random, at)); break;
      case 2:  // other sizes in every round, so that an hour tries more than a minute
        run_any_sizes(r, random, at);
        ++sized;
        break;
      default: {
        auto& [op, replay] = replays[random.below(at, replays.size())];
        std::string d = replay.difference(replay.launch());
        if (!d.empty()) d = fmt::format("{}, {}", replay.name(), d);
        tallies[op].add(d);
      }
    }
    now_s = r.clock.monotonic_s();
    if (now_s - told_s < 0.5) continue;
    r.listener.alive((now_s - begin_s) / r.options.soak_s);
    told_s = now_s;
  }
  int64_t runs = 0, wrong = 0;
  const auto seen = static_cast<int64_t>(r.outcome.problems.size());  // by the judge of calls
  for (const auto& [what, tally] : tallies) {
    runs += tally.runs;
    wrong += tally.wrong;
    if (tally.wrong > 0)
      r.outcome.problems.push_back(
          {"silent corruption",
           fmt::format("{} of {} wrong, the first: {}", tally.wrong, tally.runs, tally.first),
           what == "products" ? "matmul" : what});
  }
  r.outcome.cut_short = now_s - begin_s < r.options.soak_s;
  r.listener.noted(fmt::format(
      "soak of {}{}: {} products, {} copies, {} ops at sizes by the seed and {} runs of ops "
      "alike, {} wrong",
      r.outcome.cut_short ? format_duration(now_s - begin_s) + " of " : "",
      format_duration(r.options.soak_s),
      tallies["products"].runs,
      tallies["copies"].runs,
      sized,
      runs - tallies["products"].runs - tallies["copies"].runs,
      wrong + seen));
}

}  // namespace

std::vector<Check> load_checks() {
  std::vector<Check> checks;
  for (const ops::OpSpec& spec : checked_specs())
    checks.push_back({.head = {.name = fmt::format("{}, many in a row", spec.op),
                               .subject = spec.op,
                               .level = Level::kLoad},
                      .run = [&spec](Running& r) { back_to_back(r, spec); }});
  checks.push_back(
      {.head = {.name = "all ops in turn", .subject = "streams", .level = Level::kLoad},
       .run = all_together});
  return checks;
}

std::vector<Check> soak_checks(const Options& options) {
  if (options.soak_s <= 0) return {};
  return {{.head = {.name = "soak", .subject = "soak", .level = Level::kLoad}, .run = soak}};
}

}  // namespace ferry::doctor
