#include "text/jinja/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "text/utf8.h"

namespace ferry::text::jinja {
namespace {

using Kind = Value::Kind;

constexpr int64_t kPrecisionMax = 1000;

/// How a value is to be laid out: what both ways know.
struct Layout {
  std::string fill = " ";  // one character
  char align = 0;  // <, >, ^, or = (between a sign and the digits); 0: as values of its kind are
  char sign =
      0;  // +, - or a space, the first and the last before what is not negative; 0: none is given
  bool alternate = false;  // "#"
  int64_t width = 0, precision = -1;
  char grouping = 0;  // of digits
  char type = 0;      // the letter at the end
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_one_of(char c, std::string_view all) { return c != 0 && all.find(c) != all.npos; }

/// A number within a pattern. Errors: too large.
int64_t read_digits(std::string_view s, size_t& at) {
  const char* const end = s.data() + s.size();
  int64_t v = 0;
  const auto [rest, error] = std::from_chars(s.data() + at, end, v);
  if (error != std::errc()) throw TemplateError("a number in a format is too large");
  at = static_cast<size_t>(rest - s.data());
  return v;
}

/// repr(), or str(); `conversion` is r, a or s.
std::string converted(Interpreter& in, const Value& v, char conversion) {
  if (conversion == 's') return in.str(v);
  in.spend(v.weight());
  std::string repr = Value(List{v}).str();  // within a list a value stands as its repr
  repr = repr.substr(1, repr.size() - 2);
  const auto beyond = [](char c) { return static_cast<unsigned char>(c) >= 0x80; };
  if (conversion == 'a' && std::any_of(repr.begin(), repr.end(), beyond))
    throw TemplateError("ascii() of letters beyond ASCII is not supported");
  return repr;
}

void check_size(Interpreter& in, const Layout& l) {
  if (l.precision > kPrecisionMax)
    throw TemplateError(fmt::format("a precision above {} is not supported", kPrecisionMax));
  if (l.width < 0 || static_cast<uint64_t>(l.width) > in.limits().text_bytes)
    throw TemplateError(fmt::format("a text grows beyond {} bytes", in.limits().text_bytes));
  in.spend(static_cast<uint64_t>(l.width));
}

/// `head` and `body` in the layout's width; what is filled in stands between them where it is aligned so.
std::string filled(const std::string& head, const std::string& body, const Layout& l, char usual) {
  const auto has = static_cast<int64_t>(characters(head) + characters(body));
  if (has >= l.width) return head + body;
  const char align = l.align != 0 ? l.align : usual;
  const int64_t all = l.width - has;
  const int64_t left = align == '<' ? 0 : align == '^' ? all / 2 : all;
  const auto fill = [&](int64_t times) {
    std::string out;
    for (int64_t i = 0; i < times; ++i) out += l.fill;
    return out;
  };
  if (align == '=') return head + fill(all) + body;
  return fill(left) + head + body + fill(all - left);
}

// ---- numbers

/// A number's parts, in the order in which they are written; `head` of what it is without its sign.
struct Number {
  bool negative = false;
  std::string head;               // "0x"
  std::string digits, rest = "";  // "1234", ".5e+06"
};

/// Digits in groups from the right, with zeros before them up to `least` characters.
std::string grouped(std::string digits, int64_t every, char separator, int64_t least) {
  const auto length = [&](int64_t count) { return count + (count - 1) / every; };
  int64_t count = std::max<int64_t>(std::ssize(digits), least / (every + 1) * every);
  while (length(count) < least) ++count;  // at most as often as a group has digits
  digits.insert(0, static_cast<size_t>(count - std::ssize(digits)), '0');
  std::string out;
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0 && (count - i) % every == 0) out += separator;
    out += digits[static_cast<size_t>(i)];
  }
  return out;
}

std::string laid_out(const Number& n, const Layout& l) {
  std::string head = n.negative ? "-" : l.sign == '+' ? "+" : l.sign == ' ' ? " " : "";
  head += n.head;
  std::string digits = n.digits;
  const bool by_bits = is_one_of(l.type, "boxX");
  if (l.grouping != 0 && (by_bits || is_digit(digits[0]))) {  // not of what is infinite
    const bool zeros = l.fill == "0" && l.align == '=';
    digits = grouped(std::move(digits),
                     by_bits ? 4 : 3,
                     l.grouping,
                     zeros ? l.width - std::ssize(head) - std::ssize(n.rest) : 0);
  }
  return filled(head, digits + n.rest, l, '>');
}

std::string upper(std::string s) {
  for (char& c : s)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
  return s;
}

Number whole_number(int64_t v, char type, bool alternate, const char* octal) {
  const uint64_t size = v < 0 ? uint64_t{0} - static_cast<uint64_t>(v) : static_cast<uint64_t>(v);
  Number n{.negative = v < 0, .head = "", .digits = ""};
  switch (type) {
    case 'b': n.digits = fmt::format("{:b}", size), n.head = "0b"; break;
    case 'o': n.digits = fmt::format("{:o}", size), n.head = octal; break;
    case 'x': n.digits = fmt::format("{:x}", size), n.head = "0x"; break;
    case 'X': n.digits = fmt::format("{:X}", size), n.head = "0X"; break;
    default: n.digits = fmt::format("{}", size); return n;
  }
  if (!alternate) n.head.clear();
  return n;
}

/// So many digits, as "g" writes them: with an exponent where the point would lie outside of them. `with_point`: there
/// is a digit behind a point where there is no exponent, which is Python's way without a letter.
std::string general(double size, int precision, bool alternate, bool with_point) {
  const std::string all = fmt::format("{:.{}e}", size, precision - 1);
  const size_t e = all.find('e');
  std::string digits = all.substr(0, e);
  std::erase(digits, '.');
  if (!alternate) digits.erase(std::max<size_t>(1, digits.find_last_not_of('0') + 1));
  size_t at = e + 2;
  const auto exponent = static_cast<int>(read_digits(all, at));
  const int point = (all[e + 1] == '-' ? -exponent : exponent) + 1;  // digits before it
  const auto joined = [&](const std::string& before, const std::string& after) {
    return before + (after.empty() && !alternate ? "" : ".") + after;
  };
  if (point <= -4 || point > precision - (with_point ? 1 : 0))
    return joined(digits.substr(0, 1), digits.substr(1)) + all.substr(e);
  if (point <= 0) return joined("0", std::string(static_cast<size_t>(-point), '0') + digits);
  const auto before = static_cast<size_t>(point);
  if (digits.size() < before + (with_point ? 1 : 0))
    digits.resize(before + (with_point ? 1 : 0), '0');
  return joined(digits.substr(0, before), digits.substr(before));
}

/// repr(), with the point that "#" asks for.
std::string repr_with_point(double size, bool alternate) {
  std::string s = float_repr(size);
  if (alternate && s.find('.') == s.npos) s.insert(std::min(s.find('e'), s.size()), ".");
  return s;
}

Number real_number(double v, const Layout& l) {
  Number n{.negative = std::signbit(v) && !std::isnan(v), .head = "", .digits = ""};
  const bool percent = l.type == '%', large = is_one_of(l.type, "EFG");
  const double size = std::fabs(percent ? v * 100 : v);
  const int precision = l.precision < 0 ? 6 : static_cast<int>(l.precision);
  std::string s;
  if (!std::isfinite(size)) {
    s = std::isnan(size) ? "nan" : "inf";
  } else if (l.type == 0) {
    s = l.precision < 0 ? repr_with_point(size, l.alternate)
                        : general(size, std::max(precision, 1), l.alternate, true);
  } else if (is_one_of(l.type, "fF%")) {
    s = l.alternate ? fmt::format("{:#.{}f}", size, precision)
                    : fmt::format("{:.{}f}", size, precision);
  } else if (is_one_of(l.type, "eE")) {
    s = l.alternate ? fmt::format("{:#.{}e}", size, precision)
                    : fmt::format("{:.{}e}", size, precision);
  } else {
    s = general(size, std::max(precision, 1), l.alternate, false);
  }
  if (large) s = upper(std::move(s));
  const size_t whole =
      std::isfinite(size) ? std::min(s.find_first_not_of("0123456789"), s.size()) : s.size();
  n.digits = s.substr(0, whole);
  n.rest = s.substr(whole) + (percent ? "%" : "");
  return n;
}

/// The character of a number. Errors: there is none.
std::string character(int64_t point) {
  if (point < 0 || point > 0x10FFFF) throw TemplateError("%c: the number is no character");
  if (point >= 0xD800 && point <= 0xDFFF)
    throw TemplateError("halves of characters are not supported");
  std::string out;
  append_utf8(out, static_cast<char32_t>(point));
  return out;
}

std::string first_characters(const std::string& s, int64_t most) {
  if (most < 0) return s;
  size_t at = 0;
  for (int64_t i = 0; i < most && at < s.size(); ++i) at += decode_utf8(s, at).bytes;
  return s.substr(0, at);
}

// ---- "%5.2f" % x

class PercentFormat {
 public:
  PercentFormat(Interpreter& in, std::string_view pattern, const Value& values)
      : in_(in), s_(pattern), values_(values) {
    // What Python can ask for a key may be left over: lists and dicts.
    mapping_ = (values.is(Kind::kList) && !values.is_tuple()) || values.is(Kind::kDict) ||
               values.is_undefined();
    if (!values.is_tuple()) one_ = values;
  }

