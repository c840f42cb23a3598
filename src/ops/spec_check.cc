#include "ops/spec_check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>
#include <type_traits>

#include "autograd/tape.h"
#include "base/check.h"
#include "base/cpu_tier.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "device/tensor_products.h"
#include "ops/add/add.h"
#include "ops/fenced_replay.h"

namespace ferry::ops {
namespace {

std::vector<double> host_values(const Tensor& t) {
  if (t.dtype() == DType::kI32) {
    const std::vector<int32_t> v = t.to_i32();
    return {v.begin(), v.end()};
  }
  const std::vector<float> v = t.to_f32();
  return {v.begin(), v.end()};
}

RefTensor to_reference(const Tensor& t) {
  RefTensor r(t.shape());
  r.values = host_values(t);
  return r;
}

std::vector<RefTensor> to_reference(const std::vector<Tensor>& ts) {
  std::vector<RefTensor> out;
  for (const Tensor& t : ts) out.push_back(to_reference(t));
  return out;
}

std::vector<char> host_bytes(const Tensor& t) {
  std::vector<char> out(t.bytes());
  if (t.contiguous()) {
    t.copy_bytes_to(out.data());
  } else {
    const std::vector<float> v = t.to_f32();
    out.resize(v.size() * 4);
    std::memcpy(out.data(), v.data(), out.size());
  }
  return out;
}

bool differentiable(const OpCase& c, size_t output) {
  return c.differentiable_outputs < 0 || static_cast<int>(output) < c.differentiable_outputs;
}

/// The roundoff of what kernels may keep of a case's values: bf16's where it computes in bf16.
double stored_unit(const OpCase& c) {
  const auto narrow = [](const InputSpec& i) { return i.dtype == DType::kBF16; };
  return std::any_of(c.inputs.begin(), c.inputs.end(), narrow) ? unit_roundoff(DType::kBF16) : 0;
}

/// The largest finite number of a type, less what rounds to it.
double largest(DType dtype) {
  return dtype == DType::kI32 ? INFINITY : 0x1p128 * (1 - unit_roundoff(dtype));
}

/// The cotangent of an output: normal numbers rounded to its type.
Tensor cotangent(const Tensor& y, size_t output, uint64_t seed) {
  const Random random(seed, RandomPurpose::kTest, 1000 + output);
  std::vector<float> v(static_cast<size_t>(y.count()));
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(random.normal(i));
  Tensor d = Tensor::empty(y.shape(), y.dtype(), y.device());
  d.assign_f32(v);
  return d;
}

struct Gradients {
  std::vector<Tensor> outputs;
  std::vector<Tensor> cotangents;
  std::vector<Tensor> grads;  // one for each input; undefined where not asked for
};

/// Forward with a tape and `plays` playbacks, whose gradients accumulate.
Gradients differentiate(const OpCase& c, std::vector<Tensor>& inputs, uint64_t seed, int plays) {
  Gradients g;
  for (size_t i = 0; i < inputs.size(); ++i) inputs[i].set_needs_grad(c.inputs[i].gradient);
  Tape tape(&accumulate);
  for (int play = 0; play < plays; ++play) {
    {
      const Tape::Recording recording(&tape);
      g.outputs = c.run(inputs);
    }
    std::vector<std::pair<Tensor, Tensor>> seeds;
    g.cotangents.clear();
    for (size_t o = 0; o < g.outputs.size(); ++o) {
      if (!differentiable(c, o)) {
        g.cotangents.emplace_back();
        continue;
      }
      g.cotangents.push_back(cotangent(g.outputs[o], o, seed));
      seeds.emplace_back(g.outputs[o], g.cotangents.back());
    }
    tape.backward(std::move(seeds));
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    g.grads.push_back(c.inputs[i].gradient ? tape.grad(inputs[i]) : Tensor{});
    inputs[i].set_needs_grad(false);
  }
  return g;
}

class Checker {
 public:
  Checker(const OpCase& c, Device& device, const SpecOptions& options)
      : case_(c),
        device_(device),
        options_(options),
        inputs_(make_inputs(c, device, options.seed)) {}

