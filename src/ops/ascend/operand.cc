#include "ops/ascend/operand.h"

#include <algorithm>

#include "base/check.h"
#include "device/ascend/ascend_device.h"
#include "ops/ascend/aclnn.h"

namespace ferry::ops::ascend {
namespace {

constexpr uintptr_t kAlignment = 32;  // of the memory that a descriptor names

int64_t size_of_type(acl::DataType t) {
  switch (t) {
    case acl::kInt64:
    case acl::kDouble: return 8;
    case acl::kFloat:
    case acl::kInt32: return 4;
    case acl::kFloat16:
    case acl::kBf16:
    case acl::kInt16: return 2;
    case acl::kInt8:
    case acl::kUint8:
    case acl::kBool:
    case acl::kFloat8E4M3: return 1;
  }
  return 0;
}

size_t bytes_of(acl::DataType type, std::span<const int64_t> shape) {
  int64_t n = size_of_type(type);
  for (const int64_t d : shape) n *= d;
  return static_cast<size_t>(n);
}

std::span<const int64_t> as_span(std::initializer_list<int64_t> list) {
  return {list.begin(), list.size()};
}

}  // namespace

acl::DataType acl_type(DType t) {
  switch (t) {
    case DType::kF32: return acl::kFloat;
    case DType::kBF16: return acl::kBf16;
    case DType::kF16: return acl::kFloat16;
    case DType::kF64: return acl::kDouble;
    case DType::kI64: return acl::kInt64;
    case DType::kI32: return acl::kInt32;
    case DType::kI16: return acl::kInt16;
    case DType::kI8: return acl::kInt8;
    case DType::kU8: return acl::kUint8;
    case DType::kBool: return acl::kBool;
    case DType::kF8E4M3: return acl::kFloat8E4M3;
  }
  return acl::kFloat;
}

// --- Operand -----------------------------------------------------------------------------------

Operand::Operand(const View& v) : data_(v.data), type_(acl_type(v.dtype)), rank_(v.rank) {
  for (int d = 0; d < v.rank; ++d) {
    shape_[at(d)] = v.shape[d];
    stride_[at(d)] = v.stride[d];
  }
}

Operand::Operand(void* data, acl::DataType type, std::span<const int64_t> shape)
    : data_(data), type_(type), rank_(static_cast<int>(shape.size())) {
  check(rank_ <= kRankMax, "operand: {} dimensions", rank_);
  std::copy(shape.begin(), shape.end(), shape_.begin());
  set_contiguous();
}

Operand::Operand(void* data, acl::DataType type, std::initializer_list<int64_t> shape)
    : Operand(data, type, as_span(shape)) {}

Operand::Operand(const Operand& other)
    : data_(other.data_),
      type_(other.type_),
      rank_(other.rank_),
      shape_(other.shape_),
      stride_(other.stride_) {}

Operand::~Operand() {
  if (tensor_ != nullptr) library().aclDestroyTensor(tensor_);
}

void Operand::set_contiguous() {
  int64_t stride = 1;
  for (int d = rank_ - 1; d >= 0; --d) {
    stride_[at(d)] = stride;
    stride *= shape_[at(d)];
  }
}

int64_t Operand::count() const {
  int64_t n = 1;
  for (int d = 0; d < rank_; ++d) n *= dim(d);
  return n;
}

bool Operand::contiguous() const {
  int64_t expected = 1;
  for (int d = rank_ - 1; d >= 0; --d) {
    if (dim(d) != 1 && stride(d) != expected) return false;
    expected *= dim(d);
  }
  return true;
}

Operand Operand::reshape(std::initializer_list<int64_t> shape) const {
  const Operand out(data_, type_, shape);
  check(contiguous() && out.count() == count(), "operand: reshape of {} elements", count());
  return out;
}

Operand Operand::slice(int d, int64_t begin, int64_t end) const {
  check(0 <= begin && begin <= end && end <= dim(d), "operand: slice [{}, {})", begin, end);
  Operand out = *this;
  out.data_ = static_cast<char*>(data_) + begin * stride(d) * size_of_type(type_);
  out.shape_[at(d)] = end - begin;
  return out;
}

Operand Operand::transpose(int d0, int d1) const {
  Operand out = *this;
  std::swap(out.shape_[at(d0)], out.shape_[at(d1)]);
  std::swap(out.stride_[at(d0)], out.stride_[at(d1)]);
  return out;
}

Operand Operand::unsqueeze(int d) const {
  check(rank_ < kRankMax, "operand: unsqueeze of {} dimensions", rank_);
  if (d < 0) d += rank_ + 1;
  Operand out = *this;
  for (int i = rank_; i > d; --i) {
    out.shape_[at(i)] = shape_[at(i - 1)];
    out.stride_[at(i)] = stride_[at(i - 1)];
  }
  ++out.rank_;
  out.shape_[at(d)] = 1;
  out.stride_[at(d)] = d + 1 < out.rank_ ? out.dim(d + 1) * out.stride(d + 1) : 1;
  return out;
}

Operand Operand::squeeze(int d) const {
  check(dim(d) == 1, "operand: squeeze of a dimension of {}", dim(d));
  Operand out = *this;
  for (int i = static_cast<int>(at(d)); i + 1 < rank_; ++i) {
    out.shape_[at(i)] = shape_[at(i + 1)];
    out.stride_[at(i)] = stride_[at(i + 1)];
  }
  --out.rank_;
  return out;
}

Operand Operand::split(int d, int64_t outer) const {
  check(outer > 0 && dim(d) % outer == 0, "operand: {} split into {}", dim(d), outer);
  const int64_t inner = dim(d) / outer, stride_inner = stride(d);
  const int first = static_cast<int>(at(d));
  Operand out = unsqueeze(first);
  out.shape_[at(first)] = outer;
  out.stride_[at(first)] = inner * stride_inner;
  out.shape_[at(first + 1)] = inner;
  return out;
}

Operand Operand::expand(int d, int64_t times) const {
  check(dim(d) == 1, "operand: expand of a dimension of {}", dim(d));
  Operand out = *this;
  out.shape_[at(d)] = times;
  out.stride_[at(d)] = 0;
  return out;
}

Operand Operand::strided(std::initializer_list<int64_t> shape,
                         std::initializer_list<int64_t> strides) const {
  check(shape.size() == strides.size() && shape.size() <= kRankMax, "operand: strided view");
  Operand out = *this;
  out.rank_ = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), out.shape_.begin());
  std::copy(strides.begin(), strides.end(), out.stride_.begin());
  return out;
}

