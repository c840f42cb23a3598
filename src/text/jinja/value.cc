#include "text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <compare>
#include <nlohmann/json.hpp>

#include "text/utf8.h"

namespace ferry::text::jinja {
namespace {

void append_json_text(std::string& out, std::string_view s) {
  out += '"';
  for (const char c : s) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\f': out += "\\f"; break;
      case '\b': out += "\\b"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        else
          out += c;
    }
  }
  out += '"';
}

/// The same in ASCII alone, as Python writes it by default: code units of UTF-16.
std::string ascii_json_text(std::string_view json) {
  std::string out;
  for (size_t at = 0; at < json.size();) {
    const Utf8Char c = decode_utf8(json, at);
    at += c.bytes;
    if (c.point >= 0x20 && c.point < 0x7F)
      out += static_cast<char>(c.point);
    else if (c.point < 0x10000)
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c.point));
    else
      out += fmt::format("\\u{:04x}\\u{:04x}",
                         0xD7C0 + (static_cast<uint32_t>(c.point) >> 10),
                         0xDC00 + (static_cast<uint32_t>(c.point) & 0x3FF));
  }
  return out;
}

/// What repr() shows as it is. Beyond ASCII, Python asks Unicode's tables; here: all but controls,
/// spaces, separators, marks of direction and private areas.
bool printable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  if (c <= 0xA0 || c == 0xAD) return false;
  if (is_space(c) || (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E)) return false;
  if ((c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB)) return false;
  return !((c >= 0xD800 && c <= 0xF8FF) || c >= 0xE0000);
}

void append_text_repr(std::string& out, std::string_view s) {
  const bool use_double =
      s.find('\'') != std::string_view::npos && s.find('"') == std::string_view::npos;
  const char quote = use_double ? '"' : '\'';
  out += quote;
  for (size_t i = 0; i < s.size();) {
    const Utf8Char u = decode_utf8(s, i);
    const char32_t c = u.point;
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (printable(c)) {
      out += s.substr(i, u.bytes);
    } else if (c <= 0xFF) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c <= 0xFFFF) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
    i += u.bytes;
  }
  out += quote;
}

using Item = Dict::value_type;

std::vector<const Item*> items_in_order(const Dict& d) {
  std::vector<const Item*> out;
  for (const Item& item : d) out.push_back(&item);
  return out;
}

std::vector<const Item*> by_key(const Dict& d) {
  std::vector<const Item*> out = items_in_order(d);
  std::sort(
      out.begin(), out.end(), [](const Item* a, const Item* b) { return a->first < b->first; });
  return out;
}

/// Two numbers' order, exact also where a whole number is no double.
std::partial_ordering order(const Value& a, const Value& b) {
  if (a.is_whole() && b.is_whole()) return a.whole() <=> b.whole();
  if (b.is_whole()) return 0 <=> order(b, a);
  if (!a.is_whole()) return a.real() <=> b.real();
  const double y = b.real();
  if (!(std::fabs(y) < 0x1p63)) return 0.0 <=> y;  // beyond all of them, or no number
  const auto whole = static_cast<int64_t>(y);
  return a.whole() != whole ? a.whole() <=> whole : 0.0 <=> y - std::trunc(y);
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  void write(const Value& v, int depth) {
    // What a value adds beside its own texts is checked before the next one.
    if (out.size() > style_.bytes_max)
      throw TemplateError(fmt::format("a text grows beyond {} bytes", style_.bytes_max));
    switch (v.kind()) {
      case Value::Kind::kNone: out += "null"; return;
      case Value::Kind::kBool: out += v.boolean() ? "true" : "false"; return;
      case Value::Kind::kInt: out += std::to_string(v.whole()); return;
      case Value::Kind::kFloat: return number(v.real());
      case Value::Kind::kText: return text(v.text());
      case Value::Kind::kList:
        return items(
            '[', ']', v.list().size(), depth, [&](size_t i) { write(v.list()[i], depth + 1); });
      case Value::Kind::kDict: return dict(v.dict(), depth);
      default:
        throw TemplateError(fmt::format("tojson: a value of type {} has no JSON", v.kind_name()));
    }
  }

  std::string out;

 private:
  void text(std::string_view s) {
    const size_t begin = out.size();
    append_json_text(out, s);
    if (style_.ensure_ascii) out.replace(begin, out.npos, ascii_json_text(out.substr(begin)));
  }

  void number(double v) {
    if (std::isnan(v))
      out += "NaN";
    else if (std::isinf(v))
      out += v < 0 ? "-Infinity" : "Infinity";
    else
      out += float_repr(v);
  }

  void dict(const Dict& d, int depth) {
    const std::vector<const Item*> order = style_.sort_keys ? by_key(d) : items_in_order(d);
    items('{', '}', order.size(), depth, [&](size_t i) {
      text(order[i]->first);
      out += style_.key_separator;
      write(order[i]->second, depth + 1);
    });
  }

  template <class Item>
  void items(char open, char close, size_t count, int depth, Item&& item) {
    out += open;
    const auto new_line = [&](int level) {
      if (style_.indent < 0) return;
      out += '\n';
      out.append(static_cast<size_t>(level * style_.indent), ' ');
    };
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out += style_.item_separator;
      new_line(depth + 1);
      item(i);
    }
    if (count > 0) new_line(depth);
    out += close;
  }

  const JsonStyle& style_;
};

}  // namespace

