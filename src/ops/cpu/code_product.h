// Products with weights that are whole numbers (tensor/code_panels.h), which every *_cpu.cc shares:
// y[t, n] = Σ_k x[t, k] W[n, k], where x is first rounded to int8.
//
// The definition (docs/numerics.md), whatever the tier, threads, blocking and the rows beside a
// row. Columns in groups of kCodeGroup; of each group of a token:
//   scale = max |x[k]| / 127; code[k] = x[k] * (1 / scale) to the nearest whole number, halves to
//   even. Each operation in f32. A group whose scale is no normal number has codes 0 and scale 0;
//   one with a number that is not finite has codes 0 and scale NaN.
// With s = +0, then for each group, ascending, p = float(Σ code[k] w[k]), a sum that is exact:
//   int8             s = fma(p, scale, s); at the end y = s * the row's scale.
//   all other kinds  s = fma(p * scale, the weight's scale of this group, s); y = s.
//                    Where a weight's groups have 16 columns (Q6_K), so for each half of 32.
//   with a least     then s = fma(float(Σ code[k]) * scale, the weight's least value, s).
// y is rounded once more to its type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/code_panels.h"
#include "tensor/dtype.h"

namespace ferry::ops {

struct CodeProduct {
  const void* x = nullptr;  // row t at x[t * x_stride]; f32 or bf16
  DType x_dtype = DType::kF32;
  int64_t x_stride = 0;
  void* y = nullptr;  // row t at y[t * y_stride]; f32 or bf16
  DType y_dtype = DType::kF32;
  int64_t y_stride = 0;
  int64_t rows = 0;
  CodePanels layout;                // of one matrix
  const uint8_t* panels = nullptr;  // of the first matrix; the others follow
  const void* scales = nullptr;     // as code_scales_shape() has them
  int64_t matrices = 1;
  const int32_t* offsets = nullptr;  // [matrices + 1]: the rows of each; null: one has all
};

#if defined(FERRY_TIER)
namespace FERRY_TIER {

/// What code_product needs, 64-byte aligned.
size_t code_product_bytes(const CodePanels& layout, int64_t rows, int64_t matrices);

/// Rows from offsets[matrices] on are left as they are. Uses the thread pool.
void code_product(const CodeProduct& product, void* workspace);

}  // namespace FERRY_TIER
#endif

}  // namespace ferry::ops
