// Runs a template's tree. Work, output, nesting and the size of any one value are limited, whatever
// the template does; nothing of the process can be reached from it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/node.h"

namespace ferry::text::jinja {

struct Limits {
  int64_t steps = 20'000'000;            // nodes evaluated, and pieces of 32 bytes worked on
  size_t text_bytes = size_t{16} << 20;  // of any text, the output included
  size_t list_items = 1'000'000;
  int depth = 1000;  // of expressions, blocks and macros within each other, as they run
};

/// Variables of a block, in front of those around it.
struct Scope {
  std::map<std::string, Value, std::less<>> variables;
  std::shared_ptr<Scope> outer;

  const Value* find(std::string_view name) const;  // here or further out; nullptr: none
};

class Interpreter {
 public:
  /// `now`: the present time in a format of strftime, for strftime_now.
  Interpreter(const Limits& limits, std::function<std::string(const std::string&)> now)
      : limits_(limits), now_(std::move(now)) {}

  /// Renders the block with the variables given. Throws TemplateError.
  std::string run(const Node& block, Dict variables);
  int line() const { return line_; }  // of what was evaluated last

  // For builtins.
  std::string now(const std::string& format) const { return now_(format); }
  void spend(uint64_t bytes);
  /// For looking for `what` at each place of a text.
  void spend_search(size_t size, size_t what) { spend(uint64_t{size} * (1 + what / 32)); }
  Value text(std::string s);  // checks the size
  Value list(List items);
  void write(std::string& out, std::string_view piece);  // at its end; checks the size
  void add(List& items, Value v);                        // at its end; checks the size
  // What is done to all of a value, or two, costs what they weigh.
  std::string str(const Value& v);
  bool equal(const Value& a, const Value& b);
  bool less(const Value& a, const Value& b);
  bool contains(const Value& container, const Value& v);
  const Limits& limits() const { return limits_; }
  /// The items of a list, the characters of a text, the keys of a dict; nothing of undefined; all
  /// that a generator still gives.
  List items_of(const Value& v);
  /// The next of a generator.
  std::optional<Value> next(const Value& generator);
  Value attribute(const Value& of, const std::string& name);
  Value item(const Value& of, const Value& index);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using ScopePtr = std::shared_ptr<Scope>;

  Flow execute(const Node& node, const ScopePtr& scope, std::string& out);
  Flow block(const Node& node, const ScopePtr& scope, std::string& out);
  Flow loop(const Node& node, const ScopePtr& scope, std::string& out);
  Value chosen(const Value& all, const Node& loop, const ScopePtr& scope);
  void assign(const std::vector<std::string>& targets, const Value& value, Scope& scope);
  void set_field(const Node& node, const Value& value, const Scope& scope);
  void define_macro(const Node& node, const ScopePtr& scope);
  Value call_macro(const Node& node,
                   const ScopePtr& scope,
                   const List& defaults,
                   const Arguments& args);
  Value evaluate(const Node& node, const ScopePtr& scope);
  Value filter(const Node& node, const ScopePtr& scope, const std::string* rendered);
  Value arithmetic(const std::string& op, const Value& a, const Value& b);
  Value compare(const Node& node, const ScopePtr& scope);
  Value slice(const Node& node, const ScopePtr& scope);
  Value call(const Node& node, const ScopePtr& scope);
  Arguments arguments(const Node& node, const ScopePtr& scope);

  Limits limits_;
  std::function<std::string(const std::string&)> now_;
  int64_t steps_ = 0;
  int line_ = 0, depth_ = 0;
  std::vector<ScopePtr> macro_scopes_;  // in which macros were defined
};

/// Goes through the items of a value, one after another: those of a generator are taken from whoever
/// else holds it, too.
class Items {
 public:
  /// Throws where it has none.
  Items(Interpreter& in, const Value& of)
      : of_(of.is(Value::Kind::kGenerator) || of.is(Value::Kind::kList) ? of : in.items_of(of)) {}

  std::optional<Value> next(Interpreter& in) {
    if (of_.is(Value::Kind::kGenerator)) return in.next(of_);
    in.spend(0);  // a step
    return at_ < of_.list().size() ? std::optional(of_.list()[at_++]) : std::nullopt;
  }
  /// A list, or the generator.
  const Value& of() const { return of_; }

 private:
  Value of_;
  size_t at_ = 0;
};

}  // namespace ferry::text::jinja
