#include "device/ascend/ascend_uploads.h"

#include "device/ascend/ascend_device.h"

namespace ferry {

void* AscendUploads::pinned(size_t bytes) {
  void* memory = nullptr;
  device_.checked(device_.cann().aclrtMallocHost(&memory, bytes), "aclrtMallocHost");
  return memory;
}

UploadRing::Event AscendUploads::record() {
  acl::Event event = nullptr;
  device_.checked(device_.cann().aclrtCreateEvent(&event), "aclrtCreateEvent");
  device_.checked(device_.cann().aclrtRecordEvent(event, device_.stream().handle()),
                  "aclrtRecordEvent");
  return event;
}

void AscendUploads::wait(Event event) { device_.stream().wait_for(event); }

void AscendUploads::destroy(Event event) {
  device_.checked(device_.cann().aclrtDestroyEvent(event), "aclrtDestroyEvent");
}

}  // namespace ferry
