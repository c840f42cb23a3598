// A thread for each element.
#include "ops/cuda/device_math.h"
#include "ops/dequantize/dequantize_cuda.h"

namespace ferry::ops {

extern "C" __global__ void dequantize(const DequantizeCuda c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= c.count) return;
  const int64_t row = i / c.columns, column = i % c.columns;
  const int64_t scale_row = row / c.rows * c.scale_rows + row % c.rows / c.block_rows;
  const float scale = c.scales[scale_row * c.scale_columns + column / c.block_columns];
  store(c.y, c.y_bf16 != 0, i, c.numbers[c.codes[i]] * scale);
}

}  // namespace ferry::ops
