// View: a tensor as kernels see it, plain data without ownership. Included by kernels that are
// compiled for several instruction sets, hence free of the standard library's templates.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace ferry {

constexpr int kRankMax = 4;

struct View {
  void* data = nullptr;  // null with rank 0: "not given"
  DType dtype = DType::kF32;
  int rank = 0;
  int64_t shape[kRankMax] = {1, 1, 1, 1};   // dimensions past the rank are 1
  int64_t stride[kRankMax] = {0, 0, 0, 0};  // in elements; the last dimension's is always 1

  bool given() const { return data != nullptr; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  int64_t count() const {
    int64_t n = 1;
    for (int d = 0; d < rank; ++d) n *= shape[d];
    return n;
  }
};

}  // namespace ferry
