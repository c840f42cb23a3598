// The specs of Ferry's ops as the doctor uses them: without the benchmark shapes, made once.
#pragma once

#include <vector>

#include "ops/spec.h"

namespace ferry::doctor {

/// Every op's spec; lives as long as the process.
const std::vector<ops::OpSpec>& checked_specs();

}  // namespace ferry::doctor
