// Matrices of whole numbers, 8 or 4 bits wide, in the order in which products read them: what a
// quantised weight is stored as. There is no second copy in another order; rows are taken out and
// put in here. Included by kernels: plain arithmetic on sizes, no library's templates.
//
// Sixteen rows are a panel, and four neighbouring columns of a row, its quad, lie together, because
// that is what one lane of vpdpbusd multiplies. Codes are stored with an offset, as numbers from 0
// on: the instruction wants one operand unsigned, and what the offset adds to a product follows from
// the other operand alone. One layout serves all instruction sets.
//
//   8 bits a byte holds code + offset. A panel is its quads of columns, each of 16 rows x 4 bytes.
//   4 bits a byte holds two codes. A panel is its groups of 32 columns, each of four vectors of
//          16 rows x 4 bytes: vector v has quad v in its low halves and quad v + 4 in its high.
//
// Rows and columns past the matrix hold code 0.
//
// Scales lie in panels of their own. Each kind has a unit of columns, for which a row has some numbers
// of one width and then some bytes (units() below); in a panel the first number of all sixteen rows
// comes first, then the second, and so on: a kernel loads sixteen lanes at once.
#pragma once

#include <cstdint>
#include <cstring>

#include "tensor/bf16.h"
#include "tensor/f16.h"

namespace ferry {

/// Whole numbers in place of a weight's own, multiplied as whole numbers: by activations that are
/// rounded to int8. A number is code * scale, or code * scale + least; scale and least are f32
/// numbers, exactly, whatever they are stored as. The kinds in capitals are those of GGUF files, kept
/// in memory with the very codes and scales that the file has.
enum class WeightCodes : uint8_t {
  kInt8,  // a scale for each row, f32
  kInt4,  // a scale for each kCodeGroup columns of a row, bf16
  kQ8_0,  // -128 to 127; a scale for each 32 columns, f16
  kQ4_0,  // -8 to 7; likewise
  kQ4_1,  // 0 to 15; scale and least value for each 32 columns, f16
  kQ4_K,  // 0 to 15; for each 256 columns two numbers in f16, and for each 32 of them two bytes of six
  // bits: scale is the first number times the first byte, least minus the second times the other
  kQ6_K,  // -32 to 31; for each 256 columns a number in f16, and for each 16 an int8 that multiplies it
};
inline constexpr WeightCodes kWeightCodes[] = {WeightCodes::kInt8,
                                               WeightCodes::kInt4,
                                               WeightCodes::kQ8_0,
                                               WeightCodes::kQ4_0,
                                               WeightCodes::kQ4_1,
                                               WeightCodes::kQ4_K,
                                               WeightCodes::kQ6_K};
/// "int8", "int4", "Q8_0", ...
const char* to_string(WeightCodes codes);

constexpr int bits_of(WeightCodes codes) {
  return codes == WeightCodes::kInt8 || codes == WeightCodes::kQ8_0 || codes == WeightCodes::kQ6_K
             ? 8
             : 4;
}
/// Whether a number is code * scale + least.
constexpr bool has_least(WeightCodes codes) {
  return codes == WeightCodes::kQ4_1 || codes == WeightCodes::kQ4_K;
}

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kQuad = 4;

/// Columns that share a scale: of activations always, of most weights. 32, as in GGUF's Q4_0 and
/// Q8_0. With a scale of 16 bits an int4 weight takes 4.5 bits. For activations the size decides the
/// error: some columns of a trained model are a hundred times larger than the rest, and what shares a
/// scale with them is lost. (SmolLM2-135M, mean KL divergence of int8 from bf16: 0.024 with one scale
/// for a token, 0.0087 for 128 columns, 0.0043 for 32; 0.0029 with activations that are not rounded.)
inline constexpr int64_t kCodeGroup = 32;
inline constexpr int64_t kFourBitGroupBytes = kPanelRows * kCodeGroup / 2;

/// Columns that share a scale of a weight; 0: a whole row.
constexpr int64_t group_of(WeightCodes codes) {
  return codes == WeightCodes::kInt8 ? 0 : codes == WeightCodes::kQ6_K ? 16 : kCodeGroup;
}

/// What a row has beside its codes, for so many columns (0: for all of them).
struct ScaleUnit {
  int64_t columns;
  int64_t numbers, width;  // width: bytes of one
  int64_t bytes;           // single ones, after the numbers
  int64_t row_bytes() const { return numbers * width + bytes; }
};
constexpr ScaleUnit scale_unit(WeightCodes codes) {
  switch (codes) {
    case WeightCodes::kInt8: return {0, 1, 4, 0};
    case WeightCodes::kInt4:
    case WeightCodes::kQ8_0:
    case WeightCodes::kQ4_0: return {kCodeGroup, 1, 2, 0};
    case WeightCodes::kQ4_1: return {kCodeGroup, 2, 2, 0};
    case WeightCodes::kQ4_K: return {256, 2, 2, 16};  // scale and least of each group in turn
    case WeightCodes::kQ6_K: return {256, 1, 2, 16};
  }
  return {};
}

/// What the codes of a group stand for: code * scale + least.
struct GroupScale {
  float scale, least;
};

struct CodePanels {
  WeightCodes codes = WeightCodes::kInt8;
  int64_t rows = 0, columns = 0;

