// What the kernel of matmul takes. Everything that is one product, or the same product for each of
// a batch (heads), goes through it: linear, head_linear and their gradients.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

/// c = op(a) op(b), where op transposes the last two dimensions if asked to.
struct MatmulArgs {
  struct Traits {
    /// Whether the device's products in `compute` are faster from a weight that was rounded to it
    /// before (rounded_weight.h). Null: never.
    bool (*takes_rounded)(const Device& device, DType compute) = nullptr;
  };
  View a;  // [m, k], or [k, m] if transpose_a; f32 or bf16; rows may be strided
  View b;  // [k, n], or [n, k] if transpose_b; f32 or bf16, rounded to the compute type
  View c;  // [m, n] f32 or bf16; rows may be strided
  // All of rank 2, or all of rank 3 with the batch first (any stride).
  bool transpose_a = false;
  bool transpose_b = false;
  DType compute = DType::kF32;  // f32 or bf16: the type of the products
  View panels = {};             // b again, as packed_weight.h keeps it; given where that helps
  template <class V>
  void visit(V&& v) const {
    v.in("a", a);
    v.in("b", b);
    v.repeat("panels", panels);
    v.out("c", c);
    v.number("transpose_a", transpose_a ? 1 : 0);
    v.number("transpose_b", transpose_b ? 1 : 0);
    v.number("bf16", compute == DType::kBF16 ? 1 : 0);
  }
};

struct PackPanelsArgs {
  /// Of devices that pack.
  struct Traits {
    /// Whether panels are worth making for products of `rows` rows in `compute`, and whether such
    /// products are faster from panels that are there.
    bool (*wants)(int64_t rows, DType compute) = nullptr;
    bool (*takes)(int64_t rows, DType compute) = nullptr;
    int64_t (*count)(int64_t n, int64_t k) = nullptr;  // i32 elements of the panels of [n, k]
  };
  View weight;  // [n, k] or [experts, n, k], f32 or bf16
  View panels;  // i32 [experts, Traits::count(n, k)]
  template <class V>
  void visit(V&& v) const {
    v.in("weight", weight);
    v.out("panels", panels);
  }
};

DECLARE_CPU_KERNEL(MatmulArgs, matmul)
DECLARE_CPU_PLAN(MatmulArgs, matmul_plan)
extern const KernelTable<MatmulArgs> kMatmul;
/// Launched by packed_panels(), where products take panels.
extern const KernelTable<PackPanelsArgs> kPackPanels;

DECLARE_CPU_KERNEL(PackPanelsArgs, pack_panels)
DECLARE_CPU_FUNCTION(bool, panels_wanted, int64_t rows, DType compute)
DECLARE_CPU_FUNCTION(bool, panels_taken, int64_t rows, DType compute)
DECLARE_CPU_FUNCTION(int64_t, panels_count, int64_t n, int64_t k)
DECLARE_ASCEND_KERNEL(MatmulArgs, matmul)

/// The raw dispatch, for ops that have checked their shapes.
void dispatch_matmul(const MatmulArgs& args, Device& device);

}  // namespace ferry::ops
