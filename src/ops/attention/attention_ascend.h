// The branches of attention on Ascend and what decides between them. Internal to this folder.
#pragma once

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
