#include "text/jinja/builtins.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>
#include <numeric>
#include <optional>

#include "base/json.h"
#include "text/jinja/format.h"
#include "text/utf8.h"

namespace ferry::text::jinja {
namespace {

using Kind = Value::Kind;

/// The arguments of one call, asked for by place and name; what nobody asked for is refused.
class Reader {
 public:
  Reader(std::string who, const Arguments& args) : who_(std::move(who)), args_(args) {}

  /// The argument, or nullptr.
  const Value* get(const char* name) {
    const Value* v = nullptr;
    if (next_ < args_.positional.size()) v = &args_.positional[next_];
    ++next_;
    for (const auto& item : args_.named)
      if (item.first == name) {
        if (v != nullptr) wrong(fmt::format("is given {} twice", name));
        v = &item.second;
        ++named_;
      }
    return v;
  }

  Value value(const char* name, Value otherwise) {
    const Value* v = get(name);
    return v != nullptr ? *v : otherwise;
  }
  const Value& required(const char* name) {
    const Value* v = get(name);
    if (v == nullptr) wrong(fmt::format("needs {}", name));
    return *v;
  }
  std::string text(const char* name) { return as_text(required(name), name); }
  int64_t whole(const char* name, int64_t otherwise) {
    const Value* v = get(name);
    if (v == nullptr || v->is(Kind::kNone)) return otherwise;
    if (!v->is_whole()) wrong(fmt::format("needs a whole number as {}", name));
    return v->whole();
  }
  bool boolean(const char* name, bool otherwise) {
    const Value* v = get(name);
    return v != nullptr ? v->truth() : otherwise;
  }
  /// Nothing for an argument that is absent or none.
  const std::string* optional_text(const char* name) {
    const Value* v = get(name);
    if (v == nullptr || v->is(Kind::kNone)) return nullptr;
    as_text(*v, name);
    return &v->text();
  }

  void done() const {
    if (next_ < args_.positional.size())
      wrong(fmt::format("is given {} arguments", args_.positional.size()));
    if (named_ < args_.named.size()) wrong("is given an argument that it does not have");
  }

  [[noreturn]] void wrong(const std::string& what) const {
    throw TemplateError(fmt::format("{} {}", who_, what));
  }

 private:
  const std::string& as_text(const Value& v, const char* name) const {
    if (!v.is(Kind::kText)) wrong(fmt::format("needs a text as {}, not {}", name, v.kind_name()));
    return v.text();
  }

  std::string who_;
  const Arguments& args_;
  size_t next_ = 0, named_ = 0;
};

/// A look at each part of a value and of what is given with it.
void spend_on(Interpreter& in, const Value& v, const Arguments& args) {
  in.spend(v.size());
  for (const Value& a : args.positional) in.spend(a.size());
  for (const auto& item : args.named) in.spend(item.second.size());
}

void no_arguments(const std::string& who, const Arguments& args) { Reader(who, args).done(); }

// ---- letters

bool ascii(std::string_view s) {
  return std::all_of(
      s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}
char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool letter(char c) { return lower(c) >= 'a' && lower(c) <= 'z'; }

/// Other alphabets need tables that Ferry does not carry: refused, not changed differently.
void need_ascii(const std::string& who, std::string_view s) {
  if (!ascii(s))
    throw TemplateError(fmt::format("{} of letters beyond ASCII is not supported", who));
}

std::string mapped(const std::string& who, std::string s, char (*f)(char)) {
  need_ascii(who, s);
  std::transform(s.begin(), s.end(), s.begin(), f);
  return s;
}

std::string capitalized(std::string s) {
  s = mapped("capitalize", std::move(s), lower);
  if (!s.empty()) s[0] = upper(s[0]);
  return s;
}

/// Words begin after a character for which `between` holds.
std::string titled(std::string s, bool (*between)(char)) {
  need_ascii("title", s);
  bool begins = true;
  for (char& c : s) {
    const char was = c;
    c = begins ? upper(c) : lower(c);
    begins = between(was);
  }
  return s;
}

// ---- pieces of texts

Value replaced(Interpreter& in, const std::string& s, Reader& args) {
  const std::string from = args.text("old"), to = args.text("new");
  int64_t most = args.whole("count", -1);
  std::string out;
  if (from.empty()) {  // before every character, and at the end
    for (const std::string_view c : split_characters(s)) {
      if (most-- != 0) in.write(out, to);
      in.write(out, c);
      if (most < 0) most = -1;
    }
    if (most != 0) in.write(out, to);
    return in.text(std::move(out));
  }
  in.spend_search(s.size(), from.size());
  const std::string_view all = s;
  size_t at = 0;
  for (; most != 0; --most) {
    const size_t next = s.find(from, at);
    if (next == std::string::npos) break;
    in.write(out, all.substr(at, next - at));
    in.write(out, to);
    at = next + from.size();
  }
  in.write(out, all.substr(at));
  return in.text(std::move(out));
}

List split(Interpreter& in, const std::string& s, const std::string* separator, int64_t most) {
  List out;
  if (separator != nullptr) {
    if (separator->empty()) throw TemplateError("split needs a separator that is not empty");
    in.spend_search(s.size(), separator->size());
    size_t at = 0;
    for (size_t next; most != 0 && (next = s.find(*separator, at)) != std::string::npos; --most) {
      in.add(out, s.substr(at, next - at));
      at = next + separator->size();
    }
    in.add(out, s.substr(at));
    return out;
  }
  const auto skip = [&](size_t from, bool spaces) {
    while (from < s.size()) {
      const Utf8Char c = decode_utf8(s, from);
      if (is_space(c.point) != spaces) break;
      from += c.bytes;
    }
    return from;
  };
  for (size_t at = skip(0, true); at < s.size();) {
    if (most-- == 0) {
      in.add(out, s.substr(at));
      break;
    }
    const size_t end = skip(at, false);
    in.add(out, s.substr(at, end - at));
    at = skip(end, true);
  }
  return out;
}

List split_from_right(Interpreter& in,
                      const std::string& s,
                      const std::string& separator,
                      int64_t most) {
  if (separator.empty()) throw TemplateError("rsplit needs a separator that is not empty");
  in.spend_search(s.size(), separator.size());
  List out;
  size_t end = s.size();
  for (; most != 0; --most) {
    const size_t at =
        end < separator.size() ? std::string::npos : s.rfind(separator, end - separator.size());
    if (at == std::string::npos) break;
    in.add(out, s.substr(at + separator.size(), end - at - separator.size()));
    end = at;
  }
  in.add(out, s.substr(0, end));
  std::reverse(out.begin(), out.end());
  return out;
}

/// Where Python's str.splitlines() ends lines.
bool ends_line(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

List lines_of(Interpreter& in, const std::string& s) {
  List out;
  size_t begin = 0;
  for (size_t at = 0; at < s.size();) {
    const Utf8Char c = decode_utf8(s, at);
    const size_t end = at;
    at += c.bytes;
    if (!ends_line(c.point)) continue;
    if (c.point == '\r' && at < s.size() && s[at] == '\n') ++at;
    in.add(out, s.substr(begin, end - begin));
    begin = at;
  }
  if (begin < s.size()) in.add(out, s.substr(begin));
  return out;
}

std::string joined(Interpreter& in, const List& items, const std::string& between) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) in.write(out, between);
    in.write(out, in.str(items[i]));
  }
  return out;
}

/// Jinja's path of fields: "function.name", "0".
Value field(Interpreter& in, const Value& of, const std::string& path) {
  in.spend(path.size());
  Value v = of;
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('.', at), path.size());
    const std::string part = path.substr(at, end - at);
    const bool number = !part.empty() && std::all_of(part.begin(), part.end(), is_digit);
    v = in.item(
        v, number && part.size() < 10 ? Value(int64_t{std::atoll(part.c_str())}) : Value(part));
    at = end + 1;
  }
  return v;
}

