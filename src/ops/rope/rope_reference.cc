// rope in float64, for judging kernels.
#include "ops/rope/rope_reference.h"

namespace ferry::ops {

template <class T>
RefArray<T> rope_reference(const RefArray<T>& x,
                           const RefArray<T>& cos,
                           const RefArray<T>& sin,
                           const RefArray<T>& position,
                           int64_t begin,
                           bool interleaved) {
  const int64_t depth = x.shape[x.shape.rank() - 1], rows = x.shape.count() / depth,
                pairs = cos.shape[1];
  const int64_t heads = rows / x.shape[0];
  RefArray<T> y = x;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < pairs; ++i) {
      const int64_t angle = static_cast<int64_t>(value_of(position[row / heads])) * pairs + i,
                    first = row * depth + begin;
      const int64_t a = first + (interleaved ? 2 * i : i),
                    b = first + (interleaved ? 2 * i + 1 : pairs + i);
      y[a] = x[a] * cos[angle] - x[b] * sin[angle];
      y[b] = x[b] * cos[angle] + x[a] * sin[angle];
    }
  return y;
}

template RefTensor rope_reference(
    const RefTensor&, const RefTensor&, const RefTensor&, const RefTensor&, int64_t, bool);
template RealTensor rope_reference(
    const RealTensor&, const RealTensor&, const RealTensor&, const RealTensor&, int64_t, bool);

}  // namespace ferry::ops
