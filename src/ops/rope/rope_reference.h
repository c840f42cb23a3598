#pragma once

#include "ops/rope/rope.h"

namespace ferry::ops {

/// x as in rope.h; position [tokens]. Angles from std::pow, std::cos and std::sin.
RefTensor rope_reference(const RefTensor& x, const RefTensor& position, const RopeConfig& config, int64_t begin, bool interleaved);

}  // namespace ferry::ops
