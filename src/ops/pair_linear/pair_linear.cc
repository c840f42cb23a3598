#include "ops/pair_linear/pair_linear.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/dispatch.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/pair_linear/pair_linear_kernels.h"

namespace ferry::ops {

const KernelTable<PairLinearArgs> kPairLinear{
    .op = "pair_linear",
    .cpu = CPU_KERNEL(PairLinearArgs, pair_linear, CPU_FUNCTION(pair_linear_plan)),
    .cuda = Kernel<PairLinearArgs>::missing("panels are the layout of the CPU's kernel"),
    .ascend = Kernel<PairLinearArgs>::missing("panels are the layout of the CPU's kernel"),
};

const KernelTable<PairRowsArgs> kPairRows{
    .op = "pair_rows",
    .cpu = CPU_KERNEL(PairRowsArgs, pair_rows),
    .cuda = Kernel<PairRowsArgs>::missing("panels are the layout of the CPU's kernel"),
    .ascend = Kernel<PairRowsArgs>::missing("panels are the layout of the CPU's kernel"),
};

namespace {

bool is_float(DType t) { return t == DType::kF32 || t == DType::kBF16; }

void check_use(const char* op, const Weight& w) {
  w.check_stored();
  check(w.paired, "{}: {} is not stored as pairs", op, w.name);
}

void check_not_trained(const char* op, const Weight& w) {
  check(Tape::current() == nullptr,
        "{}: {} is stored as pairs, for models that only answer: it cannot be trained",
        op,
        w.name);
}

Tensor rows(const Tensor& ids, const Weight& w, int64_t count, DType out) {
  check(is_float(out), "pair_rows: y {}", to_string(out));
  const PairPanels layout = w.pair_panels();
  Tensor y = Tensor::empty({count, layout.columns}, out, w.value.device());
  dispatch(
      kPairRows, PairRowsArgs{ids.view(), w.value.view(), y.view(), layout.rows}, w.value.device());
  return y;
}

}  // namespace

bool pairs_wanted(const Device& device, DType compute) {
  const Kernel<PackPanelsArgs>& pack = kPackPanels.on(device.kind());
  return pack.present() && pack.traits.wants(1, compute);
}

Tensor pair_linear(const Tensor& x, const Weight& w, const Tensor& offsets, DType out) {
  check_use("pair_linear", w);
  check_not_trained("pair_linear", w);
  const PairPanels layout = w.pair_panels();
  const bool stack = w.global_shape.rank() == 3;
  check(x.rank() == 2 && x.dim(1) == layout.columns && x.stride(1) == 1,
        "pair_linear: x {}, {} {}",
        x.shape().str(),
        w.name,
        w.global_shape.str());
  check(x.dtype() == DType::kBF16 && is_float(out),
        "pair_linear: x {}, y {}",
        to_string(x.dtype()),
        to_string(out));
  check(stack == offsets.defined() &&
            (!stack || (offsets.shape() == Shape{w.global_shape[0] + 1} &&
                        offsets.dtype() == DType::kI32 && offsets.contiguous())),
        "pair_linear: offsets {} for {} {}",
        offsets.defined() ? offsets.shape().str() : "none",
        w.name,
        w.global_shape.str());
  Tensor y = Tensor::empty({x.dim(0), layout.rows}, out, x.device());
  dispatch(
      kPairLinear, PairLinearArgs{x.view(), w.value.view(), offsets.view(), y.view()}, x.device());
  return y;
}

Tensor pair_rows(const Tensor& ids, const Weight& w, DType out) {
  check_use("pair_rows", w);
  check_not_trained("pair_rows", w);
  check(ids.rank() == 1 && ids.dtype() == DType::kI32 && w.global_shape.rank() == 2,
        "pair_rows: ids {} {}, {} {}",
        to_string(ids.dtype()),
        ids.shape().str(),
        w.name,
        w.global_shape.str());
  return rows(ids, w, ids.dim(0), out);
}

Tensor pair_values(const Weight& w, DType out) {
  check_use("pair_values", w);
  return rows({}, w, w.matrices() * w.pair_panels().rows, out).reshape(w.global_shape);
}

}  // namespace ferry::ops
