// A block of 64 threads for each query and head, or for each key and its head. A tile's scores have
// a thread for each key (or row); what they weigh has one for each column. Every sum has the order
// of docs/numerics.md: nothing depends on how blocks and threads share the work.
#include "ops/attention/attention_cuda.h"
#include "ops/cuda/device_math.h"

namespace ferry::ops {

constexpr int kTile = kAttentionThreads;  // of keys: part of the numerics format
constexpr int64_t kPageRows = 128;

template <typename T>
__device__ const T* row_of(const AttentionOperand& o, int64_t row, int64_t head) {
  return static_cast<const T*>(o.data) + row * o.row + head * o.head;
}

/// bf16 products take the odd one of a pair first.
template <typename T>
constexpr int kPair = sizeof(T) == 2 ? 2 : 1;

template <typename T>
__device__ float rounded_to(float x) {
  if (sizeof(T) == 4) return x;
  return __uint_as_float(static_cast<uint32_t>(to_bf16(x)) << 16);
}

/// sum over i in [0, n) of f(i, sum), in the order of products in T.
template <typename T, typename F>
__device__ float in_order(int64_t n, float sum, F&& f) {
  for (int64_t i = 0; i < n; i += kPair<T>) {
    if (kPair<T> == 2 && i + 1 < n) sum = f(i + 1, sum);
    sum = f(i, sum);
  }
  return sum;
}

template <typename T>
__device__ float dot(const T* a, const T* b, int64_t n) {
  return in_order<T>(
      n, 0.0f, [&](int64_t i, float sum) { return __fmaf_rn(load(a + i), load(b + i), sum); });
}

/// f(column): the thread's columns, of n. What it has of them lies in shared memory, where nobody
/// else touches it.
template <typename F>
__device__ void for_columns(int64_t n, F&& f) {
  for (int64_t d = threadIdx.x; d < n; d += kAttentionThreads) f(d);
}

template <typename T>
__device__ void forward(const AttentionCuda& c) {
  __shared__ float scores[kTile], weights[kTile], sum[kAttentionDepthMax];
  const int64_t t = blockIdx.x, head = blockIdx.y, key_head = head / (c.heads / c.key_heads);
  const int64_t begin = c.key_begin[t], keys = static_cast<int64_t>(c.position[t]) + 1;
  const int thread = static_cast<int>(threadIdx.x);
  const T* const q = row_of<T>(c.q, t, head);
  const auto lies_at = [&](int64_t row) {
    return c.pages == nullptr ? row : c.pages[row / kPageRows] * kPageRows + row % kPageRows;
  };
  float top = __uint_as_float(0xFF800000u), total = 0;  // minus infinity
  for_columns(c.d_v, [&](int64_t d) { sum[d] = 0; });
  for (int64_t tile = 0; tile < keys; tile += kTile) {
    const int count = static_cast<int>(keys - tile < kTile ? keys - tile : kTile);
    const int64_t first = lies_at(begin + tile);  // a tile lies in one page
    if (thread < count) {
      const T* const k = row_of<T>(c.k, first + thread, key_head);
      const T* const tail =
          c.d_k < c.d_qk ? row_of<T>(c.k_tail, first + thread, key_head) - c.d_k : nullptr;
      scores[thread] = in_order<T>(c.d_qk, 0.0f, [&](int64_t d, float s) {
        return __fmaf_rn(load(d < c.d_k ? k + d : tail + d), load(q + d), s);
      });
    }
    __syncthreads();
    float most = __uint_as_float(0xFF800000u);
    for (int i = 0; i < count; ++i) most = most > scores[i] ? most : scores[i];
    most = most * c.scale;
    const float before = top;
    top = before > most ? before : most;
    const float shrink = exp(before - top), low = 0.0f - top;
    if (thread < count) weights[thread] = exp(__fmaf_rn(scores[thread], c.scale, low));
    __syncthreads();
    float of_tile = 0;
    for (int i = 0; i < count; ++i) of_tile = of_tile + weights[i];
    total = __fmaf_rn(total, shrink, of_tile);
    for_columns(c.d_v, [&](int64_t d) {
      sum[d] = in_order<T>(count, sum[d] * shrink, [&](int64_t i, float s) {
        return __fmaf_rn(
            load(row_of<T>(c.v, first + i, key_head) + d), rounded_to<T>(weights[i]), s);
      });
    });
    __syncthreads();
  }
  T* const out = static_cast<T*>(c.out.data) + t * c.out.row + head * c.out.head;
  // A zero is +0, whatever keys were added after it.
  for_columns(c.d_v, [&](int64_t d) { store(out + d, sum[d] / total + 0.0f); });
  if (thread == 0) c.lse[t * c.heads + head] = top + log(total);
}

// With s the scaled scores, P = exp(s - lse) and D = rowsum(d_out * out):
//   d_v = Pᵀ d_out    d_s = P (d_out vᵀ - D)    d_q = scale d_s k    d_k = scale d_sᵀ q

/// D, with sixteen lanes for each query and head.
template <typename T>
__device__ void deltas(const AttentionBackwardCuda& c) {
  const int64_t row = lanes_row();
  const bool mine = row < c.tokens * c.heads;
  const int64_t t = mine ? row / c.heads : 0, head = mine ? row % c.heads : 0;
  const T *const out = row_of<T>(c.out, t, head), *const d_out = row_of<T>(c.d_out, t, head);
  float sum = 0;
  for (int64_t i = lane(); i - lane() < c.d_v_columns; i += kLanes)
    sum = i < c.d_v_columns ? __fmaf_rn(load(out + i), load(d_out + i), sum)
                            : __fmaf_rn(0.0f, 0.0f, sum);
  sum = sum_lanes(sum);
  if (mine && lane() == 0) c.delta[row] = sum;
}

struct ScoreGradient {
  float p, d_s;  // rounded to T
};

template <typename T>
__device__ ScoreGradient score_gradient(
    const AttentionBackwardCuda& c, int64_t t, int64_t head, int64_t key, int64_t key_head) {
  const float s = dot(row_of<T>(c.k, key, key_head), row_of<T>(c.q, t, head), c.d_qk);
  const float d_p = dot(row_of<T>(c.v, key, key_head), row_of<T>(c.d_out, t, head), c.d_v_columns);
  const int64_t row = t * c.heads + head;
  const float p = exp(__fmaf_rn(s, c.scale, 0.0f - c.lse[row]));
  return {rounded_to<T>(p), rounded_to<T>(p * (d_p - c.delta[row]))};
}

template <typename T>
__device__ void query_gradient(const AttentionBackwardCuda& c) {
  __shared__ float d_s[kTile], sum[kAttentionDepthMax];
  const int64_t t = blockIdx.x, head = blockIdx.y, key_head = head / (c.heads / c.key_heads);
  const int64_t begin = c.key_begin[t], keys = static_cast<int64_t>(c.position[t]) + 1;
  const int thread = static_cast<int>(threadIdx.x);
  for_columns(c.d_qk, [&](int64_t d) { sum[d] = 0; });
  for (int64_t tile = 0; tile < keys; tile += kTile) {
    const int count = static_cast<int>(keys - tile < kTile ? keys - tile : kTile);
    if (thread < count)
      d_s[thread] = score_gradient<T>(c, t, head, begin + tile + thread, key_head).d_s;
    __syncthreads();
    for_columns(c.d_qk, [&](int64_t d) {
      sum[d] = in_order<T>(count, sum[d], [&](int64_t i, float s) {
        return __fmaf_rn(load(row_of<T>(c.k, begin + tile + i, key_head) + d), d_s[i], s);
      });
    });
    __syncthreads();
  }
  T* const out = static_cast<T*>(c.d_q.data) + t * c.d_q.row + head * c.d_q.head;
  for_columns(c.d_qk, [&](int64_t d) { store(out + d, sum[d] * c.scale); });
}

/// Rows: the run's queries, in each the heads that share the key's.
template <typename T>
__device__ void key_gradient(const AttentionBackwardCuda& c) {
  __shared__ float p[kTile], d_s[kTile], of_k[kAttentionDepthMax], of_v[kAttentionDepthMax];
  const int64_t nth = blockIdx.x, key_head = blockIdx.y, key = c.run_key_begin + nth;
  const int64_t group = c.heads / c.key_heads, rows = (c.run_end - c.run_begin) * group;
  const int thread = static_cast<int>(threadIdx.x);
  for_columns(c.d_qk, [&](int64_t d) { of_k[d] = 0; });
  for_columns(c.d_v_columns, [&](int64_t d) { of_v[d] = 0; });
  for (int64_t tile = 0; tile < rows; tile += kTile) {
    const int count = static_cast<int>(rows - tile < kTile ? rows - tile : kTile);
    // Positions ascend: a tile whose last query does not see the key adds nothing.
    if (c.position[c.run_begin + (tile + count - 1) / group] < nth) continue;
    if (thread < count) {
      const int64_t row = tile + thread, t = c.run_begin + row / group;
      ScoreGradient g{0, 0};
      if (c.position[t] >= nth)
        g = score_gradient<T>(c, t, key_head * group + row % group, key, key_head);
      p[thread] = g.p;
      d_s[thread] = g.d_s;
    }
    __syncthreads();
    const auto add =
        [&](const AttentionOperand& rows_of, const float* weights, int64_t d, float sum) {
          return in_order<T>(count, sum, [&](int64_t i, float s) {
            const int64_t row = tile + i, head = key_head * group + row % group;
            const T* const x = row_of<T>(rows_of, c.run_begin + row / group, head);
            return __fmaf_rn(weights[i], load(x + d), s);
          });
        };
    for_columns(c.d_qk, [&](int64_t d) { of_k[d] = add(c.q, d_s, d, of_k[d]); });
    for_columns(c.d_v_columns, [&](int64_t d) { of_v[d] = add(c.d_out, p, d, of_v[d]); });
    __syncthreads();
  }
  T* const d_k = static_cast<T*>(c.d_k.data) + key * c.d_k.row + key_head * c.d_k.head;
  T* const d_v = static_cast<T*>(c.d_v.data) + key * c.d_v.row + key_head * c.d_v.head;
  for_columns(c.d_qk, [&](int64_t d) {
    const float scaled = of_k[d] * c.scale;
    const bool both = c.d_v.data == nullptr && d < c.d_v_columns;
    store(d_k + d, both ? scaled + of_v[d] : scaled);
  });
  if (c.d_v.data != nullptr)
    for_columns(c.d_v_columns, [&](int64_t d) { store(d_v + d, of_v[d]); });
}

extern "C" __global__ void attention_f32(const AttentionCuda c) { forward<float>(c); }
extern "C" __global__ void attention_bf16(const AttentionCuda c) { forward<bf16_t>(c); }
extern "C" __global__ void attention_delta_f32(const AttentionBackwardCuda c) { deltas<float>(c); }
extern "C" __global__ void attention_delta_bf16(const AttentionBackwardCuda c) {
  deltas<bf16_t>(c);
}
extern "C" __global__ void attention_queries_f32(const AttentionBackwardCuda c) {
  query_gradient<float>(c);
}
extern "C" __global__ void attention_queries_bf16(const AttentionBackwardCuda c) {
  query_gradient<bf16_t>(c);
}
extern "C" __global__ void attention_keys_f32(const AttentionBackwardCuda c) {
  key_gradient<float>(c);
}
extern "C" __global__ void attention_keys_bf16(const AttentionBackwardCuda c) {
  key_gradient<bf16_t>(c);
}

}  // namespace ferry::ops