  /// Outputs and gradients, computed once and compared with the reference.
  std::vector<Finding> once() {
    const FlushDenormals flush;
    findings_.clear();
    const MemoryGuard guard;
    compare_with_reference(case_.run(inputs_));
    if (has_gradient(case_)) compare_gradients(differentiate(case_, inputs_, options_.seed, 1));
    return std::move(findings_);
  }

  std::vector<Finding> run() {
    const FlushDenormals flush;
    if (options_.forward) {
      expected_ = forward_checked();
      check_repeatability();
      if (case_.row_independent) check_rows();
    }
    if (options_.gradients && has_gradient(case_)) {
      const MemoryGuard guard;
      check_gradients();
      if (guard.violations() > 0)
        found("guard bytes", "{} buffers overwritten on the way back", guard.violations());
    }
    if (options_.tiers_and_threads && device_.kind() == DeviceKind::kCpu) check_tiers_and_threads();
    return std::move(findings_);
  }

 private:
  template <typename... A>
  void found(const char* property, fmt::format_string<A...> format, A&&... args) {
    findings_.push_back({property, fmt::format(format, std::forward<A>(args)...)});
  }

  /// Forward between guard bytes, compared with the reference. Returns the outputs' bytes.
  std::vector<std::vector<char>> forward_checked() {
    std::vector<std::vector<char>> bytes;
    {
      const MemoryGuard guard;
      {
        std::vector<Tensor> fenced;  // the same bytes between guard bytes
        for (const Tensor& input : inputs_) {
          fenced.push_back(Tensor::empty(input.shape(), input.dtype(), device_));
          fenced.back().copy_bytes_from(host_bytes(input).data());
        }
        if (device_.kind() != DeviceKind::kCpu) spoil(case_.run(fenced), fenced);
        const std::vector<Tensor> outputs = replayed([&] { return case_.run(fenced); });
        compare_with_reference(outputs);
        for (const Tensor& y : outputs) bytes.push_back(host_bytes(y));
      }
      if (guard.violations() > 0)
        found("guard bytes", "{} buffers overwritten", guard.violations());
    }
    return bytes;
  }

  /// What f gives, while each kernel that it launches is launched once more between fences.
  template <class F>
  std::invoke_result_t<F> replayed(F&& f) {
    FencedReplay replay;
    const Observing observing(replay);
    std::invoke_result_t<F> result = f();
    for (const std::string& violation : replay.violations()) found("guard bytes", "{}", violation);
    return result;
  }

  void compare_with_reference(const std::vector<Tensor>& outputs) {
    if (!forward_) forward_ = forward_expectation();
    const auto& [expected, bounds, judged] = *forward_;
    if (expected.size() != outputs.size())
      return found("reference", "{} outputs, expected {}", outputs.size(), expected.size());
    for (size_t o = 0; o < outputs.size(); ++o) {
      if (outputs[o].shape() != expected[o].shape)
        return found("reference",
                     "output {} is {}, expected {}",
                     o,
                     outputs[o].shape().str(),
                     expected[o].shape.str());
      const std::string what = fmt::format("output {}", o);
      const std::vector<double> got = host_values(outputs[o]);
      compare("reference", what, outputs[o].dtype(), got, expected[o].values, bounds[o]);
      if (!judged.empty()) compare_spread("reference", what, outputs[o].dtype(), got, judged[o], 1);
    }
  }

  struct ForwardExpectation {
    std::vector<RefTensor> values;
    std::vector<std::vector<double>> bounds;  // one for each element of an output, or one for all
    std::vector<Judged> judged;               // empty if the reference records nothing
  };

  ForwardExpectation forward_expectation() const {
    const std::vector<RefTensor> in = to_reference(inputs_);
    ForwardExpectation e{case_.reference(in), {}, judged_outputs(in)};
    const auto& tolerance = tensor_cores() ? case_.tensor_tolerance : case_.tolerance;
    for (size_t o = 0; o < e.values.size(); ++o)
      e.bounds.push_back(tolerance(static_cast<int>(o), in, e.values[o]));
    return e;
  }

  /// Whether products of the case are summed on tensor cores.
  bool tensor_cores() const {
    return tensor_products(device_) && case_.tensor_tolerance != nullptr;
  }

