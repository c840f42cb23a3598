// The experts' products above each other: how many rows each has stands in the device's memory, so
// the grid has blocks for all rows of all, and those beyond an expert's own end at once.
#include "ops/cuda/device_product.h"
#include "ops/grouped_linear/grouped_linear_cuda.h"

namespace ferry::ops {

template <bool bf16>
__device__ void grouped(const GroupedMatmulCuda& c) {
  const int64_t expert = blockIdx.z;
  const int64_t begin = c.offsets[expert], rows = c.offsets[expert + 1] - begin;
  MatmulCuda p = c.product;
  const int64_t a_size = p.a_bf16 != 0 ? 2 : 4, b_size = p.b_bf16 != 0 ? 2 : 4,
                c_size = p.c_bf16 != 0 ? 2 : 4;
  const auto advance = [](const void* at, int64_t bytes) {
    return static_cast<const char*>(at) + bytes;
  };
  if (c.rows_are_k != 0) {
    p.k = rows;
    p.a = advance(p.a, begin * p.a_k * a_size);
    p.b = advance(p.b, begin * p.b_k * b_size);
    p.c = static_cast<char*>(p.c) + expert * p.c_batch * c_size;
  } else {
    p.m = rows;
    p.a = advance(p.a, begin * p.a_row * a_size);
    p.b = advance(p.b, expert * p.b_batch * b_size);
    p.c = static_cast<char*>(p.c) + begin * p.c_row * c_size;
    if (static_cast<int64_t>(blockIdx.x) * kMatmulTile >= rows) return;
  }
  product<bf16>(p, 0);
}

extern "C" __global__ void grouped_matmul_f32(const GroupedMatmulCuda c) { grouped<false>(c); }
extern "C" __global__ void grouped_matmul_bf16(const GroupedMatmulCuda c) { grouped<true>(c); }

}  // namespace ferry::ops
