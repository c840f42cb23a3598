// The ring of uploads in an Ascend device's pinned memory.
#pragma once

#include "device/upload_ring.h"

namespace ferry {

class AscendDevice;

class AscendUploads final : public UploadRing {
 public:
  explicit AscendUploads(AscendDevice& device) : device_(device) {}

 private:
  void* pinned(size_t bytes) override;
  Event record() override;
  void wait(Event event) override;
  void destroy(Event event) override;

  AscendDevice& device_;
};

}  // namespace ferry
