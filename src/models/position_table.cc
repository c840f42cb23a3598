#include "models/position_table.h"

#include <algorithm>
#include <bit>

namespace ferry::models {

int64_t PositionTable::rows_for(int64_t tokens) const {
  constexpr int64_t kRowsLeast = 1024;
  const auto rows = static_cast<int64_t>(
      std::bit_ceil(static_cast<uint64_t>(std::clamp(tokens, int64_t{1}, positions_))));
  return std::min(positions_, std::max(kRowsLeast, rows));
}

void PositionTable::reach(const ops::Segments& segments) {
  const int64_t rows = rows_for(segments.host->longest);
  if (rope_.cos.defined() && rope_.cos.dim(0) >= rows) return;
  rope_ = {};  // its memory is free for the longer one
  rope_ = ops::make_rope_table(config_, rows, *device_);
}

int64_t PositionTable::bytes(int64_t tokens) const {
  return rows_for(tokens) * config_.dim *
         static_cast<int64_t>(sizeof(float));  // pairs, cos and sin
}

}  // namespace ferry::models
