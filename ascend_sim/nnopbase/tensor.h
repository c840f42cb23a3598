// What an aclTensor says, by value, and how the sim's own arithmetic reaches its elements in device
// memory. Descriptors may be made anywhere; load and store run on a stream's worker only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "acl.h"

#pragma GCC visibility push(default)  // libopapi.so is written with these
namespace ascend_sim {

using Shape = std::vector<int64_t>;

/// "BFLOAT16"; "type 35" for one that the sim does not compute with.
std::string to_string(aclDataType type);
std::string to_string(const Shape& shape);  // "[2, 3]"
/// Bytes of an element; 0 for types that the sim does not know.
size_t size_of(aclDataType type);
bool is_float(aclDataType type);    // FLOAT FLOAT16 BF16 DOUBLE
bool is_integer(aclDataType type);  // signed, unsigned; not BOOL

/// float -> float as the type stores it: to nearest, ties to even; overflow is infinity.
float rounded(float value, aclDataType type);
float rounded_double(double value, aclDataType type);

/// A view of device memory. Strides and offset count elements.
struct Tensor {
  aclDataType dtype = ACL_DT_UNDEFINED;
  aclFormat format = ACL_FORMAT_ND;
  Shape shape;
  Shape strides;
  int64_t offset = 0;
  Shape storage_shape;   // the physical layout, for FRACTAL_NZ
  void* data = nullptr;  // device address of element 0 of the storage

  int rank() const { return static_cast<int>(shape.size()); }
  int64_t elements() const;
  /// Size of a dimension; negative ones count from the end, as in dim(-1).
  int64_t dim(int i) const;
  int64_t stride(int i) const;
  bool contiguous() const;
  /// The same elements with two dimensions exchanged, as a view.
  Tensor transposed(int a, int b) const;
  /// Dimension `dim` fixed to `index`: one dimension less.
  Tensor select(int dim, int64_t index) const;
  /// `length` indices of dimension `dim` from `start` on.
  Tensor narrow(int dim, int64_t start, int64_t length) const;
  /// Broadcast to `wider` by strides of 0 (numpy's rule); nothing if the shapes do not fit.
  std::optional<Tensor> broadcast_to(const Shape& wider) const;
};

/// Numpy's common shape; nothing if there is none.
std::optional<Shape> broadcast_shapes(const Shape& a, const Shape& b);
int64_t element_count(const Shape& shape);

// All elements of a view in row-major order. load converts any type (integers, BOOL) to float or
// double; load_i64 takes integers and BOOL.
std::vector<float> load(const Tensor& t);
std::vector<double> load_f64(const Tensor& t);
std::vector<int64_t> load_i64(const Tensor& t);

// The reverse: rounds to t's type (nearest even); integers saturate towards their limits and cut
// the fraction; BOOL is value != 0. values.size() must be t.elements().
void store(const Tensor& t, std::span<const float> values);
void store_f64(const Tensor& t, std::span<const double> values);
void store_i64(const Tensor& t, std::span<const int64_t> values);

/// Elements one by one, at an offset in elements from the view's first element, i.e. sum(index *
/// stride): for gathers from a large table, where load would copy it all.
class Elements {
 public:
  explicit Elements(const Tensor& t);
  double get(int64_t at) const;
  int64_t get_i64(int64_t at) const;
  void set(int64_t at, double value) const;

 private:
  aclDataType dtype_;
  unsigned char* first_;
};

// The bits of the elements in row-major order, size_of(dtype) bytes each: copies that must not
// round.
std::vector<unsigned char> load_bits(const Tensor& t);
void store_bits(const Tensor& t, std::span<const unsigned char> bits);

}  // namespace ascend_sim
#pragma GCC visibility pop
