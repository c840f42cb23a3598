#include "ops/matmul/packed_weight.h"

#include "autograd/tape.h"
#include "ops/cpu/gemm.h"
#include "ops/dispatch.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_kernels.h"

namespace ferry::ops {
namespace {

constexpr int kPanelLayout = 1;

const KernelTable<PackPanelsArgs> kPackPanels{
    .op = "pack_panels",
    .cpu = CPU_KERNEL(PackPanelsArgs, pack_panels),
    .cuda = Kernel<PackPanelsArgs>::missing("panels are the layout of the CPU's kernel"),
    .ascend = Kernel<PackPanelsArgs>::missing("panels are the layout of the CPU's kernel"),
};

}  // namespace

View packed_panels(const Weight& weight, int64_t rows, DType compute) {
  const Tensor& w = weight.value;
  if (w.device().kind() != DeviceKind::kCpu || Tape::current() != nullptr ||
      !gemm_takes_panels(rows, compute == DType::kBF16))
    return {};
  const bool fresh = weight.packed != nullptr && weight.packed->layout == kPanelLayout &&
                     weight.packed->version == weight.version &&
                     weight.packed->of == w.storage().get();
  if (!fresh) {
    const int64_t experts = w.rank() == 3 ? w.dim(0) : 1;
    Tensor panels =
        Tensor::empty({experts, gemm_panels_count(w.dim(-2), w.dim(-1))}, DType::kI32, w.device());
    dispatch(kPackPanels, {w.view(), panels.view()}, w.device());
    weight.packed = std::make_shared<PackedWeight>(
        PackedWeight{weight.version, kPanelLayout, w.storage().get(), std::move(panels)});
  }
  return weight.packed->panels.view();
}

}  // namespace ferry::ops