  Value run() {
    std::string out;
    for (size_t begin = 0; begin < s_.size();) {
      at_ = s_.find('%', begin);
      in_.write(out, s_.substr(begin, at_ == s_.npos ? s_.npos : at_ - begin));
      if (at_ == s_.npos) break;
      ++at_;
      in_.write(out, conversion());
      begin = at_;
    }
    const bool left = values_.is_tuple() ? next_ < values_.list().size() : one_.has_value();
    if (left && !mapping_ && !keyed_)
      throw TemplateError("not all arguments converted during string formatting");
    return in_.text(std::move(out));
  }

 private:
  char here() const { return at_ < s_.size() ? s_[at_] : '\0'; }

  Value next() {
    if (values_.is_tuple() && !keyed_) {
      if (next_ < values_.list().size()) return values_.list()[next_++];
    } else if (one_) {
      return *std::exchange(one_, std::nullopt);
    }
    throw TemplateError("not enough arguments for format string");
  }

  /// "(name)": from now on what has that name is what is asked for.
  void key() {
    if (here() != '(') return;
    if (!values_.is(Kind::kDict)) throw TemplateError("format requires a mapping");
    const size_t begin = ++at_;
    for (int open = 1; at_ < s_.size(); ++at_) {
      open += s_[at_] == '(' ? 1 : s_[at_] == ')' ? -1 : 0;
      if (open == 0) break;
    }
    if (at_ >= s_.size()) throw TemplateError("incomplete format key");
    const std::string name(s_.substr(begin, at_++ - begin));
    in_.spend_search(values_.size(), name.size());
    const Value* v = values_.find(name);
    if (v == nullptr)
      throw TemplateError(fmt::format("the format's {} is not given", printable(name)));
    keyed_ = true;
    one_ = *v;
  }

