// What the CUDA kernels of grouped_linear take.
#pragma once

#include "ops/matmul/matmul_cuda.h"

namespace ferry::ops {

struct GroupedMatmulCuda {
  MatmulCuda product;  // of one expert: what its rows decide is filled in by the kernel
  const int32_t* offsets;
  int32_t rows_are_k;  // the gradient of weights: rows are what is summed over
};

}  // namespace ferry::ops
