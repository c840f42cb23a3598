// Matrix products with float32 accumulation, as the cube unit makes them: bf16, fp16 or fp32 in,
// one rounding out.
#pragma once

#include <memory>

#include "opapi/sums.h"
#include "opapi/view.h"

namespace ascend_sim {

/// A matrix in memory: element (r, c) lies r * row_stride + c * column_stride elements from `data`.
struct Matrix {
  std::byte* data = nullptr;
  aclDataType type = ACL_FLOAT;
  int64_t row_stride = 0;
  int64_t column_stride = 0;

  Matrix transposed() const { return {data, type, column_stride, row_stride}; }
};

/// The last two dimensions of a view.
Matrix matrix(const View& v);
/// Row-major floats of the sim's own.
Matrix matrix(const float* data, int64_t row_stride, int64_t column_stride = 1);

struct Sizes {
  int64_t m, n, k;
};

/// What the cube unit does to float32 inputs before it multiplies.
enum class Cut { kNone, kHf32, kF16 };

struct ProductOptions {
  Order order = {};
  Cut cut = Cut::kNone;
  bool accumulate = false;      // c += a b in place of c = a b; c is float
  const float* bias = nullptr;  // [n], added before the rounding
  bool parallel = true;         // may use the worker threads
};

/// c [m, n] = a [m, k] * b [k, n] (+ bias), rounded once to c's type.
void multiply(const Matrix& a,
              const Matrix& b,
              const Matrix& c,
              Sizes sizes,
              const ProductOptions& options = {});

/// A float32 as HF32 holds it: 10 bits of fraction, to nearest even. (The documents give HF32's
/// precision as 2^-9 and not its rounding: an assumption.)
float hf32(float value);

}  // namespace ascend_sim