  int64_t number() {
    if (here() != '*') return is_digit(here()) ? read_digits(s_, at_) : 0;
    ++at_;
    const Value v = next();
    if (!v.is_whole()) throw TemplateError("* wants int");
    return v.whole();
  }

  std::string conversion() {
    if (here() == '%') {
      ++at_;
      return "%";
    }
    key();
    Layout l;
    bool zeros = false, left = false;
    for (; is_one_of(here(), "-+ #0"); ++at_) {
      left |= here() == '-';
      zeros |= here() == '0';
      l.alternate |= here() == '#';
      if (here() == '+' || (here() == ' ' && l.sign != '+')) l.sign = here();
    }
    l.width = number();
    if (l.width < 0) {
      left = true;
      l.width = l.width == INT64_MIN ? INT64_MAX : -l.width;
    }
    if (here() == '.') {
      ++at_;
      l.precision = std::max<int64_t>(number(), 0);
    }
    if (is_one_of(here(), "hlL")) ++at_;
    if (at_ >= s_.size()) throw TemplateError("incomplete format");
    l.type = s_[at_++];
    const Value v = next();
    check_size(in_, l);
    if (left) l.align = '<';
    const bool is_number = is_one_of(l.type, "diuoxXeEfFgG");
    if (is_number && zeros && !left) {
      l.fill = "0";
      l.align = '=';
    }
    return is_number ? laid_out(number_of(v, l), l) : filled("", text_of(v, l), l, '>');
  }

