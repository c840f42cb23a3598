// One Ascend chip (or one die of a 910C): its memory, its stream, the library that drives it.
#pragma once

#include <string>
#include <string_view>

#include "device/ascend/acl.h"
#include "device/ascend/ascend_pool.h"
#include "device/ascend/ascend_stream.h"
#include "device/ascend/ascend_uploads.h"
#include "device/ascend/chips.h"
#include "device/device.h"

namespace ferry {

struct AscendOptions {
  bool replay = false;     // wait for each launch, so that an error names the one op
  double timeout_s = 120;  // without any launch coming to its end: a hang
};

/// Lives as long as the process. Thread rule: one thread at a time; any thread.
class AscendDevice final : public Device {
 public:
  /// Sets the device up: context, determinism, stream. Errors: kUnavailable.
  static Result<AscendDevice*> open(int index);

  AscendDevice(const AscendDevice&) = delete;
  AscendDevice& operator=(const AscendDevice&) = delete;

  DeviceKind kind() const override { return DeviceKind::kAscend; }
  std::string name() const override { return name_; }
  std::string describe() const override;

  void* allocate(size_t bytes) override;
  void deallocate(void* p, size_t bytes) override;
  MemoryUse memory_use() const override { return pool_.use(); }
  void reset_peak() override { pool_.reset_peak(); }
  std::optional<uint64_t> memory_available() const override;  // what the pool would give, too

  void copy_from_host(void* device, const void* host, size_t bytes) override;
  void copy_to_host(void* host, const void* device, size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;
  void fill_zero(void* p, size_t bytes) override;

  AscendStream& stream() override { return stream_; }
  void set_replay(bool on) override { options_.replay = on; }
  double peak_flops_bf16() const override { return software() ? 0 : chip_.tflops_bf16() * 1e12; }

  const acl::Library& cann() const { return library_; }
  const acl::Chip& chip() const { return chip_; }
  const std::string& soc_name() const { return soc_name_; }
  bool software() const { return !library_.software.empty(); }
  int index() const { return index_; }
  AscendOptions& options() { return options_; }

  /// Makes this device the calling thread's. Every call of the library needs it.
  void bind() const;

  /// Throws DeviceError for a call of the library that answered `code`.
  void checked(acl::Error code, const char* call);

 private:
  AscendDevice(int index,
               const acl::Library& library,
               const acl::Chip& chip,
               std::string soc_name,
               acl::Context context,
               acl::Stream stream);

  static constexpr size_t kDownloadBytes = size_t{4} << 20;

  int index_;
  std::string name_;
  const acl::Library& library_;
  const acl::Chip& chip_;
  std::string soc_name_;
  acl::Context context_;
  AscendOptions options_;
  AscendStream stream_;
  AscendPool pool_;
  AscendUploads uploads_;
  void* download_ = nullptr;  // pinned memory, on the way from the chip
};

/// The device behind a stream that a kernel for Ascend was given.
inline AscendDevice& ascend_device(Stream& stream) {
  return static_cast<AscendDevice&>(stream.device());
}

}  // namespace ferry
