#include "ops/library_specs.h"

#include "ops/ascend/library_specs.h"

namespace ferry::ops {

std::vector<OpSpec> library_specs(DeviceKind kind) {
  return kind == DeviceKind::kAscend ? ascend::library_specs() : std::vector<OpSpec>();
}

}  // namespace ferry::ops
