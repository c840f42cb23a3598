// pair_linear as problems for the shared blocked product, one for each matrix.
#include "ops/cpu/gemm.h"
#include "ops/cpu/loops.h"
#include "ops/pair_linear/pair_linear_kernels.h"

namespace ferry::ops::FERRY_TIER {

Plan pair_linear_plan(const PairLinearArgs& a) {
  return {.workspace_bytes = gemm_workspace_bytes(a.panels.shape[0])};
}

void pair_linear(const Plan&, const PairLinearArgs& a, void* workspace, Stream&) {
  const int64_t matrices = a.panels.shape[0];
  const auto row_of = [](const View& v, int64_t row) {
    return v.as<char>() + row * v.stride[0] * static_cast<int64_t>(size_of(v.dtype));
  };
  Gemm* const problems = static_cast<Gemm*>(workspace);
  for (int64_t m = 0; m < matrices; ++m) {
    const bool stack = a.offsets.given();
    const int64_t begin = stack ? a.offsets.as<int32_t>()[m] : 0,
                  end = stack ? a.offsets.as<int32_t>()[m + 1] : a.x.shape[0];
    problems[m] = {.a = {row_of(a.x, begin), a.x.dtype, a.x.stride[0], 1},
                   .c = row_of(a.y, begin),
                   .c_dtype = a.y.dtype,
                   .c_stride = a.y.stride[0],
                   .m = end - begin,
                   .n = a.y.shape[1],
                   .k = a.x.shape[1],
                   .bf16 = true,
                   .panels = row_of(a.panels, m)};
  }
  gemm_batch(problems, matrices, static_cast<char*>(workspace) + gemm_problems_bytes(matrices));
}

void pair_rows(const Plan&, const PairRowsArgs& a, void*, Stream&) {
  const int64_t columns = a.y.shape[1], all = a.rows * a.panels.shape[0];
  const PairPanels layout{a.rows, columns};
  with_type(a.y.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_rows(a.y.shape[0], columns, [&](int64_t t) {
      const int64_t row = a.ids.given() ? a.ids.as<int32_t>()[t] : t;
      const bool known = 0 <= row && row < all;
      const int64_t matrix = known ? row / a.rows : 0;
      const uint32_t* pairs = a.panels.as<uint32_t>() + matrix * a.panels.stride[0] +
                              layout.first_pair(known ? row % a.rows : 0);
      T* const y = a.y.as<T>() + t * columns;
      const auto put = [&](int64_t column, uint32_t half) {
        if constexpr (sizeof(T) == sizeof(bf16_t))
          y[column] = static_cast<bf16_t>(half);
        else
          y[column] = bf16_to_f32(static_cast<bf16_t>(half));
      };
      for (int64_t c = 0; c < columns; c += 2, pairs += kPairPanelRows) {
        const uint32_t pair = known ? *pairs : 0;
        put(c, pair & 0xFFFF);
        if (c + 1 < columns) put(c + 1, pair >> 16);
      }
    });
  });
}

}  // namespace ferry::ops::FERRY_TIER
