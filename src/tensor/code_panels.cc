#include "tensor/code_panels.h"

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

void clear_codes(const CodePanels& layout, uint8_t* panels) {
  std::memset(panels,
              layout.bits() == 8 ? layout.offset() : layout.offset() * 17,
              static_cast<size_t>(layout.bytes()));
}

namespace {

/// Four neighbouring codes as they are stored: an offset of half the range turns the upper bit.
uint32_t stored_quad(const int8_t* codes, const CodePanels& layout) {
  uint32_t quad;
  std::memcpy(&quad, codes, sizeof quad);
  if (layout.bits() == 8) return quad ^ 0x80808080u;
  return (quad & 0x0F0F0F0Fu) ^ (layout.offset() == 8 ? 0x08080808u : 0);
}

}  // namespace

void put_codes(const CodePanels& layout, int64_t row, const int8_t* codes, uint8_t* panels) {
  int64_t c = 0;
  if (layout.bits() == 8)
    for (; c + kQuad <= layout.columns; c += kQuad) {
      const uint32_t quad = stored_quad(codes + c, layout);
      std::memcpy(panels + layout.byte_of(row, c), &quad, sizeof quad);
    }
  else
    for (; c + kCodeGroup <= layout.columns; c += kCodeGroup)
      for (int64_t q = c; q < c + kCodeGroup / 2; q += kQuad) {
        const uint32_t quads =
            stored_quad(codes + q, layout) | stored_quad(codes + q + kCodeGroup / 2, layout) << 4;
        std::memcpy(panels + layout.byte_of(row, q), &quads, sizeof quads);
      }
  for (; c < layout.columns; ++c) {
    uint8_t& byte = panels[layout.byte_of(row, c)];
    const int stored = codes[c] + layout.offset();
    byte = static_cast<uint8_t>(layout.bits() == 8 ? stored
                                : layout.upper(c)  ? (byte & 15) | stored << 4
                                                   : (byte & 0xF0) | stored);
  }
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
    for (int64_t n = 0; n < unit.numbers; ++n)
      std::memcpy(at + (n * kPanelRows + lane) * unit.width,
                  row_scales + n * unit.width,
                  static_cast<size_t>(unit.width));
    for (int64_t b = 0; b < unit.bytes; ++b)
      at[(numbers_bytes + b) * kPanelRows + lane] = row_scales[numbers_bytes + b];
    row_scales += unit.row_bytes();
    at += kPanelRows * unit.row_bytes();
  }
}

}  // namespace ferry
