// The plan is a counting sort by one block, a thread for each expert. Rows move with a thread for
// each element, by destination, so that nothing is written twice.
#include "ops/cuda/device_math.h"
#include "ops/moe_permute/moe_permute_cuda.h"

namespace ferry::ops {

extern "C" __global__ void plan_experts(const PlanExpertsCuda c) {
  __shared__ int32_t first[kPlanThreads + 1];
  const int expert = static_cast<int>(threadIdx.x);
  int32_t count = 0;
  if (expert < c.experts)
    for (int64_t s = 0; s < c.slots; ++s) count += c.chosen[s] == expert ? 1 : 0;
  first[expert] = count;
  __syncthreads();
  if (expert == 0) {
    int32_t row = 0;
    for (int e = 0; e < c.experts; ++e) {
      const int32_t its = first[e];
      first[e] = row;
      row += its;
    }
    first[c.experts] = row;
  }
  __syncthreads();
  if (expert < c.experts) {
    int32_t row = first[expert];
    c.offsets[expert] = row;
    for (int64_t s = 0; s < c.slots; ++s)
      if (c.chosen[s] == expert) {
        c.row_of_slot[s] = row;
        c.token_of_row[row++] = static_cast<int32_t>(s / c.top_k);
      }
  }
  // Slots of experts that are not there have no row, and rows beyond the last no token.
  const int32_t used = first[c.experts];
  if (expert == 0) c.offsets[c.experts] = used;
  for (int64_t s = expert; s < c.slots; s += kPlanThreads) {
    if (c.chosen[s] < 0 || c.chosen[s] >= c.experts) c.row_of_slot[s] = -1;
    if (s >= used) c.token_of_row[s] = -1;
  }
}

template <typename T>
__device__ void permute(const PermuteCuda& c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= c.rows * c.hidden) return;
  const int64_t token = c.token_of_row[i / c.hidden];
  static_cast<T*>(c.y)[i] =
      token < 0 ? T{0} : static_cast<const T*>(c.x)[token * c.x_stride + i % c.hidden];
}

template <typename T>
__device__ void combine(const CombineCuda& c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= c.tokens * c.hidden) return;
  const int64_t token = i / c.hidden, column = i % c.hidden;
  float sum = 0;
  for (int64_t s = token * c.top_k; s < (token + 1) * c.top_k; ++s) {
    const int64_t row = c.row_of_slot[s];
    if (row < 0) continue;
    const float weight = c.weights != nullptr ? c.weights[s] : 1.0f;
    sum = __fmaf_rn(weight, load(static_cast<const T*>(c.x) + row * c.x_stride + column), sum);
  }
  store(static_cast<T*>(c.y) + i, sum);
}

/// Sixteen lanes for each slot.
template <typename T>
__device__ void combine_backward(const CombineBackwardCuda& c) {
  const int64_t slot = lanes_row();
  const bool mine = slot < c.slots;
  const int64_t row = mine ? c.row_of_slot[slot] : -1;
  float dot = 0;
  if (row >= 0) {
    const T* const d_y = static_cast<const T*>(c.d_y) + slot / c.top_k * c.d_y_stride;
    const T* const x = static_cast<const T*>(c.x) + row * c.x_stride;
    T* const d_x = static_cast<T*>(c.d_x) + row * c.hidden;
    const float weight = c.weights[slot];
    for (int64_t i = lane(); i - lane() < c.hidden; i += kLanes) {
      const bool inside = i < c.hidden;
      const float d = inside ? load(d_y + i) : 0.0f;
      dot = __fmaf_rn(d, inside ? load(x + i) : 0.0f, dot);
      if (inside) store(d_x + i, weight * d);
    }
  }
  __syncwarp();
  dot = sum_lanes(dot);
  if (mine && lane() == 0) c.d_weights[slot] = dot;
}

/// Zeros for the rows that no slot has.
template <typename T>
__device__ void unused_rows(const CombineBackwardCuda& c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= *c.used * c.hidden && i < c.rows * c.hidden) static_cast<T*>(c.d_x)[i] = T{0};
}

extern "C" __global__ void permute_f32(const PermuteCuda c) { permute<float>(c); }
extern "C" __global__ void permute_bf16(const PermuteCuda c) { permute<bf16_t>(c); }
extern "C" __global__ void combine_f32(const CombineCuda c) { combine<float>(c); }
extern "C" __global__ void combine_bf16(const CombineCuda c) { combine<bf16_t>(c); }
extern "C" __global__ void combine_backward_f32(const CombineBackwardCuda c) {
  combine_backward<float>(c);
}
extern "C" __global__ void combine_backward_bf16(const CombineBackwardCuda c) {
  combine_backward<bf16_t>(c);
}
extern "C" __global__ void unused_rows_f32(const CombineBackwardCuda c) { unused_rows<float>(c); }
extern "C" __global__ void unused_rows_bf16(const CombineBackwardCuda c) { unused_rows<bf16_t>(c); }

}  // namespace ferry::ops
