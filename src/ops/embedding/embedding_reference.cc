// The lookup, and zeros where there is nothing to look up.
#include "ops/embedding/embedding_reference.h"

namespace ferry::ops {

template <class T>
RefArray<T> embedding_reference(const RefTensor& ids, const RefArray<T>& w) {
  const int64_t vocab = w.shape[0], hidden = w.shape[1];
  RefArray<T> y({ids.shape[0], hidden});
  for (int64_t t = 0; t < ids.shape[0]; ++t) {
    const auto id = static_cast<int64_t>(ids[t]);
    if (id < 0 || id >= vocab) continue;
    for (int64_t i = 0; i < hidden; ++i) y[t * hidden + i] = w[id * hidden + i];
  }
  return y;
}

template RefTensor embedding_reference(const RefTensor&, const RefTensor&);
template RealTensor embedding_reference(const RefTensor&, const RealTensor&);

}  // namespace ferry::ops
