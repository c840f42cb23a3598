#include "ops/spec_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "autograd/tape.h"
#include "base/check.h"
#include "base/cpu_tier.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "ops/add/add.h"

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

  std::vector<Finding> run() {
    const FlushDenormals flush;
    if (options_.forward) {
      expected_ = forward_checked();
      check_repeatability();
      if (case_.row_independent) check_rows();
    }
    if (options_.gradients && has_gradient(case_)) check_gradients();
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
        const std::vector<Tensor> outputs = case_.run(fenced);
        compare_with_reference(outputs);
        for (const Tensor& y : outputs) bytes.push_back(host_bytes(y));
      }
      if (guard.violations() > 0)
        found("guard bytes", "{} buffers overwritten", guard.violations());
    }
    return bytes;
  }

  void compare_with_reference(const std::vector<Tensor>& outputs) {
    const std::vector<RefTensor> in = to_reference(inputs_);
    const std::vector<RefTensor> expected = case_.reference(in);
    if (expected.size() != outputs.size())
      return found("reference", "{} outputs, expected {}", outputs.size(), expected.size());
    for (size_t o = 0; o < outputs.size(); ++o) {
      const std::vector<double> got = host_values(outputs[o]);
      if (outputs[o].shape() != expected[o].shape)
        return found("reference",
                     "output {} is {}, expected {}",
                     o,
                     outputs[o].shape().str(),
                     expected[o].shape.str());
      const std::vector<double> bound = case_.tolerance(static_cast<int>(o), in, expected[o]);
      double worst = 0;
      size_t at = 0;
      for (size_t i = 0; i < got.size(); ++i) {
        const double b = bound.size() == 1 ? bound[0] : bound[i];
        const double error = std::abs(got[i] - expected[o].values[i]);
        const double ratio = std::isnan(error) ? INFINITY : error == 0 ? 0 : error / b;
        if (ratio > worst) {
          worst = ratio;
          at = i;
        }
      }
      if (worst > 1)
        found("reference",
              "output {} element {}: got {:.9g}, expected {:.9g}, {:.3g} times the bound",
              o,
              at,
              got[at],
              expected[o].values[at],
              worst);
    }
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

  /// <gradient, direction> against a central difference of the float64 reference, along directions
  /// that touch one input each; and playing twice doubles each gradient.
  void check_gradients() {
    Gradients g = differentiate(case_, inputs_, options_.seed, 1);
    const Gradients twice = differentiate(case_, inputs_, options_.seed, 2);
    const std::vector<RefTensor> in = to_reference(inputs_);
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (!case_.inputs[i].gradient) continue;
      if (!g.grads[i].defined()) {
        found("gradient", "none for {}", case_.inputs[i].name);
        continue;
      }
      const std::vector<double> analytic = host_values(g.grads[i]);
      for (uint64_t direction = 0; direction < 4; ++direction)
        compare_direction(g, in, i, analytic, direction);
      const std::vector<double> doubled = host_values(twice.grads[i]);
      for (size_t k = 0; k < analytic.size(); ++k)
        if (doubled[k] != 2 * analytic[k]) {
          found("gradient",
                "{}: accumulated twice, element {} is {:.9g}, once {:.9g}",
                case_.inputs[i].name,
                k,
                doubled[k],
                analytic[k]);
          break;
        }
    }
  }

  void compare_direction(const Gradients& g,
                         const std::vector<RefTensor>& in,
                         size_t input,
                         const std::vector<double>& analytic,
                         uint64_t direction) {
    const Random random(options_.seed, RandomPurpose::kTest, 5000 + 16 * input + direction);
    std::vector<double> d(analytic.size(), 0.0);
    for (size_t k = 0; k < d.size(); ++k) {
      // Directions 0 and 1 are dense; 2 and 3 touch few elements, so that one wrong one shows.
      const bool touched = direction < 2 || d.size() < 8 || random.below(1000000 + k, d.size()) < 4;
      d[k] = touched ? random.normal(k) : 0.0;
    }
    constexpr double h = 1e-5;
    const auto loss = [&](double step) {
      std::vector<RefTensor> moved = in;
      for (size_t k = 0; k < d.size(); ++k) moved[input].values[k] += step * d[k];
      const std::vector<RefTensor> y = case_.reference(moved);
      double sum = 0;
      for (size_t o = 0; o < y.size(); ++o) {
        if (!differentiable(case_, o)) continue;
        const std::vector<double> cot = host_values(g.cotangents[o]);
        for (size_t k = 0; k < cot.size(); ++k) sum += cot[k] * y[o].values[k];
      }
      return sum;
    };
    const double numeric = (loss(h) - loss(-h)) / (2 * h);
    double exact = 0, magnitude = 0;
    for (size_t k = 0; k < d.size(); ++k) {
      exact += analytic[k] * d[k];
      magnitude += std::abs(analytic[k] * d[k]);
    }
    const double bound = case_.gradient_tolerance * std::max(magnitude, std::abs(numeric)) + 1e-7;
    if (!(std::abs(exact - numeric) <= bound))
      found("gradient",
            "{} direction {}: {:.9g}, finite difference {:.9g}, bound {:.3g}",
            case_.inputs[input].name,
            direction,
            exact,
            numeric,
            bound);
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
  std::vector<std::vector<char>> expected_;
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
        case InputSpec::Fill::kGiven: v[k] = spec.given.at(k); break;
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

std::vector<Finding> check_case(const OpCase& c, Device& device, const SpecOptions& options) {
  return Checker(c, device, options).run();
}

std::function<std::vector<double>(int, const std::vector<RefTensor>&, const RefTensor&)>
elementwise_tolerance(DType dtype, double relative) {
  return [=](int, const std::vector<RefTensor>&, const RefTensor& y) {
    std::vector<double> bound(y.values.size());
    for (size_t i = 0; i < bound.size(); ++i)
      bound[i] = (unit_roundoff(dtype) + relative) * (1 + 1e-3) * std::abs(y.values[i]) + 0x1p-126;
    return bound;
  };
}

}  // namespace ferry::ops
