// A row at a time, block by block.
#include "ops/cpu/loops.h"
#include "ops/dequantize/dequantize_kernels.h"
#include "tensor/code_panels.h"

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
  const CodePanels layout{a.panels.dtype == DType::kI8 ? 8 : 4, rows, columns};
  const int64_t group = layout.bits == 8 ? columns : kCodeGroup;
  with_type(a.scales.dtype, [&](auto scale_type) {
    using S = decltype(scale_type);
    with_type(a.y.dtype, [&](auto type) {
      using T = decltype(type);
      parallel_rows(a.y.shape[0] * rows, columns, [&](int64_t at) {
        const int64_t matrix = at / rows, row = at % rows;
        const uint8_t* const panels = a.panels.as<uint8_t>() + matrix * layout.bytes();
        const S* const scales = a.scales.as<S>() + (matrix * layout.panels() + row / kPanelRows) *
                                                       layout.groups() * kPanelRows;
        T* const y = a.y.as<T>() + at * columns;
        for (int64_t g = 0; g < layout.groups(); ++g) {
          float of_row[kLanes];
          store(of_row, load_n(scales + g * kPanelRows + row % kPanelRows, 1));
          const F32x16 scale = splat(of_row[0]);
          const int64_t end = (g + 1) * group < columns ? (g + 1) * group : columns;
          for_lanes(g * group, end, [&](int64_t c, int n) {
            float codes[kLanes] = {};
            for (int i = 0; i < n; ++i)
              codes[i] = static_cast<float>(layout.code_at(panels, row, c + i));
            store_n(y + c, load(codes) * scale, n);
          });
        }
      });
    });
  });
}

}  // namespace ferry::ops::FERRY_TIER
