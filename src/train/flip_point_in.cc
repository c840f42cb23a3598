#include "train/flip_point_in.h"

#include <vector>

#include "base/fault.h"

namespace ferry {

void flip_point_in(const char* name, std::span<const Tensor> tensors) {
  if (!faults_armed()) return;
  std::vector<std::span<std::byte>> memory;
  for (const Tensor& t : tensors)
    if (t.defined() && t.device().kind() == DeviceKind::kCpu)
      memory.emplace_back(static_cast<std::byte*>(t.data()), t.bytes());
  flip_point(name, memory);
}

}  // namespace ferry
