#include "train/config_field.h"

#include <algorithm>
#include <cmath>

namespace ferry::settings {
namespace {

template <typename T>
struct Inner {
  using Type = T;
  static constexpr bool optional = false;
};
template <typename T>
struct Inner<std::optional<T>> {
  using Type = T;
  static constexpr bool optional = true;
};
template <typename Pointer>  // what a target points at
using Held = Inner<std::remove_pointer_t<Pointer>>;

std::string text_of(double v) {
  std::string s = fmt::format("{}", v);
  if (s.find_first_of(".en") == std::string::npos) s += ".0";
  return s;
}

std::string bounds_of(const Field& f, bool whole) {
  const auto number = [whole](double v) {
    return whole ? fmt::format("{:.0f}", v) : fmt::format("{}", v);
  };
  const Bounds& b = f.bounds;
  const bool low = b.least > -1e300, high = b.most < 1e300;
  if (low && high)
    return b.above ? fmt::format("above {}, at most {}", number(b.least), number(b.most))
                   : fmt::format("{} to {}", number(b.least), number(b.most));
  if (low) return fmt::format("{} {}", b.above ? "above" : "at least", number(b.least));
  return "";
}

bool within(const Bounds& b, double v) {
  return std::isfinite(v) && (b.above ? v > b.least : v >= b.least) && v <= b.most;
}

}  // namespace

Kind kind_of(const Field& f) {
  return std::visit(
      []<typename P>(P) {
        using T = typename Held<P>::Type;
        if constexpr (std::is_same_v<T, int64_t>)
          return Kind::kInteger;
        else if constexpr (std::is_same_v<T, double>)
          return Kind::kNumber;
        else if constexpr (std::is_same_v<T, bool>)
          return Kind::kBool;
        else
          return Kind::kText;
      },
      f.target);
}

Value value_of(const Field& f) {
  return std::visit(
      []<typename P>(P p) -> Value {
        if constexpr (Held<P>::optional)
          return *p ? Value(**p) : Value();
        else
          return *p;
      },
      f.target);
}

bool is_set(const Value& v) { return !std::holds_alternative<std::monostate>(v); }

std::string printable(std::string_view s) {
  std::string out;
  for (const char c : s) {
    if (c == '"' || c == '\\')
      out += '\\', out += c;
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out;
}

std::string in_quotes(std::string_view s) { return fmt::format("\"{}\"", printable(s)); }

std::string text_of(const Value& v) {
  if (const auto* i = std::get_if<int64_t>(&v)) return std::to_string(*i);
  if (const auto* d = std::get_if<double>(&v)) return text_of(*d);
  if (const auto* b = std::get_if<bool>(&v)) return *b ? "true" : "false";
  if (const auto* s = std::get_if<std::string>(&v)) return in_quotes(*s);
  return "not set";
}

std::string allowed(const Field& f) {
  const Kind kind = kind_of(f);
  if (kind == Kind::kBool) return "true or false";
  if (kind == Kind::kText) {
    std::string list;
    for (const std::string& choice : f.choices)
      list += fmt::format("{} {}", list.empty() ? "one of" : ",", in_quotes(choice));
    return list.empty() ? "text" : list;
  }
  const std::string bounds = bounds_of(f, kind == Kind::kInteger);
  return fmt::format("{}{}{}",
                     kind == Kind::kInteger ? "a whole number" : "a number",
                     bounds.empty() ? "" : ", ",
                     bounds);
}

tl::unexpected<Status> refused(std::string_view where, const Field& f, std::string_view got) {
  return fail(Code::kInvalidInput, "{}: {} is {}; it must be {}", where, f.path(), got, allowed(f));
}

Result<void> assign(const Field& f, const Value& value, std::string_view where) {
  return std::visit(
      [&]<typename T>(const T& v) -> Result<void> {
        if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>) {
          if (!within(f.bounds, static_cast<double>(v))) return refused(where, f, text_of(value));
        } else if constexpr (std::is_same_v<T, std::string>) {
          if (!f.choices.empty() &&
              std::find(f.choices.begin(), f.choices.end(), v) == f.choices.end())
            return refused(where, f, in_quotes(v));
          if (v.find('\0') != std::string::npos) return refused(where, f, "text with a zero byte");
        }
        std::visit(
            [&v]<typename P>(P p) {
              if constexpr (std::is_same_v<typename Held<P>::Type, T>) *p = v;
            },
            f.target);
        return {};
      },
      value);
}
}  // namespace ferry::settings