/// What is compared when texts are sorted or told apart regardless of case.
Value folded(Interpreter& in, const Value& v, bool case_sensitive) {
  if (case_sensitive || !v.is(Kind::kText)) return v;
  in.spend(v.size());
  return mapped("sorting regardless of case", v.text(), lower);
}

// ---- numbers

/// As Python reads numbers: spaces around, single underscores between digits.
std::string number_text(const std::string& s) {
  std::string t = strip(s, Ends::kBoth, nullptr);
  const auto digit = [&](size_t i) { return i < t.size() && is_digit(t[i]); };
  for (size_t i = 1; i + 1 < t.size(); ++i)
    if (t[i] == '_' && digit(i - 1) && digit(i + 1)) t.erase(i, 1);
  return t;
}

double to_real(const std::string& s, bool& ok) {
  const std::string t = number_text(s);
  char* end = nullptr;
  const double v = std::strtod(t.c_str(), &end);
  // strtod also takes hexadecimal digits and "nan(...)".
  ok = !t.empty() && end == t.c_str() + t.size() && t.find_first_of("xX(") == std::string::npos;
  return v;
}

/// Of a number beyond 63 bits, Python would keep every digit.
Value to_whole(const Value& v, const Value& otherwise) {
  if (v.is_whole()) return v.whole();
  double real = 0;
  if (v.is(Kind::kText)) {
    const std::string t = number_text(v.text());
    const char* begin = t.data() + (t.starts_with('+') ? 1 : 0);
    int64_t whole = 0;
    const auto [end, error] = std::from_chars(begin, t.data() + t.size(), whole);
    const bool all = end == t.data() + t.size() && !t.starts_with("+-");
    if (all && error == std::errc()) return whole;
    if (all && error == std::errc::result_out_of_range)
      throw TemplateError(fmt::format("the number {} is beyond 63 bits", printable(t)));
    bool ok = false;
    real = to_real(v.text(), ok);
    if (!ok || std::isinf(real)) return otherwise;
  } else if (v.is(Kind::kFloat)) {
    real = v.real();
  } else {
    return otherwise;
  }
  if (std::isnan(real)) return otherwise;
  if (std::fabs(real) >= 0x1p63)
    throw TemplateError(fmt::format("the number {} is beyond 63 bits", real));
  return static_cast<int64_t>(real);
}