  /// What the reference's record says of the outputs' precision; empty if it records nothing.
  std::vector<Judged> judged_outputs(const std::vector<RefTensor>& in) const {
    std::vector<Judged> judged;
    if (!case_.reference.records()) return judged;
    ReferenceTape tape(stored_unit(case_), tensor_cores());
    std::vector<RealTensor> leaves;
    for (const RefTensor& x : in) leaves.push_back(tape.leaves(x));
    for (const RealTensor& y : case_.reference(leaves)) judged.push_back(tape.judged(y));
    return judged;
  }

  /// Every element within its bound (one for each, or one for all).
  bool compare(const char* property,
               const std::string& what,
               DType dtype,
               const std::vector<double>& got,
               const std::vector<double>& expected,
               const std::vector<double>& bound) {
    double worst = 0;
    size_t at = 0;
    int64_t out = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double b = bound.size() == 1 ? bound[0] : bound[i];
      // What the type cannot hold becomes infinite.
      const bool beyond = std::abs(expected[i]) > largest(dtype) && std::isinf(got[i]) &&
                          (got[i] > 0) == (expected[i] > 0);
      const double ratio = beyond ? 0 : error_ratio(got[i], expected[i], b);
      if (ratio > 1) ++out;
      if (ratio > worst) {
        worst = ratio;
        at = i;
      }
    }
    if (worst <= 1) return true;
    found(
        property,
        "{} element {}: got {:.9g}, expected {:.9g}, {:.3g} times the bound; {} of {} elements out",
        what,
        at,
        got[at],
        expected[at],
        worst,
        out,
        got.size());
    return false;
  }

  /// The errors of all elements together. An error that hides under each element's bound, which
  /// allows for all roundings at their worst, shows in their root mean square (a sum kept in bf16)
  /// or in their mean (truncation for rounding). Roundings that many elements may share (a row's
  /// scale) are not independent: each is at most sqrt(3) times its standard deviation, and `sharers`
  /// of them, one of each row that an element sums over, sqrt(3 * sharers) times that of their sum,
  /// which sums of many do not come near: six is as improbable as it is for independent ones.
  void compare_spread(const char* property,
                      const std::string& what,
                      DType dtype,
                      const std::vector<double>& got,
                      const Judged& judged,
                      double sharers) {
    constexpr size_t kFew = 64;
    constexpr double kRootMeanSquare = 2;
    if (got.size() < kFew) return;
    double squares = 0, signed_sum = 0, shared = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double y = judged.value.values[i];
      const double rounding = unit_roundoff(dtype) * y;
      const double apart = judged.variance.values[i];
      const double deviation = std::sqrt(apart + rounding * rounding / 3) + kLeastNormal;
      const double error = (got[i] - y) / deviation;
      if (!std::isfinite(error)) return;  // told by compare()
      squares += error * error;
      signed_sum += y < 0 ? -error : error;
      shared += std::sqrt(std::max(0.0, apart - judged.own.values[i])) / deviation;
    }
    const auto n = static_cast<double>(got.size());
    const double rms = std::sqrt(squares / n), mean = signed_sum / n;
    if (!(rms <= kRootMeanSquare))
      found(
          property, "{}: root mean square of the errors is {:.3g} times what it may be", what, rms);
    const double mean_bound = 6 / std::sqrt(n) + std::min(6.0, std::sqrt(3 * sharers)) * shared / n;
    if (!(std::abs(mean) <= mean_bound))
      found(property,
            "{}: errors have a mean of {:.3g} deviations {} zero, bound {:.3g}",
            what,
            std::abs(mean),
            mean < 0 ? "towards" : "away from",
            mean_bound);
  }

  void check_repeatability() {
    for (int r = 1; r < options_.repeats; ++r) {
      const std::vector<Tensor> again = case_.run(inputs_);
      for (size_t o = 0; o < again.size(); ++o)
        if (host_bytes(again[o]) != expected_[o])
          return found("repeatability", "output {} differs in run {}", o, r);
      spoil(again, inputs_);
    }
  }

