#include "ops/head_linear/head_linear.h"

#include <utility>

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/dequantize/dequantize.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/matmul/rounded_weight.h"

namespace ferry::ops {
namespace {

/// [tokens, heads, n] seen as [heads, tokens, n]: the batch of matmul comes first.
View heads_first(const Tensor& t) {
  View v = t.view();
  std::swap(v.shape[0], v.shape[1]);
  std::swap(v.stride[0], v.stride[1]);
  return v;
}

}  // namespace

Tensor head_linear(const Tensor& x, const Weight& weight, const HeadLinear& options) {
  const auto& [rows_per_head, begin, rows, transpose] = options;
  const Tensor w = weight_values(weight, x.dtype());
  check(0 <= begin && 0 < rows && begin + rows <= rows_per_head,
        "head_linear: rows [{}, {}) of {}",
        begin,
        begin + rows,
        rows_per_head);
  check(x.rank() == 3 && w.rank() == 2 && x.dim(1) * rows_per_head == w.dim(0) &&
            x.dim(2) == (transpose ? w.dim(1) : rows),
        "head_linear: x {}, {} {}, {} of {} rows a head{}",
        x.shape().str(),
        weight.name,
        w.shape().str(),
        rows,
        rows_per_head,
        transpose ? ", transposed" : "");
  check(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16,
        "head_linear: x {}",
        to_string(x.dtype()));
  const int64_t tokens = x.dim(0), heads = x.dim(1), rank = w.dim(1);
  const auto part_of = [&, &o = options](const Tensor& whole) {
    return whole.reshape({heads, o.rows_per_head, rank}).slice(1, o.begin, o.begin + o.rows);
  };
  const Tensor part = part_of(w), factor = part_of(rounded_weight(weight, w, x.dtype()));
  Tensor y = Tensor::empty({tokens, heads, transpose ? rows : rank}, x.dtype(), x.device());
  dispatch_matmul({.a = heads_first(x),
                   .b = factor.view(),
                   .c = heads_first(y),
                   .transpose_b = transpose,
                   .compute = x.dtype()},
                  x.device());
  if (Tape* tape = Tape::current())
    tape->record(
        "head_linear",
        {x, w},
        {y},
        [x = x.without_memory(), factor, y = y.without_memory(), transpose = transpose](
            Grads& grads) {
          if (!grads.wanted(x)) return;
          Tensor d_x = Tensor::empty(x.shape(), x.dtype(), x.device());
          dispatch_matmul({.a = heads_first(grads.of(y)),
                           .b = factor.view(),
                           .c = heads_first(d_x),
                           .transpose_b = !transpose,
                           .compute = x.dtype()},
                          x.device());
          grads.add(x, d_x);
        },
        [saved = x.saved(),
         part = part.without_memory(),
         y = y.without_memory(),
         transpose = transpose](Grads& grads) {
          if (!grads.wanted(part)) return;
          const Tensor input = saved.restored();
          const Tensor d_y = grads.of(y);
          Tensor d_w = Tensor::empty(part.shape(), part.dtype(), input.device());
          dispatch_matmul({.a = heads_first(transpose ? d_y : input),
                           .b = heads_first(transpose ? input : d_y),
                           .c = d_w.view(),
                           .transpose_a = true,
                           .compute = input.dtype()},
                          input.device());
          grads.add(part, d_w);
        });
  return y;
}

}  // namespace ferry::ops
