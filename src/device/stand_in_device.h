// A device that only stands in for another: its memory is addresses, which read as zeros and hold
// nothing, so that what a model of any size allocates fits. For going through a computation without
// carrying it out (verify/rehearsal.h); whoever does so keeps kernels from being launched on it.
#pragma once

#include <set>

#include "device/device.h"

namespace ferry {

inline constexpr uint64_t kAnyMemory = uint64_t{1} << 60;

class StandInDevice final : public Device {
 public:
  /// Answers as a device of this kind, and of this way to multiply (device/tensor_products.h), so
  /// that what depends on them is as there.
  /// It holds nothing: whatever is asked for fits, unless it is to have no more than `memory`.
  explicit StandInDevice(DeviceKind kind,
                         uint64_t memory = kAnyMemory,
                         bool tensor_products = false)
      : kind_(kind), tensor_products_(tensor_products), memory_(memory), stream_(*this) {}

  DeviceKind kind() const override { return kind_; }
  bool tensor_products() const { return tensor_products_; }
  std::string name() const override;
  std::string describe() const override { return name(); }

  /// Throws DeviceError when the system has no addresses left (ulimit -v).
  void* allocate(size_t bytes) override;
  void deallocate(void* p, size_t bytes) override;
  MemoryUse memory_use() const override { return use_; }
  void reset_peak() override { use_.peak_bytes = use_.live_bytes; }
  std::optional<uint64_t> memory_available() const override { return memory_; }

  /// Copies move nothing; to the host come zeros. Their sizes are kept.
  void copy_from_host(void*, const void*, size_t bytes) override { copies_.insert(bytes); }
  void copy_to_host(void* host, const void* device, size_t bytes) override;
  void copy(void*, const void*, size_t bytes) override { copies_.insert(bytes); }
  void fill_zero(void*, size_t) override {}
  Stream& stream() override { return stream_; }

  /// The different sizes of what was sent here or copied here, in bytes.
  const std::set<size_t>& copies() const { return copies_; }

 private:
  class Nothing final : public Stream {
   public:
    explicit Nothing(Device& device) : device_(device) {}
    Device& device() override { return device_; }

   private:
    void drain() override {}
    Device& device_;
  };

  DeviceKind kind_;
  bool tensor_products_;
  uint64_t memory_;
  Nothing stream_;
  MemoryUse use_;
  std::set<size_t> copies_;
};

}  // namespace ferry
