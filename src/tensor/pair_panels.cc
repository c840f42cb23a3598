#include "tensor/pair_panels.h"

#include <algorithm>
#include <cstring>

#include "device/cpu/cpu_device.h"

namespace ferry {
namespace {

constexpr int64_t kPart =
    16;  // pairs of a row, a cache line: what is read is used while it is there

uint32_t pair_of(const bf16_t* row, int64_t pair, int64_t columns) {
  if (2 * pair + 1 >= columns) return row[2 * pair];
  uint32_t both;
  std::memcpy(&both, row + 2 * pair, sizeof both);
  return both;
}

void put_panel(const PairPanels& layout, int64_t rows, const bf16_t* numbers, uint32_t* out) {
  const int64_t whole = layout.columns / 2;  // pairs that have both columns
  int64_t begin = 0;
  if (rows == kPairPanelRows)
    for (; begin + kPart <= whole; begin += kPart) {
      const bf16_t* const part = numbers + 2 * begin;
      uint32_t* const to = out + begin * kPairPanelRows;
      for (int64_t p = 0; p < kPart; ++p)
        for (int64_t r = 0; r < kPairPanelRows; ++r)
          std::memcpy(to + p * kPairPanelRows + r, part + r * layout.columns + 2 * p, sizeof *to);
    }
  for (int64_t p = begin; p < layout.pairs(); ++p)
    for (int64_t r = 0; r < kPairPanelRows; ++r)
      out[p * kPairPanelRows + r] =
          r < rows ? pair_of(numbers + r * layout.columns, p, layout.columns) : 0;
  std::fill(out + layout.pairs() * kPairPanelRows, out + layout.stride(), 0);
}

}  // namespace

void put_pairs(const PairPanels& layout,
               int64_t first,
               int64_t rows,
               const bf16_t* numbers,
               uint32_t* panels) {
  cpu_pool().parallel_for((rows + kPairPanelRows - 1) / kPairPanelRows, [&](int64_t panel, int) {
    const int64_t row = panel * kPairPanelRows;
    put_panel(layout,
              std::min(kPairPanelRows, rows - row),
              numbers + row * layout.columns,
              panels + (first + panel) * layout.stride());
  });
}

}  // namespace ferry