Value rounded(const Value& v, int64_t digits, const std::string& method) {
  if (!v.is_number())
    throw TemplateError(fmt::format("round of a value of type {}", v.kind_name()));
  if (digits < 0 || digits > 15) throw TemplateError("round: precision must be from 0 to 15");
  if (method == "common" && v.is_whole()) return v.whole();
  if (method ==
      "common")  // printing rounds as Python's round() does: by the exact value, ties to even
    return std::strtod(fmt::format("{:.{}f}", v.real(), digits).c_str(), nullptr);
  double scale = 1;
  for (int64_t i = 0; i < digits; ++i) scale *= 10;
  if (method == "ceil") return std::ceil(v.real() * scale) / scale;
  if (method == "floor") return std::floor(v.real() * scale) / scale;
  throw TemplateError("round: method must be common, ceil or floor");
}

// ---- filters

using Filter = Value (*)(Interpreter&, const Value&, Reader&);

Value default_filter(Interpreter&, const Value& v, Reader& args) {
  const Value otherwise = args.value("default_value", "");
  const bool also_false = args.boolean("boolean", false);
  return v.is_undefined() || (also_false && !v.truth()) ? otherwise : v;
}

Value tojson(Interpreter& in, const Value& v, Reader& args) {
  if (v.is_undefined())
    throw TemplateError(fmt::format("tojson: {} is undefined", printable(v.text())));
  JsonStyle style;
  const Value* order[4];  // Transformers' order of parameters
  const char* names[] = {"ensure_ascii", "indent", "separators", "sort_keys"};
  for (int i = 0; i < 4; ++i) order[i] = args.get(names[i]);
  style.ensure_ascii = order[0] != nullptr && order[0]->truth();
  if (order[1] != nullptr && !order[1]->is(Kind::kNone)) {
    if (!order[1]->is_whole() || order[1]->whole() < 0 || order[1]->whole() > 32)
      throw TemplateError("tojson: indent must be a whole number from 0 to 32");
    style.indent = static_cast<int>(order[1]->whole());
    style.item_separator.assign(1, 0x2C);  // a comma; GCC 12 warns about assigning a literal
  }
  if (order[2] != nullptr && !order[2]->is(Kind::kNone)) {
    if (!order[2]->is(Kind::kList) || order[2]->list().size() != 2 ||
        !order[2]->list()[0].is(Kind::kText) || !order[2]->list()[1].is(Kind::kText))
      throw TemplateError("tojson: separators must be two texts");
    style.item_separator = order[2]->list()[0].text();
    style.key_separator = order[2]->list()[1].text();
  }
  style.sort_keys = order[3] != nullptr && order[3]->truth();
  style.bytes_max = in.limits().text_bytes;
  in.spend(v.weight());
  return in.text(to_json(v, style));
}

Value join_filter(Interpreter& in, const Value& v, Reader& args) {
  const std::string between = in.str(args.value("d", ""));
  const std::string* attribute = args.optional_text("attribute");
  List items = in.items_of(v);
  if (attribute != nullptr)
    for (Value& item : items) item = field(in, item, *attribute);
  return in.text(joined(in, items, between));
}

Value first_filter(Interpreter& in, const Value& v, Reader&) {
  if (v.is(Kind::kText) && !v.text().empty()) return in.item(v, int64_t{0});
  return Items(in, v).next(in).value_or(Value::undefined("first of nothing"));
}

Value last_filter(Interpreter& in, const Value& v, Reader&) {
  if (v.is(Kind::kText) && !v.text().empty()) return in.item(v, int64_t{-1});
  if (v.is(Kind::kGenerator)) throw TemplateError("a generator has no last item; use |list");
  const List items = in.items_of(v);
  return items.empty() ? Value::undefined("last of nothing") : items.back();
}

/// The pairs of a dict.
List pairs_of(Interpreter& in, const Dict& d) {
  List out;
  for (const auto& [key, value] : d) in.add(out, Value(List{key, value}, true));
  return out;
}

/// Those items of a value for which `kept` gives something, which is made when it is asked for; all that it holds on
/// to is `bound`.
using Kept = std::function<std::optional<Value>(Interpreter&, const Value& item)>;
Value generated(const Value& from, const List& bound, Kept kept) {
  List all = bound;
  all.push_back(from);
  return Value::generator(
      [from, kept = std::move(kept), items = std::optional<Items>()](
          Interpreter& in) mutable -> std::optional<Value> {
        if (!items) items.emplace(in, from);
        while (const std::optional<Value> item = items->next(in))
          if (std::optional<Value> v = kept(in, *item)) return v;
        return std::nullopt;
      },
      all);
}

Value items_filter(Interpreter&, const Value& v, Reader&) {
  return Value::generator(
      [v, pairs = std::optional<Items>()](Interpreter& in) mutable -> std::optional<Value> {
        if (v.is_undefined()) return std::nullopt;
        if (!v.is(Kind::kDict)) throw TemplateError("items needs a dict");
        if (!pairs) pairs.emplace(in, pairs_of(in, v.dict()));
        return pairs->next(in);
      },
      {v});
}

/// Values in the order of the keys beside them; equal ones stay in their order, also when reversed.
List sorted_by_key(Interpreter& in, std::vector<std::pair<Value, Value>> items, bool reverse) {
  std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
    return reverse ? in.less(b.first, a.first) : in.less(a.first, b.first);
  });
  List out;
  for (auto& item : items) out.push_back(std::move(item.second));
  return out;
}

