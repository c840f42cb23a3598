#include "ops/quantized_linear/quantized_linear.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/dispatch.h"
#include "ops/quantized_linear/quantized_linear_kernels.h"

namespace ferry::ops {

const KernelTable<QuantizedLinearArgs> kQuantizedLinear{
    .op = "quantized_linear",
    .cpu = CPU_KERNEL(QuantizedLinearArgs, quantized_linear, CPU_FUNCTION(quantized_linear_plan)),
    .cuda = Kernel<QuantizedLinearArgs>::missing("no CUDA kernel in this version"),
    .ascend = Kernel<QuantizedLinearArgs>::missing(kNoAscendCodes),
};

Tensor quantized_linear(const Tensor& x, const Weight& w, const Tensor& offsets, DType out) {
  w.check_stored();
  check(w.codes().has_value(), "quantized_linear: {} is stored as numbers", w.name);
  check(Tape::current() == nullptr,
        "quantized_linear: {} is stored as {}, which cannot be trained",
        w.name,
        to_string(*w.codes()));
  const CodePanels layout = w.panels();
  const bool stack = w.global_shape.rank() == 3;
  const auto is_float = [](DType t) { return t == DType::kF32 || t == DType::kBF16; };
  check(x.rank() == 2 && x.dim(1) == layout.columns && x.stride(1) == 1,
        "quantized_linear: x {}, {} {}",
        x.shape().str(),
        w.name,
        w.global_shape.str());
  check(is_float(x.dtype()) && is_float(out),
        "quantized_linear: x {}, y {}",
        to_string(x.dtype()),
        to_string(out));
  check(stack == offsets.defined() &&
            (!stack || (offsets.shape() == Shape{w.global_shape[0] + 1} &&
                        offsets.dtype() == DType::kI32 && offsets.contiguous())),
        "quantized_linear: offsets {} for {} {}",
        offsets.defined() ? offsets.shape().str() : "none",
        w.name,
        w.global_shape.str());
  Tensor y = Tensor::empty({x.dim(0), layout.rows}, out, x.device());
  dispatch(kQuantizedLinear,
           QuantizedLinearArgs{
               x.view(), w.value.view(), w.scales.view(), offsets.view(), y.view(), *w.codes()},
           x.device());
  return y;
}

}  // namespace ferry::ops
