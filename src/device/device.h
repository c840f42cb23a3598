// What every chip offers: memory and queues, no maths. One folder below for each vendor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/limits.h"
#include "base/result.h"

namespace ferry {

enum class DeviceKind : uint8_t { kCpu, kCuda, kAscend };
const char* to_string(DeviceKind kind);

/// The one exception for what a chip or a link does to us: out of memory, ECC, timeout.
/// Caught by the training worker and the engine's step loop, nowhere else.
class DeviceError : public std::runtime_error {
 public:
  /// code: the vendor's error number, 0 if none. The message names device, operation and meaning.
  /// op: "rms_norm (aclnnRmsNorm)", or the range of launches of which one failed, if known.
  DeviceError(std::string device, int64_t code, const std::string& message, std::string op = "");
  const std::string& device() const { return device_; }
  int64_t code() const { return code_; }
  const std::string& op() const { return op_; }

 private:
  std::string device_;
  int64_t code_;
  std::string op_;
};

/// There was no memory left, after everything that was only cached had been given up.
class OutOfDeviceMemory : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

class Device;

/// An ordered queue of work on one device. Launches return at once; synchronize waits for all.
class Stream {
 public:
  virtual ~Stream() = default;
  /// Waits for all that was launched.
  void synchronize() {
    waited();
    drain();
  }
  /// How often the host has waited for this stream, or for a copy from it.
  uint64_t waits() const { return waits_; }
  virtual Device& device() = 0;
  /// What is launched from now on belongs to this op (a literal): errors that come late name it.
  virtual void begin(const char* /*op*/) {}
  /// Hears of every call of the vendor's library by name ("aclnnMm"), until another watcher, or
  /// none, is set. Where no library is called there is nothing to hear.
  virtual void watch(std::function<void(const char* call)> /*watcher*/) {}

 protected:
  virtual void drain() = 0;
  void waited() { ++waits_; }

 private:
  uint64_t waits_ = 0;
};

struct MemoryUse {
  size_t live_bytes = 0;      // held by tensors now
  size_t peak_bytes = 0;      // the most that was ever live since reset_peak
  size_t reserved_bytes = 0;  // taken from the system, cached blocks included
};

/// Lives as long as the process. Thread rule: one thread at a time uses a device.
class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  virtual std::string name() const = 0;      // "cpu", "ascend:0"
  virtual std::string describe() const = 0;  // for reports: chip, memory, software

  /// Uninitialised memory, 64-byte aligned, reused in stream order. Throws DeviceError when there
  /// is none.
  virtual void* allocate(size_t bytes) = 0;
  virtual void deallocate(void* p, size_t bytes) = 0;
  virtual MemoryUse memory_use() const = 0;
  virtual void reset_peak() = 0;
  /// Bytes that can still be allocated; nothing where the device's memory is the host's.
  virtual std::optional<uint64_t> memory_available() const { return std::nullopt; }

  /// Ordered on stream(). The host's bytes are free again when this returns, and have been read:
  /// where the device has memory of its own they go through memory that it can read by itself, so
  /// that nobody waits for the stream unless megabytes are on their way.
  virtual void copy_from_host(void* device, const void* host, size_t bytes) = 0;
  /// Waits for the stream: the bytes have arrived when this returns.
  virtual void copy_to_host(void* host, const void* device, size_t bytes) = 0;
  /// Ordered on stream(), on the device.
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  virtual void fill_zero(void* p, size_t bytes) = 0;

  virtual Stream& stream() = 0;
  /// From now on each launch is waited for, so that an error names the one that failed. Slow; where
  /// launches run at once there is nothing to do.
  virtual void set_replay(bool /*on*/) {}
  /// Operations per second in bf16 of the chip's matrix units by their clock; 0: not known.
  virtual double peak_flops_bf16() const { return 0; }
};

/// What a device's pool makes of a request: at least 64 bytes, and 1/8 of a power of two more at
/// most, so that a block that is given back fits the next similar request.
size_t pool_block_bytes(size_t bytes);

/// Memory that tensors on the device can still take: the chip's own, or what the host has left.
MemoryAvailable memory_available(const Device& device);

/// "cpu", "cuda", "cuda:1", "ascend:0". Errors: kInvalidInput (no such kind), kUnavailable (why).
Result<Device*> open_device(std::string_view name);

}  // namespace ferry
