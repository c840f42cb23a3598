#include "device/ascend/ascend_stream.h"

#include <algorithm>

#include "base/clock.h"
#include "base/flight_record.h"
#include "base/units.h"
#include "device/ascend/ascend_device.h"
#include "device/ascend/errors.h"

namespace ferry {
namespace {

constexpr acl::Status kRuntimeError = 361001;  // aclnn: the runtime refused, and knows why

}  // namespace

AscendStream::AscendStream(AscendDevice& device, acl::Stream handle)
    : device_(device), handle_(handle) {}

Device& AscendStream::device() { return device_; }

void AscendStream::launched(const char* call) {
  ring_.add(op_, call);
  if (watcher_) watcher_(call);
  if (device_.options().replay) return synchronize();
  if (ring_.launched() % kLaunchesPerMark == 0) record_mark();
}

void AscendStream::record_mark() {
  const acl::Library& library = device_.cann();
  acl::Event event = nullptr;
  if (const acl::Error code = library.aclrtCreateEvent(&event); code != 0)
    fail(code, "aclrtCreateEvent");
  marks_.push_back({ring_.launched(), event});
  if (const acl::Error code = library.aclrtRecordEvent(event, handle_); code != 0)
    fail(code, "aclrtRecordEvent");
  collect_marks();
}

/// Forgets the marks that the stream has passed. An event is also "complete" when the stream gave
/// up before it: waiting for it tells.
void AscendStream::collect_marks() {
  const acl::Library& library = device_.cann();
  while (!marks_.empty()) {
    const acl::Event event = marks_.front().event;
    acl::EventStatus status = acl::kNotReady;
    if (library.aclrtQueryEventStatus(event, &status) != 0 || status != acl::kComplete) return;
    if (library.aclrtSynchronizeEventWithTimeout(event, 1000) != 0) return;
    ring_.complete(marks_.front().launches);
    library.aclrtDestroyEvent(event);
    marks_.pop_front();
  }
}

/// Should the chip hang, its supervisor says in what.
void AscendStream::tell_waiting() const {
  const uint64_t to = marks_.empty() ? ring_.launched() : marks_.front().launches;
  flight::set_chip(to, ring_.completed(), ring_.open_ops(to));
}

/// Waits in slices. Ours is the timeout only if a whole slice went by; what a device reports sooner
/// is its own.
template <typename Wait>
void AscendStream::wait(Wait&& wait) {
  device_.bind();
  const double timeout_s = device_.options().timeout_s;
  const double slice_s = std::min(timeout_s, 1.0);
  double waited_s = 0;
  const flight::In waiting(flight::Activity::kChip);
  while (true) {
    tell_waiting();
    const double start_s = system_clock().monotonic_s();
    const acl::Error code = wait(static_cast<int32_t>(slice_s * 1000));
    if (code == 0) return;
    const double passed_s = system_clock().monotonic_s() - start_s;
    const bool ours = (code == acl::kStreamSyncTimeout || code == acl::kEventSyncTimeout ||
                       code == acl::kWaitTimeout) &&
                      passed_s >= 0.9 * slice_s;
    const std::string message = device_.cann().recent_message();
    const uint64_t before = ring_.completed();
    collect_marks();
    if (!ours) raise(code, suspects(""), message);
    waited_s = ring_.completed() > before ? 0 : waited_s + passed_s;
    if (waited_s >= 0.9 * timeout_s)
      raise(acl::kStreamSyncTimeout,
            suspects(""),
            fmt::format("; nothing ended for {}", format_duration(waited_s)));
  }
}

void AscendStream::drain() {
  const acl::Library& library = device_.cann();
  wait([&](int32_t ms) { return library.aclrtSynchronizeStreamWithTimeout(handle_, ms); });
  ring_.complete(ring_.launched());
  for (const Mark& mark : marks_) library.aclrtDestroyEvent(mark.event);
  marks_.clear();
}

void AscendStream::wait_for(acl::Event event) {
  acl::EventStatus status = acl::kNotReady;
  if (device_.cann().aclrtQueryEventStatus(event, &status) != 0 || status != acl::kComplete)
    waited();
  wait([&](int32_t ms) { return device_.cann().aclrtSynchronizeEventWithTimeout(event, ms); });
}

void AscendStream::fail(int64_t code, const char* call, const std::string& detail) {
  const ErrorMeaning* meaning = acl::meaning_of(code);
  const bool chip = meaning == nullptr || meaning->fault == Fault::kDevice;
  const std::string message = device_.cann().recent_message();
  if (code == kRuntimeError) {  // the stream has the chip's own code
    const acl::Error own = device_.cann().aclrtSynchronizeStreamWithTimeout(handle_, 1000);
    if (own != 0 && own != acl::kStreamSyncTimeout) code = own;
  }
  if (chip) collect_marks();
  raise(code, chip ? suspects(launch_name(op_, call)) : launch_name(op_, call), detail + message);
}

void AscendStream::raise(int64_t code, const std::string& what, const std::string& detail) {
  const std::string message =
      fmt::format("{}: {}: {}{}", device_.name(), what, acl::describe_code(code), detail);
  const ErrorMeaning* meaning = acl::meaning_of(code);
  if (meaning != nullptr && meaning->fault == Fault::kMemory)
    throw OutOfDeviceMemory(device_.name(), code, message, what);
  throw DeviceError(device_.name(), code, message, what);
}

std::string AscendStream::suspects(const std::string& call) const {
  return ring_.suspects(call, "FERRY_ASCEND_REPLAY=1 names the one");
}

}  // namespace ferry
