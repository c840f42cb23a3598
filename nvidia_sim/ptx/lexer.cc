#include "ptx/lexer.h"

#include <cctype>

#include "ptx/module.h"

namespace nvidia_sim {
namespace {

bool begins_word(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%';
}
bool in_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$'; }

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const int lower = std::tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : 99;
}

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  std::vector<Token> all() {
    std::vector<Token> tokens;
    while (skip_blank(), at_ < text_.size()) tokens.push_back(next());
    tokens.push_back({.kind = Token::Kind::kEnd, .text = "end of file", .line = line_});
    return tokens;
  }

 private:
  char peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  void step() {
    if (peek() == '\n') ++line_;
    ++at_;
  }

  void skip_blank() {
    while (at_ < text_.size()) {
      const char c = peek();
      if (std::isspace(static_cast<unsigned char>(c))) {
        step();
      } else if (c == '/' && peek(1) == '/') {
        while (at_ < text_.size() && peek() != '\n') ++at_;
      } else if (c == '/' && peek(1) == '*') {
        const int begun = line_;
        at_ += 2;
        while (at_ < text_.size() && !(peek() == '*' && peek(1) == '/')) step();
        if (at_ >= text_.size()) throw PtxError(begun, "a comment does not end");
        at_ += 2;
      } else {
        return;
      }
    }
  }

  Token next() {
    const char c = peek();
    if (begins_word(c)) return word();
    if (std::isdigit(static_cast<unsigned char>(c))) return number();
    if (c == '"') return text();
    constexpr std::string_view kMarks = ".,;:{}[]()<>+-!|@=";
    if (kMarks.find(c) == std::string_view::npos)
      throw PtxError(line_,
                     "a character that PTX does not have: code " +
                         std::to_string(static_cast<unsigned char>(c)));
    ++at_;
    return {.kind = Token::Kind::kMark, .text = std::string(1, c), .line = line_};
  }

  Token word() {
    const size_t begin = at_++;
    while (in_word(peek())) ++at_;
    return {.kind = Token::Kind::kWord,
            .text = std::string(text_.substr(begin, at_ - begin)),
            .line = line_};
  }

  Token text() {
    const size_t begin = ++at_;
    while (at_ < text_.size() && peek() != '"' && peek() != '\n') ++at_;
    if (peek() != '"') throw PtxError(line_, "a text does not end");
    return {.kind = Token::Kind::kText,
            .text = std::string(text_.substr(begin, at_++ - begin)),
            .line = line_};
  }

  /// 12, 0x1F, 017, 0b11, with U behind; 0f and 0d with the bits of a float behind.
  Token number() {
    const size_t begin = at_;
    Token token{.kind = Token::Kind::kNumber, .line = line_};
    int base = 10;
    size_t digits_max = 20;
    if (peek() == '0' && (peek(1) == 'f' || peek(1) == 'F' || peek(1) == 'd' || peek(1) == 'D')) {
      token.kind = Token::Kind::kFloat;
      token.float_bytes = std::tolower(static_cast<unsigned char>(peek(1))) == 'f' ? 4 : 8;
      digits_max = static_cast<size_t>(token.float_bytes) * 2;
      base = 16;
      at_ += 2;
    } else if (peek() == '0' && (peek(1) == 'x' || peek(1) == 'X')) {
      base = 16;
      at_ += 2;
    } else if (peek() == '0' && (peek(1) == 'b' || peek(1) == 'B')) {
      base = 2;
      at_ += 2;
    } else if (peek() == '0' && std::isdigit(static_cast<unsigned char>(peek(1)))) {
      base = 8;
    }
    const size_t digits = at_;
    while (digit_of(peek()) < base && at_ - digits < digits_max) {
      const auto digit = static_cast<uint64_t>(digit_of(peek()));
      const auto wide = static_cast<uint64_t>(base);
      if (token.value > (UINT64_MAX - digit) / wide)
        throw PtxError(line_, "a number beyond 64 bits");
      token.value = token.value * wide + digit;
      ++at_;
    }
    const bool whole_float = token.kind == Token::Kind::kNumber || at_ - digits == digits_max;
    if (peek() == 'U' && token.kind == Token::Kind::kNumber) ++at_;
    token.text = std::string(text_.substr(begin, at_ - begin));
    if (at_ == digits || !whole_float || in_word(peek()))
      throw PtxError(line_, "not a number: " + token.text + peek());
    return token;
  }

  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<Token> tokens_of(std::string_view text) { return Lexer(text).all(); }

}  // namespace nvidia_sim
