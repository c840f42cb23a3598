// The specs of Ferry's ops as the doctor uses them: without the benchmark shapes, made once; and what
// its checks ask of their cases and results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/spec.h"

namespace ferry::doctor {

/// Every op's spec; lives as long as the process.
const std::vector<ops::OpSpec>& checked_specs();

/// Of all inputs together.
int64_t elements_of(const ops::OpCase& c);

/// What a result holds, to be compared bit by bit.
std::vector<std::byte> bits_of(const Tensor& t);

}  // namespace ferry::doctor
