// What the CUDA kernel of dequantize takes.
#pragma once

#include <cstdint>

namespace ferry::ops {

struct DequantizeCuda {
  const uint8_t* codes;
  const float *numbers, *scales;
  void* y;
  int64_t count, rows, columns, scale_rows, scale_columns, block_rows, block_columns;
  int32_t y_bf16;
};

}  // namespace ferry::ops
