// Elementwise work over tensors of one shape, as CUDA kernels take it: the longest runs that are
// contiguous in all of them. The same for the host, which makes it, and the device.
#pragma once

#include <cstdint>

namespace ferry::ops {

template <int views>
struct Runs {
  int64_t length = 1;            // elements of a run
  int32_t rows = 1;              // runs
  int32_t shape[3] = {1, 1, 1};  // how they are counted, the last fastest
  int64_t stride[views][3] = {};
};

#if defined(__CUDACC__)
/// f(the element's place in each view), for all of them, whatever the grid is.
template <int views, typename F>
__device__ inline void for_elements(const Runs<views>& runs, F&& f) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int32_t rows_step = static_cast<int32_t>(gridDim.y * blockDim.y);
  for (int32_t row = static_cast<int32_t>(blockIdx.y * blockDim.y + threadIdx.y); row < runs.rows;
       row += rows_step) {
    const int32_t outer = row / runs.shape[2];
    const int64_t index[3] = {outer / runs.shape[1], outer % runs.shape[1], row % runs.shape[2]};
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < runs.length;
         i += step) {
      int64_t at[views];
#pragma unroll
      for (int v = 0; v < views; ++v)
        at[v] = index[0] * runs.stride[v][0] + index[1] * runs.stride[v][1] +
                index[2] * runs.stride[v][2] + i;
      f(at);
    }
  }
}
#endif

}  // namespace ferry::ops
