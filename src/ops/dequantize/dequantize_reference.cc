#include "ops/dequantize/dequantize_reference.h"

#include <cmath>

namespace ferry::ops {
namespace {

/// By the definition of float8 e4m3.
double number_of(int code) {
  const int exponent = code / 8 % 16, fraction = code % 8;
  if (exponent == 15 && fraction == 7) return NAN;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return code >= 128 ? -size : size;
}

}  // namespace

RefTensor dequantize_reference(const RefTensor& codes,
                               const RefTensor& scales,
                               int64_t block_rows,
                               int64_t block_columns) {
  RefTensor y(codes.shape);
  const int rank = codes.shape.rank();
  const int64_t rows = codes.shape[rank - 2], columns = codes.shape[rank - 1];
  const int64_t scale_rows = scales.shape[rank - 2], scale_columns = scales.shape[rank - 1];
  for (int64_t i = 0; i < y.shape.count(); ++i) {
    const int64_t matrix = i / (rows * columns), row = i / columns % rows, column = i % columns;
    const int64_t scale =
        (matrix * scale_rows + row / block_rows) * scale_columns + column / block_columns;
    y[i] = number_of(static_cast<int>(codes[i])) * scales[scale];
  }
  return y;
}

}  // namespace ferry::ops
