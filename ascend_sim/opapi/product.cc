#include "opapi/product.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "opapi/clones.h"
#include "opapi/workers.h"

namespace ascend_sim {
namespace {

constexpr int64_t kRows = 8;      // of a tile of c
constexpr int64_t kColumns = 32;  // two vectors
constexpr int64_t kWidth = 16;

typedef float Vector __attribute__((vector_size(kWidth * sizeof(float))));
typedef float Loose __attribute__((vector_size(kWidth * sizeof(float)), aligned(4)));

/// total [8][32] = the sum over chunks of (the sum over k of a [k][8] * b [k][32]), in that order.
ASCEND_SIM_FAST void tile(const float* a,
                          const float* b,
                          const std::pair<int64_t, int64_t>* chunks,
                          size_t chunk_count,
                          float* total) {
  Vector sums[kRows][2] = {};
  for (size_t c = 0; c < chunk_count; ++c) {
    Vector part[kRows][2] = {};
    const int64_t last = chunks[c].second;
    for (int64_t k = chunks[c].first; k < last; ++k) {
      const Vector b0 = *reinterpret_cast<const Loose*>(b + k * kColumns);
      const Vector b1 = *reinterpret_cast<const Loose*>(b + k * kColumns + kWidth);
      const float* column = a + k * kRows;
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRows; ++r) {
        const Vector x = column[r] - Vector{};
        part[r][0] += x * b0;
        part[r][1] += x * b1;
      }
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRows; ++r) {
      sums[r][0] += part[r][0];
      sums[r][1] += part[r][1];
    }
  }
  std::memcpy(total, sums, sizeof(sums));
}

using Floats = std::unique_ptr<float[]>;

/// `lines` (8 rows of a, or 32 columns of b) interleaved over k: out[k][lines], zero-padded.
void pack(const Matrix& m,
          int64_t first,
          int64_t lines,
          int64_t all_lines,
          int64_t k,
          Cut cut,
          float* out,
          float* line) {
  const int64_t there = std::min(lines, all_lines - first);
  const int64_t element = static_cast<int64_t>(size_of(m.type));
  // m is [line, k]: row_stride leads to the next line, column_stride along k.
  if (m.row_stride == 1 && m.column_stride != 1) {
    for (int64_t i = 0; i < k; ++i) {
      float* to = out + i * lines;
      load_run(m.type, m.data + (first + i * m.column_stride) * element, 1, there, to);
      std::fill(to + there, to + lines, 0.0f);
    }
  } else {
    for (int64_t l = 0; l < lines; ++l) {
      if (l < there)
        load_run(m.type, m.data + (first + l) * m.row_stride * element, m.column_stride, k, line);
      else
        std::fill(line, line + k, 0.0f);
      for (int64_t i = 0; i < k; ++i) out[i * lines + l] = line[i];
    }
  }
  if (cut == Cut::kHf32)
    for (int64_t i = 0; i < k * lines; ++i) out[i] = hf32(out[i]);
  else if (cut == Cut::kF16)
    for (int64_t i = 0; i < k * lines; ++i) out[i] = as_half(out[i]);
}

/// One tile's rows to c, in whatever type it is.
void put_tile(const float* tile_values,
              const Matrix& c,
              int64_t row,
              int64_t column,
              Sizes sizes,
              const ProductOptions& options) {
  const int64_t rows = std::min(kRows, sizes.m - row);
  const int64_t columns = std::min(kColumns, sizes.n - column);
  const int64_t element = static_cast<int64_t>(size_of(c.type));
  for (int64_t r = 0; r < rows; ++r) {
    float values[kColumns];
    std::memcpy(values, tile_values + r * kColumns, sizeof(values));
    if (options.bias)
      for (int64_t j = 0; j < columns; ++j) values[j] += options.bias[column + j];
    std::byte* to = c.data + ((row + r) * c.row_stride + column * c.column_stride) * element;
    if (options.accumulate) {
      float before[kColumns];
      load_run(c.type, to, c.column_stride, columns, before);
      for (int64_t j = 0; j < columns; ++j) values[j] += before[j];
    }
    store_run(c.type, to, c.column_stride, columns, values);
  }
}

int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

void for_parts(bool parallel, int64_t parts, const std::function<void(int64_t)>& part) {
  if (parallel) return in_parallel(parts, part);
  for (int64_t i = 0; i < parts; ++i) part(i);
}

}  // namespace

float hf32(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return value;
  return std::bit_cast<float>((bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu);
}

Matrix matrix(const View& v) { return {v.data, v.type, v.stride(-2), v.stride(-1)}; }

Matrix matrix(const float* data, int64_t row_stride, int64_t column_stride) {
  return {
      reinterpret_cast<std::byte*>(const_cast<float*>(data)), ACL_FLOAT, row_stride, column_stride};
}

void multiply(
    const Matrix& a, const Matrix& b, const Matrix& c, Sizes sizes, const ProductOptions& options) {
  const auto [m, n, k] = sizes;
  if (m <= 0 || n <= 0) return;
  const auto chunks = options.order.chunks(k);
  const int64_t row_blocks = blocks(m, kRows), column_blocks = blocks(n, kColumns);
  const auto room = [](int64_t size) {
    return std::make_unique_for_overwrite<float[]>(static_cast<size_t>(std::max<int64_t>(size, 1)));
  };
  const bool parallel = options.parallel && m * n * k > 1 << 18;

  const Floats packed = room(row_blocks * kRows * k);
  const int64_t packers = blocks(row_blocks, 16);
  for_parts(parallel, packers, [&](int64_t p) {
    const Floats line = room(k);
    for (int64_t i = p * 16; i < std::min(row_blocks, (p + 1) * 16); ++i)
      pack(a, i * kRows, kRows, m, k, options.cut, packed.get() + i * kRows * k, line.get());
  });
  for_parts(parallel, column_blocks, [&](int64_t j) {
    const Floats panel = room(kColumns * k), line = room(k);
    pack(b.transposed(), j * kColumns, kColumns, n, k, options.cut, panel.get(), line.get());
    for (int64_t i = 0; i < row_blocks; ++i) {
      float values[kRows * kColumns];
      tile(packed.get() + i * kRows * k, panel.get(), chunks.data(), chunks.size(), values);
      put_tile(values, c, i * kRows, j * kColumns, sizes, options);
    }
  });
}

}  // namespace ascend_sim
