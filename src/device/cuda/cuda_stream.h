// The one queue of an NVIDIA device. It keeps a ring of what it launched, so that an error, which
// the chip reports some launches later, can be said to come from few of them, or from one.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>

#include "device/cuda/driver.h"
#include "device/device.h"
#include "device/launch_ring.h"

namespace ferry {

class CudaDevice;

/// Waiting throws DeviceError when a launch failed, or when nothing came to its end for the
/// device's timeout. Thread rule: the device's. Lifetime: the device's.
class CudaStream final : public Stream {
 public:
  CudaStream(CudaDevice& device, cuda::StreamHandle handle) : device_(device), handle_(handle) {}

  Device& device() override;
  void begin(const char* op) override { op_ = op; }
  void watch(std::function<void(const char* call)> watcher) override {  // told by launched()
    watcher_ = std::move(watcher);
  }

  cuda::StreamHandle handle() const { return handle_; }

  /// To be called after each launch: `call` (a kernel's name, a literal) enters the ring; in replay
  /// mode waits for it.
  void launched(const char* call);

  /// Throws DeviceError for a call that answered `code`: of the call itself, or, if the chip
  /// failed, of what was launched before it. `detail` follows the code's meaning.
  [[noreturn]] void fail(int64_t code, const char* call, const std::string& detail = "");

  /// Waits for an event that was recorded on this stream, as synchronize() does.
  void wait_for(cuda::Event event);
  /// An event behind what was launched.
  cuda::Event record();

 private:
  struct Mark {
    uint64_t launches;  // so many were launched when it was recorded
    cuda::Event event;
  };

  void drain() override;
  void tell_waiting() const;
  void collect_marks();
  template <typename Query>  // Error query(): kNotReady, or that it is over
  void wait(Query&& query);
  [[noreturn]] void raise(int64_t code, const std::string& what, const std::string& detail);

  static constexpr uint64_t kLaunchesPerMark = 16;

  CudaDevice& device_;
  cuda::StreamHandle handle_;
  const char* op_ = "";
  LaunchRing ring_;
  std::deque<Mark> marks_;
  std::function<void(const char* call)> watcher_;
};

}  // namespace ferry
