#include "ops/sum_squares/sum_squares.h"

#include <cmath>

#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/sum_squares/sum_squares_kernels.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(SumSquaresArgs, sum_squares)
DECLARE_CUDA_PLAN(SumSquaresArgs, sum_squares_plan)

const KernelTable<SumSquaresArgs> kSumSquares{
    .op = "sum_squares",
    .cpu = CPU_KERNEL(SumSquaresArgs, sum_squares, CPU_FUNCTION(sum_squares_plan))
               .with({.sum = DType::kF64}),
    .cuda = CUDA_KERNEL(SumSquaresArgs, sum_squares, sum_squares_plan).with({.sum = DType::kF64}),
    .ascend = ASCEND_KERNEL(SumSquaresArgs, Branch::kComposed, sum_squares),
};

Tensor sum_squares(std::span<const Tensor> tensors) {
  check(!tensors.empty(), "sum_squares: of no tensor");
  Device& device = tensors.front().device();
  const DType type = kSumSquares.on(device.kind()).traits.sum;
  Tensor sums = Tensor::empty({static_cast<int64_t>(tensors.size())}, type, device);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& t = tensors[i];
    check(t.dtype() == DType::kF32 && t.contiguous() && &t.device() == &device,
          "sum_squares: tensor {} is {} in {} on {}",
          i,
          t.shape().str(),
          to_string(t.dtype()),
          t.device().name());
    const auto at = static_cast<int64_t>(i);
    dispatch(kSumSquares, SumSquaresArgs{t.view(), sums.slice(0, at, at + 1).view()}, device);
  }
  return sums;
}

SquareSum total_of(std::span<const double> sums) {
  SquareSum result;
  for (const double s : sums) result.sum += s;
  result.finite = std::isfinite(result.sum);  // NaN and infinity never leave a sum of squares
  return result;
}

}  // namespace ferry::ops
