// Specs of single calls of the vendor's library, below the level of Ferry's ops: when a kernel that
// is composed of several calls fails, these say which call it was.
#pragma once

#include <vector>

#include "ops/spec.h"

namespace ferry::ops::ascend {

/// One spec for each aclnn op that kernels compose others from ("aclnnMul"); run them on an Ascend
/// device only. Fused ops (attention, experts, grouped products, optimizer) are kernels of their
/// own and have Ferry's specs. An op that this CANN lacks throws DeviceError when it is run.
std::vector<OpSpec> library_specs();

}  // namespace ferry::ops::ascend
