// What the CUDA kernels of grouped_linear take.
#pragma once

#include "ops/matmul/matmul_cuda.h"

namespace ferry::ops {

struct GroupedMatmulCuda {
  MatmulCuda product;  // of one expert: what its rows decide is filled in by the kernel
  const int32_t* offsets;
  int32_t experts;
  int32_t rows_are_k;  // the gradient of weights: rows are what is summed over
};

/// How many tiles of `tile` rows the experts' rows take at most, whosever they are: of each expert that has rows the
/// last tile may hold one.
constexpr int64_t grouped_tiles(int64_t rows, int64_t experts, int64_t tile) {
  const int64_t with_rows = rows < experts ? rows : experts;
  return with_rows + (rows - with_rows) / tile;
}

}  // namespace ferry::ops
