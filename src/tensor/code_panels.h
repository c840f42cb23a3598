// Matrices of whole numbers, int8 or int4 codes, in the order in which products read them: what a
// quantised weight is stored as. There is no second copy in another order; rows are taken out and
// put in here. Included by kernels: plain arithmetic on sizes, no library's templates.
//
// Sixteen rows are a panel, and four neighbouring columns of a row, its quad, lie together, because
// that is what one lane of vpdpbusd multiplies. Codes are stored with an offset, as numbers from 0
// on: the instruction wants one operand unsigned, and what the offset adds to a product follows from
// the other operand alone. One layout serves all instruction sets.
//
//   int8   a byte holds code + 128. A panel is its quads of columns, each of 16 rows x 4 bytes.
//   int4   a byte holds two of code + 8. A panel is its groups of 32 columns, each of four vectors
//          of 16 rows x 4 bytes: vector v has quad v in its low halves and quad v + 4 in its high.
//
// Rows and columns past the matrix hold code 0.
#pragma once

#include <cstdint>

namespace ferry {

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kQuad = 4;

/// Columns that share a scale: of activations always, of a weight in int4. 32, as in GGUF's Q4_0 and
/// Q8_0. With a scale of 16 bits an int4 weight takes 4.5 bits. For activations the size decides the
/// error: some columns of a trained model are a hundred times larger than the rest, and what shares a
/// scale with them is lost. (SmolLM2-135M, mean KL divergence of int8 from bf16: 0.024 with one scale
/// for a token, 0.0087 for 128 columns, 0.0043 for 32; 0.0029 with activations that are not rounded.)
inline constexpr int64_t kCodeGroup = 32;
inline constexpr int64_t kInt4GroupBytes = kPanelRows * kCodeGroup / 2;

struct CodePanels {
  int bits = 8;  // 8 or 4
  int64_t rows = 0, columns = 0;

  int64_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  int64_t column_groups() const { return (columns + kCodeGroup - 1) / kCodeGroup; }
  /// Scales of a row.
  int64_t groups() const { return bits == 8 ? 1 : column_groups(); }
  int64_t padded_columns() const {
    return bits == 8 ? (columns + kQuad - 1) / kQuad * kQuad : groups() * kCodeGroup;
  }
  int64_t panel_bytes() const { return padded_columns() * kPanelRows * bits / 8; }
  int64_t bytes() const { return panels() * panel_bytes(); }
  /// What is added to a code where it is stored.
  int offset() const { return bits == 8 ? 128 : 8; }
  int least() const { return bits == 8 ? -128 : -8; }
  int largest() const { return bits == 8 ? 127 : 7; }

  /// The byte that holds an element's code, from the first panel's start.
  int64_t byte_of(int64_t row, int64_t column) const {
    const int64_t panel = row / kPanelRows * panel_bytes(), lane = row % kPanelRows * kQuad;
    if (bits == 8) return panel + column / kQuad * (kPanelRows * kQuad) + lane + column % kQuad;
    const int64_t in_group = column % kCodeGroup, quad = in_group / kQuad % 4;
    return panel + column / kCodeGroup * kInt4GroupBytes + quad * (kPanelRows * kQuad) + lane +
           in_group % kQuad;
  }
  /// int4: whether the code is the upper half of its byte.
  bool upper(int64_t column) const { return bits == 4 && column % kCodeGroup >= kCodeGroup / 2; }
  int code_at(const uint8_t* panels, int64_t row, int64_t column) const {
    const int byte = panels[byte_of(row, column)];
    return (bits == 8 ? byte : upper(column) ? byte >> 4 : byte & 15) - offset();
  }
};

/// Fills panels with code 0.
void clear_codes(const CodePanels& layout, uint8_t* panels);
/// Puts a row's `columns` codes in place, each in [least(), largest()].
void put_codes(const CodePanels& layout, int64_t row, const int8_t* codes, uint8_t* panels);
/// The codes of a row.
void take_codes(const CodePanels& layout, int64_t row, const uint8_t* panels, int8_t* codes);

}  // namespace ferry
