// Strided copies; only d_k_pe needs arithmetic, a sum over heads in float32.
#include "ops/ascend/scratch.h"
#include "ops/mla_expand/mla_expand_kernels.h"

namespace ferry::ops::ascend {
namespace {

void copy(Stream& stream, const Operand& to, const Operand& from) {
  if (to.count() > 0) aclnn::InplaceCopy(stream, to, from);
}

}  // namespace

void mla_expand_forward(const Plan&, const MlaExpandArgs& a, void*, Stream& stream) {
  const Operand kv(a.kv), k_pe(a.k_pe), k(a.k), v(a.v);
  const int64_t nope = k.dim(2) - k_pe.dim(1);
  copy(stream, k.slice(2, 0, nope), kv.slice(2, 0, nope));
  copy(stream, k.slice(2, nope, k.dim(2)), k_pe.unsqueeze(1).expand(1, k.dim(1)));
  copy(stream, v, kv.slice(2, nope, kv.dim(2)));
}

void mla_expand_backward(const Plan&, const MlaExpandBackwardArgs& a, void*, Stream& stream) {
  const Operand d_k(a.d_k), d_v(a.d_v), d_kv(a.d_kv), d_k_pe(a.d_k_pe);
  const int64_t nope = d_k.dim(2) - d_k_pe.dim(1);
  copy(stream, d_kv.slice(2, 0, nope), d_k.slice(2, 0, nope));
  copy(stream, d_kv.slice(2, nope, d_kv.dim(2)), d_v);
  if (d_k_pe.count() == 0) return;
  Scratch scratch(stream);
  const Operand rotated = scratch.cast(d_k.slice(2, nope, d_k.dim(2)), acl::kFloat);
  const Operand sum = scratch.like(d_k_pe, acl::kFloat);
  aclnn::ReduceSum(stream, rotated, IntArray{1}, false, acl::kFloat, sum);
  aclnn::InplaceCopy(stream, d_k_pe, sum);
}

}  // namespace ferry::ops::ascend
