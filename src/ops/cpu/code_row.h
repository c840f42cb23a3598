// A row of a matrix of whole numbers (tensor/code_panels.h) as the numbers that it stands for.
// Include from *_cpu.cc only.
#pragma once

#include "ops/cpu/loops.h"
#include "tensor/code_panels.h"

namespace ferry::ops::FERRY_TIER {

/// y[c] = code * scale + least, each operation in f32, rounded once more to y's type. `panels` and
/// `scales` are those of the matrix.
template <typename T>
void numbers_of_row(
    const CodePanels& l, const uint8_t* panels, const void* scales, int64_t row, T* y) {
  for (int64_t g = 0, begin = 0; begin < l.columns; ++g, begin += l.group()) {
    const GroupScale of = l.scale_at(scales, row, g);
    const F32x16 scale = splat(of.scale), least = splat(of.least);
    const int64_t end = begin + l.group() < l.columns ? begin + l.group() : l.columns;
    for_lanes(begin, end, [&](int64_t c, int n) {
      float codes[kLanes] = {};
      for (int i = 0; i < n; ++i) codes[i] = static_cast<float>(l.code_at(panels, row, c + i));
      const F32x16 product = load(codes) * scale;
      store_n(y + c, has_least(l.codes) ? product + least : product, n);
    });
  }
}

}  // namespace ferry::ops::FERRY_TIER
