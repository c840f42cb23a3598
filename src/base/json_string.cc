#include "base/json_string.h"

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace ferry {
namespace {

/// The bytes of the well-formed character that a text of at least one byte begins with, not an ASCII one;
/// 0: it is ill-formed (The Unicode Standard, table 3-7).
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  const size_t bytes = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < bytes) return 0;
  for (size_t i = 1; i < bytes; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  const unsigned second = byte(1);
  const bool wrong = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
                     (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
  return wrong ? 0 : bytes;
}

void append_escaped(std::string& out, char c) {
  constexpr std::string_view kNamed = "\b\f\n\r\t", kNames = "bfnrt", kHex = "0123456789abcdef";
  out += '\\';
  if (c == '"' || c == '\\') {
    out += c;
  } else if (const size_t at = kNamed.find(c); at != kNamed.npos) {
    out += kNames[at];
  } else {
    out += "u00";
    out += kHex[static_cast<unsigned char>(c) >> 4];
    out += kHex[static_cast<unsigned char>(c) & 15];
  }
}

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  const size_t begin = out.size();
  out += '"';
  for (size_t i = 0, bytes = 0; i < text.size(); i += bytes) {
    const char c = text[i];
    bytes = 1;
    if (static_cast<unsigned char>(c) >= 0x80) {
      bytes = character_bytes(text.substr(i));
      if (bytes == 0) {  // rare: what takes its place, the library knows
        out.resize(begin);
        out += json_text(nlohmann::json(text));
        return;
      }
      out += text.substr(i, bytes);
    } else if (c < ' ' || c == '"' || c == '\\') {
      append_escaped(out, c);
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace ferry
