// Tensor: a shared handle on device memory with a shape. Copying a Tensor shares the memory.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "device/device.h"
#include "tensor/dtype.h"
#include "tensor/view.h"

namespace ferry {

/// Their bytes, of any type, and offsets among them are below 2^63.
constexpr int64_t kElementsMax = int64_t{1} << 58;

/// Up to four dimensions, outermost first.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int d) const { return dims_[static_cast<size_t>(d)]; }
  int64_t& operator[](int d) { return dims_[static_cast<size_t>(d)]; }
  int64_t count() const;    // check: at most kElementsMax
  std::string str() const;  // "[3, 5]"
  bool operator==(const Shape&) const = default;

 private:
  int rank_ = 0;
  std::array<int64_t, kRankMax> dims_ = {1, 1, 1, 1};
};

/// Device memory, freed with its last holder.
struct Memory {
  Memory(Device& device, size_t bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  Device& device;
  size_t bytes;
  void* data;
};

class Tensor;

/// What tensors that share memory have in common. Its address is the tape's identity of a value:
/// all views of one storage share one gradient, which has the storage's layout. It outlives the
/// memory where only the identity is kept (Tensor::without_memory).
struct Storage {
  Device& device;
  size_t bytes;
  bool needs_grad = false;  // a trained weight, or computed from one while a tape recorded
  std::function<Tensor()> again = {};  // makes the values once more, to the same bits
};

class Tensor {
 public:
  Tensor() = default;  // "no tensor": defined() is false

  static Tensor empty(const Shape& shape, DType dtype, Device& device);  // uninitialised
  static Tensor zeros(const Shape& shape, DType dtype, Device& device);
  /// Copies from the host. The span's element type must have the dtype's size.
  static Tensor from_f32(std::span<const float> values, const Shape& shape, Device& device);
  static Tensor from_i32(std::span<const int32_t> values, const Shape& shape, Device& device);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int d) const { return shape_[d < 0 ? d + shape_.rank() : d]; }
  int64_t stride(int d) const {
    return strides_[static_cast<size_t>(d < 0 ? d + shape_.rank() : d)];
  }
  int64_t count() const { return shape_.count(); }
  DType dtype() const { return dtype_; }
  size_t bytes() const {
    return static_cast<size_t>(count()) * size_of(dtype_);
  }  // of the elements
  Device& device() const { return storage_->device; }
  bool contiguous() const;

  void* data() const;  // device memory of the first element
  View view() const;   // an undefined tensor gives a View that is not given()
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  int64_t offset() const { return offset_; }  // elements from the start of the storage
  bool covers_storage() const;
  /// Whether no other tensor holds the memory.
  bool alone() const { return memory_.use_count() == 1; }

  /// Views that share memory. reshape needs contiguous memory. slice keeps rank: [begin, end) of
  /// dim.
  Tensor reshape(const Shape& shape) const;
  Tensor slice(int dim, int64_t begin, int64_t end) const;
  /// The same region of another tensor's storage, which has this one's layout (a gradient), in that
  /// one's dtype.
  Tensor mirrored_in(const Tensor& other) const;
  /// The same value by name only: shape, type and identity, with no hold on the memory, which must
  /// not be read through it. For backward functions that ask for a value's gradient, not for it.
  Tensor without_memory() const;

  /// For the output of a cheap op while a tape records: who needs it for a gradient need not keep
  /// it until then. `again` is not to hold this tensor.
  void set_again(std::function<Tensor()> again) { storage_->again = std::move(again); }
  /// What a backward function keeps of a tensor whose values it will need: the tensor, or, where
  /// these can be made again, its name.
  Tensor saved() const { return storage_->again ? without_memory() : *this; }
  /// What saved() stands for; made again in every call.
  Tensor restored() const { return memory_ ? *this : mirrored_in(storage_->again()); }

  /// Marks a leaf whose gradient the tape shall compute. Returns *this.
  Tensor& set_needs_grad(bool on);
  bool needs_grad() const { return storage_ && storage_->needs_grad; }

  /// Host copies; each waits for the stream (read_together waits once for many). to_f32 converts
  /// bf16; the tensor may be a strided view.
  std::vector<float> to_f32() const;
  std::vector<int32_t> to_i32() const;
  /// Overwrites from the host, whose bytes are free again then, without waiting for the stream;
  /// contiguous tensors only; f32 values are rounded to bf16 if need be.
  void assign_f32(std::span<const float> values);
  /// Raw bytes of a contiguous tensor.
  void copy_bytes_to(void* host) const;
  void copy_bytes_from(const void* host);

 private:
  std::shared_ptr<Storage> storage_;
  std::shared_ptr<Memory> memory_;
  int64_t offset_ = 0;
  Shape shape_;
  std::array<int64_t, kRankMax> strides_ = {0, 0, 0, 0};
  DType dtype_ = DType::kF32;
};

/// The elements of small tensors (f32 or f64, contiguous) of one device, by one wait for all.
std::vector<std::vector<double>> read_together(std::span<const Tensor> tensors);

}  // namespace ferry
