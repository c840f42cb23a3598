// One kernel.
#include "ops/dequantize/dequantize_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/dequantize/dequantize_kernels.h"

namespace ferry::ops::cuda {

void dequantize(const Plan&, const DequantizeArgs& a, void*, Stream& stream) {
  static const Code code("dequantize");
  const int64_t count = a.y.count();
  if (count == 0) return;
  code.launch(stream,
              "dequantize",
              {blocks_of(count, 256)},
              {256},
              DequantizeCuda{.codes = a.codes.as<uint8_t>(),
                             .numbers = a.numbers.as<float>(),
                             .scales = a.scales.as<float>(),
                             .y = a.y.data,
                             .count = count,
                             .rows = a.codes.shape[1],
                             .columns = a.codes.shape[2],
                             .scale_rows = a.scales.shape[1],
                             .scale_columns = a.scales.shape[2],
                             .block_rows = a.block_rows,
                             .block_columns = a.block_columns,
                             .y_bf16 = is_bf16(a.y)});
}

}  // namespace ferry::ops::cuda
