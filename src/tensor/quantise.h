// From a weight's numbers to whole numbers and scales, and into the panels that products read.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/weight.h"

namespace ferry {

/// Rows as codes in their natural order.
struct CodeRows {
  std::vector<int8_t> codes;  // [rows, columns]
  std::vector<float> scales;  // [rows, groups]; in int4 each is a bf16 number
};

/// Rounds rows of `columns` numbers, all finite, to codes times scales. check: kInt8 or kInt4.
///   int8   scale = max |w| / 127 of the row; a row of zeros has scale 1.
///   int4   in each group the one of a dozen scales, from max |w| / 8.5 to / 5.25 and rounded to
///          bf16, that leaves the least sum of squared errors.
/// A number becomes the code nearest to it. Uses the CPU's thread pool.
CodeRows quantise_rows(WeightCodes kind, std::span<const float> rows, int64_t columns);

/// Rows of int4 codes, two in a byte: the even column in the lower half, each code + 8. An odd last
/// column has code 0 beside it. Uses the CPU's thread pool.
std::vector<uint8_t> pack_int4(std::span<const int8_t> codes, int64_t columns);
void unpack_int4(std::span<const uint8_t> bytes, int64_t columns, std::span<int8_t> codes);

/// A weight's panels while they are filled, in the CPU's memory.
/// Thread rule: rows of different panels may be put at once.
class PanelsInMaking {
 public:
  /// For all matrices of a weight of this shape.
  PanelsInMaking(WeightCodes kind, const Shape& shape);

  const CodePanels& layout() const { return layout_; }
  /// A row's codes, and its row_scale_bytes() of scales.
  void put(int64_t matrix, int64_t row, const int8_t* codes, const uint8_t* scales);
  /// int8 and int4: rows of a matrix from `first` on, a multiple of kPanelRows.
  void put(int64_t matrix, int64_t first, const CodeRows& rows);
  /// Moves them to the weight, whose shape must be this one.
  void store_in(Weight& weight);

 private:
  WeightCodes kind_;
  CodePanels layout_;
  Tensor panels_, scales_;
  uint8_t* codes_ = nullptr;      // the memory of panels_
  uint8_t* of_groups_ = nullptr;  // of scales_
};

/// What a row of int8 or int4 codes stands for: code * scale in f32.
void numbers_of_row(const CodePanels& layout,
                    const int8_t* codes,
                    const float* scales,
                    float* numbers);

}  // namespace ferry