Value dictsort(Interpreter& in, const Value& v, Reader& args) {
  const bool case_sensitive = args.boolean("case_sensitive", false);
  const std::string by = in.str(args.value("by", "key"));
  const bool reverse = args.boolean("reverse", false);
  if (by != "key" && by != "value") throw TemplateError("dictsort: by must be key or value");
  if (!v.is(Kind::kDict)) throw TemplateError("dictsort needs a dict");
  std::vector<std::pair<Value, Value>> order;
  for (const Value& pair : pairs_of(in, v.dict()))
    order.emplace_back(folded(in, pair.list()[by == "key" ? 0 : 1], case_sensitive), pair);
  return sorted_by_key(in, std::move(order), reverse);
}

Value sort_filter(Interpreter& in, const Value& v, Reader& args) {
  const bool reverse = args.boolean("reverse", false),
             case_sensitive = args.boolean("case_sensitive", false);
  const std::string* attribute = args.optional_text("attribute");
  std::vector<std::pair<Value, Value>> order;
  for (const Value& item : in.items_of(v)) {
    const Value key = attribute != nullptr ? field(in, item, *attribute) : item;
    order.emplace_back(folded(in, key, case_sensitive), item);
  }
  return sorted_by_key(in, std::move(order), reverse);
}

Value unique_filter(Interpreter&, const Value& v, Reader& args) {
  const bool case_sensitive = args.boolean("case_sensitive", false);
  const std::string* const by = args.optional_text("attribute");
  const std::optional<std::string> attribute = by ? std::optional(*by) : std::nullopt;
  return generated(
      v,
      {},
      [case_sensitive, attribute, seen = List()](
          Interpreter& in, const Value& item) mutable -> std::optional<Value> {
        const Value key =
            folded(in, attribute ? field(in, item, *attribute) : item, case_sensitive);
        in.spend(seen.size());
        if (std::any_of(seen.begin(), seen.end(), [&](const Value& s) { return in.equal(s, key); }))
          return std::nullopt;
        in.add(seen, key);
        return item;
      });
}

Value indent_filter(Interpreter& in, const Value& v, Reader& args) {
  const Value width = args.value("width", int64_t{4});
  const bool first = args.boolean("first", false), blank = args.boolean("blank", false);
  std::string by;
  if (width.is(Kind::kText)) {
    by = width.text();
  } else {
    if (!width.is_whole() || width.whole() < 0 || width.whole() > 1000)
      throw TemplateError("indent: width must be a text, or a number from 0 to 1000");
    by.assign(static_cast<size_t>(width.whole()), ' ');
  }
  std::string out;
  bool begin = true;
  for (const Value& line : lines_of(in, in.str(v).append(1, 0x0A))) {
    if (!begin) in.write(out, "\n");
    if (begin ? first : blank || !line.text().empty()) in.write(out, by);
    in.write(out, line.text());
    begin = false;
  }
  return in.text(std::move(out));
}

Value sum_filter(Interpreter& in, const Value& v, Reader& args) {
  const std::string* attribute = args.optional_text("attribute");
  Value sum = args.value("start", int64_t{0});
  for (const Value& item : in.items_of(v)) {
    const Value x = attribute != nullptr ? field(in, item, *attribute) : item;
    if (!x.is_number() || !sum.is_number()) throw TemplateError("sum needs numbers");
    int64_t whole = 0;
    if (!x.is_whole() || !sum.is_whole())
      sum = sum.real() + x.real();
    else if (__builtin_add_overflow(sum.whole(), x.whole(), &whole))
      throw TemplateError("a sum is beyond 63 bits");
    else
      sum = whole;
  }
  return sum;
}

Value extreme(Interpreter& in, const Value& v, Reader& args, bool largest) {
  const bool case_sensitive = args.boolean("case_sensitive", false);
  const std::string* attribute = args.optional_text("attribute");
  Value best = Value::undefined("the extreme of nothing"), best_key;
  for (const Value& item : in.items_of(v)) {
    const Value key =
        folded(in, attribute != nullptr ? field(in, item, *attribute) : item, case_sensitive);
    if (best.is_undefined() || (largest ? in.less(best_key, key) : in.less(key, best_key))) {
      best = item;
      best_key = key;
    }
  }
  return best;
}

