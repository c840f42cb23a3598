#include "ops/ascend/aclnn.h"

#include <string>

#include "base/check.h"
#include "device/ascend/ascend_device.h"

namespace ferry::ops::ascend {

const acl::Library& library() {
  static const Result<const acl::Library*> library = acl::open_library();
  check(library.has_value(), "aclnn: a kernel for Ascend runs, but there is no Ascend");
  return **library;
}

namespace detail {

void* resolve(Stream& stream, const char* op, const char* suffix) {
  const std::string name = std::string(op) + suffix;
  if (void* const address = library().find_operator(name.c_str())) return address;
  throw DeviceError(
      stream.device().name(),
      0,
      fmt::format("{}: this CANN has no {}: is it too old?", stream.device().name(), name),
      op);
}

void launch(Stream& stream,
            const char* op,
            acl::Status planned,
            Launch launch,
            uint64_t workspace_bytes,
            acl::Executor* executor) {
  AscendDevice& device = ascend_device(stream);
  if (planned != 0) device.stream().fail(planned, op);
  // Given back as soon as the op is queued: whoever takes it next is queued behind.
  void* const workspace = workspace_bytes > 0 ? device.allocate(workspace_bytes) : nullptr;
  const acl::Status launched =
      launch(workspace, workspace_bytes, executor, device.stream().handle());
  if (workspace != nullptr) device.deallocate(workspace, workspace_bytes);
  if (launched != 0) device.stream().fail(launched, op);
  device.stream().launched(op);
}

}  // namespace detail
}  // namespace ferry::ops::ascend
