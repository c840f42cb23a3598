// What cross_entropy promises, on every device.
#include "ops/cross_entropy/cross_entropy.h"

#include <cmath>
#include <numeric>

#include "ops/cross_entropy/cross_entropy_reference.h"
#include "ops/matmul/matmul_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct HeadShape {
  int64_t tokens, inputs, vocab;
  double logit_scale = 1;  // standard deviation of the logits
};

OpCase loss_case(
    DType dtype, const HeadShape& s, bool with_loss, bool gradient, bool benchmark = false) {
  const float scale = 0.25f;
  OpCase c;
  c.name = fmt::format("{} [{}, {}] vocab {} logits {:g}{}{}",
                       to_string(dtype),
                       s.tokens,
                       s.inputs,
                       s.vocab,
                       s.logit_scale,
                       with_loss ? "" : " token losses",
                       with_loss && !gradient ? " no gradient" : "");
  std::vector<double> labels(static_cast<size_t>(s.tokens));
  for (size_t t = 0; t < labels.size();
       ++t)  // every fifth is ignored; the first and last columns occur
    labels[t] = t % 5 == 3 ? -1
                           : static_cast<double>(t % 2 == 0 ? t * 7 % static_cast<size_t>(s.vocab)
                                                            : static_cast<size_t>(s.vocab) - 1);
  c.inputs = {{.name = "hidden",
               .shape = {s.tokens, s.inputs},
               .dtype = dtype,
               .gradient = gradient,
               .rows = true},
              bf16_exact_input("head",
                               {s.vocab, s.inputs},
                               DType::kF32,
                               11,
                               s.logit_scale / std::sqrt(static_cast<double>(s.inputs))),
              {.name = "labels",
               .shape = {s.tokens},
               .dtype = DType::kI32,
               .fill = InputSpec::Fill::kGiven,
               .rows = true,
               .given = labels}};
  c.inputs[1].gradient = gradient;
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Weight head{.name = "head", .global_shape = in[1].shape(), .shard = {}, .value = in[1]};
    const CrossEntropy y = cross_entropy(in[0], head, in[2], scale);
    if (!with_loss) return {y.token_losses};
    return {y.loss, y.token_losses};
  };
  c.reference = [=](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    std::vector<RefTensor> y =
        cross_entropy_reference(in[0], in[1], in[2], static_cast<double>(scale));
    if (!with_loss) y.erase(y.begin());
    return y;
  };
  c.tolerance =
      [=](int output, const std::vector<RefTensor>& in, const RefTensor& y) -> std::vector<double> {
    std::vector<double> bounds = cross_entropy_token_bounds(in[0], in[1], in[2]);
    if (!with_loss || output == 1) return bounds;
    const double additions = static_cast<double>(s.tokens) / 16 + 6;
    return {std::accumulate(bounds.begin(), bounds.end(), 0.0) * static_cast<double>(scale) +
            additions * 0x1p-24 * std::abs(y[0]) + 0x1p-126};
  };
  // bf16: d_logits, the product and the product with d_loss are rounded, each within 2^-9 of its
  // own size; the first is amplified where the terms of d_hidden cancel.
  c.gradient_tolerance = dtype == DType::kF32 ? 2e-5 : 0x1p-6;
  c.differentiable_outputs = 1;
  c.row_independent = !with_loss;
  c.flops = 2.0 * static_cast<double>(s.tokens * s.inputs * s.vocab);
  c.bytes = static_cast<double>(s.tokens * s.inputs) * static_cast<double>(size_of(dtype)) +
            4.0 * static_cast<double>(s.vocab * s.inputs);
  c.benchmark = benchmark;
  return c;
}

}  // namespace

OpSpec cross_entropy_spec() {
  OpSpec spec{.op = "cross_entropy",
              .kernels = kernel_rows({"cross_entropy", "cross_entropy_backward"}),
              .cases = {}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(loss_case(t, {.tokens = 1, .inputs = 1, .vocab = 1}, true, true));
    spec.cases.push_back(
        loss_case(t, {.tokens = 7, .inputs = 33, .vocab = 129, .logit_scale = 3}, true, true));
    spec.cases.push_back(loss_case(
        t, {.tokens = 21, .inputs = 16, .vocab = 1500}, true, true));  // two vocabulary tiles
    spec.cases.push_back(loss_case(t,
                                   {.tokens = 40, .inputs = 24, .vocab = 70, .logit_scale = 20},
                                   true,
                                   true));  // near certainty
    spec.cases.push_back(
        loss_case(t, {.tokens = 1201, .inputs = 8, .vocab = 64}, true, true));  // several chunks
    spec.cases.push_back(loss_case(t, {.tokens = 17, .inputs = 65, .vocab = 200}, false, false));
    spec.cases.push_back(loss_case(t,
                                   {.tokens = 9, .inputs = 16, .vocab = 70, .logit_scale = 60},
                                   false,
                                   false));  // beyond the logarithm of the largest float
    spec.cases.push_back(
        loss_case(t, {.tokens = 8192, .inputs = 768, .vocab = 8192}, true, true, true));
  }
  return spec;
}

}  // namespace ferry::ops
