#include "text/stand_ins.h"

#include <algorithm>
#include <array>

#include "text/unicode_tables.h"

namespace ferry::text {
namespace {

/// Finds the stand-in of a code point, if it has one; most 256-blocks have none.
class StandIns {
 public:
  StandIns() {
    for (size_t i = 0; i < kStandInsCount; ++i) {
      for (char32_t b = kStandIns[i].first >> 8; b <= kStandIns[i].last >> 8; ++b) block_[b] = true;
    }
  }
  char32_t of(char32_t point) const {
    if (!block_[point >> 8]) return point;
    const auto* end = kStandIns + kStandInsCount;
    const auto* it = std::upper_bound(
        kStandIns, end, point, [](char32_t p, const StandInRange& r) { return p < r.first; });
    if (it == kStandIns) return point;
    --it;
    return point <= it->last ? it->stand_in : point;
  }

 private:
  std::array<bool, 0x1100> block_{};
};

}  // namespace

char32_t stand_in_of(char32_t point) {
  static const StandIns table;
  return table.of(point);
}

}  // namespace ferry::text
