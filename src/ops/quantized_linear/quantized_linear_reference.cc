#include "ops/quantized_linear/quantized_linear_reference.h"

#include <algorithm>
#include <cmath>

#include "ops/quantized_linear/quantized_weight.h"

namespace ferry::ops {
namespace {

/// Below the least normal number everything is zero, as in kernels.
double flushed(double x) { return std::abs(x) < kLeastNormal ? 0 : x; }
double as_f32(double x) { return flushed(static_cast<double>(static_cast<float>(x))); }

double half_even(double x) {
  const double low = std::floor(x), rest = x - low;
  if (rest != 0.5) return rest < 0.5 ? low : low + 1;
  return std::fmod(low, 2) == 0 ? low : low + 1;
}

}  // namespace

RoundedGroup rounded_group(const double* x, int64_t columns) {
  RoundedGroup row{std::vector<int>(static_cast<size_t>(columns), 0), 0};
  double largest = 0;
  bool finite = true;
  for (int64_t k = 0; k < columns; ++k) {
    finite = finite && std::isfinite(x[k]);
    largest = std::max(largest, flushed(std::abs(x[k])));
  }
  row.scale = finite ? as_f32(largest / 127) : NAN;
  if (!(row.scale > 0)) return row;
  const double inverse = as_f32(1 / row.scale);
  for (int64_t k = 0; k < columns; ++k)
    row.codes[static_cast<size_t>(k)] =
        static_cast<int>(half_even(as_f32(flushed(x[k]) * inverse)));
  return row;
}

QuantizedProduct quantized_linear_reference(const RefTensor& x,
                                            const RefTensor& codes,
                                            const RefTensor& scales,
                                            const RefTensor& offsets,
                                            WeightCodes kind) {
  const int64_t matrices = codes.shape[0], outputs = codes.shape[1], columns = codes.shape[2];
  const int64_t groups = (columns + kCodeGroup - 1) / kCodeGroup;
  const ReferenceScales of = reference_scales(kind, columns, scales);
  const int64_t each = group_of(kind) == 0 ? columns : group_of(kind);
  QuantizedProduct p{RefTensor({x.shape[0], outputs}), RefTensor({x.shape[0], outputs})};
  for (int64_t m = 0; m < matrices; ++m)
    for (auto r = static_cast<int64_t>(offsets[m]); r < static_cast<int64_t>(offsets[m + 1]); ++r)
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t begin = g * kCodeGroup, width = std::min(columns - begin, kCodeGroup);
        const RoundedGroup x_group = rounded_group(x.values.data() + r * columns + begin, width);
        for (int64_t o = 0; o < outputs; ++o) {
          const int64_t row = m * outputs + o, at = r * outputs + o;
          for (int64_t k = 0; k < width;) {
            const int64_t weights = (begin + k) / each,
                          end = std::min(width, (weights + 1) * each - begin);
            double products = 0, total = 0;
            for (; k < end; ++k) {
              const double code = x_group.codes[static_cast<size_t>(k)];
              products += code * codes[row * columns + begin + k];
              total += code;
            }
            for (const double part : {products * of.scale[row * of.scale.shape[1] + weights],
                                      total * of.least[row * of.scale.shape[1] + weights]}) {
              p.y[at] += part * x_group.scale;
              p.magnitudes[at] += std::abs(part * x_group.scale);
            }
          }
        }
      }
  return p;
}

}  // namespace ferry::ops
