#include "tensor/quantise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "device/cpu/cpu_device.h"
#include "tensor/bf16.h"

namespace ferry {
namespace {

/// To the nearest whole number, halves to even, for |x| < 2^22: in additions, which any compiler
/// makes vector instructions of.
inline float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

float largest_size(const float* x, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(x[i]));
  return largest;
}

void round_to(const float* x, int64_t n, float scale, float least, float most, int8_t* codes) {
  const float inverse = 1 / scale;
  for (int64_t i = 0; i < n; ++i)
    codes[i] = static_cast<int8_t>(nearest(std::clamp(x[i] * inverse, least, most)));
}

float error_of(const float* x, int64_t n, float scale) {
  const float inverse = 1 / scale;
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float code = nearest(std::min(std::max(x[i] * inverse, -8.0f), 7.0f));
    const float e = x[i] - code * scale;
    sum += e * e;
  }
  return sum;
}

/// A group's scale in int4.
float best_scale(const float* x, int64_t n) {
  constexpr int kScales = 14;
  const float largest = largest_size(x, n);
  float best = 1, least = std::numeric_limits<float>::infinity();
  for (int i = 0; i < kScales; ++i) {
    const float parts = 8.5f - 0.25f * static_cast<float>(i);
    const float scale = bf16_to_f32(f32_to_bf16(largest / parts));
    if (!(scale > 0x1p-120f)) return 1;  // zeros, or nearly so
    const float error = error_of(x, n, scale);
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

/// f(row) for each, blocks of rows in parallel.
template <typename F>
void in_blocks(int64_t rows, int64_t columns, const F& f) {
  const int64_t block = std::max<int64_t>(1, (int64_t{1} << 16) / std::max<int64_t>(columns, 1));
  cpu_pool().parallel_for((rows + block - 1) / block, [&](int64_t task, int) {
    for (int64_t row = task * block; row < std::min(rows, (task + 1) * block); ++row) f(row);
  });
}

Tensor in_cpu_memory(const Shape& shape, DType dtype) {
  return Tensor::empty(shape, dtype, cpu_device());
}

}  // namespace

CodeRows quantise_rows(WeightCodes kind, std::span<const float> rows, int64_t columns) {
  check(kind == WeightCodes::kInt8 || kind == WeightCodes::kInt4,
        "quantise: numbers are not rounded to {}",
        to_string(kind));
  const CodePanels layout{kind, static_cast<int64_t>(rows.size()) / columns, columns};
  const int64_t groups = layout.groups(), width = layout.group();
  CodeRows out{std::vector<int8_t>(rows.size()),
               std::vector<float>(static_cast<size_t>(layout.rows * groups))};
  cpu_pool().parallel_for(layout.panels(), [&](int64_t panel, int) {
    const int64_t end = std::min(layout.rows, (panel + 1) * kPanelRows);
    for (int64_t row = panel * kPanelRows; row < end; ++row)
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t at = row * columns + g * width, n = std::min(width, columns - g * width);
        const float* const x = rows.data() + at;
        float& scale = out.scales[static_cast<size_t>(row * groups + g)];
        int8_t* const codes = out.codes.data() + at;
        if (kind == WeightCodes::kInt8) {
          scale = largest_size(x, n) / 127;
          if (!(scale > 0x1p-120f)) scale = 1;
          round_to(x, n, scale, -127, 127, codes);
        } else {
          scale = best_scale(x, n);
          round_to(x, n, scale, -8, 7, codes);
        }
      }
  });
  return out;
}

std::vector<uint8_t> pack_int4(std::span<const int8_t> codes, int64_t columns) {
  const int64_t pairs = columns / 2, width = (columns + 1) / 2;
  const int64_t rows = static_cast<int64_t>(codes.size()) / columns;
  std::vector<uint8_t> bytes(static_cast<size_t>(rows * width));
  in_blocks(rows, columns, [&](int64_t row) {
    const int8_t* const from = codes.data() + row * columns;
    uint8_t* const to = bytes.data() + row * width;
    for (int64_t i = 0; i < pairs; ++i)
      to[i] = static_cast<uint8_t>((from[2 * i] + 8) | (from[2 * i + 1] + 8) << 4);
    if (pairs < width) to[pairs] = static_cast<uint8_t>((from[columns - 1] + 8) | 8 << 4);
  });
  return bytes;
}

