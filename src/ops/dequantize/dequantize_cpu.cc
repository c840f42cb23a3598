// A row at a time, block by block.
#include "ops/cpu/code_row.h"
#include "ops/cpu/loops.h"
#include "ops/dequantize/dequantize_kernels.h"

namespace ferry::ops::FERRY_TIER {

void dequantize(const Plan&, const DequantizeArgs& a, void*, Stream&) {
  const int64_t rows = a.codes.shape[1], columns = a.codes.shape[2];
  const int64_t scale_rows = a.scales.shape[1], scale_columns = a.scales.shape[2];
  const float* numbers = a.numbers.as<float>();
  with_type(a.y.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_rows(a.codes.shape[0] * rows, columns, [&](int64_t r) {
      const int64_t scale_row = r / rows * scale_rows + r % rows / a.block_rows;
      const float* scales = a.scales.as<float>() + scale_row * scale_columns;
      const auto* codes = a.codes.as<uint8_t>() + r * columns;
      T* y = a.y.as<T>() + r * columns;
      for (int64_t block = 0; block < scale_columns; ++block) {
        const int64_t begin = block * a.block_columns, end = begin + a.block_columns;
        const F32x16 scale = splat(scales[block]);
        for_lanes(begin, end < columns ? end : columns, [&](int64_t i, int n) {
          float looked_up[kLanes] = {};
          for (int l = 0; l < n; ++l) looked_up[l] = numbers[codes[i + l]];
          store_n(y + i, load(looked_up) * scale, n);
        });
      }
    });
  });
}

void dequantize_panels(const Plan&, const DequantizePanelsArgs& a, void*, Stream&) {
  const int64_t rows = a.y.shape[1], columns = a.y.shape[2];
  const CodePanels layout{a.codes, rows, columns};
  with_type(a.y.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_rows(a.y.shape[0] * rows, columns, [&](int64_t at) {
      const int64_t matrix = at / rows;
      numbers_of_row(layout,
                     a.panels.as<uint8_t>() + matrix * layout.bytes(),
                     a.scales.as<uint8_t>() + matrix * layout.panels() * layout.panel_scale_bytes(),
                     at % rows,
                     a.y.as<T>() + at * columns);
    });
  });
}

}  // namespace ferry::ops::FERRY_TIER
