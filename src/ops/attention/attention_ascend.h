// The branches of attention on Ascend and what decides between them. Internal to this folder.
#pragma once

#include <algorithm>
#include <vector>

#include "ops/attention/attention_blocks.h"
#include "ops/attention/attention_kernels.h"

namespace ferry::ops::ascend {

/// The choice must not depend on who shares the batch. The absorbed form, which all that generates
/// or scores uses, is decided by shapes and types alone. The expanded form is for training, where
/// documents are packed: there, whether they are counts too.
enum class AscendAttention {
  kFusedPacked,    // FlashAttentionVarLenScore, FlashAttentionUnpaddingScoreGrad
  kFusedAbsorbed,  // FusedInferAttentionScoreV3; its gradient is composed
  kComposed,       // products and exponentials, over tiles of keys
};

/// Calls f(at, from, n) for key rows [begin, begin + rows): n of them, from the at-th on, lie
/// together in k and v, at row `from`.
template <typename F>
void for_stretches(const HostSegments& s, int64_t begin, int64_t rows, F&& f) {
  for (int64_t at = 0, n = 0; at < rows; at += n) {
    const int64_t row = begin + at;
    n = s.pages.empty() ? rows : std::min(kPageRows - row % kPageRows, rows - at);
    f(at, s.lies_at(row), n);
  }
}

AscendAttention ascend_attention(const View& q,
                                 const View& k,
                                 const View& v,
                                 const HostSegments& segments);

void attention_fused_packed(const AttentionArgs& a, const HostSegments& segments, Stream& stream);
void attention_fused_packed_backward(const AttentionBackwardArgs& a,
                                     const HostSegments& segments,
                                     Stream& stream);
void attention_fused_absorbed(const AttentionArgs& a, const HostSegments& segments, Stream& stream);
void attention_composed(const AttentionArgs& a, const HostSegments& segments, Stream& stream);
void attention_composed_backward(const AttentionBackwardArgs& a,
                                 const HostSegments& segments,
                                 Stream& stream);

}  // namespace ferry::ops::ascend