  Number number_of(const Value& v, const Layout& l) const {
    const auto wrong = [&](const char* needed) {
      return TemplateError(
          fmt::format("%{} format: {} is required, not {}", l.type, needed, v.kind_name()));
    };
    if (is_one_of(l.type, "eEfFgG")) {
      if (!v.is_number()) throw wrong("a real number");
      return real_number(v.real(), l);
    }
    int64_t whole = 0;
    if (v.is_whole()) {
      whole = v.whole();
    } else {
      if (is_one_of(l.type, "oxX")) throw wrong("an integer");
      if (!v.is_number()) throw wrong("a real number");
      if (!(std::fabs(v.real()) < 0x1p63))
        throw TemplateError(fmt::format("the number {} is beyond 63 bits", v.real()));
      whole = static_cast<int64_t>(v.real());
    }
    Number n = whole_number(whole, l.type, l.alternate, "0o");
    if (std::ssize(n.digits) < l.precision)
      n.digits.insert(0, static_cast<size_t>(l.precision) - n.digits.size(), '0');
    return n;
  }

  std::string text_of(const Value& v, const Layout& l) const {
    if (l.type == 'c') {
      if (v.is_whole()) return character(v.whole());
      if (v.is(Kind::kText) && characters(v.text()) == 1) return v.text();
      throw TemplateError("%c requires int or char");
    }
    if (!is_one_of(l.type, "sra"))
      throw TemplateError(
          fmt::format("unsupported format character {}", printable(std::string(1, l.type))));
    return first_characters(converted(in_, v, l.type), l.precision);
  }

