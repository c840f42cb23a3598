// What adamw promises, on every device.
#include <cmath>
#include <string_view>

#include "ops/adamw/adamw_reference.h"
#include "ops/call_check.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

Tensor copy_of(const Tensor& t) {
  Tensor c = Tensor::empty(t.shape(), t.dtype(), t.device());
  t.device().copy(c.data(), t.data(), t.bytes());
  return c;
}

/// Bounds for p, m and v: each is a sum of terms with a few roundings (u) of their own.
std::vector<double> bound(int output,
                          const std::vector<RefTensor>& in,
                          const AdamW& o,
                          double grad_scale) {
  constexpr double u = 0x1p-24;
  const AdamWState next = adamw_reference({in[0], in[1], in[2]}, in[3], o, grad_scale);
  std::vector<double> b(in[0].values.size());
  for (size_t i = 0; i < b.size(); ++i) {
    const double g = std::abs(in[3].values[i] * grad_scale), m = std::abs(in[1].values[i]);
    const double m_error = 4 * u * (o.beta1 * m + (1 - o.beta1) * g);
    const double v_error = 6 * u * next.v.values[i];
    const double moved = std::abs(next.p.values[i] - in[0].values[i] * (1 - o.lr * o.weight_decay));
    // The update inherits m's error, half of v's, and five roundings.
    const double m_relative = m_error / (std::abs(next.m.values[i]) + 1e-300);
    const double p_error = 3 * u * std::abs(in[0].values[i]) + u * std::abs(next.p.values[i]) +
                           moved * (m_relative + 8 * u);
    b[i] = 1.001 * (output == 0 ? p_error : output == 1 ? m_error : v_error) + kLeastNormal;
  }
  return b;
}

OpCase adamw_case(const Shape& shape,
                  const AdamW& options,
                  float grad_scale,
                  double grad_size,
                  bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} step {} lr {:g} decay {:g} grad {:g}",
                       shape.str(),
                       options.step,
                       options.lr,
                       options.weight_decay,
                       grad_size);
  c.inputs = {{.name = "p", .shape = shape},
              {.name = "m", .shape = shape, .scale = 0.1 * grad_size},
              {.name = "v",
               .shape = shape,
               .fill = InputSpec::Fill::kUniform,
               .scale = 0.4 * grad_size * grad_size,
               .offset = 0.5 * grad_size * grad_size},
              {.name = "grad", .shape = shape, .scale = grad_size}};
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    Weight w{.name = "w", .global_shape = shape, .shard = {}, .value = copy_of(in[0])};
    const Tensor m = copy_of(in[1]), v = copy_of(in[2]);
    adamw_update(w, m, v, in[3], options, grad_scale);
    return {w.value, m, v};
  };
  c.reference = [=](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    AdamWState s =
        adamw_reference({in[0], in[1], in[2]}, in[3], options, static_cast<double>(grad_scale));
    return {s.p, s.m, s.v};
  };
  c.tolerance = [=](int output, const std::vector<RefTensor>& in, const RefTensor&) {
    return bound(output, in, options, static_cast<double>(grad_scale));
  };
  for (InputSpec& i : c.inputs) i.rows = true;
  c.flops = 14.0 * static_cast<double>(shape.count());
  c.bytes = 28.0 * static_cast<double>(shape.count());
  c.benchmark = benchmark;
  return c;
}

/// As the case's bound, for the device and for the reference in f32.
std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& next) {
  constexpr double u = 0x1p-24;
  const RefTensor &p = facts.input("p"), &m = facts.input("m"), &grad = facts.input("grad");
  const std::string_view which = output;
  std::vector<double> bound = rule_elementwise(facts, output, next, 0);
  for (int64_t i = 0; i < next.shape.count(); ++i) {
    const double old = facts.number("beta1") * m[i],
                 fresh = facts.number("one_minus_beta1") * grad[i] * facts.number("grad_scale");
    const double m_error = 4 * u * (std::abs(old) + std::abs(fresh));
    const double moved = std::abs(next[i] - p[i] * facts.number("decay"));
    bound[static_cast<size_t>(i)] +=
        2 * (which == "m"   ? m_error
             : which == "v" ? 6 * u * next[i]
                            : 3 * u * std::abs(p[i]) +
                                  moved * (m_error / (std::abs(old + fresh) + 1e-300) + 8 * u));
  }
  return bound;
}

}  // namespace

OpSpec adamw_spec() {
  OpSpec spec{.op = "adamw",
              .kernels = kernel_rows({"adamw"}),
              .cases = {},
              .calls = {{.kernel = "adamw", .bound = call_bound}}};
  const AdamW first{.lr = 1e-3, .step = 1};
  const AdamW later{.lr = 3e-4, .beta1 = 0.9, .beta2 = 0.95, .weight_decay = 0.1, .step = 1234};
  const AdamW wild{
      .lr = 0.5, .beta1 = 0.5, .beta2 = 0.5, .eps = 0.1, .weight_decay = 0.5, .step = 3};
  spec.cases.push_back(adamw_case({1}, first, 1, 1));
  spec.cases.push_back(adamw_case({7, 129}, first, 1, 1));
  spec.cases.push_back(adamw_case({33, 20}, later, 0.37f, 0.01));
  spec.cases.push_back(adamw_case({5, 64}, wild, 1.5f, 0.1));  // where each scalar matters
  spec.cases.push_back(adamw_case({5, 64}, first, 1, 1e-9));   // so small that eps decides
  spec.cases.push_back(adamw_case({4096, 2048}, later, 1, 0.01, true));
  return spec;
}

}  // namespace ferry::ops
