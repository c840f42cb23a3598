// Products in float64, for judging kernels, and the bounds that follow from the order of summation.
#include "ops/matmul/matmul_reference.h"

#include <cmath>

#include "base/random.h"
#include "tensor/bf16.h"

namespace ferry::ops {

template <class T>
RefArray<T> matmul_reference(const RefArray<T>& a,
                             const RefArray<T>& b,
                             bool transpose_a,
                             bool transpose_b) {
  const int64_t m = a.shape[transpose_a ? 1 : 0], k = a.shape[transpose_a ? 0 : 1],
                n = b.shape[transpose_b ? 0 : 1];
  RefArray<T> y({m, n});
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      y[i * n + j] = dot(a.values.data() + (transpose_a ? i : i * k),
                         transpose_a ? m : 1,
                         b.values.data() + (transpose_b ? j * k : j),
                         transpose_b ? 1 : n,
                         k);
  return y;
}

template RefTensor matmul_reference(const RefTensor&, const RefTensor&, bool, bool);
template RealTensor matmul_reference(const RealTensor&, const RealTensor&, bool, bool);

std::vector<double> matmul_tolerance(const RefTensor& y,
                                     const RefTensor& magnitudes,
                                     int64_t k,
                                     DType out,
                                     DType compute,
                                     int rounded_operands) {
  const double sum = static_cast<double>(k) * 0x1p-24 + rounded_operands * unit_roundoff(compute);
  std::vector<double> bound(y.values.size());
  for (size_t i = 0; i < bound.size(); ++i)
    bound[i] =
        (1 + 1e-2) * (sum * magnitudes.values[i] +
                      (out == DType::kBF16 ? unit_roundoff(out) : 0) * std::abs(y.values[i])) +
        kLeastNormal;
  return bound;
}

InputSpec bf16_exact_input(
    const char* name, const Shape& shape, DType dtype, uint64_t seed, double scale) {
  InputSpec spec{.name = name, .shape = shape, .dtype = dtype, .fill = InputSpec::Fill::kGiven};
  spec.make_given = [count = static_cast<size_t>(shape.count()), seed, scale] {
    // Benchmark shapes have millions of elements: beyond a prime number the values come again, which
    // no row length divides.
    constexpr size_t kPeriod = 65521;
    const Random random(seed, RandomPurpose::kTest, 77);
    std::vector<double> values(count);
    for (size_t i = 0; i < count; ++i) {
      const auto drawn = [&] { return static_cast<float>(scale * random.normal(i)); };
      values[i] = i < kPeriod ? static_cast<double>(bf16_to_f32(f32_to_bf16(drawn())))
                              : values[i - kPeriod];
    }
    return values;
  };
  return spec;
}

}  // namespace ferry::ops