Value Value::undefined(std::string name) {
  Value v(std::move(name));
  v.kind_ = Kind::kUndefined;
  return v;
}

Value::Value(std::string v)
    : kind_(Kind::kText), text_(std::make_shared<const std::string>(std::move(v))) {
  weighs(text_->size());
}

void Value::weighs(uint64_t more) {
  // Each part is below its limit: their sum does not wrap around.
  weight_ += more;
  if (weight_ > kWeightMax)
    throw TemplateError(fmt::format("a value grows beyond {} bytes", kWeightMax));
}

void Value::holds(const Value& part) {
  weighs(part.weight_);
  depth_ = std::max(depth_, part.depth_ + 1);
  refers_ |= part.refers_;
  if (depth_ > kDepthMax)
    throw TemplateError(fmt::format("values lie more than {} deep in each other", kDepthMax));
}

Value::Value(List v, bool tuple) : kind_(Kind::kList), tuple_(tuple) {
  for (const Value& part : v) holds(part);
  list_ = std::make_shared<const List>(std::move(v));
}

Value::Value(Dict v) : kind_(Kind::kDict) {
  for (const auto& part : v) {
    weighs(part.first.size());
    holds(part.second);
  }
  dict_ = std::make_shared<Dict>(std::move(v));
}

Value::Value(Callable v, const List& bound) : kind_(Kind::kCallable), refers_(true) {
  for (const Value& part : bound) holds(part);
  callable_ = std::make_shared<const Callable>(std::move(v));
}

Value Value::make_namespace(Dict fields) {
  Value v(std::move(fields));
  if (v.refers_) throw TemplateError("a namespace cannot hold a namespace or a function");
  v.kind_ = Kind::kNamespace;
  v.refers_ = true;
  return v;
}

Value Value::generator(Generate next, const List& bound) {
  Value v;
  v.kind_ = Kind::kGenerator;
  for (const Value& part : bound) v.holds(part);
  v.next_ = std::make_shared<Generate>(std::move(next));
  return v;
}

Value Value::loop(Callable field) {
  Value v(std::move(field));
  v.kind_ = Kind::kLoop;
  return v;
}

std::optional<Value> Value::next(Interpreter& in) const {
  if (!*next_) return std::nullopt;
  std::optional<Value> v = (*next_)(in);
  if (!v) *next_ = nullptr;
  return v;
}

Value Value::from_json(const nlohmann::ordered_json& json) {
  switch (json.type()) {
    case nlohmann::json::value_t::boolean: return json.get<bool>();
    case nlohmann::json::value_t::number_integer: return json.get<int64_t>();
    case nlohmann::json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
        throw TemplateError(fmt::format("the number {} is beyond 63 bits", json.get<uint64_t>()));
      return json.get<int64_t>();
    case nlohmann::json::value_t::number_float: return json.get<double>();
    case nlohmann::json::value_t::string: return json.get<std::string>();
    case nlohmann::json::value_t::array: {
      List list;
      for (const auto& item : json) list.push_back(from_json(item));
      return list;
    }
    case nlohmann::json::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) dict.emplace_back(key, from_json(item));
      return dict;
    }
    default: return {};
  }
}

const char* Value::kind_name() const {
  switch (kind_) {
    case Kind::kUndefined: return "Undefined";
    case Kind::kNone: return "NoneType";
    case Kind::kBool: return "bool";
    case Kind::kInt: return "int";
    case Kind::kFloat: return "float";
    case Kind::kText: return "str";
    case Kind::kList: return tuple_ ? "tuple" : "list";
    case Kind::kDict: return "dict";
    case Kind::kNamespace: return "namespace";
    case Kind::kCallable: return "function";
    case Kind::kLoop: return "LoopContext";
    case Kind::kGenerator: return "generator";
  }
  return "?";
}

void Value::set_field(const std::string& name, Value v) const {
  if (v.refers_) throw TemplateError("a namespace cannot hold a namespace or a function");
  for (auto& [key, value] : *dict_)
    if (key == name) {
      value = std::move(v);
      return;
    }
  dict_->emplace_back(name, std::move(v));
}

bool Value::truth() const {
  switch (kind_) {
    case Kind::kUndefined:
    case Kind::kNone: return false;
    case Kind::kBool:
    case Kind::kInt: return number_.i != 0;
    case Kind::kFloat: return number_.d != 0;
    case Kind::kText: return !text_->empty();
    case Kind::kList: return !list_->empty();
    case Kind::kDict: return !dict_->empty();
    case Kind::kNamespace:
    case Kind::kCallable:
    case Kind::kLoop:
    case Kind::kGenerator: return true;
  }
  return false;
}

std::string Value::str() const {
  if (kind_ == Kind::kText) return *text_;
  if (kind_ == Kind::kUndefined) return "";
  std::string out;
  append_repr(out);
  return out;
}

