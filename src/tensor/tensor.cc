#include "tensor/tensor.h"

#include <cstring>

#include "base/check.h"
#include "tensor/bf16.h"

namespace ferry {
Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  check(dims.size() <= kRankMax, "shape: {} dimensions, at most {}", dims.size(), kRankMax);
  for (size_t d = 0; d < dims.size(); ++d) {
    check(dims[d] >= 0, "shape: dimension {} is {}", d, dims[d]);
    dims_[d] = dims[d];
  }
}

int64_t Shape::count() const {
  int64_t n = 1;  // without dimensions of no size: strides are products of the others
  bool none = false;
  for (int d = 0; d < rank_; ++d) {
    const int64_t dim = dims_[static_cast<size_t>(d)];
    none = none || dim == 0;
    // Asked for everywhere, in loops, too: the text is made only where it is needed.
    if (__builtin_mul_overflow(n, dim == 0 ? 1 : dim, &n) || n > kElementsMax)
      check(false, "shape: {} has more than {} elements", str(), kElementsMax);
  }
  return none ? 0 : n;
}

std::string Shape::str() const {
  std::string s = "[";
  for (int d = 0; d < rank_; ++d) s += fmt::format("{}{}", d == 0 ? "" : ", ", (*this)[d]);
  return s + "]";
}

Memory::Memory(Device& d, size_t n) : device(d), bytes(n), data(d.allocate(n)) {}
Memory::~Memory() { device.deallocate(data, bytes); }

Tensor Tensor::empty(const Shape& shape, DType dtype, Device& device) {
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  shape.count();  // checks it: strides below stay within
  int64_t stride = 1;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    t.strides_[static_cast<size_t>(d)] = stride;
    stride *= shape[d];
  }
  t.storage_ = std::make_shared<Storage>(Storage{device, t.bytes()});
  t.memory_ = std::make_shared<Memory>(device, t.bytes());
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device& device) {
  Tensor t = empty(shape, dtype, device);
  device.fill_zero(t.data(), t.bytes());
  return t;
}

Tensor Tensor::from_f32(std::span<const float> values, const Shape& shape, Device& device) {
  Tensor t = empty(shape, DType::kF32, device);
  t.assign_f32(values);
  return t;
}

Tensor Tensor::from_i32(std::span<const int32_t> values, const Shape& shape, Device& device) {
  Tensor t = empty(shape, DType::kI32, device);
  check(static_cast<int64_t>(values.size()) == t.count(),
        "tensor: {} values for {}",
        values.size(),
        shape.str());
  t.copy_bytes_from(values.data());
  return t;
}

bool Tensor::contiguous() const {
  int64_t expected = 1;
  for (int d = rank() - 1; d >= 0; --d) {
    if (shape_[d] != 1 && strides_[static_cast<size_t>(d)] != expected) return false;
    expected *= shape_[d];
  }
  return true;
}

void* Tensor::data() const {
  check(defined(), "tensor: no tensor");
  check(memory_ != nullptr, "tensor: {} was kept without its memory", shape_.str());
  return static_cast<char*>(memory_->data) + static_cast<size_t>(offset_) * size_of(dtype_);
}

View Tensor::view() const {
  View v;
  if (!defined()) return v;
  v.data = data();
  v.dtype = dtype_;
  v.rank = rank();
  for (int d = 0; d < rank(); ++d) {
    v.shape[d] = shape_[d];
    v.stride[d] = strides_[static_cast<size_t>(d)];
  }
  return v;
}

bool Tensor::covers_storage() const { return contiguous() && bytes() == storage_->bytes; }

Tensor Tensor::reshape(const Shape& shape) const {
  check(contiguous(), "reshape: {} is not contiguous", shape_.str());
  check(shape.count() == count(), "reshape: {} to {}", shape_.str(), shape.str());
  Tensor t = *this;
  t.shape_ = shape;
  t.strides_ = {0, 0, 0, 0};
  int64_t stride = 1;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    t.strides_[static_cast<size_t>(d)] = stride;
    stride *= shape[d];
  }
  return t;
}

Tensor Tensor::slice(int d, int64_t begin, int64_t end) const {
  if (d < 0) d += rank();
  check(d >= 0 && d < rank() && 0 <= begin && begin <= end && end <= shape_[d],
        "slice: [{}, {}) of dimension {} of {}",
        begin,
        end,
        d,
        shape_.str());
  Tensor t = *this;
  t.offset_ += begin * strides_[static_cast<size_t>(d)];
  t.shape_[d] = end - begin;
  return t;
}

Tensor Tensor::mirrored_in(const Tensor& other) const {
  Tensor t = *this;
  t.storage_ = other.storage_;
  t.memory_ = other.memory_;
  t.dtype_ = other.dtype_;
  return t;
}

Tensor Tensor::without_memory() const {
  Tensor t = *this;
  t.memory_.reset();
  return t;
}

