#include "ops/linear/linear.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/dequantize/dequantize.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/matmul/packed_weight.h"
#include "ops/matmul/rounded_weight.h"
#include "ops/pair_linear/pair_linear.h"
#include "ops/quantized_linear/quantized_linear.h"

namespace ferry::ops {
namespace {

Tensor product(const Tensor& x, const Tensor& w, DType out, const View& panels) {
  Tensor y = Tensor::empty({x.dim(0), w.dim(0)}, out, x.device());
  dispatch_matmul({.a = x.view(),
                   .b = w.view(),
                   .c = y.view(),
                   .transpose_b = true,
                   .compute = x.dtype(),
                   .panels = panels},
                  x.device());
  return y;
}

}  // namespace

Tensor linear(const Tensor& x, const Weight& weight, const LinearOptions& options) {
  if (weight.codes()) return quantized_linear(x, weight, {}, options.out.value_or(x.dtype()));
  if (weight.paired && x.dtype() == DType::kBF16)
    return pair_linear(x, weight, {}, options.out.value_or(x.dtype()));
  const Tensor w = weight_values(weight, x.dtype());
  const auto is_float = [](DType t) { return t == DType::kF32 || t == DType::kBF16; };
  const DType out = options.out.value_or(x.dtype());
  check(x.rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1),
        "linear: x {}, {} {}",
        x.shape().str(),
        weight.name,
        w.shape().str());
  check(is_float(x.dtype()) && is_float(out),
        "linear: x {}, y {}",
        to_string(x.dtype()),
        to_string(out));
  const Tensor factor = rounded_weight(weight, w, x.dtype());
  Tensor y = product(x, factor, out, packed_panels(weight, x.dim(0), x.dtype()));
  if (Tape* tape = Tape::current()) {
    if (!options.keep)
      tape->makes_again(
          y, [x = x.saved(), factor, out] { return product(x.restored(), factor, out, {}); });
    tape->record(
        "linear",
        {x, w},
        {y},
        [x = x.without_memory(), factor, y = y.without_memory()](Grads& grads) {
          if (!grads.wanted(x)) return;
          Tensor d_x = Tensor::empty(x.shape(), x.dtype(), x.device());
          dispatch_matmul(
              {.a = grads.of(y).view(), .b = factor.view(), .c = d_x.view(), .compute = x.dtype()},
              x.device());
          grads.add(x, d_x);
        },
        [saved = x.saved(), w = w.without_memory(), y = y.without_memory()](Grads& grads) {
          if (!grads.wanted(w)) return;
          const Tensor input = saved.restored();
          Tensor d_w = Tensor::empty(w.shape(), w.dtype(), input.device());
          dispatch_matmul({.a = grads.of(y).view(),
                           .b = input.view(),
                           .c = d_w.view(),
                           .transpose_a = true,
                           .compute = input.dtype()},
                          input.device());
          grads.add(w, d_w);
        });
  }
  return y;
}

}  // namespace ferry::ops