  /// Overwrites results, whose memory the next run will be given most likely: what that leaves as
  /// it was does not look right by luck. Twice, because the first may come before a result that
  /// lands late.
  void spoil(const std::vector<Tensor>& results, const std::vector<Tensor>& inputs) const {
    for (const Tensor& t : results) {
      const auto shared = [&](const Tensor& i) { return i.storage() == t.storage(); };
      if (!t.covers_storage() || std::any_of(inputs.begin(), inputs.end(), shared)) continue;
      const std::vector<char> ones(t.bytes(), '\xff');
      for (int i = 0; i < 2; ++i) device_.copy_from_host(t.data(), ones.data(), ones.size());
      device_.stream().synchronize();
    }
  }

  /// Each row alone, and the rows in two chunks, give the bits that they give together.
  void check_rows() {
    int64_t rows = -1;
    for (const InputSpec& i : case_.inputs)
      if (i.rows) rows = i.shape[0];
    if (rows < 2) return;
    const auto expect = [&](int64_t begin, int64_t end) {
      std::vector<Tensor> part;
      for (size_t i = 0; i < inputs_.size(); ++i)
        part.push_back(case_.inputs[i].rows ? inputs_[i].slice(0, begin, end) : inputs_[i]);
      const std::vector<Tensor> outputs = case_.run(part);
      for (size_t o = 0; o < outputs.size(); ++o) {
        const std::vector<char> got = host_bytes(outputs[o]);
        const size_t row_bytes = expected_[o].size() / static_cast<size_t>(rows);
        if (std::memcmp(got.data(),
                        expected_[o].data() + static_cast<size_t>(begin) * row_bytes,
                        got.size()) != 0) {
          found("rows",
                "output {}: rows [{}, {}) alone differ from the same rows among {}",
                o,
                begin,
                end,
                rows);
          return false;
        }
      }
      return true;
    };
    for (int64_t t = 0; t < rows; t += std::max<int64_t>(1, rows / 8))
      if (!expect(t, t + 1)) return;
    if (expect(0, rows / 2)) expect(rows / 2, rows);
  }

  /// Every element of every gradient against the float64 reference's, within what the roundings of
  /// a kernel may come to; and playing twice doubles each gradient.
  void check_gradients() {
    const Gradients g = replayed([&] { return differentiate(case_, inputs_, options_.seed, 1); });
    compare_gradients(g);
    const Gradients twice = differentiate(case_, inputs_, options_.seed, 2);
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (!g.grads[i].defined() || !twice.grads[i].defined()) continue;
      const std::vector<double> got = host_values(g.grads[i]),
                                doubled = host_values(twice.grads[i]);
      for (size_t k = 0; k < got.size(); ++k)
        // Below the smallest normal number a device may keep what another takes for zero.
        if (doubled[k] != 2 * got[k] && !(std::abs(doubled[k] - 2 * got[k]) <= 0x1p-125)) {
          found("gradient",
                "d_{}: accumulated twice, element {} is {:.9g}, once {:.9g}",
                case_.inputs[i].name,
                k,
                doubled[k],
                got[k]);
          break;
        }
    }
  }

  void compare_gradients(const Gradients& g) {
    if (!gradients_) gradients_ = judged_gradients(g);
    const std::vector<Judged>& expected = *gradients_;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (!case_.inputs[i].gradient) continue;
      const std::string what = fmt::format("d_{}", case_.inputs[i].name);
      if (!g.grads[i].defined()) {
        found("gradient", "none for {}", case_.inputs[i].name);
        continue;
      }
      const DType dtype = g.grads[i].dtype();
      const std::vector<double> got = host_values(g.grads[i]);
      const std::vector<double>& values = expected[i].value.values;
      std::vector<double> bound(values.size());
      for (size_t k = 0; k < bound.size(); ++k)
        bound[k] =
            1.01 * (expected[i].bound.values[k] + unit_roundoff(dtype) * std::abs(values[k])) +
            kLeastNormal;
      if (compare("gradient", what, dtype, got, values, bound))
        compare_spread("gradient",
                       what,
                       dtype,
                       got,
                       expected[i],
                       case_.inputs[i].rows ? 1 : static_cast<double>(case_.inputs[0].shape[0]));
    }
  }

  /// For each input the gradient that the reference has for the cotangents of `g`.
  std::vector<Judged> judged_gradients(const Gradients& g) const {
    check(case_.reference.records(), "spec {}: its reference records no gradient", case_.name);
    ReferenceTape tape(stored_unit(case_), tensor_cores());
    std::vector<RealTensor> leaves;
    for (const RefTensor& x : to_reference(inputs_)) leaves.push_back(tape.leaves(x));
    const std::vector<RealTensor> outputs = case_.reference(leaves);
    std::vector<RefTensor> cotangents;
    for (const Tensor& c : g.cotangents)
      cotangents.push_back(c.defined() ? to_reference(c) : RefTensor());
    tape.backward(outputs, cotangents);
    std::vector<Judged> gradients;
    for (const RealTensor& x : leaves) gradients.push_back(tape.gradient(x));
    return gradients;
  }

  void check_tiers_and_threads() {
    const CpuTier tier = cpu_tier();
    const int threads = cpu_pool().threads();
    std::vector<std::vector<char>> grads = all_bytes();
    for (const CpuTier t : kCpuTiers) {
      if (!cpu_has(t) || t == tier) continue;
      set_cpu_tier(t);
      if (all_bytes() != grads)
        found("tier", "{} gives other bits than {}", to_string(t), to_string(tier));
    }
    set_cpu_tier(tier);
    for (const int n : {1, 2, 3}) {
      set_cpu_threads(n);
      if (all_bytes() != grads) found("threads", "{} threads give other bits than {}", n, threads);
    }
    set_cpu_threads(threads);
  }

  /// Outputs and gradients, as bytes.
  std::vector<std::vector<char>> all_bytes() {
    std::vector<std::vector<char>> bytes;
    if (!options_.gradients || !has_gradient(case_)) {
      for (const Tensor& y : case_.run(inputs_)) bytes.push_back(host_bytes(y));
      return bytes;
    }
    const Gradients g = differentiate(case_, inputs_, options_.seed, 1);
    for (const Tensor& y : g.outputs) bytes.push_back(host_bytes(y));
    for (const Tensor& d : g.grads)
      if (d.defined()) bytes.push_back(host_bytes(d));
    return bytes;
  }

  const OpCase& case_;
  Device& device_;
  SpecOptions options_;
  std::vector<Tensor> inputs_;
  std::vector<std::vector<char>> expected_;  // the outputs' bytes
  // From the reference, made at their first use.
  std::optional<ForwardExpectation> forward_;
  std::optional<std::vector<Judged>> gradients_;
  std::vector<Finding> findings_;
};

}  // namespace

