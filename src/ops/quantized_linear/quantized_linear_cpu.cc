// quantized_linear as the product that kernels share.
#include "ops/quantized_linear/quantized_linear_kernels.h"

#include "ops/cpu/code_product.h"

namespace ferry::ops::FERRY_TIER {

Plan quantized_linear_plan(const QuantizedLinearArgs& a) {
  return {.workspace_bytes = code_product_bytes(a.layout(), a.x.shape[0], a.panels.shape[0])};
}

void quantized_linear(const Plan&, const QuantizedLinearArgs& a, void* workspace, Stream&) {
  code_product({.x = a.x.data,
                .x_dtype = a.x.dtype,
                .x_stride = a.x.stride[0],
                .y = a.y.data,
                .y_dtype = a.y.dtype,
                .y_stride = a.y.stride[0],
                .rows = a.x.shape[0],
                .layout = a.layout(),
                .panels = a.panels.as<uint8_t>(),
                .scales = a.scales.data,
                .matrices = a.panels.shape[0],
                .offsets = a.offsets.given() ? a.offsets.as<int32_t>() : nullptr},
               workspace);
}

}  // namespace ferry::ops::FERRY_TIER
