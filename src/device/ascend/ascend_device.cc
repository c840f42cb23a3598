#include "device/ascend/ascend_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "base/check.h"
#include "base/units.h"
#include "device/ascend/errors.h"

namespace ferry {
namespace {

std::map<int, AscendDevice*>& opened() {
  static auto* devices = new std::map<int, AscendDevice*>;  // as the devices: never destroyed
  return *devices;
}

thread_local const AscendDevice* t_bound = nullptr;

Result<AscendOptions> options_from_environment() {
  AscendOptions options;
  if (const char* text = std::getenv("FERRY_ASCEND_REPLAY"); text != nullptr && *text != '\0') {
    const std::string_view value(text);
    if (value != "0" && value != "1")
      return fail(Code::kInvalidInput, "FERRY_ASCEND_REPLAY={}: must be 0 or 1", text);
    options.replay = value == "1";
  }
  if (const char* text = std::getenv("FERRY_ASCEND_TIMEOUT_S"); text != nullptr && *text != '\0') {
    char* end = nullptr;
    options.timeout_s = std::strtod(text, &end);
    if (*end != '\0' || !(options.timeout_s >= 0.01 && options.timeout_s <= 86400))
      return fail(Code::kInvalidInput,
                  "FERRY_ASCEND_TIMEOUT_S={}: must be seconds from 0.01 to 86400",
                  text);
  }
  return options;
}

/// A call of opening a device that answered `code`.
tl::unexpected<Status> refused(const acl::Library& library,
                               int index,
                               const char* call,
                               acl::Error code) {
  return fail(Code::kUnavailable,
              "device 'ascend:{}': {}: {}{}",
              index,
              call,
              acl::describe_code(code),
              library.recent_message());
}

/// aclInit once for the process.
Result<const acl::Library*> initialised_library() {
  TRY_ASSIGN(const acl::Library* const library, acl::open_library());
  static const acl::Error code = library->aclInit(nullptr);
  if (code != 0 && code != acl::kAlreadyInitialised)
    return fail(
        Code::kUnavailable, "aclInit: {}{}", acl::describe_code(code), library->recent_message());
  return library;
}

Result<const acl::Chip*> accepted_chip(const std::string& soc_name) {
  const acl::Chip* chip = acl::find_chip(soc_name);
  constexpr const char* kRunsOn =
      "Ferry runs on 910B (Ascend910B1 to B4) and 910C (Ascend910_93xx)";
  if (chip == nullptr)
    return fail(Code::kUnavailable, "the chip \"{}\" is not known; {}", soc_name, kRunsOn);
  if (chip->refused != nullptr)
    return fail(Code::kUnavailable,
                "the chip {} is a {}: {}; {}",
                soc_name,
                chip->family,
                chip->refused,
                kRunsOn);
  return chip;
}

}  // namespace

Result<AscendDevice*> AscendDevice::open(int index) {
  if (const auto it = opened().find(index); it != opened().end()) return it->second;
  TRY_ASSIGN(const AscendOptions options, options_from_environment());
  TRY_ASSIGN(const acl::Library* const library, initialised_library());
  const acl::Library& acl = *library;
  uint32_t count = 0;
  if (const auto code = acl.aclrtGetDeviceCount(&count); code != 0)
    return refused(acl, index, "aclrtGetDeviceCount", code);
  if (index < 0 || static_cast<uint32_t>(index) >= count)
    return fail(Code::kUnavailable, "device 'ascend:{}': this machine has {}", index, count);
  if (const auto code = acl.aclrtSetDevice(index); code != 0)
    return refused(acl, index, "aclrtSetDevice", code);
  const char* soc_name = acl.aclrtGetSocName();
  TRY_ASSIGN(const acl::Chip* const chip, accepted_chip(soc_name == nullptr ? "" : soc_name));
  acl::Context context = nullptr;
  if (const auto code = acl.aclrtGetCurrentContext(&context); code != 0)
    return refused(acl, index, "aclrtGetCurrentContext", code);
  if (const auto code = acl.aclrtCtxSetSysParamOpt(acl::kDeterministic, acl::kBatchConsistency);
      code != 0)
    return refused(
        acl, index, "asking for batch-consistent results (aclrtCtxSetSysParamOpt)", code);
  acl::Stream stream = nullptr;
  if (const auto code = acl.aclrtCreateStream(&stream); code != 0)
    return refused(acl, index, "aclrtCreateStream", code);
  if (const auto code = acl.aclrtSetStreamFailureMode(stream, acl::kStopOnFailure); code != 0)
    return refused(acl, index, "aclrtSetStreamFailureMode", code);
  auto* device = new AscendDevice(index, acl, *chip, soc_name, context, stream);
  device->options_ = options;
  return opened()[index] = device;
}

AscendDevice::AscendDevice(int index,
                           const acl::Library& library,
                           const acl::Chip& chip,
                           std::string soc_name,
                           acl::Context context,
                           acl::Stream stream)
    : index_(index),
      name_(fmt::format("ascend:{}", index)),
      library_(library),
      chip_(chip),
      soc_name_(std::move(soc_name)),
      context_(context),
      stream_(*this, stream),
      pool_(*this),
      uploads_(*this) {}

std::string AscendDevice::describe() const {
  size_t free_bytes = 0, total_bytes = 0;
  bind();
  const bool known = library_.aclrtGetMemInfo(acl::kHbm, &free_bytes, &total_bytes) == 0;
  return fmt::format("{}{} {}, {}, {}",
                     software() ? fmt::format("software Ascend ({}) as ", library_.software) : "",
                     name_,
                     soc_name_,
                     chip_.family,
                     known ? format_bytes(static_cast<double>(total_bytes)) : "memory unknown");
}

std::optional<uint64_t> AscendDevice::memory_available() const {
  size_t free_bytes = 0, total_bytes = 0;
  bind();
  const acl::Error code = library_.aclrtGetMemInfo(acl::kHbm, &free_bytes, &total_bytes);
  if (code != 0)
    throw DeviceError(
        name_, code, fmt::format("{}: aclrtGetMemInfo: {}", name_, acl::describe_code(code)));
  const MemoryUse use = pool_.use();
  return free_bytes + (use.reserved_bytes - use.live_bytes);
}

void AscendDevice::bind() const {
  if (t_bound == this) return;
  const acl::Error code = library_.aclrtSetCurrentContext(context_);
  if (code != 0)
    throw DeviceError(
        name_,
        code,
        fmt::format("{}: aclrtSetCurrentContext: {}", name_, acl::describe_code(code)));
  t_bound = this;
}

void* AscendDevice::allocate(size_t bytes) {
  bind();
  return pool_.allocate(bytes);
}

void AscendDevice::deallocate(void* p, size_t bytes) { pool_.deallocate(p, bytes); }

void AscendDevice::checked(acl::Error code, const char* call) {
  if (code != 0) stream_.fail(code, call);
}

void AscendDevice::copy_from_host(void* device, const void* host, size_t bytes) {
  bind();
  stream_.begin("copy to the chip");
  for (size_t at = 0; at < bytes; at += UploadRing::kPartBytesMax) {
    const size_t part = std::min(UploadRing::kPartBytesMax, bytes - at);
    void* const pinned = uploads_.take(part);
    std::memcpy(pinned, static_cast<const char*>(host) + at, part);
    checked(library_.aclrtMemcpyAsync(static_cast<char*>(device) + at,
                                      part,
                                      pinned,
                                      part,
                                      acl::kHostToDevice,
                                      stream_.handle()),
            "aclrtMemcpyAsync");
    uploads_.sent();
    stream_.launched("aclrtMemcpyAsync");
  }
}

void AscendDevice::copy_to_host(void* host, const void* device, size_t bytes) {
  bind();
  stream_.begin("copy from the chip");
  if (download_ == nullptr)
    checked(library_.aclrtMallocHost(&download_, kDownloadBytes), "aclrtMallocHost");
  for (size_t at = 0; at < bytes; at += kDownloadBytes) {
    const size_t part = std::min(kDownloadBytes, bytes - at);
    checked(library_.aclrtMemcpyAsync(download_,
                                      part,
                                      static_cast<const char*>(device) + at,
                                      part,
                                      acl::kDeviceToHost,
                                      stream_.handle()),
            "aclrtMemcpyAsync");
    stream_.launched("aclrtMemcpyAsync");
    stream_.synchronize();
    std::memcpy(static_cast<char*>(host) + at, download_, part);
  }
}

void AscendDevice::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  bind();
  stream_.begin("copy");
  checked(library_.aclrtMemcpyAsync(to, bytes, from, bytes, acl::kDeviceToDevice, stream_.handle()),
          "aclrtMemcpyAsync");
  stream_.launched("aclrtMemcpyAsync");
}

void AscendDevice::fill_zero(void* p, size_t bytes) {
  if (bytes == 0) return;
  bind();
  stream_.begin("fill with zeros");
  checked(library_.aclrtMemsetAsync(p, bytes, 0, bytes, stream_.handle()), "aclrtMemsetAsync");
  stream_.launched("aclrtMemsetAsync");
}

}  // namespace ferry
