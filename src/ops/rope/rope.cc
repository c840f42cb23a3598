#include "ops/rope/rope.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/dispatch.h"
#include "ops/rope/rope_kernels.h"

namespace ferry::ops {

constexpr KernelTable<RopeArgs> kRope{
    .op = "rope",
    .cpu = CPU_KERNEL(RopeArgs, rope),
    .cuda = Kernel<RopeArgs>::missing(kNoCudaYet),
    .ascend = Kernel<RopeArgs>::missing(kNoAscendYet),
};

Tensor rope(const Tensor& x, const RopeTable& table, const Tensor& position, int64_t begin, bool interleaved) {
  check(x.rank() == 2 || x.rank() == 3, "rope: x {}", x.shape().str());
  check(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16, "rope: x is {}", to_string(x.dtype()));
  check(position.dtype() == DType::kI32 && position.shape() == Shape({x.dim(0)}), "rope: x {}, position {} {}",
        x.shape().str(), to_string(position.dtype()), position.shape().str());
  const int64_t dim = 2 * table.cosine.dim(1);
  check(begin >= 0 && begin + dim <= x.dim(-1), "rope: columns [{}, {}) of {}", begin, begin + dim, x.shape().str());
  const auto rotated = [=](const Tensor& in, bool inverse) {
    Tensor out = Tensor::empty(in.shape(), in.dtype(), in.device());
    dispatch(kRope, RopeArgs{in.view(), table.cosine.view(), table.sine.view(), position.view(), out.view(), begin,
                             interleaved, inverse}, in.device());
    return out;
  };
  Tensor y = rotated(x, false);
  if (Tape* tape = Tape::current())
    tape->record("rope", {x}, {y}, [=](Grads& grads) { grads.add(x, rotated(grads.of(y), true)); });
  return y;
}

std::vector<KernelRow> rope_kernels() { return {kernel_row(kRope)}; }

}  // namespace ferry::ops
