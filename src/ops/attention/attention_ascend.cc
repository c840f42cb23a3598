// Which branch attention takes on Ascend.
#include "ops/attention/attention_ascend.h"

namespace ferry::ops::ascend {
namespace {

/// v is k's first columns, as in MLA's absorbed form.
bool absorbed(const View& k, const View& v) {
  return k.data == v.data && k.stride[0] == v.stride[0] && k.stride[1] == v.stride[1];
}

/// Whole documents one after the other, keys being the tokens themselves, and no more documents
/// than the fused op takes.
bool packed(const View& k, const HostSegments& s) {
  constexpr int64_t kDocumentsMax = 2048;
  if (!s.pages.empty()) return false;
  const auto tokens = static_cast<int64_t>(s.position.size());
  int64_t documents = 0;
  for (size_t t = 0; t < s.position.size(); ++t) {
    const bool first = s.position[t] == 0;
    if (s.key_begin[t] + s.position[t] != static_cast<int64_t>(t) ||
        !(first || s.key_begin[t] == s.key_begin[t - 1]))
      return false;
    documents += first;
  }
  return k.shape[0] == tokens && documents <= kDocumentsMax;
}

bool power_of_two(int64_t n) { return (n & (n - 1)) == 0; }

}  // namespace

// The fused ops are taken for bf16 alone: that the matrix unit does not cut the mantissa of f32
// inside them is not documented.
AscendAttention ascend_attention(const View& q,
                                 const View& k,
                                 const View& v,
                                 const HostSegments& segments) {
  const int64_t heads = q.shape[1], d_qk = q.shape[2], d_v = v.shape[2];
  if (q.dtype != DType::kBF16) return AscendAttention::kComposed;
  if (absorbed(k, v))
    return d_qk == 576 && d_v == 512 && k.shape[1] == 1 && power_of_two(heads) && heads <= 128
               ? AscendAttention::kFusedAbsorbed
               : AscendAttention::kComposed;
  return d_qk % 16 == 0 && d_v % 16 == 0 && d_v <= d_qk && d_qk <= 768 && heads <= 256 &&
                 packed(k, segments)
             ? AscendAttention::kFusedPacked
             : AscendAttention::kComposed;
}

void attention_forward(const Plan& plan, const AttentionArgs& a, void*, Stream& stream) {
  if (a.q.shape[0] == 0) return;
  const HostSegments& segments = *plan.segments;
  switch (ascend_attention(a.q, a.k, a.v, segments)) {
    case AscendAttention::kFusedPacked: return attention_fused_packed(a, segments, stream);
    case AscendAttention::kFusedAbsorbed: return attention_fused_absorbed(a, segments, stream);
    case AscendAttention::kComposed: return attention_composed(a, segments, stream);
  }
}

void attention_backward(const Plan& plan, const AttentionBackwardArgs& a, void*, Stream& stream) {
  const HostSegments& segments = *plan.segments;
  if (a.q.shape[0] > 0 &&
      ascend_attention(a.q, a.k, a.v, segments) == AscendAttention::kFusedPacked)
    return attention_fused_packed_backward(a, segments, stream);
  attention_composed_backward(a, segments, stream);
}

}  // namespace ferry::ops::ascend