Operand Operand::as(acl::DataType type) const {
  check(size_of_type(type) == size_of_type(type_), "operand: other type of another size");
  Operand out = *this;
  out.type_ = type;
  return out;
}

Operand::operator acl::Tensor*() const {
  if (tensor_ != nullptr) return tensor_;
  // A descriptor's memory must be aligned; a view that begins between is an offset from there.
  const auto address = reinterpret_cast<uintptr_t>(data_);
  const uintptr_t base = address / kAlignment * kAlignment;
  const int64_t offset = static_cast<int64_t>(address - base) / size_of_type(type_);
  int64_t extent = 1;
  for (int d = 0; d < rank_; ++d) extent += (dim(d) - 1) * stride(d);
  const int64_t storage = count() == 0 ? 0 : offset + extent;
  tensor_ = library().aclCreateTensor(shape_.data(),
                                      static_cast<uint64_t>(rank_),
                                      type_,
                                      stride_.data(),
                                      offset,
                                      acl::kNd,
                                      &storage,
                                      1,
                                      reinterpret_cast<void*>(base));
  check(tensor_ != nullptr, "operand: aclCreateTensor made none{}", library().recent_message());
  return tensor_;
}

acl::Tensor* Operand::release() const {
  acl::Tensor* tensor = *this;
  tensor_ = nullptr;
  return tensor;
}

// --- Temp --------------------------------------------------------------------------------------

Temp::Temp(Stream& stream, acl::DataType type, std::span<const int64_t> shape)
    : Operand(stream.device().allocate(bytes_of(type, shape)), type, shape),
      device_(stream.device()),
      bytes_(bytes_of(type, shape)) {}

Temp::Temp(Stream& stream, acl::DataType type, std::initializer_list<int64_t> shape)
    : Temp(stream, type, as_span(shape)) {}

Temp::Temp(Stream& stream, acl::DataType type, const Operand& like)
    : Temp(stream, type, [&] {
        std::vector<int64_t> shape;
        for (int d = 0; d < like.rank(); ++d) shape.push_back(like.dim(d));
        return shape;
      }()) {}

Temp::~Temp() { device_.deallocate(data(), bytes_); }

// --- scalars, arrays, lists --------------------------------------------------------------------

Scalar::Scalar(float value) : scalar_(library().aclCreateScalar(&value, acl::kFloat)) {}
Scalar::Scalar(double value) : scalar_(library().aclCreateScalar(&value, acl::kDouble)) {}
Scalar::Scalar(int64_t value) : scalar_(library().aclCreateScalar(&value, acl::kInt64)) {}
Scalar::~Scalar() { library().aclDestroyScalar(scalar_); }

IntArray::IntArray(std::span<const int64_t> values)
    : array_(library().aclCreateIntArray(values.data(), values.size())) {}
IntArray::IntArray(std::initializer_list<int64_t> values) : IntArray(as_span(values)) {}
IntArray::~IntArray() { library().aclDestroyIntArray(array_); }

OperandList::OperandList(std::span<const Operand> operands) {
  std::vector<const acl::Tensor*> tensors;
  for (const Operand& operand : operands) tensors.push_back(operand.release());
  list_ = library().aclCreateTensorList(tensors.data(), tensors.size());
}
OperandList::OperandList(std::initializer_list<Operand> operands)
    : OperandList(std::span(operands.begin(), operands.size())) {}
OperandList::~OperandList() { library().aclDestroyTensorList(list_); }

}  // namespace ferry::ops::ascend
