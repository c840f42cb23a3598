#include "ops/rope/rope.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/rope/rope_kernels.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(RopeArgs, rope)

const KernelTable<RopeArgs> kRope{
    .op = "rope",
    .cpu = CPU_KERNEL(RopeArgs, rope),
    .cuda = CUDA_KERNEL(RopeArgs, rope),
    .ascend = ASCEND_KERNEL(RopeArgs, Branch::kFused, rope),
};

namespace {

/// [T, D] as one head.
View with_heads(View v) {
  if (v.rank == 3) return v;
  v.rank = 3;
  v.shape[2] = v.shape[1];
  v.stride[2] = v.stride[1];
  v.shape[1] = 1;
  v.stride[1] = 0;
  return v;
}

Tensor rotate(const Tensor& x,
              const RopeTable& table,
              const Tensor& position,
              int64_t begin,
              bool interleaved,
              bool inverse) {
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  dispatch(kRope,
           RopeArgs{with_heads(x.view()),
                    table.cos.view(),
                    table.sin.view(),
                    position.view(),
                    with_heads(y.view()),
                    begin,
                    interleaved,
                    inverse},
           x.device());
  return y;
}

}  // namespace

Tensor rope(const Tensor& x,
            const RopeTable& table,
            const Segments& segments,
            int64_t begin,
            bool interleaved) {
  check((x.rank() == 2 || x.rank() == 3) && segments.tokens() == x.dim(0),
        "rope: x {}, {} tokens in segments",
        x.shape().str(),
        segments.tokens());
  check(
      x.dtype() == DType::kF32 || x.dtype() == DType::kBF16, "rope: x is {}", to_string(x.dtype()));
  check(begin >= 0 && begin + 2 * table.cos.dim(1) <= x.dim(-1),
        "rope: columns [{}, {}) of {}",
        begin,
        begin + 2 * table.cos.dim(1),
        x.shape().str());
  check(segments.host->longest <= table.cos.dim(0),
        "rope: a token at position {}, the table has {}",
        segments.host->longest - 1,
        table.cos.dim(0));
  const Tensor& position = segments.position;
  Tensor y = rotate(x, table, position, begin, interleaved, false);
  if (Tape* tape = Tape::current()) {
    tape->makes_again(y, [x = x.saved(), table, position, begin, interleaved] {
      return rotate(x.restored(), table, position, begin, interleaved, false);
    });
    tape->record(
        "rope",
        {x},
        {y},
        [x = x.without_memory(), y = y.without_memory(), table, position, begin, interleaved](
            Grads& grads) {
          grads.add(x, rotate(grads.of(y), table, position, begin, interleaved, true));
        });
  }
  return y;
}

}  // namespace ferry::ops
