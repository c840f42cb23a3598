// What a call must not depend on: what was computed before it. The first call after the start, the
// same memory with other values and the first ones again, a hundred thousand calls, and a failed
// allocation in between. (Sizes that differ in one number only: ladder.cc.)
#include <algorithm>

#include "base/check.h"
#include "ops/spec_check.h"
#include "verify/call_judge.h"
#include "verify/checked_specs.h"
#include "verify/checks.h"
#include "verify/sized_ops.h"

namespace ferry::doctor {
namespace {

/// Each op once, before anything else was launched in this process.
void first_calls(Running& r) {
  for (const SizedOp& op : sized_ops())
    for (const DType dtype : {DType::kBF16, DType::kF32}) {
      if (!runs_on(op, r.device.kind()) || (dtype == DType::kBF16 && !op.bf16)) continue;
      Sizes small;
      for (const Dimension& d : op.dims) small.push_back(d.small);
      run_sized(r, op, dtype, small, r.options.seed);
    }
}

std::vector<std::vector<std::byte>> bits_of_all(const std::vector<Tensor>& tensors) {
  std::vector<std::vector<std::byte>> all;
  for (const Tensor& t : tensors) all.push_back(bits_of(t));
  return all;
}

/// Inputs A, B and A again in the same buffers: what a kernel kept of A's first or of B's does not
/// show in A's second.
void same_buffers(Running& r, const ops::OpCase& c, bool gradient) {
  std::vector<Tensor> inputs = ops::make_inputs(c, r.device, r.options.seed);
  std::vector<Tensor> other = ops::make_inputs(c, r.device, r.options.seed + 1);
  std::vector<Tensor> cotangents;
  if (gradient) cotangents = ops::make_cotangents(c, c.run(inputs), r.options.seed);
  const auto run = [&](std::vector<Tensor>& in) {
    std::vector<Tensor> all = gradient ? ops::run_with_gradients(c, in, cotangents) : c.run(in);
    std::erase_if(all, [](const Tensor& t) { return !t.defined(); });
    return all;
  };
  std::vector<std::vector<char>> kept;
  for (const Tensor& t : inputs) {
    kept.emplace_back(t.bytes());
    t.copy_bytes_to(kept.back().data());
  }
  // Results stay until all are compared, so that no two share memory.
  const std::vector<Tensor> first = run(inputs);
  const std::vector<std::vector<std::byte>> a = bits_of_all(first);
  for (size_t i = 0; i < inputs.size(); ++i)
    r.device.copy(inputs[i].data(), other[i].data(), other[i].bytes());
  const std::vector<Tensor> second = run(inputs), alone = run(other);
  const std::vector<std::vector<std::byte>> b = bits_of_all(second);
  const bool b_right = b == bits_of_all(alone);
  for (size_t i = 0; i < inputs.size(); ++i) inputs[i].copy_bytes_from(kept[i].data());
  const bool a_right = a == bits_of_all(run(inputs));
  if (!b_right || !a_right)
    r.found("state",
            "{}: {} in the same buffers gives other bits than {}",
            c.name,
            b_right ? "A after B" : "B after A",
            b_right ? "A before B" : "B alone");
}

/// Of an op, for each type, the smallest case of 200 to 20,000 elements whose inputs are drawn, and
/// so are others for another seed.
std::vector<const ops::OpCase*> light(const ops::OpSpec& spec, DeviceKind device) {
  std::vector<const ops::OpCase*> out;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const ops::OpCase* best = nullptr;
    for (const ops::OpCase& c : spec.cases) {
      const bool typed = std::any_of(
          c.inputs.begin(), c.inputs.end(), [&](const auto& in) { return in.dtype == dtype; });
      const bool given = std::any_of(c.inputs.begin(), c.inputs.end(), [](const auto& in) {
        return in.fill == ops::InputSpec::Fill::kGiven;
      });
      if (typed && !given && ops::can_run(c, device) && elements_of(c) >= 200 &&
          elements_of(c) <= 20'000 && (best == nullptr || elements_of(c) < elements_of(*best)))
        best = &c;
    }
    if (best != nullptr) out.push_back(best);
  }
  return out;
}

/// So many calls of one op, each of which must give what the first gave. Which op: by the seed, so
/// that many examinations try all.
constexpr int64_t kManyCalls = 100'000;
constexpr double kManyCallsSeconds = 60;  // a slow device makes fewer
constexpr size_t kCallsInARow = 128;      // before their results are read

void many_calls(Running& r) {
  const Random random(r.options.seed, RandomPurpose::kTest, 0x100000);
  const std::vector<ops::OpSpec>& specs = checked_specs();
  const ops::OpSpec* spec = nullptr;
  const ops::OpCase* chosen = nullptr;
  for (uint64_t i = 0; chosen == nullptr; ++i) {
    spec = &specs[random.below(i, specs.size())];
    const auto cases = light(*spec, r.device.kind());
    if (!cases.empty()) chosen = cases.front();
  }
  const std::vector<Tensor> inputs = ops::make_inputs(*chosen, r.device, r.options.seed);
  const std::vector<std::vector<std::byte>> expected = bits_of_all(chosen->run(inputs));
  const double until_s = r.clock.monotonic_s() + kManyCallsSeconds;
  int64_t calls = 1;
  std::vector<std::vector<Tensor>> unread;  // nothing waits while the device is to be busy
  while (calls < kManyCalls && r.clock.monotonic_s() < until_s) {
    while (unread.size() < kCallsInARow && calls + std::ssize(unread) < kManyCalls)
      unread.push_back(chosen->run(inputs));
    for (const std::vector<Tensor>& results : unread) {
      ++calls;
      if (bits_of_all(results) == expected) continue;
      r.outcome.problems.push_back(
          {"many calls",
           fmt::format("{}: call {} gives other bits than the first", chosen->name, calls),
           spec->op});
      return;
    }
    unread.clear();
    r.listener.alive(static_cast<double>(calls) / static_cast<double>(kManyCalls));
  }
  r.listener.noted(fmt::format(
      "{} calls of {} in a row, chosen by the seed; other ops not so often", calls, spec->op));
}

/// An allocation that fails, then every op once.
void ops_after_an_error(Running& r) {
  bool refused = false;
  try {
    const Memory huge(r.device, size_t{1} << 50);
  } catch (const DeviceError&) {
    refused = true;
  }
  check(refused, "doctor: a pebibyte was allocated");
  first_calls(r);
}

}  // namespace

std::vector<Check> first_checks() {
  return {
      {.head = {.name = "first calls of a process", .subject = "first calls", .level = Level::kOp},
       .run = first_calls}};
}

std::vector<Check> state_checks(const Options& options) {
  std::vector<Check> checks;
  for (const ops::OpSpec& spec : checked_specs())
    for (const ops::OpCase* c : light(spec, kind_of(options.device)))
      for (const bool gradient : {false, true}) {
        if (gradient && !ops::has_gradient(*c)) continue;
        checks.push_back(
            {.head = {.name = fmt::format(
                          "{}, {}, {}same buffers", spec.op, c->name, gradient ? "gradient, " : ""),
                      .subject = spec.op,
                      .level = Level::kOp,
                      .training_only = gradient || training_kernel(spec.op)},
             .run = [c, gradient](Running& r) { same_buffers(r, *c, gradient); }});
      }
  checks.push_back({.head = {.name = "ops after an allocation that failed",
                             .subject = "after an error",
                             .level = Level::kOp},
                    .run = ops_after_an_error});
  if (!options.quick)
    checks.push_back({.head = {.name = fmt::format("{} calls of an op", kManyCalls),
                               .subject = "many calls",
                               .level = Level::kLoad},
                      .run = many_calls});
  return checks;
}

}  // namespace ferry::doctor
