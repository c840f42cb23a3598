#include "device/cuda/cuda_stream.h"

#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/flight_record.h"
#include "base/units.h"
#include "device/cuda/cuda_device.h"
#include "device/cuda/errors.h"

namespace ferry {
namespace {

constexpr const char* kAdvice = "FERRY_CUDA_REPLAY=1 names the one";

}  // namespace

Device& CudaStream::device() { return device_; }

void CudaStream::launched(const char* call) {
  ring_.add(op_, call);
  if (watcher_) watcher_(call);
  if (device_.options().replay) return synchronize();
  if (ring_.launched() % kLaunchesPerMark != 0) return;
  marks_.push_back({ring_.launched(), record()});
  collect_marks();
}

cuda::Event CudaStream::record() {
  const cuda::Library& library = device_.library();
  cuda::Event event = nullptr;
  if (const cuda::Error code = library.cuEventCreate(&event, cuda::kEventNoTiming); code != 0)
    fail(code, "cuEventCreate");
  if (const cuda::Error code = library.cuEventRecord(event, handle_); code != 0)
    fail(code, "cuEventRecord");
  return event;
}

/// Forgets the marks that the stream has passed.
void CudaStream::collect_marks() {
  const cuda::Library& library = device_.library();
  while (!marks_.empty() && library.cuEventQuery(marks_.front().event) == 0) {
    ring_.complete(marks_.front().launches);
    library.cuEventDestroy_v2(marks_.front().event);
    marks_.pop_front();
  }
}

/// Should the chip hang, its supervisor says in what.
void CudaStream::tell_waiting() const {
  const uint64_t to = marks_.empty() ? ring_.launched() : marks_.front().launches;
  flight::set_chip(to, ring_.completed(), ring_.open_ops(to));
}

/// The driver's own ways to wait know no limit, and a chip that hangs would hold the host for ever:
/// so the state is asked for, first at once, then now and then.
template <typename Query>
void CudaStream::wait(Query&& query) {
  device_.bind();
  const double start_s = system_clock().monotonic_s();
  double progress_s = start_s;
  const flight::In waiting(flight::Activity::kChip);
  tell_waiting();
  while (true) {
    const cuda::Error code = query();
    if (code == 0) return;
    if (code != cuda::kNotReady) {
      collect_marks();
      raise(code, ring_.suspects("", kAdvice), device_.library().recent_report());
    }
    const double now_s = system_clock().monotonic_s();
    if (now_s - start_s < 200e-6) continue;
    const uint64_t before = ring_.completed();
    collect_marks();
    if (ring_.completed() > before) {
      progress_s = now_s;
      tell_waiting();
    }
    if (now_s - progress_s >= device_.options().timeout_s)
      raise(cuda::kLaunchTimeout,
            ring_.suspects("", kAdvice),
            fmt::format("; nothing ended for {}", format_duration(now_s - progress_s)));
    ::usleep(20);
  }
}

void CudaStream::drain() {
  wait([&] { return device_.library().cuStreamQuery(handle_); });
  ring_.complete(ring_.launched());
  for (const Mark& mark : marks_) device_.library().cuEventDestroy_v2(mark.event);
  marks_.clear();
}

void CudaStream::wait_for(cuda::Event event) {
  const cuda::Library& library = device_.library();
  if (library.cuEventQuery(event) != 0) waited();
  wait([&] { return library.cuEventQuery(event); });
}

void CudaStream::fail(int64_t code, const char* call, const std::string& detail) {
  const ErrorMeaning* meaning = cuda::meaning_of(code);
  const bool chip = meaning == nullptr || meaning->fault == Fault::kDevice;
  const std::string report = chip ? device_.library().recent_report() : "";
  if (chip) collect_marks();
  const std::string named = launch_name(op_, call);
  raise(code, chip ? ring_.suspects(named, kAdvice) : named, detail + report);
}

void CudaStream::raise(int64_t code, const std::string& what, const std::string& detail) {
  const std::string message =
      fmt::format("{}: {}: {}{}", device_.name(), what, cuda::describe_code(code), detail);
  const ErrorMeaning* meaning = cuda::meaning_of(code);
  if (meaning != nullptr && meaning->fault == Fault::kMemory)
    throw OutOfDeviceMemory(device_.name(), code, message, what);
  throw DeviceError(device_.name(), code, message, what);
}

}  // namespace ferry
