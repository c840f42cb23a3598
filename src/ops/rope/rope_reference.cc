// rope in float64, for judging kernels; the frequencies are written out again, from the papers.
#include "ops/rope/rope_reference.h"

#include <algorithm>
#include <cmath>

namespace ferry::ops {

RefTensor rope_reference(const RefTensor& x, const RefTensor& position, const RopeConfig& c, int64_t begin, bool interleaved) {
  const int64_t width = x.shape[x.shape.rank() - 1], rows = x.shape.count() / width, per_token = rows / x.shape[0];
  const int64_t half = c.dim / 2;
  const double m = c.yarn && c.factor > 1 ? (0.1 * c.mscale * std::log(c.factor) + 1) / (0.1 * c.mscale_all_dim * std::log(c.factor) + 1) : 1;
  RefTensor y = x;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < half; ++i) {
      double f = std::pow(c.theta, -2.0 * static_cast<double>(i) / static_cast<double>(c.dim));
      if (c.yarn) {
        const YarnRange range = yarn_range(c);
        const double width_of_ramp = range.high == range.low ? 0.001 : range.high - range.low;
        const double ramp = std::clamp((static_cast<double>(i) - range.low) / width_of_ramp, 0.0, 1.0);
        f = f / c.factor * ramp + f * (1 - ramp);
      }
      const double angle = position[r / per_token] * f, cosine = m * std::cos(angle), sine = m * std::sin(angle);
      const int64_t at = r * width + begin + (interleaved ? 2 * i : i), other = at + (interleaved ? 1 : half);
      y[at] = x[at] * cosine - x[other] * sine;
      y[other] = x[at] * sine + x[other] * cosine;
    }
  }
  return y;
}

}  // namespace ferry::ops
