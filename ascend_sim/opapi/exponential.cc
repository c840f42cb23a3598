#include "opapi/exponential.h"

#include <bit>
#include <limits>

#include "opapi/clones.h"

namespace ascend_sim {

ASCEND_SIM_FAST void exponentials(float* x, int64_t n, float shift) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i] - shift;
    // Outside of this range the answer is 0 or infinity; comparisons that NaN fails keep NaN.
    const float bounded = v < -87.3f ? -87.3f : v > 88.7f ? 88.7f : v;
    const float shifted = bounded * kLog2E + 12582912.0f;  // 1.5 * 2^23: the fraction is dropped
    const float whole = shifted - 12582912.0f;
    const float r = (bounded - whole * kLn2High) - whole * kLn2Low;
    float p = 1.0f / 5040;  // Taylor to the 7th power: |r| <= 0.347, the rest is below 1e-8
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = (p * r) * r + r + 1.0f;
    // 2^whole in two factors: 2^128 alone would overflow.
    const int32_t half = (std::bit_cast<int32_t>(shifted) - 0x4b400000) >> 1;
    const int32_t rest = (std::bit_cast<int32_t>(shifted) - 0x4b400000) - half;
    const float y =
        p * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((rest + 127) << 23);
    x[i] = v < -87.3f ? 0.0f : v > 88.7228f ? std::numeric_limits<float>::infinity() : y;
  }
}

}  // namespace ascend_sim
