// The values of chat templates: those of Python that Jinja templates meet, immutable but for
// namespaces. Texts are UTF-8; lengths and places in them count characters, as Python's do.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::text::jinja {

class Value;
class Interpreter;
using List = std::vector<Value>;
using Dict =
    std::vector<std::pair<std::string, Value>>;  // in the order of insertion, keys distinct

/// A template that fails: thrown inside the interpreter, caught at its border (chat_template.cc),
/// which adds the line. Templates come with models: what they do wrong is input, not a bug.
class TemplateError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The arguments of a call.
struct Arguments {
  List positional;
  Dict named;
};

struct Callable {
  std::string name;
  std::function<Value(Interpreter&, const Arguments&)> call;
};

/// What a generator gives next; nothing at its end, after which it is not asked again.
using Generate = std::function<std::optional<Value>(Interpreter&)>;

class Value {
 public:
  static constexpr int kDepthMax = 100;  // of lists and dicts within each other; deeper ones throw
  static constexpr uint64_t kWeightMax = uint64_t{64} << 20;  // heavier ones throw

  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kFloat,
    kText,
    kList,
    kDict,
    kNamespace,
    kCallable,
    kLoop,  // what a loop says of itself, as it goes on
    kGenerator  // what is made as it is asked for, and gone then, whoever asks: always true, without a length
  };

  Value() = default;                         // None
  static Value undefined(std::string name);  // the name is for messages
  Value(bool v) : kind_(Kind::kBool), number_{.i = v} {}
  Value(int64_t v) : kind_(Kind::kInt), number_{.i = v} {}
  Value(double v) : kind_(Kind::kFloat), number_{.d = v} {}
  Value(std::string v);
  Value(const char* v) : Value(std::string(v)) {}
  Value(List v, bool tuple = false);
  Value(Dict v);
  /// `bound`: what it holds on to.
  Value(Callable v, const List& bound = {});
  static Value make_namespace(Dict fields);
  static Value generator(Generate next, const List& bound);
  /// `field` is called with the name of one.
  static Value loop(Callable field);
  /// A number beyond 63 bits throws TemplateError.
  static Value from_json(const nlohmann::ordered_json& json);

  Kind kind() const { return kind_; }
  bool is(Kind k) const { return kind_ == k; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_number() const {
    return kind_ == Kind::kInt || kind_ == Kind::kFloat || kind_ == Kind::kBool;
  }
  bool is_whole() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_tuple() const { return tuple_; }
  const char* kind_name() const;  // as Python names the type: "str"

  // For a value of that kind only.
  bool boolean() const { return number_.i != 0; }
  int64_t whole() const { return number_.i; }
  double real() const { return kind_ == Kind::kFloat ? number_.d : static_cast<double>(number_.i); }
  const std::string& text() const { return *text_; }  // of an undefined value: its name
  const List& list() const { return *list_; }
  const Dict& dict() const { return *dict_; }              // of a namespace, too
  const Callable& callable() const { return *callable_; }  // of a loop: of its fields
  /// Takes an item from a generator; nothing: it has no more.
  std::optional<Value> next(Interpreter& in) const;
  /// Of a namespace. What refers() throws: no value may come to hold itself.
  void set_field(const std::string& name, Value v) const;

  bool truth() const;       // as Python's bool()
  std::string str() const;  // as Python's str(); "" of undefined
  size_t size() const;      // of a text (in bytes), a list, a dict: what a look at each part costs
  /// The bytes of the texts within it and 32 for each value, as often as they would be written out:
  /// what work on all of it costs, however much of it is shared.
  uint64_t weight() const { return weight_; }
  /// Whether it is a namespace or a function, or holds one: what may lead to further values.
  bool refers() const { return refers_; }
  const Value* find(std::string_view key) const;  // in a dict or namespace; nullptr: none

  bool operator==(const Value& other) const;  // as Python's ==
  /// As Python's <: numbers, texts and lists among themselves; anything else throws.
  static bool less(const Value& a, const Value& b);

 private:
  void weighs(uint64_t more);
  void holds(const Value& part);
  void append_repr(std::string& out) const;

  Kind kind_ = Kind::kNone;
  bool tuple_ = false;
  bool refers_ = false;
  int depth_ = 0;
  uint64_t weight_ = 32;
  union {
    int64_t i;
    double d;
  } number_{.i = 0};
  std::shared_ptr<const std::string> text_;
  std::shared_ptr<const List> list_;
  std::shared_ptr<Dict> dict_;
  std::shared_ptr<const Callable> callable_;
  std::shared_ptr<Generate> next_;  // of a generator, whoever holds it; empty at its end
};

/// Python's repr() of a float: the shortest digits that read back as the same number.
std::string float_repr(double v);

/// json.dumps(value, ensure_ascii=.., indent=indent, separators=..., sort_keys=...); indent below
/// 0: on one line. Throws for what JSON has no form for, and beyond `bytes_max`.
struct JsonStyle {
  int indent = -1;
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false, ensure_ascii = false;
  size_t bytes_max = 0;
};
std::string to_json(const Value& value, const JsonStyle& style);

// Characters of texts.
size_t characters(std::string_view text);
bool is_space(char32_t c);  // as str.isspace
std::vector<std::string_view> split_characters(std::string_view text);
/// Strips from the ends: the characters of `set`, or white space without one.
enum class Ends { kBoth, kLeft, kRight };
std::string strip(const std::string& text, Ends ends, const std::string* set);

}  // namespace ferry::text::jinja
