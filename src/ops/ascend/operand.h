// What an aclnn op is given: views of device memory, scalars, arrays, lists. Host objects that live
// as long as the C++ object, which is long enough: an op has read them when its call returns.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "device/ascend/acl.h"
#include "device/device.h"
#include "tensor/view.h"

namespace ferry::ops::ascend {

acl::DataType acl_type(DType t);

/// A tensor for aclnn: memory, type, shape and strides. Deriving another view is cheap; the
/// vendor's descriptor is made when the operand is first passed to an op.
class Operand {
 public:
  static constexpr int kRankMax = 8;

  /// Implicit: kernels pass the views of their arguments as they are.
  Operand(const View& v);
  /// Contiguous memory. `type` may be one that no View has (int64 indices, bool masks).
  Operand(void* data, acl::DataType type, std::span<const int64_t> shape);
  Operand(void* data, acl::DataType type, std::initializer_list<int64_t> shape);
  Operand(const Operand& other);
  Operand& operator=(const Operand&) = delete;
  ~Operand();

  int rank() const { return rank_; }
  int64_t dim(int d) const { return shape_[at(d)]; }
  int64_t stride(int d) const { return stride_[at(d)]; }
  int64_t count() const;
  acl::DataType type() const { return type_; }
  void* data() const { return data_; }  // of the first element
  bool contiguous() const;

  // Other views of the same memory. Dimensions may be counted from the end: -1 is the last.

  /// Of contiguous memory.
  Operand reshape(std::initializer_list<int64_t> shape) const;
  /// [begin, end) of a dimension; rank stays.
  Operand slice(int d, int64_t begin, int64_t end) const;
  Operand transpose(int d0, int d1) const;
  /// A dimension of size 1 put before dimension d.
  Operand unsqueeze(int d) const;
  /// A dimension of size 1 taken away.
  Operand squeeze(int d) const;
  /// A dimension split in two, the outer having `outer` entries.
  Operand split(int d, int64_t outer) const;
  /// A dimension of size 1 repeated `times` times, without memory (stride 0). Inputs only.
  Operand expand(int d, int64_t times) const;
  /// Any view: strides in elements.
  Operand strided(std::initializer_list<int64_t> shape,
                  std::initializer_list<int64_t> strides) const;
  /// The same bytes as another type of the same size.
  Operand as(acl::DataType type) const;

  operator acl::Tensor*() const;
  /// The descriptor, given away: a list destroys its members.
  acl::Tensor* release() const;

 private:
  size_t at(int d) const { return static_cast<size_t>(d < 0 ? d + rank_ : d); }
  void set_contiguous();

  void* data_ = nullptr;
  acl::DataType type_ = acl::kFloat;
  int rank_ = 0;
  std::array<int64_t, kRankMax> shape_ = {};
  std::array<int64_t, kRankMax> stride_ = {};
  mutable acl::Tensor* tensor_ = nullptr;
};

/// Memory for one launch, from the device's pool: whoever takes the block next is queued behind the
/// ops that used it, so it is given back when the kernel's host code leaves the scope.
class Temp : public Operand {
 public:
  Temp(Stream& stream, acl::DataType type, std::initializer_list<int64_t> shape);
  Temp(Stream& stream, acl::DataType type, std::span<const int64_t> shape);
  /// Contiguous, with the shape of `like`.
  Temp(Stream& stream, acl::DataType type, const Operand& like);
  Temp(const Temp&) = delete;
  ~Temp();

 private:
  Device& device_;
  size_t bytes_;
};

class Scalar {
 public:
  explicit Scalar(float value);
  explicit Scalar(double value);
  explicit Scalar(int64_t value);
  Scalar(const Scalar&) = delete;
  Scalar& operator=(const Scalar&) = delete;
  ~Scalar();
  operator acl::Scalar*() const { return scalar_; }

 private:
  acl::Scalar* scalar_;
};

class IntArray {
 public:
  IntArray(std::initializer_list<int64_t> values);
  explicit IntArray(std::span<const int64_t> values);
  IntArray(const IntArray&) = delete;
  IntArray& operator=(const IntArray&) = delete;
  ~IntArray();
  operator acl::IntArray*() const { return array_; }

 private:
  acl::IntArray* array_;
};

class OperandList {
 public:
  OperandList(std::initializer_list<Operand> operands);
  explicit OperandList(std::span<const Operand> operands);
  OperandList(const OperandList&) = delete;
  OperandList& operator=(const OperandList&) = delete;
  ~OperandList();
  operator acl::TensorList*() const { return list_; }

 private:
  acl::TensorList* list_;
};

}  // namespace ferry::ops::ascend