const std::map<std::string, Filter, std::less<>>& filters() {
  static const std::map<std::string, Filter, std::less<>> all = {
      {"trim",
       [](Interpreter& in, const Value& v, Reader& a) -> Value {
         return in.text(strip(in.str(v), Ends::kBoth, a.optional_text("chars")));
       }},
      {"upper",
       [](Interpreter& in, const Value& v, Reader&) -> Value {
         return mapped("upper", in.str(v), upper);
       }},
      {"lower",
       [](Interpreter& in, const Value& v, Reader&) -> Value {
         return mapped("lower", in.str(v), lower);
       }},
      {"capitalize",
       [](Interpreter& in, const Value& v, Reader&) -> Value { return capitalized(in.str(v)); }},
      {"title",
       [](Interpreter& in, const Value& v, Reader&) -> Value {
         return titled(in.str(v), [](char c) {
           return std::string_view("- \t\n\r\v\f({[<").find(c) != std::string_view::npos;
         });
       }},
      {"length",
       [](Interpreter& in, const Value& v, Reader&) -> Value {
         in.spend(v.is(Kind::kText) ? v.size() : 0);
         if (v.is(Kind::kText)) return static_cast<int64_t>(characters(v.text()));
         if (v.is(Kind::kList) || v.is(Kind::kDict) || v.is_undefined())
           return static_cast<int64_t>(v.is_undefined() ? 0 : v.size());
         throw TemplateError(fmt::format("a value of type {} has no length", v.kind_name()));
       }},
      {"default", default_filter},
      {"d", default_filter},
      {"tojson", tojson},
      {"join", join_filter},
      {"first", first_filter},
      {"last", last_filter},
      {"items", items_filter},
      {"dictsort", dictsort},
      {"sort", sort_filter},
      {"unique", unique_filter},
      {"indent", indent_filter},
      {"sum", sum_filter},
      {"min", [](Interpreter& in, const Value& v, Reader& a) { return extreme(in, v, a, false); }},
      {"max", [](Interpreter& in, const Value& v, Reader& a) { return extreme(in, v, a, true); }},
      {"list",
       [](Interpreter& in, const Value& v, Reader&) -> Value { return in.list(in.items_of(v)); }},
      {"string", [](Interpreter& in, const Value& v, Reader&) { return in.text(in.str(v)); }},
      {"safe", [](Interpreter& in, const Value& v, Reader&) { return in.text(in.str(v)); }},
      {"int",
       [](Interpreter&, const Value& v, Reader& a) {
         return to_whole(v, a.value("default", int64_t{0}));
       }},
      {"float",
       [](Interpreter&, const Value& v, Reader& a) -> Value {
         const Value otherwise = a.value("default", 0.0);
         if (v.is_number()) return v.real();
         bool ok = false;
         const double d = v.is(Kind::kText) ? to_real(v.text(), ok) : 0;
         return ok ? Value(d) : otherwise;
       }},
      {"abs",
       [](Interpreter&, const Value& v, Reader&) -> Value {
         if (v.is(Kind::kFloat)) return std::fabs(v.real());
         if (!v.is_whole() || v.whole() == INT64_MIN) throw TemplateError("abs needs a number");
         return v.whole() < 0 ? -v.whole() : v.whole();
       }},
      {"round",
       [](Interpreter& in, const Value& v, Reader& a) {
         const int64_t digits = a.whole("precision", 0);
         return rounded(v, digits, in.str(a.value("method", "common")));
       }},
      {"replace",
       [](Interpreter& in, const Value& v, Reader& a) { return replaced(in, in.str(v), a); }},
      {"reverse",
       [](Interpreter& in, const Value& v, Reader&) -> Value {
         List items = in.items_of(v);
         std::reverse(items.begin(), items.end());
         if (v.is(Kind::kText)) return in.text(joined(in, items, ""));
         const Value reversed = in.list(std::move(items));
         if (v.is(Kind::kGenerator)) return reversed;
         return generated(
             reversed, {}, [](Interpreter&, const Value& item) { return std::optional(item); });
       }},
      {"attr",
       [](Interpreter& in, const Value& v, Reader& a) { return in.attribute(v, a.text("name")); }},
  };
  return all;
}

// map, select, reject, selectattr, rejectattr: filters that take a filter or test by name. Of none or what is empty
// they give nothing, whatever they are told to do.

bool maps_or_selects(const std::string& name) {
  return name == "map" || name == "select" || name == "reject" || name == "selectattr" ||
         name == "rejectattr";
}

/// The arguments from the `first` on: of the filter or test that is named before them.
Arguments from_the(size_t first, const Arguments& args) {
  return {List(args.positional.begin() + static_cast<std::ptrdiff_t>(first), args.positional.end()),
          args.named};
}

Value mapped_item(Interpreter& in, const Value& item, const Arguments& args) {
  if (!args.positional.empty())
    return apply_filter(in, in.str(args.positional[0]), item, from_the(1, args));
  const Value *attribute = nullptr, *otherwise = nullptr;
  bool others = false;
  for (const auto& [name, value] : args.named) {
    if (name == "attribute")
      attribute = &value;
    else if (name == "default")
      otherwise = &value;
    else
      others = true;
  }
  if (attribute == nullptr || others)
    Reader("map", args).wrong("takes attribute= or the name of a filter");
  const Value x = field(in, item, in.str(*attribute));
  return x.is_undefined() && otherwise != nullptr ? *otherwise : x;
}

bool is_selected(Interpreter& in,
                 const std::string& name,
                 const Value& item,
                 const Arguments& args) {
  const bool by_field = name.ends_with("attr"), wanted = name.starts_with("select");
  const size_t first = by_field ? 1 : 0;
  if (args.positional.size() < first)
    throw TemplateError(fmt::format("{} needs the name of a field", name));
  const Value x = by_field ? field(in, item, in.str(args.positional[0])) : item;
  const bool holds =
      args.positional.size() > first
          ? apply_test(in, in.str(args.positional[first]), x, from_the(first + 1, args))
          : x.truth();
  return holds == wanted;
}

