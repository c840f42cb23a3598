#include "verify/library_watch.h"

#include "device/ascend/ascend_device.h"

namespace ferry {
namespace {

void watch(Device& device, std::function<void(const char*)> heard) {
  if (device.kind() == DeviceKind::kAscend)
    static_cast<AscendDevice&>(device).stream().watch(std::move(heard));
}

}  // namespace

LibraryWatch::LibraryWatch(Device& device, std::function<void(const char*)> heard)
    : device_(device) {
  watch(device_, std::move(heard));
}

LibraryWatch::~LibraryWatch() { watch(device_, {}); }

}  // namespace ferry
