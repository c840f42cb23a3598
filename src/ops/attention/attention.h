// Causal attention within documents.
#pragma once

#include "ops/segments.h"
#include "tensor/tensor.h"

namespace ferry::ops {

inline constexpr int32_t kPositionMax = 1 << 24;  // positions lie below it: compared as floats

/// out[t, h] = sum over the keys j that t sees of softmax_j(scale * q[t, h] . k[j, g]) * v[j, g],
/// where head h reads key head g = h / (H / Hk) and t sees rows key_begin[t] ... key_begin[t] +
/// position[t].
///
/// Shapes    q [T, H, Dqk]; k [S, Hk, Dqk]; v [S, Hk, Dv]; H a multiple of Hk; returns [T, H, Dv].
///           S may differ from T (a cache). All may be strided; k and v may share storage, as in
///           MLA's absorbed form (Hk = 1, k = [c | k_pe], v = c). The last columns of keys in
///           pages may lie apart: k [S, Hk, Dqk - D'] and k_tail [S, Hk, D'], rows one after the
///           other (there k = v = c and k_tail = k_pe).
/// Types     f32 or bf16, all alike. Scores, softmax and sums are f32; for bf16, the weights are
///           rounded to bf16 before they meet v.
/// Gradient  d_q, d_k, d_v; keeps out and lse [T, H] f32. For bf16, P and dS are rounded to bf16.
///           If v is k's first columns, d_k + d_v is rounded once. While recording, documents must
///           own their key rows, one run of queries for each, and rows lie as they are numbered.
/// Order     Scores: over Dqk ascending (bf16: the odd element of a pair first). Keys in tiles of
///           64 from the document's first key: new top = max(top, tile's), weights
///           e^(score - top) with one rounding of scale * qk - top, tile total in key order, then
///           total and sums are multiplied by e^(old top - new top) and the tile is added, keys
///           ascending. No bit of a row depends on other queries, on keys that it does not see, on
///           S, on where keys lie, or on heads beside it. d_q: keys ascending, d_k and d_v: (query, head) ascending,
///           one accumulator each. Memory of keys that no query sees is not read. A zero of out is
///           +0.
/// Errors    check: shapes, types, scale > 0, keys outside k, documents that begin within a page;
///           runs that share keys, and pages, while recording; k_tail without pages.
/// Source    Dao et al. 2022, arXiv 2205.14135; Milakov & Gimelshein 2018, arXiv 1805.02867.
Tensor attention(const Tensor& q,
                 const Tensor& k,
                 const Tensor& v,
                 const Segments& segments,
                 float scale,
                 const Tensor& k_tail = {});

}  // namespace ferry::ops
