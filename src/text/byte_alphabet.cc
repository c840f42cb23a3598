#include "text/byte_alphabet.h"

#include <array>

#include "text/utf8.h"

namespace ferry::text {
namespace {

constexpr bool printable(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> letter{};
  std::array<int, 0x144> byte{};  // -1: not a letter

  constexpr Alphabet() {
    for (int& b : byte) b = -1;
    char32_t next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      letter[b] = printable(b) ? char32_t{b} : next++;
      byte[letter[b]] = static_cast<int>(b);
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

char32_t byte_to_letter(unsigned char byte) { return kAlphabet.letter[byte]; }

std::optional<std::string> letters_to_bytes(std::string_view token_text) {
  std::string bytes;
  for (size_t i = 0; i < token_text.size();) {
    const Utf8Char c = decode_utf8(token_text, i);
    if (c.point >= kAlphabet.byte.size() || kAlphabet.byte[c.point] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.byte[c.point]);
    i += c.bytes;
  }
  return bytes;
}

std::string bytes_to_letters(std::string_view bytes) {
  std::string text;
  for (const char b : bytes) append_utf8(text, byte_to_letter(static_cast<unsigned char>(b)));
  return text;
}

bool may_be_missing(unsigned byte) {
  const bool control = byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r';
  return control || byte == 0x7F || byte == 0xC0 || byte == 0xC1 || byte > 0xF0;
}

}  // namespace ferry::text
