// e^x over arrays, written so that the compiler vectorises it: attention and softmax spend their
// time here.
#pragma once

#include <cstdint>

namespace ascend_sim {

/// x[i] = e^(x[i] - shift), within 2 ULP; 0 below the range of normal floats, infinity above it.
void exponentials(float* x, int64_t n, float shift);

}  // namespace ascend_sim
