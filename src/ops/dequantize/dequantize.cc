#include "ops/dequantize/dequantize.h"

#include <array>

#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dequantize/dequantize_kernels.h"
#include "ops/dispatch.h"
#include "ops/pair_linear/pair_linear.h"
#include "tensor/f8.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(DequantizeArgs, dequantize)

const KernelTable<DequantizeArgs> kDequantize{
    .op = "dequantize",
    .cpu = CPU_KERNEL(DequantizeArgs, dequantize),
    .cuda = CUDA_KERNEL(DequantizeArgs, dequantize),
    .ascend = ASCEND_KERNEL(DequantizeArgs, Branch::kComposed, dequantize),
};

const KernelTable<DequantizePanelsArgs> kDequantizePanels{
    .op = "dequantize_panels",
    .cpu = CPU_KERNEL(DequantizePanelsArgs, dequantize_panels),
    .cuda = Kernel<DequantizePanelsArgs>::missing("panels are the layout of the CPU's kernel"),
    .ascend = Kernel<DequantizePanelsArgs>::missing("panels are the layout of the CPU's kernel"),
};

namespace {

/// The number of each code: kernels look it up, so that one serves all types of eight bits.
Tensor numbers_of_codes(Device& device) {
  std::array<float, 256> numbers;
  for (size_t code = 0; code < numbers.size(); ++code)
    numbers[code] = f8e4m3_to_f32(static_cast<uint8_t>(code));
  return Tensor::from_f32(numbers, {256}, device);
}

Shape as_stack(const Shape& shape) {
  return shape.rank() == 3 ? shape : Shape{1, shape[0], shape[1]};
}

}  // namespace

Tensor dequantize(const Tensor& codes, const Tensor& scales, const ScaleBlocks& blocks, DType out) {
  check((codes.rank() == 2 || codes.rank() == 3) && codes.dtype() == DType::kF8E4M3 &&
            codes.contiguous() && blocks.rows > 0 && blocks.columns > 0,
        "dequantize: codes {} {}, blocks of {} x {}",
        to_string(codes.dtype()),
        codes.shape().str(),
        blocks.rows,
        blocks.columns);
  check(scales.dtype() == DType::kF32 && scales.contiguous() &&
            scales.shape() == blocks.scales_of(codes.shape()),
        "dequantize: scales {} {} for codes {}",
        to_string(scales.dtype()),
        scales.shape().str(),
        codes.shape().str());
  check(out == DType::kF32 || out == DType::kBF16, "dequantize: to {}", to_string(out));
  Tensor y = Tensor::empty(codes.shape(), out, codes.device());
  const Tensor numbers = numbers_of_codes(codes.device());
  dispatch(kDequantize,
           DequantizeArgs{codes.reshape(as_stack(codes.shape())).view(),
                          numbers.view(),
                          scales.reshape(as_stack(scales.shape())).view(),
                          y.reshape(as_stack(y.shape())).view(),
                          blocks.rows,
                          blocks.columns},
           codes.device());
  return y;
}

Tensor weight_values(const Weight& weight, DType compute) {
  weight.check_stored();
  if (weight.paired) return pair_values(weight, compute);
  if (!weight.scaled()) return weight.value;
  if (weight.codes()) {
    const Tensor y = Tensor::empty(weight.global_shape, compute, weight.value.device());
    dispatch(kDequantizePanels,
             DequantizePanelsArgs{weight.value.view(),
                                  weight.scales.view(),
                                  y.reshape(as_stack(y.shape())).view(),
                                  *weight.codes()},
             y.device());
    return y;
  }
  return dequantize(weight.value, weight.scales, weight.blocks, compute);
}

}  // namespace ferry::ops
