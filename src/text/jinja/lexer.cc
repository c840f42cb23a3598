#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>

#include "base/json.h"
#include "text/utf8.h"

namespace ferry::text::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_white(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f';
}

/// Newlines of all kinds become \n, and one at the end goes.
std::string normalised(std::string_view source) {
  std::string s;
  s.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      s += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      s += source[i];
    }
  }
  if (s.ends_with('\n')) s.pop_back();
  return s;
}

class Lexer {
 public:
  Lexer(std::string source, const std::string& path) : s_(std::move(source)), path_(path) {}

  Result<std::vector<Token>> run() {
    while (at_ < s_.size()) TRY(data());
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  char here(size_t ahead = 0) const { return at_ + ahead < s_.size() ? s_[at_ + ahead] : '\0'; }
  bool looking_at(std::string_view what) const { return s_.compare(at_, what.size(), what) == 0; }

  void add(Token::Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), line_});
  }

  void skip_to(size_t place) {
    line_ += static_cast<int>(std::count(
        s_.begin() + static_cast<long>(at_), s_.begin() + static_cast<long>(place), '\n'));
    at_ = place;
  }

  template <class... Args>
  tl::unexpected<Status> wrong(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(Code::kInvalidInput,
                "{}: line {}: {}",
                path_,
                line_,
                fmt::format(format, std::forward<Args>(args)...));
  }

  /// Text up to the next tag, and that tag.
  Result<void> data() {
    size_t begin = at_;
    while (begin + 1 < s_.size() &&
           !(s_[begin] == '{' &&
             (s_[begin + 1] == '{' || s_[begin + 1] == '%' || s_[begin + 1] == '#')))
      ++begin;
    if (begin + 1 >= s_.size()) {
      text_until(s_.size(), false, false);
      skip_to(s_.size());
      return {};
    }
    const char kind = s_[begin + 1], sign = begin + 2 < s_.size() ? s_[begin + 2] : '\0';
    text_until(begin, sign == '-', kind != '{' && sign != '+');
    skip_to(begin + 2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (kind == '#') return comment();
    if (kind == '{') return tag(Token::Kind::kPrintBegin, Token::Kind::kPrintEnd, "}}");
    if (raw_begins()) return raw();
    return tag(Token::Kind::kTagBegin, Token::Kind::kTagEnd, "%}");
  }

  /// Adds the text from here to `end`: without the white space at its end if `strip`; without the
  /// spaces between the last newline and the tag if `to_line_start` and nothing else is there.
  void text_until(size_t end, bool strip, bool to_line_start) {
    size_t stop = end;
    if (strip) {
      while (stop > at_ && is_white(s_[stop - 1])) --stop;
    } else if (to_line_start) {
      size_t line_begin = end;
      while (line_begin > at_ && is_white(s_[line_begin - 1]) && s_[line_begin - 1] != '\n')
        --line_begin;
      // At the start of a line, or of the template: not right after a tag on the same line.
      const bool line_start = line_begin > at_
                                  ? s_[line_begin - 1] == '\n'
                                  : line_begin == 0 || (after_newline_ && line_begin == at_);
      if (line_start) stop = line_begin;
    }
    if (stop > at_) add(Token::Kind::kData, s_.substr(at_, stop - at_));
  }

  /// After a tag's closing: "-" strips all white space; otherwise blocks take one newline with them.
  void after_tag(bool strip, bool take_newline) {
    after_newline_ = false;
    if (strip) {
      size_t place = at_;
      while (place < s_.size() && is_white(s_[place])) ++place;
      skip_to(place);
      after_newline_ = place > 0 && s_[place - 1] == '\n';
    } else if (take_newline && here() == '\n') {
      skip_to(at_ + 1);
      after_newline_ = true;
    }
  }

  Result<void> comment() {
    const size_t end = s_.find("#}", at_);
    if (end == std::string::npos) return wrong("a comment does not end");
    const char sign = end > at_ ? s_[end - 1] : '\0';
    skip_to(end + 2);
    after_tag(sign == '-', sign != '+');
    return {};
  }

  /// "raw" directly within the tag that has just been opened.
  bool raw_begins() const {
    size_t p = at_;
    while (p < s_.size() && is_white(s_[p])) ++p;
    if (s_.compare(p, 3, "raw") != 0) return false;
    p += 3;
    while (p < s_.size() && is_white(s_[p])) ++p;
    if (p < s_.size() && (s_[p] == '-' || s_[p] == '+')) ++p;
    return s_.compare(p, 2, "%}") == 0;
  }

  Result<void> raw() {
    const size_t open_end = s_.find("%}", at_);
    const char sign = s_[open_end - 1];
    skip_to(open_end + 2);
    after_tag(sign == '-', false);  // this one tag leaves the newline behind it
    for (size_t tag = s_.find("{%", at_); tag != std::string::npos; tag = s_.find("{%", tag + 2)) {
      size_t p = tag + 2;
      const char open = p < s_.size() ? s_[p] : '\0';
      if (open == '-' || open == '+') ++p;
      while (p < s_.size() && is_white(s_[p])) ++p;
      if (s_.compare(p, 6, "endraw") != 0) continue;
      p += 6;
      while (p < s_.size() && is_white(s_[p])) ++p;
      const char close = p < s_.size() ? s_[p] : '\0';
      if (close == '-' || close == '+') ++p;
      if (s_.compare(p, 2, "%}") != 0) continue;
      text_until(tag, open == '-', open != '+');
      skip_to(p + 2);
      after_tag(close == '-', close != '+');
      return {};
    }
    return wrong("a raw block does not end");
  }

  Result<void> tag(Token::Kind begin, Token::Kind end, std::string_view closing) {
    add(begin, "");
    std::string open;  // brackets, so that }} may close two dicts
    for (;;) {
      while (at_ < s_.size() && is_white(s_[at_])) skip_to(at_ + 1);
      if (at_ >= s_.size()) return wrong("a tag does not end: \"{}\" is missing", closing);
      if (open.empty()) {
        const char sign = here();
        const bool signed_end =
            (sign == '-' || sign == '+') && s_.compare(at_ + 1, 2, closing) == 0;
        if (signed_end || looking_at(closing)) {
          add(end, "");
          skip_to(at_ + (signed_end ? 3 : 2));
          after_tag(signed_end && sign == '-',
                    end == Token::Kind::kTagEnd && !(signed_end && sign == '+'));
          return {};
        }
      }
      TRY(token(open));
    }
  }

  Result<void> token(std::string& open) {
    const char c = here();
    if (c == '"' || c == '\'') return literal(c);
    if (is_digit(c)) return number();
    if (is_name_start(c)) {
      size_t end = at_;
      while (end < s_.size() && (is_name_start(s_[end]) || is_digit(s_[end]))) ++end;
      add(Token::Kind::kName, s_.substr(at_, end - at_));
      skip_to(end);
      return {};
    }
    static constexpr std::array<std::string_view, 26> kOperators = {
        "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ".", ",", ":", "|", ";"};
    for (const std::string_view op : kOperators) {
      if (!looking_at(op)) continue;
      if (op == "(" || op == "[" || op == "{") open += c;
      if (op == ")" || op == "]" || op == "}") {
        const char partner = c == ')' ? '(' : c == ']' ? '[' : '{';
        if (open.empty() || open.back() != partner) return wrong("\"{}\" closes nothing", c);
        open.pop_back();
      }
      add(Token::Kind::kOperator, std::string(op));
      skip_to(at_ + op.size());
      return {};
    }
    return wrong("{} has no place in an expression",
                 printable(s_.substr(at_, decode_utf8(s_, at_).bytes)));
  }

  Result<void> number() {
    size_t end = at_;
    std::string digits;
    const auto take_digits = [&] {
      for (; end < s_.size() && (is_digit(s_[end]) ||
                                 (s_[end] == '_' && end + 1 < s_.size() && is_digit(s_[end + 1])));
           ++end)
        if (s_[end] != '_') digits += s_[end];
    };
    take_digits();
    if (digits == "0" && end < s_.size() && is_name_start(s_[end]))
      return wrong("numbers in base 2, 8 or 16 are not supported");
    bool real = false;
    if (end + 1 < s_.size() && s_[end] == '.' && is_digit(s_[end + 1])) {
      real = true;
      digits += s_[end++];
      take_digits();
    }
    if (end < s_.size() && (s_[end] == 'e' || s_[end] == 'E')) {
      size_t p = end + 1;
      if (p < s_.size() && (s_[p] == '+' || s_[p] == '-')) ++p;
      if (p < s_.size() && is_digit(s_[p])) {
        real = true;
        digits += s_.substr(end, p - end);
        end = p;
        take_digits();
      }
    }
    add(real ? Token::Kind::kReal : Token::Kind::kWhole, digits);
    skip_to(end);
    return {};
  }

  Result<void> literal(char quote) {
    std::string out;
    size_t p = at_ + 1;
    for (; p < s_.size() && s_[p] != quote; ++p) {
      if (s_[p] != '\\') {
        out += s_[p];
        continue;
      }
      if (++p >= s_.size()) break;
      TRY(escape(p, out));
    }
    if (p >= s_.size()) return wrong("a text does not end: {} is missing", quote);
    add(Token::Kind::kText, std::move(out));
    skip_to(p + 1);
    return {};
  }

  /// Python's escapes; p stands on the character after the backslash, and is left on the last one.
  Result<void> escape(size_t& p, std::string& out) {
    const char c = s_[p];
    const auto point = [&](size_t count) -> Result<void> {
      uint32_t v = 0;
      for (size_t i = 1; i <= count; ++i) {
        const char h = p + i < s_.size() ? s_[p + i] : '\0';
        const int digit = is_digit(h)            ? h - '0'
                          : h >= 'a' && h <= 'f' ? h - 'a' + 10
                          : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                                 : -1;
        if (digit < 0) return wrong("\\{} needs {} hexadecimal digits", c, count);
        v = v * 16 + static_cast<uint32_t>(digit);
      }
      if (v > 0x10FFFF || (v >= 0xD800 && v <= 0xDFFF)) return wrong("\\{} of no character", c);
      append_utf8(out, v);
      p += count;
      return {};
    };
    switch (c) {
      case 'n': out += '\n'; break;
      case 't': out += '\t'; break;
      case 'r': out += '\r'; break;
      case 'a': out += '\a'; break;
      case 'b': out += '\b'; break;
      case 'f': out += '\f'; break;
      case 'v': out += '\v'; break;
      case '\\':
      case '\'':
      case '"': out += c; break;
      case '\n': break;
      case 'x': return point(2);
      case 'u': return point(4);
      case 'U': return point(8);
      default:
        if (is_digit(c) || c == 'N') return wrong("the escape \\{} is not supported", c);
        out += '\\';
        out += c;
    }
    return {};
  }

  std::string s_;
  const std::string& path_;
  size_t at_ = 0;
  int line_ = 1;
  bool after_newline_ = false;  // the tag before ended the line: what follows starts one
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> tokenize(std::string_view source, const std::string& path) {
  return Lexer(normalised(source), path).run();
}

}  // namespace ferry::text::jinja
