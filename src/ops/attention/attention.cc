#include "ops/attention/attention.h"

#include <algorithm>

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/attention/attention_blocks.h"
#include "ops/attention/attention_kernels.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(AttentionArgs, attention_forward)
DECLARE_CUDA_KERNEL(AttentionBackwardArgs, attention_backward)
DECLARE_CUDA_PLAN(AttentionBackwardArgs, attention_backward_plan)

const KernelTable<AttentionArgs> kForward{
    .op = "attention",
    .cpu = CPU_KERNEL(AttentionArgs, attention_forward, plan_attention_forward),
    .cuda = CUDA_KERNEL(AttentionArgs, attention_forward),
    .ascend = ASCEND_KERNEL(AttentionArgs, Branch::kEither, attention_forward),
};

const KernelTable<AttentionBackwardArgs> kBackward{
    .op = "attention_backward",
    .cpu = CPU_KERNEL(AttentionBackwardArgs, attention_backward, plan_attention_backward),
    .cuda = CUDA_KERNEL(AttentionBackwardArgs, attention_backward, attention_backward_plan),
    .ascend = ASCEND_KERNEL(AttentionBackwardArgs, Branch::kEither, attention_backward),
};

namespace {

void check_arguments(const Tensor& q,
                     const Tensor& k,
                     const Tensor& v,
                     const Segments& segments,
                     float scale,
                     const Tensor& k_tail) {
  check(q.rank() == 3 && k.rank() == 3 && v.rank() == 3,
        "attention: q {}, k {}, v {}",
        q.shape().str(),
        k.shape().str(),
        v.shape().str());
  const int64_t tail = k_tail.defined() ? k_tail.dim(-1) : 0;
  check(k.dim(2) + tail == q.dim(2) && k.dim(0) == v.dim(0) && k.dim(1) == v.dim(1),
        "attention: q {}, k {}, v {}",
        q.shape().str(),
        k.shape().str(),
        v.shape().str());
  check(k.dim(1) > 0 && q.dim(1) > 0 && q.dim(1) % k.dim(1) == 0 && q.dim(2) > 0 && v.dim(2) > 0,
        "attention: {} heads, {} of keys, sizes {} and {}",
        q.dim(1),
        k.dim(1),
        q.dim(2),
        v.dim(2));
  check((q.dtype() == DType::kF32 || q.dtype() == DType::kBF16) && k.dtype() == q.dtype() &&
            v.dtype() == q.dtype(),
        "attention: q {}, k {}, v {}",
        to_string(q.dtype()),
        to_string(k.dtype()),
        to_string(v.dtype()));
  check(!k_tail.defined() ||
            (k.contiguous() && k_tail.contiguous() && k_tail.dtype() == k.dtype() &&
             k_tail.shape() == Shape({k.dim(0), k.dim(1), tail}) && segments.pages.defined()),
        "attention: k {}, its last columns {}{}",
        k.shape().str(),
        k_tail.defined() ? k_tail.shape().str() : "",
        segments.pages.defined() ? "" : ", not in pages");
  check(scale > 0, "attention: scale {}", scale);
  check(segments.tokens() == q.dim(0),
        "attention: {} tokens in segments, q {}",
        segments.tokens(),
        q.shape().str());
  const HostSegments& host = *segments.host;
  const bool paged = !host.pages.empty();
  const int64_t rows = paged ? std::ssize(host.pages) * kPageRows : k.dim(0);
  for (size_t t = 0; t < host.position.size(); ++t) {
    const int32_t position = host.position[t], begin = host.key_begin[t];
    check(position >= 0 && position < kPositionMax && begin >= 0 &&
              (!paged || begin % kPageRows == 0) && int64_t{begin} + position < rows,
          "attention: token {} at position {} with keys from row {}, of {}",
          t,
          position,
          begin,
          rows);
  }
  for (const int32_t page : host.pages)
    check(page < k.dim(0) / kPageRows, "attention: page {} of {} rows", page, k.dim(0));
}

/// The gradient gives each document's keys to one task, so no two runs of queries may share a key.
void check_documents(const Segments& s) {
  check(s.host->pages.empty(), "attention: the gradient of keys in pages is not defined");
  std::vector<QueryRun> runs = find_runs(*s.host);
  std::sort(runs.begin(), runs.end(), [](const QueryRun& a, const QueryRun& b) {
    return a.key_begin < b.key_begin;
  });
  for (size_t i = 1; i < runs.size(); ++i)
    check(runs[i - 1].key_begin + runs[i - 1].keys <= runs[i].key_begin,
          "attention: tokens {} and {} begin documents that share keys; their gradient is not "
          "defined",
          runs[i - 1].begin,
          runs[i].begin);
}

/// v is the first columns of k: the absorbed form, whose two gradients become one.
bool begins_with(const Tensor& k, const Tensor& v) {
  return k.storage() == v.storage() && k.offset() == v.offset() && k.stride(0) == v.stride(0) &&
         k.stride(1) == v.stride(1) && v.dim(2) <= k.dim(2);
}

}  // namespace

Tensor attention(const Tensor& q,
                 const Tensor& k,
                 const Tensor& v,
                 const Segments& segments,
                 float scale,
                 const Tensor& k_tail) {
  check_arguments(q, k, v, segments, scale, k_tail);
  Tensor out = Tensor::empty({q.dim(0), q.dim(1), v.dim(2)}, q.dtype(), q.device());
  Tensor lse = Tensor::empty({q.dim(0), q.dim(1)}, DType::kF32, q.device());
  const int64_t longest = segments.host->longest;
  dispatch(kForward,
           AttentionArgs{q.view(),
                         k.view(),
                         k_tail.view(),
                         v.view(),
                         segments.position.view(),
                         segments.key_begin.view(),
                         segments.pages.view(),
                         out.view(),
                         lse.view(),
                         scale,
                         longest},
           q.device(),
           segments.host);
  Tape* const tape = Tape::current();
  if (tape == nullptr || !(q.needs_grad() || k.needs_grad() || v.needs_grad())) return out;
  check_documents(segments);
  const auto backward =
      [q = q.saved(), k = k.saved(), v = v.saved(), segments, out, lse, scale, longest](
          Grads& grads) {
        const Tensor queries = q.restored(), keys = k.restored(), values = v.restored();
        Tensor d_q = Tensor::empty(q.shape(), q.dtype(), q.device());
        Tensor d_k = Tensor::empty(k.shape(), k.dtype(), k.device());
        Tensor d_v;
        if (!begins_with(k, v)) d_v = Tensor::empty(v.shape(), v.dtype(), v.device());
        dispatch(kBackward,
                 AttentionBackwardArgs{queries.view(),
                                       keys.view(),
                                       values.view(),
                                       segments.position.view(),
                                       segments.key_begin.view(),
                                       out.view(),
                                       lse.view(),
                                       grads.of(out).view(),
                                       d_q.view(),
                                       d_k.view(),
                                       d_v.view(),
                                       scale,
                                       longest},
                 q.device(),
                 segments.host);
        grads.add(q, d_q);
        grads.add(k, d_k);
        if (d_v.defined()) grads.add(v, d_v);
      };
  tape->record("attention", {q, k, v}, {out}, backward);
  return out;
}

}  // namespace ferry::ops
