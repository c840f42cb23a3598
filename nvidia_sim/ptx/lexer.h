// PTX text as tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nvidia_sim {

struct Token {
  enum class Kind : uint8_t {
    kWord,  // name, %r1, $L_1, _
    kNumber,
    kFloat,
    kText,  // "in quotes"
    kMark,  // one character: . , ; : { } [ ] ( ) < > + - ! | @ =
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  uint64_t value = 0;   // a number, or the bits of a float
  int float_bytes = 0;  // 4 or 8
  int line = 0;

  bool is(char mark) const { return kind == Kind::kMark && text[0] == mark; }
};

/// The tokens, and an end. Comments are left out. Throws PtxError.
std::vector<Token> tokens_of(std::string_view text);

}  // namespace nvidia_sim