Value map_or_select(const std::string& name, const Value& v, const Arguments& args) {
  List bound = args.positional;
  for (const auto& item : args.named) bound.push_back(item.second);
  return generated(v.truth() ? v : Value(List{}),
                   bound,
                   [name, args](Interpreter& in, const Value& item) -> std::optional<Value> {
                     if (name == "map") return mapped_item(in, item, args);
                     return is_selected(in, name, item, args) ? std::optional(item) : std::nullopt;
                   });
}

/// Its pattern's values by place, or by name.
Value format_filter(Interpreter& in, const Value& v, const Arguments& args) {
  if (!args.positional.empty() && !args.named.empty())
    throw TemplateError("the filter format takes values by place or by name, not both");
  spend_on(in, v, args);
  return percent_format(
      in, in.str(v), args.named.empty() ? Value(args.positional, true) : Value(args.named));
}

// ---- methods

/// format, and format_map, which takes the values by name as one dict.
Value format_method(Interpreter& in,
                    const std::string& s,
                    const std::string& name,
                    const Arguments& args) {
  if (name == "format") return brace_format(in, s, args);
  Reader reader(name, args);
  const Value& by_name = reader.required("mapping");
  reader.done();
  if (!by_name.is(Kind::kDict)) throw TemplateError("format_map needs a dict");
  for (const auto& item : by_name.dict()) in.spend(sizeof(Value) + item.first.size());  // the copy
  return brace_format(in, s, {{}, by_name.dict()});
}

Value find_in(Interpreter& in, const std::string& s, const std::string& what, bool from_right) {
  in.spend_search(s.size(), what.size());
  const size_t at = from_right ? s.rfind(what) : s.find(what);
  if (at == std::string::npos) return int64_t{-1};
  return static_cast<int64_t>(characters(std::string_view(s).substr(0, at)));
}

bool begins_or_ends(const std::string& s, const Value& with, bool begins) {
  if (with.is(Kind::kList) && with.is_tuple())
    return std::any_of(with.list().begin(), with.list().end(), [&](const Value& v) {
      return begins_or_ends(s, v, begins);
    });
  if (!with.is(Kind::kText))
    throw TemplateError("startswith and endswith need a text, or a tuple of texts");
  return begins ? s.starts_with(with.text()) : s.ends_with(with.text());
}

using TextMethod = Value (*)(Interpreter&, const std::string&, Reader&);

template <bool (*holds)(char)>
Value all_are(Interpreter&, const std::string& s, Reader&) {
  need_ascii("this method", s);
  return !s.empty() && std::all_of(s.begin(), s.end(), holds);
}
bool is_letter_or_digit(char c) { return letter(c) || is_digit(c); }
bool is_blank(char c) { return is_space(static_cast<unsigned char>(c)); }
bool no_letter(char c) { return !letter(c); }

const std::map<std::string, TextMethod, std::less<>>& text_methods() {
  static const std::map<std::string, TextMethod, std::less<>> all = {
      {"strip",
       [](Interpreter& in, const std::string& s, Reader& a) {
         return in.text(strip(s, Ends::kBoth, a.optional_text("chars")));
       }},
      {"lstrip",
       [](Interpreter& in, const std::string& s, Reader& a) {
         return in.text(strip(s, Ends::kLeft, a.optional_text("chars")));
       }},
      {"rstrip",
       [](Interpreter& in, const std::string& s, Reader& a) {
         return in.text(strip(s, Ends::kRight, a.optional_text("chars")));
       }},
      {"split",
       [](Interpreter& in, const std::string& s, Reader& a) {
         const std::string* separator = a.optional_text("sep");
         return in.list(split(in, s, separator, a.whole("maxsplit", -1)));
       }},
      {"rsplit",
       [](Interpreter& in, const std::string& s, Reader& a) {
         const std::string separator = a.text("sep");
         return in.list(split_from_right(in, s, separator, a.whole("maxsplit", -1)));
       }},
      {"splitlines",
       [](Interpreter& in, const std::string& s, Reader&) { return in.list(lines_of(in, s)); }},
      {"startswith",
       [](Interpreter& in, const std::string& s, Reader& a) -> Value {
         const Value& with = a.required("prefix");
         in.spend(with.weight());
         return begins_or_ends(s, with, true);
       }},
      {"endswith",
       [](Interpreter& in, const std::string& s, Reader& a) -> Value {
         const Value& with = a.required("suffix");
         in.spend(with.weight());
         return begins_or_ends(s, with, false);
       }},
      {"removeprefix",
       [](Interpreter& in, const std::string& s, Reader& a) {
         const std::string p = a.text("prefix");
         return in.text(s.starts_with(p) ? s.substr(p.size()) : s);
       }},
      {"removesuffix",
       [](Interpreter& in, const std::string& s, Reader& a) {
         const std::string p = a.text("suffix");
         return in.text(s.ends_with(p) ? s.substr(0, s.size() - p.size()) : s);
       }},
      {"replace",
       [](Interpreter& in, const std::string& s, Reader& a) { return replaced(in, s, a); }},
      {"upper",
       [](Interpreter& in, const std::string& s, Reader&) {
         return in.text(mapped("upper", s, upper));
       }},
      {"lower",
       [](Interpreter& in, const std::string& s, Reader&) {
         return in.text(mapped("lower", s, lower));
       }},
      {"capitalize",
       [](Interpreter& in, const std::string& s, Reader&) { return in.text(capitalized(s)); }},
      {"title",
       [](Interpreter& in, const std::string& s, Reader&) {
         return in.text(titled(s, no_letter));
       }},
      {"find",
       [](Interpreter& in, const std::string& s, Reader& a) {
         return find_in(in, s, a.text("sub"), false);
       }},
      {"rfind",
       [](Interpreter& in, const std::string& s, Reader& a) {
         return find_in(in, s, a.text("sub"), true);
       }},
      {"index",
       [](Interpreter& in, const std::string& s, Reader& a) {
         Value at = find_in(in, s, a.text("sub"), false);
         if (at.whole() < 0) throw TemplateError("index: the text is not there");
         return at;
       }},
      {"count",
       [](Interpreter& in, const std::string& s, Reader& a) -> Value {
         const std::string what = a.text("sub");
         in.spend_search(s.size(), what.size());
         if (what.empty()) return static_cast<int64_t>(characters(s)) + 1;
         int64_t n = 0;
         for (size_t at = s.find(what); at != std::string::npos;
              at = s.find(what, at + what.size()))
           ++n;
         return n;
       }},
      {"join",
       [](Interpreter& in, const std::string& s, Reader& a) {
         const List items = in.items_of(a.required("iterable"));
         for (const Value& v : items)
           if (!v.is(Kind::kText))
             throw TemplateError(fmt::format("join needs texts, not {}", v.kind_name()));
         return in.text(joined(in, items, s));
       }},
      {"isdigit", all_are<is_digit>},
      {"isalpha", all_are<letter>},
      {"isalnum", all_are<is_letter_or_digit>},
      {"isspace", all_are<is_blank>},
  };
  return all;
}