void Value::append_repr(std::string& out) const {
  switch (kind_) {
    case Kind::kUndefined: out += "Undefined"; return;
    case Kind::kNone: out += "None"; return;
    case Kind::kBool: out += boolean() ? "True" : "False"; return;
    case Kind::kInt: out += std::to_string(number_.i); return;
    case Kind::kFloat: out += float_repr(number_.d); return;
    case Kind::kText: return append_text_repr(out, *text_);
    case Kind::kList:
      out += tuple_ ? '(' : '[';
      for (size_t i = 0; i < list_->size(); ++i) {
        if (i > 0) out += ", ";
        (*list_)[i].append_repr(out);
      }
      if (tuple_ && list_->size() == 1) out += ',';
      out += tuple_ ? ')' : ']';
      return;
    case Kind::kDict:
      out += '{';
      for (size_t i = 0; i < dict_->size(); ++i) {
        if (i > 0) out += ", ";
        append_text_repr(out, (*dict_)[i].first);
        out += ": ";
        (*dict_)[i].second.append_repr(out);
      }
      out += '}';
      return;
    default:
      throw TemplateError(fmt::format("a value of type {} cannot be written out", kind_name()));
  }
}

size_t Value::size() const {
  switch (kind_) {
    case Kind::kText: return text_->size();
    case Kind::kList: return list_->size();
    case Kind::kDict: return dict_->size();
    default: return 0;
  }
}

const Value* Value::find(std::string_view key) const {
  for (const auto& item : *dict_)
    if (item.first == key) return &item.second;
  return nullptr;
}

bool Value::operator==(const Value& b) const {
  if (is_number() && b.is_number()) return order(*this, b) == 0;
  if (kind_ != b.kind_) return false;
  switch (kind_) {
    case Kind::kUndefined:
    case Kind::kNone: return true;
    case Kind::kText: return *text_ == *b.text_;
    case Kind::kList: return tuple_ == b.tuple_ && *list_ == *b.list_;
    case Kind::kDict:
      return dict_ == b.dict_ ||
             std::ranges::equal(by_key(*dict_), by_key(*b.dict_), [](const auto* x, const auto* y) {
               return *x == *y;
             });
    default: return dict_ == b.dict_ && callable_ == b.callable_ && next_ == b.next_;
  }
}

bool Value::less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return order(a, b) < 0;
  if (a.is(Kind::kText) && b.is(Kind::kText))
    return *a.text_ < *b.text_;  // UTF-8 sorts as points do
  if (a.is(Kind::kList) && b.is(Kind::kList))
    return std::lexicographical_compare(
        a.list().begin(), a.list().end(), b.list().begin(), b.list().end(), less);
  throw TemplateError(fmt::format("{} and {} have no order", a.kind_name(), b.kind_name()));
}

std::string float_repr(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, v, std::chars_format::scientific).ptr;
  const std::string shortest(buffer, end);  // "-1.2345e-07"
  const size_t e = shortest.find('e');
  const int exponent = std::stoi(shortest.substr(e + 1));
  std::string digits;
  for (const char c : shortest.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  const std::string sign = shortest[0] == '-' ? "-" : "";
  const auto count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16)
    return fmt::format("{}{}{}{}e{}{:02}",
                       sign,
                       digits[0],
                       count > 1 ? "." : "",
                       digits.substr(1),
                       exponent < 0 ? '-' : '+',
                       std::abs(exponent));
  if (exponent < 0)
    return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1)
    return sign + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  return sign + digits.substr(0, static_cast<size_t>(exponent) + 1) + "." +
         digits.substr(static_cast<size_t>(exponent) + 1);
}

std::string to_json(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  writer.write(value, 0);
  return std::move(writer.out);
}

size_t characters(std::string_view text) {
  size_t count = 0;
  for (size_t i = 0; i < text.size(); i += decode_utf8(text, i).bytes) ++count;
  return count;
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::vector<std::string_view> split_characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t i = 0; i < text.size();) {
    const size_t n = decode_utf8(text, i).bytes;
    out.push_back(text.substr(i, n));
    i += n;
  }
  return out;
}

std::string strip(const std::string& text, Ends ends, const std::string* set) {
  std::vector<std::string_view> members;
  if (set != nullptr) members = split_characters(*set);
  std::sort(members.begin(), members.end());
  const auto goes = [&](std::string_view c) {
    if (set == nullptr) return is_space(decode_utf8(c, 0).point);
    return std::binary_search(members.begin(), members.end(), c);
  };
  std::string_view rest = text;
  while (ends != Ends::kRight && !rest.empty()) {
    const size_t n = decode_utf8(rest, 0).bytes;
    if (!goes(rest.substr(0, n))) break;
    rest.remove_prefix(n);
  }
  while (ends != Ends::kLeft && !rest.empty()) {
    size_t last = rest.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(rest[last]) & 0xC0) == 0x80) --last;
    if (!goes(rest.substr(last))) break;
    rest.remove_suffix(rest.size() - last);
  }
  return std::string(rest);
}

}  // namespace ferry::text::jinja
