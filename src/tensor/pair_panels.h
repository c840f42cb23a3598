// Matrices of bf16 numbers in the order in which products read them: what a weight of a model that
// only answers is stored as on CPUs whose products take pairs. There is no second copy in another order.
// Included by kernels: plain arithmetic on sizes, no library's templates.
//
// Two neighbouring columns of a row are a pair, four bytes, the first column in the lower half: what
// one lane of vdpbf16ps multiplies. Thirty-two rows are a panel: its pairs of columns one after the
// other, in each the pairs of all rows. Rows and columns past the matrix hold zeros.
#pragma once

#include <cstdint>

#include "tensor/bf16.h"

namespace ferry {

inline constexpr int64_t kPairPanelRows = 32;

struct PairPanels {
  int64_t rows = 0, columns = 0;

  int64_t panels() const { return (rows + kPairPanelRows - 1) / kPairPanelRows; }
  /// Of a row.
  int64_t pairs() const { return (columns + 1) / 2; }
  /// From one panel to the next, in pairs; the last 32, zeros, keep panels from the same cache sets.
  int64_t stride() const { return pairs() * kPairPanelRows + 32; }
  /// Of all panels, in pairs.
  int64_t count() const { return panels() * stride(); }
  /// Where the first pair of a row lies; the next one is kPairPanelRows further.
  int64_t first_pair(int64_t row) const {
    return row / kPairPanelRows * stride() + row % kPairPanelRows;
  }
};

/// Fills panels [first, first + so many as `rows` rows need): `numbers` are rows of the matrix from
/// first * kPairPanelRows on, one after the other. `panels`: where the matrix begins. Uses the CPU's
/// thread pool.
void put_pairs(
    const PairPanels& layout, int64_t first, int64_t rows, const bf16_t* numbers, uint32_t* panels);

}  // namespace ferry
