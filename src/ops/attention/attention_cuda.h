// What the CUDA kernels of attention take.
#pragma once

#include <cstdint>

namespace ferry::ops {

inline constexpr int kAttentionThreads = 64;    // a block's: one for each key, or row, of a tile
inline constexpr int kAttentionDepthMax = 640;  // of Dqk and Dv

struct AttentionOperand {  // [rows, heads, depth]
  void* data;
  int64_t row, head;  // strides
};

struct AttentionCuda {
  AttentionOperand q, k, k_tail, v, out;
  const int32_t *position, *key_begin, *pages;  // pages: or nullptr
  float* lse;
  int64_t heads, key_heads, d_qk, d_k, d_v;  // d_k: columns of k, less those of k_tail
  float scale;
};

struct AttentionBackwardCuda {
  AttentionOperand q, k, v, out, d_out, d_q, d_k, d_v;  // d_v: or nullptr: added to d_k
  const int32_t *position, *key_begin;
  const float* lse;
  float* delta;  // [tokens, heads]
  int64_t tokens, heads, key_heads, d_qk, d_v_columns;
  // Of the kernel for keys: the run of queries that looks at them.
  int64_t run_begin, run_end, run_key_begin;
  float scale;
};

}  // namespace ferry::ops
