// The ring of uploads in pinned memory that an NVIDIA device reads by itself.
#pragma once

#include "device/upload_ring.h"

namespace ferry {

class CudaDevice;

class CudaUploads final : public UploadRing {
 public:
  explicit CudaUploads(CudaDevice& device) : device_(device) {}

 private:
  void* pinned(size_t bytes) override;
  Event record() override;
  void wait(Event event) override;
  void destroy(Event event) override;

  CudaDevice& device_;
};

}  // namespace ferry