Value dict_method(Interpreter& in, const Dict& d, const std::string& name, const Arguments& args) {
  if (name == "get") {
    Reader reader("get", args);
    const Value& key = reader.required("key");
    const Value otherwise = reader.value("default", Value());
    reader.done();
    for (const auto& [k, v] : d)
      if (key.is(Kind::kText) && k == key.text()) return v;
    return otherwise;
  }
  no_arguments(name, args);
  if (name == "copy") return d;
  if (name == "items") return pairs_of(in, d);
  List out;
  for (const auto& [k, v] : d) in.add(out, name == "keys" ? Value(k) : v);
  return out;
}

Value list_method(Interpreter& in, const List& l, const std::string& name, const Arguments& args) {
  Reader reader(name, args);
  const Value& what = reader.required("value");
  reader.done();
  const auto same = [&](const Value& v) { return in.equal(v, what); };
  if (name == "count") return static_cast<int64_t>(std::count_if(l.begin(), l.end(), same));
  const auto at = std::find_if(l.begin(), l.end(), same);
  if (at == l.end()) throw TemplateError("index: the value is not in the list");
  return static_cast<int64_t>(at - l.begin());
}

// ---- functions

Value range_function(Interpreter& in, const Arguments& args) {
  const List& p = args.positional;
  if (p.empty() || p.size() > 3 || !args.named.empty())
    throw TemplateError("range takes one to three numbers");
  for (const Value& v : p)
    if (!v.is_whole()) throw TemplateError("range needs whole numbers");
  const int64_t begin = p.size() > 1 ? p[0].whole() : 0,
                end = p.size() > 1 ? p[1].whole() : p[0].whole();
  const int64_t step = p.size() > 2 ? p[2].whole() : 1;
  if (step == 0) throw TemplateError("the step of a range must not be zero");
  List out;
  int64_t i = begin;
  while (step > 0 ? i < end : i > end) {
    if (out.size() >= 100'000)
      throw TemplateError("a range has more than 100000 numbers");  // Jinja's limit
    in.add(out, i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return out;
}

Dict fields_of(const char* who, const Arguments& args) {
  Dict fields;
  for (const Value& v : args.positional) {
    if (!v.is(Kind::kDict))
      throw TemplateError(fmt::format("{} takes a dict, or named values", who));
    fields.insert(fields.end(), v.dict().begin(), v.dict().end());
  }
  for (const auto& item : args.named) {
    std::erase_if(fields, [&](const auto& f) { return f.first == item.first; });
    fields.push_back(item);
  }
  return fields;
}

Value strftime_now(Interpreter& in, const Arguments& args) {
  Reader reader("strftime_now", args);
  const std::string format = reader.text("format");
  reader.done();
  return in.text(in.now(format));
}

}  // namespace

Value apply_filter(Interpreter& in,
                   const std::string& name,
                   const Value& v,
                   const Arguments& args) {
  if (name == "count") return apply_filter(in, "length", v, args);
  if (maps_or_selects(name)) return map_or_select(name, v, args);
  if (name == "format") return format_filter(in, v, args);
  const auto it = filters().find(name);
  if (it == filters().end())
    throw TemplateError(fmt::format("there is no filter {}", printable(name)));
  spend_on(in, v, args);
  Reader reader(fmt::format("the filter {}", name), args);
  Value out = it->second(in, v, reader);
  reader.done();
  return out;
}

bool apply_test(Interpreter& in, const std::string& name, const Value& v, const Arguments& args) {
  Reader reader(fmt::format("the test {}", name), args);
  const auto is = [&](bool holds) {
    reader.done();
    return holds;
  };
  if (name == "defined") return is(!v.is_undefined());
  if (name == "undefined") return is(v.is_undefined());
  if (name == "none") return is(v.is(Kind::kNone));
  if (name == "string") return is(v.is(Kind::kText));
  if (name == "number") return is(v.is_number());
  if (name == "integer") return is(v.is(Kind::kInt));
  if (name == "float") return is(v.is(Kind::kFloat));
  if (name == "boolean") return is(v.is(Kind::kBool));
  if (name == "true") return is(v.is(Kind::kBool) && v.boolean());
  if (name == "false") return is(v.is(Kind::kBool) && !v.boolean());
  if (name == "mapping") return is(v.is(Kind::kDict));
  if (name == "sequence")
    return is(v.is(Kind::kText) || v.is(Kind::kList) || v.is(Kind::kDict) || v.is_undefined());
  if (name == "iterable")
    return is(v.is(Kind::kGenerator) || v.is(Kind::kText) || v.is(Kind::kList) ||
              v.is(Kind::kDict) || v.is(Kind::kLoop) || v.is_undefined());
  if (name == "callable") return is(v.is(Kind::kCallable) || v.is(Kind::kLoop));
  if (name == "odd" || name == "even" || name == "divisibleby") {
    const int64_t by = name == "divisibleby" ? reader.whole("num", 0) : 2;
    reader.done();
    if (!v.is_whole() || by == 0)
      throw TemplateError(fmt::format("the test {} needs whole numbers", name));
    const bool divides = by == -1 || v.whole() % by == 0;
    return name == "odd" ? !divides : divides;
  }
  const Value* other = reader.get("other");
  if (other == nullptr)
    throw TemplateError(fmt::format("there is no test {} of one value", printable(name)));
  if (name == "eq" || name == "equalto" || name == "==") return is(in.equal(v, *other));
  if (name == "ne" || name == "!=") return is(!in.equal(v, *other));
  if (name == "lt" || name == "lessthan" || name == "<") return is(in.less(v, *other));
  if (name == "gt" || name == "greaterthan" || name == ">") return is(in.less(*other, v));
  if (name == "le" || name == "<=") return is(in.less(v, *other) || in.equal(v, *other));
  if (name == "ge" || name == ">=") return is(in.less(*other, v) || in.equal(v, *other));
  if (name == "sameas") return is(v.kind() == other->kind() && in.equal(v, *other));
  if (name == "in") return is(in.contains(*other, v));
  throw TemplateError(fmt::format("there is no test {}", printable(name)));
}

Value method(const Value& of, const std::string& name) {
  if (of.is(Kind::kText) && (name == "format" || name == "format_map"))
    return Value(Callable{name,
                          [of, name](Interpreter& in, const Arguments& args) {
                            spend_on(in, of, args);
                            return format_method(in, of.text(), name, args);
                          }},
                 {of});
  if (of.is(Kind::kText)) {
    const auto it = text_methods().find(name);
    if (it == text_methods().end()) return Value::undefined(name);
    const auto call = [of, name, f = it->second](Interpreter& in, const Arguments& args) {
      spend_on(in, of, args);
      Reader reader(name, args);
      Value out = f(in, of.text(), reader);
      reader.done();
      return out;
    };
    return Value(Callable{name, call}, {of});
  }
  if (of.is(Kind::kDict)) {
    for (const char* known : {"get", "items", "keys", "values", "copy"})
      if (name == known)
        return Value(Callable{name,
                              [of, name](Interpreter& in, const Arguments& args) {
                                in.spend(of.size() * sizeof(Value));
                                return dict_method(in, of.dict(), name, args);
                              }},
                     {of});
    for (const char* changing : {"update", "pop", "popitem", "clear", "setdefault"})
      if (name == changing)
        return Callable{
            name, [name](Interpreter&, const Arguments&) -> Value {
              throw TemplateError(fmt::format("{}: a template may not change its input", name));
            }};
  }
  if (of.is(Kind::kList)) {
    if (name == "count" || name == "index")
      return Value(Callable{name,
                            [of, name](Interpreter& in, const Arguments& args) {
                              return list_method(in, of.list(), name, args);
                            }},
                   {of});
    for (const char* changing :
         {"append", "extend", "insert", "pop", "remove", "reverse", "sort", "clear"})
      if (name == changing)
        return Callable{
            name, [name](Interpreter&, const Arguments&) -> Value {
              throw TemplateError(fmt::format("{}: a template may not change its input", name));
            }};
  }
  return Value::undefined(name);
}

Dict global_functions() {
  return {
      {"range", Callable{"range", range_function}},
      {"namespace",
       Callable{"namespace",
                [](Interpreter&, const Arguments& a) {
                  return Value::make_namespace(fields_of("namespace", a));
                }}},
      {"dict",
       Callable{"dict",
                [](Interpreter&, const Arguments& a) -> Value { return fields_of("dict", a); }}},
      {"raise_exception",
       Callable{"raise_exception",
                [](Interpreter& in, const Arguments& a) -> Value {
                  throw TemplateError(a.positional.empty()
                                          ? "the template refuses this conversation"
                                          : in.str(a.positional[0]));
                }}},
      {"strftime_now", Callable{"strftime_now", strftime_now}}};
}

}  // namespace ferry::text::jinja