void unpack_int4(std::span<const uint8_t> bytes, int64_t columns, std::span<int8_t> codes) {
  const int64_t pairs = columns / 2, width = (columns + 1) / 2;
  in_blocks(static_cast<int64_t>(codes.size()) / columns, columns, [&](int64_t row) {
    const uint8_t* const from = bytes.data() + row * width;
    int8_t* const to = codes.data() + row * columns;
    for (int64_t i = 0; i < pairs; ++i) {
      to[2 * i] = static_cast<int8_t>((from[i] & 15) - 8);
      to[2 * i + 1] = static_cast<int8_t>((from[i] >> 4) - 8);
    }
    if (pairs < width) to[columns - 1] = static_cast<int8_t>((from[pairs] & 15) - 8);
  });
}

PanelsInMaking::PanelsInMaking(WeightCodes kind, const Shape& shape)
    : kind_(kind), layout_{kind, shape[shape.rank() - 2], shape[shape.rank() - 1]} {
  const int64_t matrices = shape.rank() == 3 ? shape[0] : 1;
  panels_ = in_cpu_memory(code_panels_shape(layout_, matrices), code_panels_dtype(layout_));
  scales_ = in_cpu_memory(code_scales_shape(layout_, matrices), code_scales_dtype(kind));
  codes_ = static_cast<uint8_t*>(panels_.data());
  of_groups_ = static_cast<uint8_t*>(scales_.data());
  for (int64_t m = 0; m < matrices; ++m)
    for (int64_t row = layout_.rows; row < layout_.panels() * kPanelRows; ++row)
      put_no_codes(layout_, row, codes_ + m * layout_.bytes());
  if (kind == WeightCodes::kInt8)
    std::fill_n(reinterpret_cast<float*>(of_groups_), scales_.count(), 1.0f);
  else if (kind == WeightCodes::kInt4)
    std::fill_n(reinterpret_cast<bf16_t*>(of_groups_), scales_.count(), f32_to_bf16(1));
  else
    std::fill_n(of_groups_, scales_.count(), uint8_t{0});
}

void PanelsInMaking::put(int64_t matrix, int64_t row, const int8_t* codes, const uint8_t* scales) {
  put_codes(layout_, row, codes, codes_ + matrix * layout_.bytes());
  put_scales(
      layout_, row, scales, of_groups_ + matrix * layout_.panels() * layout_.panel_scale_bytes());
}

void PanelsInMaking::put(int64_t matrix, int64_t first, const CodeRows& rows) {
  const int64_t count = static_cast<int64_t>(rows.codes.size()) / layout_.columns;
  const int64_t groups = layout_.groups();
  const bool int8 = kind_ == WeightCodes::kInt8;
  check(int8 || kind_ == WeightCodes::kInt4, "panels: scales of {} are bytes", to_string(kind_));
  cpu_pool().parallel_for((count + kPanelRows - 1) / kPanelRows, [&](int64_t panel, int) {
    std::vector<bf16_t> narrow(static_cast<size_t>(groups));
    const int64_t end = std::min(count, (panel + 1) * kPanelRows);
    for (int64_t row = panel * kPanelRows; row < end; ++row) {
      const float* const scales = rows.scales.data() + row * groups;
      if (!int8) std::transform(scales, scales + groups, narrow.begin(), f32_to_bf16);
      put(matrix,
          first + row,
          rows.codes.data() + row * layout_.columns,
          reinterpret_cast<const uint8_t*>(int8 ? static_cast<const void*>(scales)
                                                : narrow.data()));
    }
  });
}

void PanelsInMaking::store_in(Weight& weight) {
  weight.store_codes(kind_, std::move(panels_), std::move(scales_));
}

void numbers_of_row(const CodePanels& layout,
                    const int8_t* codes,
                    const float* scales,
                    float* numbers) {
  const int64_t width = layout.group();
  for (int64_t c = 0; c < layout.columns; ++c)
    numbers[c] = static_cast<float>(codes[c]) * scales[c / width];
}

}  // namespace ferry
