#include "base/python_json.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/json.h"

namespace ferry {
namespace {

// Around the word. No text of a directory begins with U+0000, which is what tells it from one.
constexpr char kMark = '\0';
constexpr std::string_view kEscapedMark = "\\u0000", kWhy = " (not finite)";

bool is_of_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '+' ||
         c == '-' || c == '.';
}

bool is_odd(std::string_view word) {
  if (word == "NaN" || word == "Infinity" || word == "-Infinity") return true;
  const char digit = word.size() > 1 && word[0] == '-' ? word[1] : word[0];
  if (digit < '0' || digit > '9') return false;
  double number = 0;
  const auto [at, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  return error == std::errc::result_out_of_range && at == word.data() + word.size();
}

template <class AnyJson>
bool holds_mark(const AnyJson& value) {
  if (!value.is_string()) return false;
  const std::string& text = value.template get_ref<const std::string&>();
  return text.starts_with(kMark) && text.ends_with(kWhy);
}

/// Whether it is such a number, or a list in which, or in a list of which, one stands.
bool is_of_not_finite(const nlohmann::ordered_json& value) {
  if (holds_mark(value)) return true;
  return value.is_array() && std::any_of(value.begin(), value.end(), is_of_not_finite);
}

}  // namespace

std::string without_odd_numbers(std::string_view text, OddNumber becomes) {
  std::string out;
  size_t copied = 0;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '"') {
      for (++i; i < text.size() && text[i] != '"'; ++i)
        if (text[i] == '\\') ++i;
      ++i;
      continue;
    }
    if (!is_of_word(text[i])) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < text.size() && is_of_word(text[end])) ++end;
    const std::string_view word = text.substr(i, end - i);
    if (is_odd(word)) {
      out += text.substr(copied, i - copied);
      if (becomes == OddNumber::kNull)
        out += "null";
      else
        out += fmt::format("\"{}{}{}\"", kEscapedMark, word, kWhy);
      copied = end;
    }
    i = end;
  }
  if (copied > 0) out += text.substr(copied);
  return out;
}

std::string json_of_python(std::string_view text) {
  if (nlohmann::json::accept(text)) return std::string(text);
  std::string other = without_odd_numbers(text, OddNumber::kText);
  if (!other.empty() && nlohmann::json::accept(other)) return other;
  return std::string(text);
}

Result<nlohmann::json> parse_python_json(std::string_view text, const std::string& path) {
  Result<nlohmann::json> json = parse_json(text, path);
  return json ? std::move(json) : parse_json(json_of_python(text), path);
}

bool is_not_finite(const nlohmann::json& value) { return holds_mark(value); }
bool is_not_finite(const nlohmann::ordered_json& value) { return holds_mark(value); }

std::string shown_json(const nlohmann::json& value) {
  std::string text = json_text(value);
  const std::string begin = fmt::format("\"{}", kEscapedMark);
  for (size_t at = 0; (at = text.find(begin, at)) != text.npos; ++at) {
    const size_t end = text.find('"', at + 1);
    if (end != text.npos && std::string_view(text).substr(at, end - at).ends_with(kWhy))
      text.erase(at + 1, kEscapedMark.size());
  }
  return text;
}

void leave_out_not_finite(nlohmann::ordered_json& value) {
  if (value.is_object())
    for (auto it = value.begin(); it != value.end();)
      it = is_of_not_finite(*it) ? value.erase(it) : std::next(it);
  if (value.is_structured())
    for (nlohmann::ordered_json& part : value) leave_out_not_finite(part);
}

}  // namespace ferry
