// The one queue of an Ascend device. It keeps a ring of what it launched, so that an error, which
// the chip reports some launches later, can be said to come from few of them, or from one.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>

#include "device/ascend/acl.h"
#include "device/device.h"
#include "device/launch_ring.h"

namespace ferry {

class AscendDevice;

/// Waiting throws DeviceError when a launch failed, or when nothing came to its end for the
/// device's timeout. Thread rule: the device's. Lifetime: the device's.
class AscendStream final : public Stream {
 public:
  AscendStream(AscendDevice& device, acl::Stream handle);

  Device& device() override;
  void begin(const char* op) override { op_ = op; }
  void watch(std::function<void(const char* call)> watcher) override {  // told by launched()
    watcher_ = std::move(watcher);
  }

  acl::Stream handle() const { return handle_; }

  /// To be called after each launch: `call` ("aclnnMm", a literal) enters the ring; in replay mode
  /// waits for it.
  void launched(const char* call);

  /// Throws DeviceError for a call that answered `code`: of the call itself, or, if the chip
  /// failed, of what was launched before it. `detail` follows the code's meaning.
  [[noreturn]] void fail(int64_t code, const char* call, const std::string& detail = "");

  /// Waits for an event that was recorded on this stream, as synchronize() does.
  void wait_for(acl::Event event);

 private:
  struct Mark {
    uint64_t launches;  // so many were launched when it was recorded
    acl::Event event;
  };

  void drain() override;
  void tell_waiting() const;
  void record_mark();
  void collect_marks();
  template <typename Wait>  // Error wait(int32_t ms)
  void wait(Wait&& wait);
  std::string suspects(const std::string& call) const;
  [[noreturn]] void raise(int64_t code, const std::string& what, const std::string& detail);

  static constexpr uint64_t kLaunchesPerMark = 16;

  AscendDevice& device_;
  acl::Stream handle_;
  const char* op_ = "";
  LaunchRing ring_;
  std::deque<Mark> marks_;
  std::function<void(const char* call)> watcher_;
};

}  // namespace ferry