std::vector<Tensor> make_inputs(const OpCase& c, Device& device, uint64_t seed) {
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const InputSpec& spec = c.inputs[i];
    const Random random(seed, RandomPurpose::kTest, i);
    const auto count = static_cast<size_t>(spec.shape.count());
    std::vector<double> v(count);
    const std::vector<double> made = spec.make_given ? spec.make_given() : std::vector<double>();
    const std::vector<double>& given = spec.make_given ? made : spec.given;
    for (size_t k = 0; k < count; ++k) {
      switch (spec.fill) {
        case InputSpec::Fill::kNormal: v[k] = spec.offset + spec.scale * random.normal(k); break;
        case InputSpec::Fill::kUniform:
          v[k] = spec.offset + spec.scale * (2 * random.uniform(k) - 1);
          break;
        case InputSpec::Fill::kIndex:
          v[k] =
              spec.offset + static_cast<double>(random.below(k, static_cast<uint64_t>(spec.scale)));
          break;
        case InputSpec::Fill::kGiven: v[k] = given.at(k); break;
      }
    }
    if (spec.dtype == DType::kI32) {
      const std::vector<int32_t> ints(v.begin(), v.end());
      inputs.push_back(Tensor::from_i32(ints, spec.shape, device));
    } else {
      const std::vector<float> floats(v.begin(), v.end());
      Tensor t = Tensor::empty(spec.shape, spec.dtype, device);
      t.assign_f32(floats);
      inputs.push_back(t);
    }
  }
  return inputs;
}

std::vector<double> special_values(int64_t count) {
  constexpr double kLargest = 0x1.FEp127, kDenormal = 0x1p-130;
  constexpr std::array<double, 17> kValues = {1.0,
                                              0.0,
                                              -0.0,
                                              kDenormal,
                                              -2.5,
                                              kLargest,
                                              -kDenormal,
                                              0.75,
                                              INFINITY,
                                              -kLargest,
                                              1e5,
                                              -1e-20,
                                              -INFINITY,
                                              3.0,
                                              NAN,
                                              kLeastNormal,
                                              -65536.0};
  std::vector<double> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = kValues[i % kValues.size()];
  return values;
}

