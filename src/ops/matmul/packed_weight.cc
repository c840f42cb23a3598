#include "ops/matmul/packed_weight.h"

#include "autograd/tape.h"
#include "ops/dispatch.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_kernels.h"

namespace ferry::ops {
namespace {

constexpr int kPanelLayout = 1;

}  // namespace

const KernelTable<PackPanelsArgs> kPackPanels{
    .op = "pack_panels",
    .cpu = CPU_KERNEL(PackPanelsArgs, pack_panels)
               .with({.wants = CPU_FUNCTION(panels_wanted),
                      .takes = CPU_FUNCTION(panels_taken),
                      .count = CPU_FUNCTION(panels_count)}),
    .cuda = Kernel<PackPanelsArgs>::missing("panels are the layout of the CPU's kernel"),
    .ascend = Kernel<PackPanelsArgs>::missing("panels are the layout of the CPU's kernel"),
};

View packed_panels(const Weight& weight, int64_t rows, DType compute) {
  const Tensor& w = weight.value;
  const Kernel<PackPanelsArgs>& pack = kPackPanels.on(w.device().kind());
  if (!pack.present() || Tape::current() != nullptr || weight.scaled() || weight.paired) return {};
  const bool fresh = weight.packed != nullptr && weight.packed->layout == kPanelLayout &&
                     weight.packed->version == weight.version &&
                     weight.packed->of == w.storage().get();
  if (fresh ? !pack.traits.takes(rows, compute) : !pack.traits.wants(rows, compute)) return {};
  if (!fresh) {
    const int64_t experts = w.rank() == 3 ? w.dim(0) : 1;
    Tensor panels =
        Tensor::empty({experts, pack.traits.count(w.dim(-2), w.dim(-1))}, DType::kI32, w.device());
    dispatch(kPackPanels, {w.view(), panels.view()}, w.device());
    weight.packed = std::make_shared<PackedWeight>(
        PackedWeight{weight.version, kPanelLayout, w.storage().get(), std::move(panels)});
  }
  return weight.packed->panels.view();
}

}  // namespace ferry::ops
