#include "ops/matmul/matmul.h"

#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/matmul/packed_weight.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(MatmulArgs, matmul)
namespace cuda {
bool takes_rounded(const Device& device, DType compute);
}

const KernelTable<MatmulArgs> kMatmul{
    .op = "matmul",
    .cpu = CPU_KERNEL(MatmulArgs, matmul, CPU_FUNCTION(matmul_plan)),
    .cuda = CUDA_KERNEL(MatmulArgs, matmul).with({.takes_rounded = &cuda::takes_rounded}),
    .ascend = ASCEND_KERNEL(MatmulArgs, Branch::kFused, matmul),
};

void dispatch_matmul(const MatmulArgs& args, Device& device) { dispatch(kMatmul, args, device); }

Tensor matmul(const Tensor& a, const Tensor& b, const MatmulOptions& options) {
  const auto is_float = [](DType t) { return t == DType::kF32 || t == DType::kBF16; };
  const DType out = options.out.value_or(a.dtype());
  check(is_float(a.dtype()) && is_float(b.dtype()) && is_float(out),
        "matmul: {} times {} gives {}",
        to_string(a.dtype()),
        to_string(b.dtype()),
        to_string(out));
  check(a.rank() == b.rank() && (a.rank() == 2 || (a.rank() == 3 && a.dim(0) == b.dim(0))) &&
            a.dim(options.transpose_a ? -2 : -1) == b.dim(options.transpose_b ? -1 : -2),
        "matmul: a {}{}, b {}{}",
        a.shape().str(),
        options.transpose_a ? " transposed" : "",
        b.shape().str(),
        options.transpose_b ? " transposed" : "");
  const int64_t m = a.dim(options.transpose_a ? -1 : -2), n = b.dim(options.transpose_b ? -2 : -1);
  const Shape shape = a.rank() == 3 ? Shape{a.dim(0), m, n} : Shape{m, n};
  Tensor c = Tensor::empty(shape, out, a.device());
  dispatch_matmul(
      {a.view(), b.view(), c.view(), options.transpose_a, options.transpose_b, a.dtype()},
      a.device());
  return c;
}

}  // namespace ferry::ops
