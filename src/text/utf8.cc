#include "text/utf8.h"

#include <cstring>

namespace ferry::text {

Utf8Char decode_utf8(std::string_view text, size_t offset) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data()) + offset;
  const size_t left = text.size() - offset;
  const unsigned char lead = p[0];
  if (lead < 0x80) return {lead, 1, true, false};

  int trailing = 0;
  char32_t point = 0;
  unsigned char low = 0x80,
                high = 0xBF;  // of the second byte: excludes overlong forms and surrogates
  if (lead >= 0xC2 && lead <= 0xDF) {
    trailing = 1;
    point = lead & 0x1F;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    trailing = 2;
    point = lead & 0x0F;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    trailing = 3;
    point = lead & 0x07;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {kReplacement, 1, false, false};
  }
  for (int i = 1; i <= trailing; ++i) {
    if (static_cast<size_t>(i) == left) return {kReplacement, static_cast<uint8_t>(i), false, true};
    if (p[i] < low || p[i] > high) return {kReplacement, static_cast<uint8_t>(i), false, false};
    point = (point << 6) | (p[i] & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {point, static_cast<uint8_t>(trailing + 1), true, false};
}

void append_utf8(std::string& out, char32_t point) {
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += static_cast<char>(0xC0 | (point >> 6));
    out += static_cast<char>(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    out += static_cast<char>(0xE0 | (point >> 12));
    out += static_cast<char>(0x80 | ((point >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (point & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (point >> 18));
    out += static_cast<char>(0x80 | ((point >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((point >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (point & 0x3F));
  }
}

size_t well_formed_prefix(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t eight = 0;
    if (i + sizeof eight <= text.size()) {
      std::memcpy(&eight, text.data() + i, sizeof eight);
      if ((eight & 0x8080808080808080) == 0) {
        i += sizeof eight;
        continue;
      }
    }
    const Utf8Char c = decode_utf8(text, i);
    if (!c.well_formed) return i;
    i += c.bytes;
  }
  return i;
}

std::u32string utf8_points(std::string_view text) {
  std::u32string out;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text, at);
    out += c.point;
    at += c.bytes;
  }
  return out;
}

std::string replace_ill_formed(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t good = well_formed_prefix(text.substr(i));
    out.append(text, i, good);
    i += good;
    if (i == text.size()) break;
    append_utf8(out, kReplacement);
    i += decode_utf8(text, i).bytes;
  }
  return out;
}

}  // namespace ferry::text
