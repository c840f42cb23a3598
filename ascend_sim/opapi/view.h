// Elements of device tensors as numbers: strided views, and the types' conversions with the chip's
// rounding. What ops compute with; knows nothing of ACL calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "acl.h"
#include "nnopbase/tensor.h"

namespace ascend_sim {

using Dims = Shape;

/// Row-major strides in elements.
Dims contiguous_strides(const Dims& dims);

/// A strided tensor: `data` is the element [0, ..., 0], strides are in elements.
struct View {
  std::byte* data = nullptr;
  aclDataType type = ACL_FLOAT;
  Dims dims;
  Dims strides;

  int64_t count() const { return element_count(dims); }
  int64_t rank() const { return static_cast<int64_t>(dims.size()); }
  /// dims[dim], counted from the end where negative.
  int64_t size(int64_t dim) const {
    return dims[static_cast<size_t>(dim < 0 ? dim + rank() : dim)];
  }
  int64_t stride(int64_t dim) const {
    return strides[static_cast<size_t>(dim < 0 ? dim + rank() : dim)];
  }
  bool contiguous() const;
  std::byte* at(int64_t element_offset) const {
    return data + element_offset * static_cast<int64_t>(size_of(type));
  }
};

/// A tensor's elements where the stream's worker reaches them: call it in device functions only.
View view(const Tensor& t);

/// Whether `from` broadcasts to `to` by the usual rule: aligned at the end, equal or 1.
bool broadcasts(const Dims& from, const Dims& to);
/// `v` repeated over `dims` (stride 0 where it repeats). `broadcasts(v.dims, dims)` holds.
View broadcast(const View& v, const Dims& dims);
View transposed(const View& v, int64_t a, int64_t b);
View permuted(const View& v, const Dims& order);
/// Elements begin, begin + step, ... of a dimension.
View sliced(const View& v, int64_t dim, int64_t begin, int64_t size, int64_t step = 1);
/// One index of a dimension, which disappears.
View selected(const View& v, int64_t dim, int64_t index);
enum class Rounding { kNearestEven, kTruncate };

/// To float16 and back.
float as_half(float value);

/// n elements from `data` on, `stride` elements apart, as floats.
void load_run(aclDataType type, const std::byte* data, int64_t stride, int64_t n, float* out);
/// n floats to `data`, rounded once to the type (integers: towards zero, saturating).
void store_run(aclDataType type,
               std::byte* data,
               int64_t stride,
               int64_t n,
               const float* values,
               Rounding rounding = Rounding::kNearestEven);
/// The same for integers; a float type takes the nearest value.
void load_run(aclDataType type, const std::byte* data, int64_t stride, int64_t n, int64_t* out);
void store_run(aclDataType type, std::byte* data, int64_t stride, int64_t n, const int64_t* values);
void load_run(aclDataType type, const std::byte* data, int64_t stride, int64_t n, double* out);
void store_run(aclDataType type, std::byte* data, int64_t stride, int64_t n, const double* values);

/// Elements [first, first + n) of `v` in row-major order. Number: float, double or int64_t.
template <class Number>
void read(const View& v, int64_t first, int64_t n, Number* out);
template <class Number>
void write(const View& v, int64_t first, int64_t n, const Number* values);
void write(const View& v, int64_t first, int64_t n, const float* values, Rounding rounding);

/// All elements in row-major order.
std::vector<float> floats(const View& v);
std::vector<int64_t> integers(const View& v);
/// One element of a tensor of one element.
double scalar(const View& v);

/// Calls `visit(offset)` with the element offset of each line along `dim` (of all other indices,
/// row major), and its number.
void for_each_line(const View& v,
                   int64_t dim,
                   const std::function<void(int64_t line, int64_t offset)>& visit);

}  // namespace ascend_sim