  Interpreter& in_;
  std::string_view s_;
  const Value& values_;
  std::optional<Value> one_;  // that is still to be asked for
  bool mapping_ = false, keyed_ = false;
  size_t at_ = 0, next_ = 0;
};

// ---- "{:>8}".format(x)

/// [[fill]align][sign][#][0][width][grouping][.precision][type]. `usual`: how its kind is aligned.
Layout read_layout(Interpreter& in, std::string_view s, char usual) {
  Layout l;
  size_t at = 0;
  const auto here = [&] { return at < s.size() ? s[at] : '\0'; };
  const size_t first = s.empty() ? 0 : decode_utf8(s, 0).bytes;
  bool fill_given = false;
  if (first > 0 && first < s.size() && is_one_of(s[first], "<>^=")) {
    l.fill = s.substr(0, first);
    fill_given = true;
    l.align = s[first];
    at = first + 1;
  } else if (is_one_of(here(), "<>^=")) {
    l.align = s[at++];
  }
  if (is_one_of(here(), "+- ")) l.sign = s[at++];
  if (here() == 'z') throw TemplateError("the format's \"z\" is not supported");
  if (here() == '#') {
    l.alternate = true;
    ++at;
  }
  if (!fill_given && here() == '0') {
    l.fill = "0";
    if (l.align == 0 && usual == '>') l.align = '=';
    ++at;
  }
  if (is_digit(here())) l.width = read_digits(s, at);
  while (is_one_of(here(), ",_")) {
    if (l.grouping != 0) throw TemplateError("a format has one \",\" or \"_\"");
    l.grouping = s[at++];
  }
  if (here() == '.') {
    ++at;
    if (!is_digit(here())) throw TemplateError("Format specifier missing precision");
    l.precision = read_digits(s, at);
  }
  if (at < s.size()) l.type = s[at++];
  if (at < s.size())
    throw TemplateError(fmt::format("Invalid format specifier {}", printable(std::string(s))));
  check_size(in, l);
  return l;
}

[[noreturn]] void no_type(const Layout& l, const Value& v) {
  throw TemplateError(fmt::format("Unknown format code {} for object of type {}",
                                  printable(std::string(1, l.type)),
                                  v.kind_name()));
}

std::string laid_out_text(Interpreter& in, const Value& v, std::string_view spec) {
  const Layout l = read_layout(in, spec, '<');
  if (l.type != 0 && l.type != 's') no_type(l, v);
  if (l.sign != 0) throw TemplateError("Sign not allowed in string format specifier");
  if (l.align == '=') throw TemplateError("'=' alignment not allowed in string format specifier");
  if (l.alternate) throw TemplateError("Alternate form (#) not allowed in string format specifier");
  if (l.grouping != 0) throw TemplateError("Cannot specify a grouping with 's'");
  return filled("", first_characters(v.text(), l.precision), l, '<');
}

std::string laid_out_number(Interpreter& in, const Value& v, std::string_view spec) {
  const Layout l = read_layout(in, spec, '>');
  const bool real = v.is(Kind::kFloat) || is_one_of(l.type, "eEfFgG%");
  if (!real && l.type != 0 && !is_one_of(l.type, "bcdnoxX")) no_type(l, v);
  if (v.is(Kind::kFloat) && l.type != 0 && !is_one_of(l.type, "eEfFgGn%")) no_type(l, v);
  if (l.grouping != 0 &&
      (is_one_of(l.type, "nc") || (l.grouping == ',' && is_one_of(l.type, "boxX"))))
    throw TemplateError(fmt::format("Cannot specify '{}' with '{}'", l.grouping, l.type));
  if (real) return laid_out(real_number(v.real(), l), l);
  if (l.precision >= 0) throw TemplateError("Precision not allowed in integer format specifier");
  if (l.type != 'c') return laid_out(whole_number(v.whole(), l.type, l.alternate, "0o"), l);
  if (l.sign != 0) throw TemplateError("Sign not allowed with integer format specifier 'c'");
  if (l.alternate)
    throw TemplateError("Alternate form (#) not allowed with integer format specifier 'c'");
  return filled("", character(v.whole()), l, '>');
}

class BraceFormat {
 public:
  BraceFormat(Interpreter& in, const Arguments& values) : in_(in), values_(values) {}

  std::string run(std::string_view s, int depth) {
    if (depth < 0) throw TemplateError("Max string recursion exceeded");
    std::string out;
    for (size_t at = 0; at < s.size();) {
      const size_t brace = std::min(s.find_first_of("{}", at), s.size());
      in_.write(out, s.substr(at, brace - at));
      at = brace + 1;
      if (brace == s.size()) break;
      if (at < s.size() && s[at] == s[brace]) {
        in_.write(out, s.substr(at++, 1));
        continue;
      }
      if (s[brace] == '}' || at == s.size())
        throw TemplateError(fmt::format("Single '{}' encountered in format string", s[brace]));
      in_.write(out, field(s, at, depth));
    }
    return out;
  }

