#include "tensor/code_panels.h"

#include <vector>

namespace ferry {

const char* to_string(WeightCodes codes) {
  switch (codes) {
    case WeightCodes::kInt8: return "int8";
    case WeightCodes::kInt4: return "int4";
    case WeightCodes::kQ8_0: return "Q8_0";
    case WeightCodes::kQ4_0: return "Q4_0";
    case WeightCodes::kQ4_1: return "Q4_1";
    case WeightCodes::kQ4_K: return "Q4_K";
    case WeightCodes::kQ6_K: return "Q6_K";
  }
  return "";
}

namespace {

/// Four neighbouring codes as they are stored: an offset of half the range turns the upper bit.
uint32_t stored_quad(const int8_t* codes, const CodePanels& layout) {
  uint32_t quad;
  std::memcpy(&quad, codes, sizeof quad);
  if (layout.bits() == 8) return quad ^ 0x80808080u;
  return (quad & 0x0F0F0F0Fu) ^ (layout.offset() == 8 ? 0x08080808u : 0);
}

/// `count` neighbouring quads, or groups of four bits, of a row, the first of which lies at `to`.
void put_units(const CodePanels& layout, const int8_t* codes, int64_t count, uint8_t* to) {
  constexpr int64_t kNext = kPanelRows * kQuad;  // bytes from one quad of a row to the next
  if (layout.bits() == 8) {
    for (int64_t i = 0; i < count; ++i, codes += kQuad, to += kNext) {
      const uint32_t quad = stored_quad(codes, layout);
      std::memcpy(to, &quad, sizeof quad);
    }
    return;
  }
  constexpr int64_t kHalf = kCodeGroup / 2;
  for (int64_t i = 0; i < count; ++i, codes += kHalf)
    for (int64_t q = 0; q < kHalf / kQuad; ++q, codes += kQuad, to += kNext) {
      const uint32_t quads = stored_quad(codes, layout) | stored_quad(codes + kHalf, layout) << 4;
      std::memcpy(to, &quads, sizeof quads);
    }
}

/// Numbers of kWidth bytes, each beside those of the panel's other rows.
template <int64_t kWidth>
void put_numbers(const uint8_t* numbers, int64_t count, uint8_t* to) {
  for (int64_t n = 0; n < count; ++n)
    std::memcpy(to + n * kPanelRows * kWidth, numbers + n * kWidth, kWidth);
}

}  // namespace

void put_codes(const CodePanels& layout, int64_t row, const int8_t* codes, uint8_t* panels) {
  uint8_t* const to = panels + layout.byte_of(row, 0);
  const int64_t unit = layout.bits() == 8 ? kQuad : kCodeGroup, whole = layout.columns / unit;
  put_units(layout, codes, whole, to);
  if (const int64_t rest = layout.columns - whole * unit; rest > 0) {
    int8_t last[kCodeGroup] = {};
    std::memcpy(last, codes + whole * unit, static_cast<size_t>(rest));
    put_units(layout, last, 1, panels + layout.byte_of(row, whole * unit));
  }
}

void put_no_codes(const CodePanels& layout, int64_t row, uint8_t* panels) {
  const std::vector<int8_t> zeros(static_cast<size_t>(layout.columns));
  put_codes(layout, row, zeros.data(), panels);
}

void take_codes(const CodePanels& layout, int64_t row, const uint8_t* panels, int8_t* codes) {
  for (int64_t c = 0; c < layout.columns; ++c)
    codes[c] = static_cast<int8_t>(layout.code_at(panels, row, c));
}

void put_scales(const CodePanels& layout, int64_t row, const uint8_t* row_scales, uint8_t* scales) {
  const ScaleUnit unit = scale_unit(layout.codes);
  const int64_t lane = row % kPanelRows, numbers_bytes = unit.numbers * unit.width;
  uint8_t* at = scales + row / kPanelRows * layout.panel_scale_bytes();
  for (int64_t u = 0; u < layout.units(); ++u) {
    if (unit.width == 2)
      put_numbers<2>(row_scales, unit.numbers, at + lane * 2);
    else
      put_numbers<4>(row_scales, unit.numbers, at + lane * 4);
    for (int64_t b = 0; b < unit.bytes; ++b)
      at[(numbers_bytes + b) * kPanelRows + lane] = row_scales[numbers_bytes + b];
    row_scales += unit.row_bytes();
    at += kPanelRows * unit.row_bytes();
  }
}

}  // namespace ferry
