#include "ops/grouped_linear/grouped_linear.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dequantize/dequantize.h"
#include "ops/dispatch.h"
#include "ops/grouped_linear/grouped_linear_kernels.h"
#include "ops/matmul/packed_weight.h"
#include "ops/matmul/rounded_weight.h"
#include "ops/pair_linear/pair_linear.h"
#include "ops/quantized_linear/quantized_linear.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(GroupedMatmulArgs, grouped_matmul)

const KernelTable<GroupedMatmulArgs> kGroupedMatmul{
    .op = "grouped_matmul",
    .cpu = CPU_KERNEL(GroupedMatmulArgs, grouped_matmul, CPU_FUNCTION(grouped_matmul_plan)),
    .cuda = CUDA_KERNEL(GroupedMatmulArgs, grouped_matmul),
    .ascend = ASCEND_KERNEL(GroupedMatmulArgs, Branch::kFused, grouped_matmul),
};

Tensor grouped_linear(const Tensor& x, const Weight& weight, const Tensor& offsets) {
  if (weight.codes()) return quantized_linear(x, weight, offsets, x.dtype());
  if (weight.paired && x.dtype() == DType::kBF16) return pair_linear(x, weight, offsets, x.dtype());
  const Tensor w = weight_values(weight, x.dtype());
  check(x.rank() == 2 && w.rank() == 3 && x.dim(1) == w.dim(2),
        "grouped_linear: x {}, {} {}",
        x.shape().str(),
        weight.name,
        w.shape().str());
  check(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16,
        "grouped_linear: x {}",
        to_string(x.dtype()));
  check(offsets.rank() == 1 && offsets.dim(0) == w.dim(0) + 1 && offsets.dtype() == DType::kI32,
        "grouped_linear: offsets {} {} for {} experts",
        to_string(offsets.dtype()),
        offsets.shape().str(),
        w.dim(0));
  const Tensor factor = rounded_weight(weight, w, x.dtype());
  Tensor y = Tensor::empty({x.dim(0), w.dim(1)}, x.dtype(), x.device());
  dispatch(kGroupedMatmul,
           {x.view(),
            factor.view(),
            offsets.view(),
            y.view(),
            GroupedProduct::kForward,
            x.dtype(),
            packed_panels(weight, (x.dim(0) + w.dim(0) - 1) / w.dim(0), x.dtype())},
           x.device());
  if (Tape* tape = Tape::current())
    tape->record(
        "grouped_linear",
        {x, w},
        {y},
        [x = x.without_memory(), factor, offsets, y = y.without_memory()](Grads& grads) {
          if (!grads.wanted(x)) return;
          Tensor d_x = Tensor::empty(x.shape(), x.dtype(), x.device());
          dispatch(kGroupedMatmul,
                   {grads.of(y).view(),
                    factor.view(),
                    offsets.view(),
                    d_x.view(),
                    GroupedProduct::kInputs,
                    x.dtype()},
                   x.device());
          grads.add(x, d_x);
        },
        [saved = x.saved(), w = w.without_memory(), offsets, y = y.without_memory()](Grads& grads) {
          if (!grads.wanted(w)) return;
          const Tensor input = saved.restored();
          Tensor d_w = Tensor::empty(w.shape(), w.dtype(), input.device());
          dispatch(kGroupedMatmul,
                   {grads.of(y).view(),
                    input.view(),
                    offsets.view(),
                    d_w.view(),
                    GroupedProduct::kWeights,
                    input.dtype()},
                   input.device());
          grads.add(w, d_w);
        });
  return y;
}

}  // namespace ferry::ops