 private:
  /// From behind its "{" to behind its "}".
  std::string field(std::string_view s, size_t& at, int depth) {
    const size_t begin = at;
    char end = 0;
    for (; at < s.size() && end == 0; ++at) {
      if (s[at] == '{') throw TemplateError("unexpected '{' in field name");
      if (s[at] == '[') at = std::min(s.find(']', at), s.size() - 1);
      if (is_one_of(s[at], "}:!")) end = s[at];
    }
    if (end == 0) throw TemplateError("expected '}' before end of string");
    const std::string_view name = s.substr(begin, at - 1 - begin);
    char conversion = 0;
    if (end == '!') {
      if (at >= s.size())
        throw TemplateError("end of string while looking for conversion specifier");
      conversion = s[at++];
      end = at < s.size() ? s[at++] : '\0';
      if (end != '}' && end != ':') throw TemplateError("expected ':' after conversion specifier");
    }
    std::string_view spec;
    if (end == ':') {
      const size_t from = at;
      int open = 1;
      for (; at < s.size() && open > 0; ++at) open += s[at] == '{' ? 1 : s[at] == '}' ? -1 : 0;
      if (open > 0) throw TemplateError("unmatched '{' in format spec");
      spec = s.substr(from, at - 1 - from);
    }
    Value v = value(name);
    if (conversion != 0) {
      if (!is_one_of(conversion, "sra"))
        throw TemplateError(
            fmt::format("Unknown conversion specifier {}", printable(std::string(1, conversion))));
      v = in_.text(converted(in_, v, conversion));
    }
    return formatted(v, run(spec, depth - 1));
  }

  std::string formatted(const Value& v, const std::string& spec) {
    if (v.is(Kind::kText)) return laid_out_text(in_, v, spec);
    if (spec.empty()) return in_.str(v);
    if (v.is_number()) return laid_out_number(in_, v, spec);
    throw TemplateError(fmt::format("unsupported format string passed to {}", v.kind_name()));
  }

  static bool all_digits(std::string_view s) {
    return !s.empty() && std::all_of(s.begin(), s.end(), is_digit);
  }

  /// "", "0", "name", each with ".field" and "[key]" behind it.
  Value value(std::string_view name) {
    std::string numbered;
    if (name.empty()) {
      if (numbering_ == Numbering::kGiven)
        throw TemplateError(
            "cannot switch from manual field specification to automatic field numbering");
      numbering_ = Numbering::kAutomatic;
      numbered = std::to_string(automatic_++);
      name = numbered;
    } else if (all_digits(name)) {
      if (numbering_ == Numbering::kAutomatic)
        throw TemplateError(
            "cannot switch from manual field specification to automatic field numbering");
      numbering_ = Numbering::kGiven;
    }
    size_t at = std::min(name.find_first_of(".["), name.size());
    Value v = argument(name.substr(0, at));
    while (at < name.size()) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        if (end == at + 1) throw TemplateError("Empty attribute in format string");
        v = in_.attribute(v, std::string(name.substr(at + 1, end - at - 1)));
        at = end;
      } else if (name[at] == '[') {
        const size_t end = name.find(']', at);
        if (end == name.npos) throw TemplateError("Missing ']' in format string");
        const std::string_view key = name.substr(at + 1, end - at - 1);
        if (key.empty()) throw TemplateError("Empty attribute in format string");
        size_t digit = 0;
        v = in_.item(v, all_digits(key) ? Value(read_digits(key, digit)) : Value(std::string(key)));
        at = end + 1;
      } else {
        throw TemplateError("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return v;
  }

  Value argument(std::string_view name) {
    if (all_digits(name)) {
      size_t digit = 0;
      const auto index = static_cast<size_t>(read_digits(name, digit));
      if (index < values_.positional.size()) return values_.positional[index];
      throw TemplateError("a format asks for more values than are given");
    }
    in_.spend_search(values_.named.size(), name.size());
    for (const auto& item : values_.named)
      if (item.first == name) return item.second;
    throw TemplateError(fmt::format("the format's {} is not given", printable(std::string(name))));
  }

  enum class Numbering { kUnknown, kAutomatic, kGiven };

  Interpreter& in_;
  const Arguments& values_;
  Numbering numbering_ = Numbering::kUnknown;
  size_t automatic_ = 0;
};

}  // namespace

Value percent_format(Interpreter& in, const std::string& pattern, const Value& values) {
  in.spend(pattern.size());
  return PercentFormat(in, pattern, values).run();
}

Value brace_format(Interpreter& in, const std::string& pattern, const Arguments& values) {
  in.spend(pattern.size());
  constexpr int kNested = 2;  // fields within fields, as Python has it
  return in.text(BraceFormat(in, values).run(pattern, kNested));
}

}  // namespace ferry::text::jinja