  int bits() const { return bits_of(codes); }
  int64_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  int64_t column_groups() const { return (columns + kCodeGroup - 1) / kCodeGroup; }
  /// Columns of a group, and groups of a row, that have a scale of their own.
  int64_t group() const { return group_of(codes) == 0 ? columns : group_of(codes); }
  int64_t groups() const {
    return group_of(codes) == 0 ? 1 : (columns + group_of(codes) - 1) / group_of(codes);
  }
  int64_t padded_columns() const {
    return bits() == 8 ? (columns + kQuad - 1) / kQuad * kQuad : column_groups() * kCodeGroup;
  }
  int64_t panel_bytes() const { return padded_columns() * kPanelRows * bits() / 8; }
  int64_t bytes() const { return panels() * panel_bytes(); }
  int64_t units() const {
    const int64_t unit = scale_unit(codes).columns;
    return unit == 0 ? 1 : (columns + unit - 1) / unit;
  }
  /// Of the scales of a row, and of a panel.
  int64_t row_scale_bytes() const { return units() * scale_unit(codes).row_bytes(); }
  int64_t panel_scale_bytes() const { return kPanelRows * row_scale_bytes(); }

  /// What is added to a code where it is stored.
  int offset() const { return bits() == 8 ? 128 : has_least(codes) ? 0 : 8; }
  int least() const { return codes == WeightCodes::kQ6_K ? -32 : -offset(); }
  int largest() const {
    return codes == WeightCodes::kQ6_K ? 31 : (bits() == 8 ? 255 : 15) - offset();
  }

  /// The byte that holds an element's code, from the first panel's start.
  int64_t byte_of(int64_t row, int64_t column) const {
    const int64_t panel = row / kPanelRows * panel_bytes(), lane = row % kPanelRows * kQuad;
    if (bits() == 8) return panel + column / kQuad * (kPanelRows * kQuad) + lane + column % kQuad;
    const int64_t in_group = column % kCodeGroup, quad = in_group / kQuad % 4;
    return panel + column / kCodeGroup * kFourBitGroupBytes + quad * (kPanelRows * kQuad) + lane +
           in_group % kQuad;
  }
  /// 4 bits: whether the code is the upper half of its byte.
  bool upper(int64_t column) const { return bits() == 4 && column % kCodeGroup >= kCodeGroup / 2; }
  int code_at(const uint8_t* panels, int64_t row, int64_t column) const {
    const int byte = panels[byte_of(row, column)];
    return (bits() == 8 ? byte : upper(column) ? byte >> 4 : byte & 15) - offset();
  }

  /// Of group `g` of a row: `scales` are those of the matrix.
  GroupScale scale_at(const void* scales, int64_t row, int64_t g) const {
    const ScaleUnit unit = scale_unit(codes);
    const int64_t each =
        unit.columns == 0 ? 1 : unit.columns / group_of(codes);  // groups of a unit
    const auto* const at = static_cast<const uint8_t*>(scales) +
                           row / kPanelRows * panel_scale_bytes() +
                           g / each * kPanelRows * unit.row_bytes();
    const int64_t lane = row % kPanelRows;
    const auto half = [&](int64_t number) {
      uint16_t v;
      std::memcpy(&v, at + (number * kPanelRows + lane) * 2, sizeof v);
      return v;
    };
    const auto byte = [&](int64_t i) {
      return at[(unit.numbers * unit.width + i) * kPanelRows + lane];
    };
    switch (codes) {
      case WeightCodes::kInt8: {
        float v;
        std::memcpy(&v, at + lane * 4, sizeof v);
        return {v, 0};
      }
      case WeightCodes::kInt4: return {bf16_to_f32(half(0)), 0};
      case WeightCodes::kQ8_0:
      case WeightCodes::kQ4_0: return {f16_to_f32(half(0)), 0};
      case WeightCodes::kQ4_1: return {f16_to_f32(half(0)), f16_to_f32(half(1))};
      case WeightCodes::kQ4_K: {
        const int64_t i = g % each * 2;
        return {f16_to_f32(half(0)) * static_cast<float>(byte(i)),
                0 - f16_to_f32(half(1)) * static_cast<float>(byte(i + 1))};
      }
      case WeightCodes::kQ6_K:
        return {f16_to_f32(half(0)) * static_cast<float>(static_cast<int8_t>(byte(g % each))), 0};
    }
    return {};
  }
};

/// Puts a row's `columns` codes in place, each in [least(), largest()], and code 0 in the columns past
/// them.
void put_codes(const CodePanels& layout, int64_t row, const int8_t* codes, uint8_t* panels);
/// Code 0 in all of a row: one past the matrix in its last panel.
void put_no_codes(const CodePanels& layout, int64_t row, uint8_t* panels);
/// The codes of a row.
void take_codes(const CodePanels& layout, int64_t row, const uint8_t* panels, int8_t* codes);
/// Puts a row's scales in place: `row_scales` are its row_scale_bytes(), unit by unit.
void put_scales(const CodePanels& layout, int64_t row, const uint8_t* row_scales, uint8_t* scales);

}  // namespace ferry