OpCase special_case(OpCase c) {
  c.name += " special values";
  int64_t apart = 0;  // so that each value meets several of another input
  for (InputSpec& in : c.inputs) {
    in.gradient = false;
    if (in.dtype == DType::kI32) continue;
    in.fill = InputSpec::Fill::kGiven;
    in.make_given = {};
    in.given = special_values(in.shape.count() + apart);
    in.given.erase(in.given.begin(), in.given.begin() + apart);
    apart += 5;
  }
  return c;
}

bool has_gradient(const OpCase& c) {
  return std::any_of(
      c.inputs.begin(), c.inputs.end(), [](const InputSpec& i) { return i.gradient; });
}

std::vector<Tensor> make_cotangents(const OpCase& c,
                                    const std::vector<Tensor>& outputs,
                                    uint64_t seed) {
  std::vector<Tensor> cotangents;
  for (size_t o = 0; o < outputs.size(); ++o)
    cotangents.push_back(differentiable(c, o) ? cotangent(outputs[o], o, seed) : Tensor{});
  return cotangents;
}

std::vector<Tensor> run_with_gradients(const OpCase& c,
                                       std::vector<Tensor>& inputs,
                                       const std::vector<Tensor>& cotangents) {
  for (size_t i = 0; i < inputs.size(); ++i) inputs[i].set_needs_grad(c.inputs[i].gradient);
  Tape tape(&accumulate);
  std::vector<Tensor> results;
  {
    const Tape::Recording recording(&tape);
    results = c.run(inputs);
  }
  std::vector<std::pair<Tensor, Tensor>> seeds;
  for (size_t o = 0; o < cotangents.size(); ++o)
    if (cotangents[o].defined()) seeds.emplace_back(results[o], cotangents[o]);
  tape.backward(std::move(seeds));
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (c.inputs[i].gradient) results.push_back(tape.grad(inputs[i]));
    inputs[i].set_needs_grad(false);
  }
  return results;
}

struct CaseJudge::Impl {
  OpCase of;
  Checker checker;
  Impl(const OpCase& c, Device& device, uint64_t seed)
      : of(c), checker(of, device, {.seed = seed}) {}
};

CaseJudge::CaseJudge(const OpCase& c, Device& device, uint64_t seed)
    : impl_(std::make_unique<Impl>(c, device, seed)) {}
CaseJudge::~CaseJudge() = default;
std::vector<Finding> CaseJudge::once() { return impl_->checker.once(); }

std::vector<Finding> check_case(const OpCase& c, Device& device, const SpecOptions& options) {
  return Checker(c, device, options).run();
}

bool has_kernel(const KernelRow& row, DeviceKind device) {
  switch (device) {
    case DeviceKind::kCpu: return row.cpu == nullptr;
    case DeviceKind::kCuda: return row.cuda == nullptr;
    case DeviceKind::kAscend: return row.ascend == nullptr;
  }
  return false;
}

bool can_run(const OpCase& c, DeviceKind device) {
  if (c.needs == nullptr) return true;
  return has_kernel(kernel_rows({c.needs})[0], device);
}

double error_ratio(double got, double expected, double bound) {
  if (got == expected || (std::isnan(got) && std::isnan(expected))) return 0;
  const double error = std::abs(got - expected);
  // A bound on an infinity would be one, too.
  return std::isfinite(error) && bound > 0 ? error / bound : INFINITY;
}

std::function<std::vector<double>(int, const std::vector<RefTensor>&, const RefTensor&)>
elementwise_tolerance(DType dtype, double relative) {
  return [=](int, const std::vector<RefTensor>&, const RefTensor& y) {
    std::vector<double> bound(y.values.size());
    for (size_t i = 0; i < bound.size(); ++i)
      bound[i] =
          (unit_roundoff(dtype) + relative) * (1 + 1e-3) * std::abs(y.values[i]) + kLeastNormal;
    return bound;
  };
}

}  // namespace ferry::ops
