#include "ops/mla_expand/mla_expand.h"

#include <memory>
#include <utility>

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/mla_expand/mla_expand_kernels.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(MlaExpandArgs, mla_expand_forward)
DECLARE_CUDA_KERNEL(MlaExpandBackwardArgs, mla_expand_backward)

const KernelTable<MlaExpandArgs> kForward{
    .op = "mla_expand",
    .cpu = CPU_KERNEL(MlaExpandArgs, mla_expand_forward),
    .cuda = CUDA_KERNEL(MlaExpandArgs, mla_expand_forward),
    .ascend = ASCEND_KERNEL(MlaExpandArgs, Branch::kComposed, mla_expand_forward),
};

const KernelTable<MlaExpandBackwardArgs> kBackward{
    .op = "mla_expand_backward",
    .cpu = CPU_KERNEL(MlaExpandBackwardArgs, mla_expand_backward),
    .cuda = CUDA_KERNEL(MlaExpandBackwardArgs, mla_expand_backward),
    .ascend = ASCEND_KERNEL(MlaExpandBackwardArgs, Branch::kComposed, mla_expand_backward),
};

namespace {

Expanded expanded(const Tensor& kv, const Tensor& k_pe, int64_t nope) {
  const int64_t tokens = kv.dim(0), heads = kv.dim(1);
  Expanded y{Tensor::empty({tokens, heads, nope + k_pe.dim(1)}, kv.dtype(), kv.device()),
             Tensor::empty({tokens, heads, kv.dim(2) - nope}, kv.dtype(), kv.device())};
  dispatch(kForward, MlaExpandArgs{kv.view(), k_pe.view(), y.k.view(), y.v.view()}, kv.device());
  return y;
}

/// Attention asks for the keys again, then for the values: they are made together.
void make_again(const Tape& tape, Expanded& y, const Tensor& kv, const Tensor& k_pe, int64_t nope) {
  const auto values = std::make_shared<Tensor>();
  const auto both = [kv = kv.saved(), k_pe = k_pe.saved(), nope] {
    return expanded(kv.restored(), k_pe.restored(), nope);
  };
  tape.makes_again(y.k, [both, values] {
    Expanded made = both();
    *values = std::move(made.v);
    return made.k;
  });
  tape.makes_again(y.v, [both, values] {
    Tensor made = std::exchange(*values, {});
    return made.defined() ? made : both().v;
  });
}

}  // namespace

Expanded mla_expand(const Tensor& kv, const Tensor& k_pe, int64_t nope) {
  check(kv.rank() == 3 && k_pe.rank() == 2 && kv.dim(0) == k_pe.dim(0) && nope >= 0 &&
            nope < kv.dim(2),
        "mla_expand: kv {}, k_pe {}, nope {}",
        kv.shape().str(),
        k_pe.shape().str(),
        nope);
  check((kv.dtype() == DType::kF32 || kv.dtype() == DType::kBF16) && k_pe.dtype() == kv.dtype(),
        "mla_expand: kv {}, k_pe {}",
        to_string(kv.dtype()),
        to_string(k_pe.dtype()));
  Expanded y = expanded(kv, k_pe, nope);
  if (Tape* tape = Tape::current()) {
    make_again(*tape, y, kv, k_pe, nope);
    tape->record("mla_expand",
                 {kv, k_pe},
                 {y.k, y.v},
                 [kv = kv.without_memory(),
                  k_pe = k_pe.without_memory(),
                  k = y.k.without_memory(),
                  v = y.v.without_memory()](Grads& grads) {
                   Tensor d_kv = Tensor::empty(kv.shape(), kv.dtype(), kv.device());
                   Tensor d_k_pe = Tensor::empty(k_pe.shape(), k_pe.dtype(), k_pe.device());
                   dispatch(kBackward,
                            MlaExpandBackwardArgs{
                                grads.of(k).view(), grads.of(v).view(), d_kv.view(), d_k_pe.view()},
                            kv.device());
                   grads.add(kv, d_kv);
                   grads.add(k_pe, d_k_pe);
                 });
  }
  return y;
}

}  // namespace ferry::ops
