// UTF-8 one character at a time, for bytes that may be ill-formed. What counts as ill-formed, and
// how long an ill-formed stretch is, follows the Unicode standard's "maximal subpart", as Python
// and Rust do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ferry::text {

inline constexpr char32_t kReplacement = 0xFFFD;

struct Utf8Char {
  char32_t point;  // kReplacement when ill-formed
  uint8_t bytes;   // of the character or the maximal ill-formed subpart; 0: the end of the text
  bool well_formed;
  bool cut_short;  // ill-formed only because the text ends here: more bytes could complete it
};

/// Whether any well-formed text has this byte.
constexpr bool is_utf8_byte(unsigned byte) { return byte != 0xC0 && byte != 0xC1 && byte < 0xF5; }

/// The character that starts at `offset` (< text.size()).
Utf8Char decode_utf8(std::string_view text, size_t offset);

void append_utf8(std::string& out, char32_t point);

/// Its characters; kReplacement for each maximal ill-formed subpart.
std::u32string utf8_points(std::string_view text);

/// The offset of the first ill-formed byte, or text.size().
size_t well_formed_prefix(std::string_view text);

/// The text with every maximal ill-formed subpart replaced by U+FFFD.
std::string replace_ill_formed(std::string_view text);

}  // namespace ferry::text
