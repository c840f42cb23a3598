#include "tensor/code_panels.h"

#include <cstring>

namespace ferry {

void clear_codes(const CodePanels& layout, uint8_t* panels) {
  std::memset(panels,
              layout.bits == 8 ? layout.offset() : layout.offset() * 17,
              static_cast<size_t>(layout.bytes()));
}

namespace {

/// Four neighbouring codes as they are stored: an offset of half the range turns the sign bit.
uint32_t stored_quad(const int8_t* codes, int bits) {
  uint32_t quad;
  std::memcpy(&quad, codes, sizeof quad);
  return bits == 8 ? quad ^ 0x80808080u : (quad & 0x0F0F0F0Fu) ^ 0x08080808u;
}

}  // namespace

void put_codes(const CodePanels& layout, int64_t row, const int8_t* codes, uint8_t* panels) {
  int64_t c = 0;
  if (layout.bits == 8)
    for (; c + kQuad <= layout.columns; c += kQuad) {
      const uint32_t quad = stored_quad(codes + c, 8);
      std::memcpy(panels + layout.byte_of(row, c), &quad, sizeof quad);
    }
  else
    for (; c + kCodeGroup <= layout.columns; c += kCodeGroup)
      for (int64_t q = c; q < c + kCodeGroup / 2; q += kQuad) {
        const uint32_t quads =
            stored_quad(codes + q, 4) | stored_quad(codes + q + kCodeGroup / 2, 4) << 4;
        std::memcpy(panels + layout.byte_of(row, q), &quads, sizeof quads);
      }
  for (; c < layout.columns; ++c) {
    uint8_t& byte = panels[layout.byte_of(row, c)];
    const int stored = codes[c] + layout.offset();
    byte = static_cast<uint8_t>(layout.bits == 8  ? stored
                                : layout.upper(c) ? (byte & 15) | stored << 4
                                                  : (byte & 0xF0) | stored);
  }
}

void take_codes(const CodePanels& layout, int64_t row, const uint8_t* panels, int8_t* codes) {
  for (int64_t c = 0; c < layout.columns; ++c)
    codes[c] = static_cast<int8_t>(layout.code_at(panels, row, c));
}

}  // namespace ferry