Tensor& Tensor::set_needs_grad(bool on) {
  check(defined(), "set_needs_grad: no tensor");
  storage_->needs_grad = on;
  return *this;
}

void Tensor::copy_bytes_to(void* host) const {
  check(contiguous(), "copy to host: {} is not contiguous", shape_.str());
  device().copy_to_host(host, data(), bytes());
}

void Tensor::copy_bytes_from(const void* host) {
  check(contiguous(), "copy from host: {} is not contiguous", shape_.str());
  device().copy_from_host(data(), host, bytes());
}

namespace {

/// Calls f(element offset from data(), row length) for each innermost run of the tensor.
template <typename F>
void for_each_row(const Tensor& t, F&& f) {
  if (t.contiguous()) {  // one copy; each row of its own would be a wait for the device
    if (t.count() > 0) f(0, t.count());
    return;
  }
  const View v = t.view();
  const int inner = v.rank - 1;
  const int64_t length = v.rank == 0 ? 1 : v.shape[inner];
  const int64_t rows = v.count() == 0 ? 0 : v.count() / length;
  for (int64_t r = 0; r < rows; ++r) {
    int64_t offset = 0, rest = r;
    for (int d = inner - 1; d >= 0; --d) {
      offset += rest % v.shape[d] * v.stride[d];
      rest /= v.shape[d];
    }
    f(offset, length);
  }
}

}  // namespace

std::vector<float> Tensor::to_f32() const {
  check(
      dtype_ == DType::kF32 || dtype_ == DType::kBF16, "to_f32: of a {} tensor", to_string(dtype_));
  std::vector<float> out;
  out.reserve(static_cast<size_t>(count()));
  std::vector<char> row;
  for_each_row(*this, [&](int64_t offset, int64_t length) {
    const size_t size = static_cast<size_t>(length) * size_of(dtype_);
    row.resize(size);
    device().copy_to_host(
        row.data(),
        static_cast<char*>(data()) + static_cast<size_t>(offset) * size_of(dtype_),
        size);
    for (int64_t i = 0; i < length; ++i) {
      if (dtype_ == DType::kF32) {
        float f;
        std::memcpy(&f, row.data() + 4 * i, 4);
        out.push_back(f);
      } else {
        bf16_t h;
        std::memcpy(&h, row.data() + 2 * i, 2);
        out.push_back(bf16_to_f32(h));
      }
    }
  });
  return out;
}

std::vector<int32_t> Tensor::to_i32() const {
  check(dtype_ == DType::kI32, "to_i32: of a {} tensor", to_string(dtype_));
  std::vector<int32_t> out(static_cast<size_t>(count()));
  copy_bytes_to(out.data());
  return out;
}

void Tensor::assign_f32(std::span<const float> values) {
  check(static_cast<int64_t>(values.size()) == count(),
        "assign: {} values for {}",
        values.size(),
        shape_.str());
  if (dtype_ == DType::kF32) return copy_bytes_from(values.data());
  check(dtype_ == DType::kBF16, "assign_f32: to a {} tensor", to_string(dtype_));
  std::vector<bf16_t> rounded(values.size());
  for (size_t i = 0; i < values.size(); ++i) rounded[i] = f32_to_bf16(values[i]);
  copy_bytes_from(rounded.data());
}

std::vector<std::vector<double>> read_together(std::span<const Tensor> tensors) {
  if (tensors.empty()) return {};
  Device& device = tensors.front().device();
  const auto slot = [](const Tensor& t) { return (t.bytes() + 7) / 8 * 8; };
  size_t bytes = 0;
  for (const Tensor& t : tensors) bytes += slot(t);
  const Tensor all = Tensor::empty({static_cast<int64_t>(bytes)}, DType::kU8, device);
  size_t at = 0;
  for (const Tensor& t : tensors) {
    check(t.contiguous() && &t.device() == &device, "read_together: {}", t.shape().str());
    device.copy(static_cast<char*>(all.data()) + at, t.data(), t.bytes());
    at += slot(t);
  }
  std::vector<char> host(bytes);
  all.copy_bytes_to(host.data());
  std::vector<std::vector<double>> values;
  at = 0;
  for (const Tensor& t : tensors) {
    values.emplace_back();
    for (int64_t i = 0; i < t.count(); ++i) {
      const char* const element = host.data() + at + static_cast<size_t>(i) * size_of(t.dtype());
      float narrow;
      double wide;
      if (t.dtype() == DType::kF32) {
        std::memcpy(&narrow, element, sizeof narrow);
        wide = static_cast<double>(narrow);
      } else {
        check(t.dtype() == DType::kF64, "read_together: a {} tensor", to_string(t.dtype()));
        std::memcpy(&wide, element, sizeof wide);
      }
      values.back().push_back(wide);
    }
    at += slot(t);
  }
  return values;
}

}  // namespace ferry
