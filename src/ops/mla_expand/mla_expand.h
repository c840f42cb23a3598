// MLA's expanded keys and values: what kv_b_proj makes of the latent, with the shared rotary key.
#pragma once

#include "tensor/tensor.h"

namespace ferry::ops {

struct Expanded {
  Tensor k, v;
};

/// k[t, h] = [kv[t, h, :nope] | k_pe[t]], v[t, h] = kv[t, h, nope:].
///
/// Shapes    kv [T, H, nope + dv] and k_pe [T, dr], may be strided; returns k [T, H, nope + dr], v
///           [T, H, dv].
/// Types     f32 or bf16, both alike; copies bits.
/// Gradient  d_kv, copied; d_k_pe = sum over heads, in head order in f32, rounded once. Keeps
///           nothing. k and v are made again for whoever needs them (Tape::makes_again).
/// Errors    check: shapes, types, 0 <= nope < kv's columns.
/// Source    DeepSeek-V2, arXiv 2405.04434, section 2.1.
Expanded mla_expand(const Tensor& kv, const Tensor& k_pe, int64_t nope);

}  // namespace ferry::ops
