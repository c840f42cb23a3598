#include "device/cuda/cuda_uploads.h"

#include "device/cuda/cuda_device.h"

namespace ferry {

void* CudaUploads::pinned(size_t bytes) {
  void* memory = nullptr;
  device_.checked(device_.library().cuMemHostAlloc(&memory, bytes, 0), "cuMemHostAlloc");
  return memory;
}

UploadRing::Event CudaUploads::record() { return device_.stream().record(); }

void CudaUploads::wait(Event event) { device_.stream().wait_for(event); }

void CudaUploads::destroy(Event event) {
  device_.checked(device_.library().cuEventDestroy_v2(event), "cuEventDestroy");
}

}  // namespace ferry
