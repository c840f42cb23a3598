// Keys and values of every head, from kv_b_proj's output and the key part that all heads share.
#pragma once

#include "ops/spec.h"
#include "tensor/tensor.h"

namespace ferry::ops {

struct Expanded {
  Tensor k;  // [tokens, heads, nope + rope]
  Tensor v;  // [tokens, heads, value]
};

/// k = [kv's first nope columns | k_pe], v = kv's other columns, for every head.
///
/// Shapes    kv [tokens, heads, nope + value], contiguous; k_pe [tokens, rope], rows may be strided.
/// Types     f32 or bf16, both alike; copies, nothing is rounded.
/// Gradient  d_kv; d_k_pe: over heads in order, in f32, rounded once.
/// Errors    check: shapes, types.
/// Source    DeepSeek-V2, arXiv 2405.04434, section 2.1.
Expanded mla_expand(const Tensor& kv, const Tensor& k_pe, int64_t nope);

/// This op's rows of the op x device table.
std::vector<KernelRow> mla_expand_kernels();

}  // namespace ferry::ops
