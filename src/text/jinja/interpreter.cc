#include "text/jinja/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/utf8.h"

namespace ferry::text::jinja {
namespace {

using Kind = Node::Kind;

/// One level of the recursion over the tree; throws at the limit.
class Depth {
 public:
  Depth(int& depth, int most) : depth_(depth) {
    if (++depth_ > most) {
      --depth_;
      throw TemplateError(fmt::format("what runs is nested more than {} deep", most));
    }
  }
  ~Depth() { --depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  int& depth_;
};

int64_t whole_arithmetic(const std::string& op, int64_t a, int64_t b) {
  int64_t r = 0;
  bool over = false;
  if (op == "+") {
    over = __builtin_add_overflow(a, b, &r);
  } else if (op == "-") {
    over = __builtin_sub_overflow(a, b, &r);
  } else if (op == "*") {
    over = __builtin_mul_overflow(a, b, &r);
  } else if (op == "**") {
    if (b < 0) throw TemplateError("negative powers are not supported");
    r = 1;
    for (int64_t i = 0; i < b && !over && r != 0; ++i) {
      if (a == 1 || (a == -1 && i >= 2)) {  // nothing new comes
        r = a == 1 || b % 2 == 0 ? 1 : -1;
        break;
      }
      over = __builtin_mul_overflow(r, a, &r);
    }
  } else {  // // and %, which round down
    if (b == 0) throw TemplateError("division by zero");
    if (b == -1) {
      over = op == "//" && a == INT64_MIN;
      r = op == "//" && !over ? -a : 0;
    } else {
      const int64_t rest = a % b, wrong_side = rest != 0 && (rest < 0) != (b < 0) ? 1 : 0;
      r = op == "//" ? a / b - wrong_side : rest + wrong_side * b;
    }
  }
  if (over) throw TemplateError(fmt::format("{} {} {} is beyond 63 bits", a, op, b));
  return r;
}

double real_arithmetic(const std::string& op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") throw TemplateError("powers of fractions are not supported");
  if (b == 0) throw TemplateError("division by zero");
  if (op == "/") return a / b;
  // As Python: the exact rest, with the sign of the divisor.
  double rest = std::fmod(a, b);
  const bool wrong_side = rest != 0 && (rest < 0) != (b < 0);
  if (op == "%") return std::copysign(wrong_side ? rest + b : rest, b);
  const double quotient = (a - rest) / b - (wrong_side ? 1 : 0);
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

/// Python's rule for slices: places from the end for negative numbers, clamped, either direction.
struct SliceRange {
  int64_t begin, end, step;
};
SliceRange slice_range(const Value& begin, const Value& end, const Value& step, int64_t size) {
  const auto given = [](const Value& v, int64_t otherwise) {
    if (v.is(Value::Kind::kNone)) return otherwise;
    if (!v.is_whole()) throw TemplateError("the parts of a slice must be whole numbers");
    return v.whole();
  };
  SliceRange r{0, 0, given(step, 1)};
  if (r.step == 0) throw TemplateError("the step of a slice must not be zero");
  const int64_t low = r.step > 0 ? 0 : -1, high = r.step > 0 ? size : size - 1;
  const auto place = [&](const Value& v, int64_t otherwise) {
    if (v.is(Value::Kind::kNone)) return otherwise;
    int64_t p = given(v, 0);
    if (p < 0) p = p < -size ? low : p + size;
    return std::clamp(p, low, high);
  };
  r.step = std::clamp(r.step, -size - 1, size + 1);  // further than all of it is as far as needed
  r.begin = place(begin, r.step > 0 ? low : high);
  r.end = place(end, r.step > 0 ? high : low);
  return r;
}

/// A loop as it goes on. It looks ahead only where the template asks for what comes: what it takes from a generator
/// others who hold it do not get.
class Loop {
 public:
  Loop(Interpreter& in, const Value& all) : items_(in, all) {}

  /// On to the next item; nullptr: there is none.
  const Value* step(Interpreter& in) {
    std::optional<Value> next = ahead_ ? std::exchange(ahead_, std::nullopt) : items_.next(in);
    if (!next) return nullptr;
    before_ = std::exchange(now_, std::move(next));
    ++index_;
    return &*now_;
  }

  static Value field(const std::shared_ptr<Loop>& loop, Interpreter& in, const std::string& name) {
    const int64_t index = loop->index_;
    if (name == "index") return index;
    if (name == "index0") return index - 1;
    if (name == "revindex") return loop->length(in) - index + 1;
    if (name == "revindex0") return loop->length(in) - index;
    if (name == "first") return index == 1;
    if (name == "last") return !loop->look_ahead(in);
    if (name == "length") return loop->length(in);
    if (name == "depth") return int64_t{1};
    if (name == "depth0") return int64_t{0};
    if (name == "previtem") return loop->before_.value_or(Value::undefined("loop.previtem"));
    if (name == "nextitem") return loop->look_ahead(in).value_or(Value::undefined("loop.nextitem"));
    if (name == "cycle")
      return Callable{"loop.cycle", [loop](Interpreter&, const Arguments& a) {
                        return loop->cycle(a.positional);
                      }};
    if (name == "changed")
      return Callable{"loop.changed", [loop](Interpreter& asks, const Arguments& a) -> Value {
                        return loop->changed(asks, Value(a.positional));
                      }};
    return Value::undefined(name);
  }

 private:
  const std::optional<Value>& look_ahead(Interpreter& in) {
    if (!ahead_) ahead_ = items_.next(in);
    return ahead_;
  }

  /// A generator tells how many it gives by giving them.
  int64_t length(Interpreter& in) {
    if (length_) return *length_;
    const bool known = items_.of().is(Value::Kind::kList);
    if (!known) items_ = Items(in, in.items_of(items_.of()));
    const auto found = static_cast<int64_t>(items_.of().size());
    length_ = known ? found : index_ + (ahead_ ? 1 : 0) + found;
    return *length_;
  }

  Value cycle(const List& values) const {
    if (values.empty()) throw TemplateError("loop.cycle needs values");
    return values[static_cast<size_t>(index_ - 1) % values.size()];
  }

  bool changed(Interpreter& in, const Value& now) {
    if (now.refers()) throw TemplateError("loop.changed cannot hold a function");
    const bool same = changed_ && in.equal(*changed_, now);
    changed_ = now;
    return !same;
  }

  Items items_;  // that come after those below
  std::optional<Value> before_, now_, ahead_, changed_;
  std::optional<int64_t> length_;
  int64_t index_ = 0;
};

}  // namespace

const Value* Scope::find(std::string_view name) const {
  for (const Scope* s = this; s != nullptr; s = s->outer.get())
    if (const auto it = s->variables.find(name); it != s->variables.end()) return &it->second;
  return nullptr;
}

std::string Interpreter::run(const Node& root, Dict variables) {
  const auto globals = std::make_shared<Scope>();
  for (auto& [name, value] : global_functions()) globals->variables[name] = value;
  const auto given = std::make_shared<Scope>();
  for (auto& [name, value] : variables) given->variables[name] = std::move(value);
  given->outer = globals;
  const auto top = std::make_shared<Scope>();
  top->outer = given;
  // Macros hold the scope that holds them.
  const struct Release {
    std::vector<ScopePtr>& scopes;
    ~Release() {
      for (const ScopePtr& s : scopes) s->variables.clear();
      scopes.clear();
    }
  } release{macro_scopes_};
  std::string out;
  block(root, top, out);
  return out;
}

void Interpreter::spend(uint64_t bytes) {
  steps_ += 1 + static_cast<int64_t>(bytes / 32);
  if (steps_ > limits_.steps)
    throw TemplateError(fmt::format("rendering takes more than {} steps", limits_.steps));
}

Value Interpreter::text(std::string s) {
  spend(s.size());
  if (s.size() > limits_.text_bytes)
    throw TemplateError(fmt::format("a text grows beyond {} bytes", limits_.text_bytes));
  return Value(std::move(s));
}

Value Interpreter::list(List items) {
  spend(items.size() * sizeof(Value));
  if (items.size() > limits_.list_items)
    throw TemplateError(fmt::format("a list grows beyond {} items", limits_.list_items));
  return Value(std::move(items));
}

void Interpreter::write(std::string& out, std::string_view piece) {
  spend(piece.size());
  if (out.size() + piece.size() > limits_.text_bytes)
    throw TemplateError(fmt::format("a text grows beyond {} bytes", limits_.text_bytes));
  out += piece;
}

void Interpreter::add(List& items, Value v) {
  spend(sizeof(Value));
  if (items.size() >= limits_.list_items)
    throw TemplateError(fmt::format("a list grows beyond {} items", limits_.list_items));
  items.push_back(std::move(v));
}

std::string Interpreter::str(const Value& v) {
  spend(v.weight());
  return v.str();
}

bool Interpreter::equal(const Value& a, const Value& b) {
  spend(std::min(a.weight(), b.weight()));
  return a == b;
}

bool Interpreter::less(const Value& a, const Value& b) {
  spend(std::min(a.weight(), b.weight()));
  return Value::less(a, b);
}

List Interpreter::items_of(const Value& v) {
  List out;
  switch (v.kind()) {
    case Value::Kind::kUndefined: break;
    case Value::Kind::kGenerator:
      while (std::optional<Value> item = next(v)) add(out, *std::move(item));
      break;
    case Value::Kind::kList: spend(v.size() * sizeof(Value)); return v.list();
    case Value::Kind::kText:
      for (const std::string_view c : split_characters(v.text())) add(out, std::string(c));
      break;
    case Value::Kind::kDict:
      for (const auto& item : v.dict()) add(out, item.first);
      break;
    default: throw TemplateError(fmt::format("a value of type {} has no items", v.kind_name()));
  }
  return out;
}

std::optional<Value> Interpreter::next(const Value& generator) {
  const Depth depth(depth_, limits_.depth);  // generators stand in each other
  spend(sizeof(Value));
  return generator.next(*this);
}

Interpreter::Flow Interpreter::block(const Node& node, const ScopePtr& scope, std::string& out) {
  for (const NodePtr& kid : node.kids)
    if (const Flow flow = execute(*kid, scope, out); flow != Flow::kNext) return flow;
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute(const Node& node, const ScopePtr& scope, std::string& out) {
  const Depth depth(depth_, limits_.depth);
  line_ = node.line;
  spend(0);
  switch (node.kind) {
    case Kind::kBlock: return block(node, scope, out);
    case Kind::kText: write(out, node.text); return Flow::kNext;
    case Kind::kOutput: {
      const Value v = evaluate(*node.kids[0], scope);
      write(out, str(v));
      return Flow::kNext;
    }
    case Kind::kIf:
      for (size_t i = 0; i < node.kids.size(); i += 2)
        if (node.kids[i] == nullptr || evaluate(*node.kids[i], scope).truth())
          return block(*node.kids[i + 1], scope, out);
      return Flow::kNext;
    case Kind::kFor: return loop(node, scope, out);
    case Kind::kSet: {
      const Value v = evaluate(*node.kids[0], scope);
      if (node.text.empty())
        assign(node.words, v, *scope);
      else
        set_field(node, v, *scope);
      return Flow::kNext;
    }
    case Kind::kSetBlock: {
      const auto inner = std::make_shared<Scope>();
      inner->outer = scope;
      std::string rendered;
      const Flow flow = block(*node.kids[0], inner, rendered);
      Value v = node.kids[1] ? filter(*node.kids[1], scope, &rendered) : text(std::move(rendered));
      scope->variables[node.words[0]] = std::move(v);
      return flow;
    }
    case Kind::kFilterBlock: {
      const auto inner = std::make_shared<Scope>();
      inner->outer = scope;
      std::string rendered;
      const Flow flow = block(*node.kids[1], inner, rendered);
      write(out, str(filter(*node.kids[0], scope, &rendered)));
      return flow;
    }
    case Kind::kWith: {
      const auto inner = std::make_shared<Scope>();
      inner->outer = scope;
      for (size_t i = 0; i < node.words.size(); ++i)
        inner->variables[node.words[i]] = evaluate(*node.kids[i + 1], scope);
      return block(*node.kids[0], inner, out);
    }
    case Kind::kMacro: define_macro(node, scope); return Flow::kNext;
    case Kind::kBreak: return Flow::kBreak;
    case Kind::kContinue: return Flow::kContinue;
    default: throw TemplateError("an expression stands where a statement should");
  }
}

Interpreter::Flow Interpreter::loop(const Node& node, const ScopePtr& scope, std::string& out) {
  Value all = evaluate(*node.kids[0], scope);
  if (node.kids[1]) all = chosen(all, node, scope);
  const auto run = std::make_shared<Loop>(*this, all);
  const Value told = Value::loop(Callable{"loop", [run](Interpreter& in, const Arguments& name) {
                                            return Loop::field(run, in, name.positional[0].text());
                                          }});
  bool done = false;  // with an item: as in Jinja, one that is left or gone on from does not count
  while (const Value* const item = run->step(*this)) {
    spend(4 * sizeof(Value));  // on the loop's variables
    const auto inner = std::make_shared<Scope>();
    inner->outer = scope;
    inner->variables["loop"] = told;
    assign(node.words, *item, *inner);
    const Flow flow = block(*node.kids[2], inner, out);
    if (flow == Flow::kBreak) break;
    done |= flow == Flow::kNext;
  }
  return !done && node.kids[3] ? block(*node.kids[3], scope, out) : Flow::kNext;
}

/// The items that a loop's condition holds for. It is asked of each when it is its turn.
Value Interpreter::chosen(const Value& all, const Node& loop, const ScopePtr& scope) {
  return Value::generator(
      [&loop, scope, items = Items(*this, all)](Interpreter& in) mutable -> std::optional<Value> {
        while (std::optional<Value> v = items.next(in)) {
          const auto inner = std::make_shared<Scope>();
          inner->outer = scope;
          in.assign(loop.words, *v, *inner);
          if (in.evaluate(*loop.kids[1], inner).truth()) return v;
        }
        return std::nullopt;
      },
      {all});
}

void Interpreter::assign(const std::vector<std::string>& targets,
                         const Value& value,
                         Scope& scope) {
  if (targets.size() == 1) {
    scope.variables[targets[0]] = value;
    return;
  }
  const List parts = items_of(value);
  if (parts.size() != targets.size())
    throw TemplateError(fmt::format("{} values for {} variables", parts.size(), targets.size()));
  for (size_t i = 0; i < parts.size(); ++i) scope.variables[targets[i]] = parts[i];
}

void Interpreter::set_field(const Node& node, const Value& value, const Scope& scope) {
  const Value* target = scope.find(node.words[0]);
  if (target == nullptr || !target->is(Value::Kind::kNamespace))
    throw TemplateError(fmt::format("{} is no namespace: its fields cannot be set", node.words[0]));
  spend(target->size());
  target->set_field(node.text, value);
}

void Interpreter::define_macro(const Node& node, const ScopePtr& scope) {
  List defaults;
  for (size_t i = 1; i < node.kids.size(); ++i)
    defaults.push_back(node.kids[i] ? evaluate(*node.kids[i], scope)
                                    : Value::undefined(node.words[i - 1]));
  spend(4096);  // for the scope, which stays to the end
  macro_scopes_.push_back(scope);
  const auto call = [&node, scope, defaults](Interpreter& in, const Arguments& args) {
    return in.call_macro(node, scope, defaults, args);
  };
  scope->variables[node.text] = Value(Callable{node.text, call}, defaults);
}

Value Interpreter::call_macro(const Node& node,
                              const ScopePtr& scope,
                              const List& defaults,
                              const Arguments& args) {
  if (args.positional.size() > node.words.size())
    throw TemplateError(fmt::format(
        "{} takes {} arguments, not {}", node.text, node.words.size(), args.positional.size()));
  const auto inner = std::make_shared<Scope>();
  inner->outer = scope;
  for (size_t i = 0; i < node.words.size(); ++i)
    inner->variables[node.words[i]] = i < args.positional.size() ? args.positional[i] : defaults[i];
  for (const auto& [name, value] : args.named) {
    const auto at = std::find(node.words.begin(), node.words.end(), name);
    if (at == node.words.end())
      throw TemplateError(fmt::format("{} has no parameter {}", node.text, printable(name)));
    if (at - node.words.begin() < static_cast<std::ptrdiff_t>(args.positional.size()))
      throw TemplateError(fmt::format("{} is given {} twice", node.text, printable(name)));
    inner->variables[name] = value;
  }
  const int line = line_;
  std::string out;
  block(*node.kids[0], inner, out);
  line_ = line;
  return text(std::move(out));
}

Value Interpreter::evaluate(const Node& node, const ScopePtr& scope) {
  const Depth depth(depth_, limits_.depth);
  line_ = node.line;
  spend(0);
  const auto kid = [&](size_t i) { return evaluate(*node.kids[i], scope); };
  switch (node.kind) {
    case Kind::kLiteral: return node.value;
    case Kind::kName: {
      const Value* v = scope->find(node.text);
      return v != nullptr ? *v : Value::undefined(node.text);
    }
    case Kind::kList:
    case Kind::kTuple: {
      List items;
      for (size_t i = 0; i < node.kids.size(); ++i) items.push_back(kid(i));
      return Value(std::move(items), node.kind == Kind::kTuple);
    }
    case Kind::kDict: {
      Dict dict;
      for (size_t i = 0; i < node.kids.size(); i += 2) {
        const Value key = kid(i);
        if (!key.is(Value::Kind::kText))
          throw TemplateError("keys other than texts are not supported");
        Value value = kid(i + 1);
        spend(dict.size());
        const auto at = std::find_if(
            dict.begin(), dict.end(), [&](const auto& item) { return item.first == key.text(); });
        if (at != dict.end())
          at->second = std::move(value);
        else
          dict.emplace_back(key.text(), std::move(value));
      }
      return dict;
    }
    case Kind::kNot: return !kid(0).truth();
    case Kind::kAnd: {
      Value left = kid(0);
      return left.truth() ? kid(1) : left;
    }
    case Kind::kOr: {
      Value left = kid(0);
      return left.truth() ? left : kid(1);
    }
    case Kind::kNegative: {
      const Value v = kid(0);
      if (v.is(Value::Kind::kFloat)) return -v.real();
      if (v.is_whole()) return whole_arithmetic("-", 0, v.whole());
      throw TemplateError(fmt::format("a value of type {} has no negative", v.kind_name()));
    }
    case Kind::kPositive: {
      const Value v = kid(0);
      if (!v.is_number())
        throw TemplateError(fmt::format("+ before a value of type {}", v.kind_name()));
      return v.is_whole() ? Value(v.whole()) : v;
    }
    case Kind::kArithmetic: {
      const Value a = kid(0), b = kid(1);
      return arithmetic(node.text, a, b);
    }
    case Kind::kConcat: {
      std::string all;
      for (size_t i = 0; i < node.kids.size(); ++i) write(all, str(kid(i)));
      return text(std::move(all));
    }
    case Kind::kCompare: return compare(node, scope);
    case Kind::kConditional:
      if (kid(0).truth()) return kid(1);
      return node.kids[2] ? kid(2) : Value::undefined("the else of an if");
    case Kind::kAttribute: return attribute(kid(0), node.text);
    case Kind::kItem: {
      const Value of = kid(0);
      return item(of, kid(1));
    }
    case Kind::kSlice: return slice(node, scope);
    case Kind::kCall: return call(node, scope);
    case Kind::kFilter: return filter(node, scope, nullptr);
    case Kind::kTest: {
      const Value v = kid(0);
      return apply_test(*this, node.text, v, arguments(node, scope));
    }
    default: throw TemplateError("a statement stands where an expression should");
  }
}

Value Interpreter::filter(const Node& node, const ScopePtr& scope, const std::string* rendered) {
  const Depth depth(depth_, limits_.depth);
  // A chain of filters upon a rendered block ends in an absent input.
  Value input;
  if (node.kids[0] == nullptr)
    input = text(*rendered);
  else if (rendered != nullptr)
    input = filter(*node.kids[0], scope, rendered);
  else
    input = evaluate(*node.kids[0], scope);
  const Arguments args = arguments(node, scope);
  line_ = node.line;
  return apply_filter(*this, node.text, input, args);
}

Value Interpreter::arithmetic(const std::string& op, const Value& a, const Value& b) {
  if (op == "%" && a.is(Value::Kind::kText)) return percent_format(*this, a.text(), b);
  for (const Value* v : {&a, &b})
    if (v->is_undefined())
      throw TemplateError(fmt::format("{} is undefined", printable(v->text())));
  if (a.is_number() && b.is_number()) {
    if (a.is_whole() && b.is_whole() && op != "/")
      return whole_arithmetic(op, a.whole(), b.whole());
    // Python divides whole numbers exactly before it rounds.
    constexpr int64_t kExact = int64_t{1} << 53;
    if (a.is_whole() && b.is_whole() &&
        (std::max(a.whole(), b.whole()) > kExact || std::min(a.whole(), b.whole()) < -kExact))
      throw TemplateError("/ of whole numbers beyond 53 bits is not supported");
    return real_arithmetic(op, a.real(), b.real());
  }
  if (op == "+" && a.is(Value::Kind::kText) && b.is(Value::Kind::kText))
    return text(a.text() + b.text());
  if (op == "+" && a.is(Value::Kind::kList) && b.is(Value::Kind::kList) &&
      a.is_tuple() == b.is_tuple()) {
    spend((a.size() + b.size()) * sizeof(Value));
    List all = a.list();
    all.insert(all.end(), b.list().begin(), b.list().end());
    return list(std::move(all));
  }
  if (op == "*" && (a.is_whole() || b.is_whole())) {
    const Value& what = a.is_whole() ? b : a;
    const int64_t times = std::max<int64_t>((a.is_whole() ? a : b).whole(), 0);
    if (what.is(Value::Kind::kText)) {
      if (static_cast<uint64_t>(times) >
          limits_.text_bytes / std::max<size_t>(what.text().size(), 1))
        throw TemplateError(fmt::format("a text grows beyond {} bytes", limits_.text_bytes));
      std::string all;
      for (int64_t i = 0; i < times; ++i) all += what.text();
      return text(std::move(all));
    }
  }
  throw TemplateError(fmt::format("{} {} {} is not possible", a.kind_name(), op, b.kind_name()));
}

Value Interpreter::compare(const Node& node, const ScopePtr& scope) {
  Value left = evaluate(*node.kids[0], scope);
  for (size_t i = 0; i < node.words.size(); ++i) {
    Value right = evaluate(*node.kids[i + 1], scope);
    const std::string& op = node.words[i];
    bool holds = false;
    if (op == "==")
      holds = equal(left, right);
    else if (op == "!=")
      holds = !equal(left, right);
    else if (op == "in")
      holds = contains(right, left);
    else if (op == "not in")
      holds = !contains(right, left);
    else if (op == "<")
      holds = less(left, right);
    else if (op == ">")
      holds = less(right, left);
    else if (op == "<=")
      holds = less(left, right) || equal(left, right);
    else
      holds = less(right, left) || equal(left, right);
    if (!holds) return false;
    left = std::move(right);
  }
  return true;
}

bool Interpreter::contains(const Value& container, const Value& v) {
  spend(container.size());
  switch (container.kind()) {
    case Value::Kind::kUndefined: return false;
    case Value::Kind::kText:
      if (!v.is(Value::Kind::kText))
        throw TemplateError(fmt::format("a value of type {} cannot be in a text", v.kind_name()));
      spend_search(container.size(), v.size());
      return container.text().find(v.text()) != std::string::npos;
    case Value::Kind::kList:
      return std::any_of(container.list().begin(), container.list().end(), [&](const Value& item) {
        return equal(item, v);
      });
    case Value::Kind::kGenerator:
      while (const std::optional<Value> item = next(container))
        if (equal(*item, v)) return true;
      return false;
    case Value::Kind::kDict:
    case Value::Kind::kNamespace:
      return v.is(Value::Kind::kText) && container.find(v.text()) != nullptr;
    default:
      throw TemplateError(
          fmt::format("nothing can be in a value of type {}", container.kind_name()));
  }
}

Value Interpreter::attribute(const Value& of, const std::string& name) {
  if (of.is_undefined())
    throw TemplateError(
        fmt::format("{} is undefined; it has no {}", printable(of.text()), printable(name)));
  if (of.is(Value::Kind::kDict) || of.is(Value::Kind::kNamespace)) spend(of.size());
  if (of.is(Value::Kind::kLoop)) return of.callable().call(*this, {{Value(name)}, {}});
  if (of.is(Value::Kind::kNamespace)) {
    const Value* v = of.find(name);
    return v != nullptr ? *v : Value::undefined(name);
  }
  Value bound = method(of, name);
  if (!bound.is_undefined() || !of.is(Value::Kind::kDict)) return bound;
  const Value* v = of.find(name);
  return v != nullptr ? *v : Value::undefined(name);
}

Value Interpreter::item(const Value& of, const Value& index) {
  if (of.is_undefined())
    throw TemplateError(fmt::format("{} is undefined; it has no items", printable(of.text())));
  if (index.is(Value::Kind::kText)) {
    if (of.is(Value::Kind::kDict)) {
      spend(of.size());
      if (const Value* v = of.find(index.text())) return *v;
    }
    return attribute(of, index.text());
  }
  if (index.is_whole() && (of.is(Value::Kind::kList) || of.is(Value::Kind::kText))) {
    const auto size =
        static_cast<int64_t>(of.is(Value::Kind::kList) ? of.list().size() : characters(of.text()));
    spend(of.is(Value::Kind::kText) ? of.size() : 0);
    const int64_t at = index.whole() < 0 ? index.whole() + size : index.whole();
    if (at < 0 || at >= size) return Value::undefined(fmt::format("item {}", index.whole()));
    if (of.is(Value::Kind::kList)) return of.list()[static_cast<size_t>(at)];
    std::string_view rest = of.text();
    for (int64_t i = 0; i < at; ++i) rest.remove_prefix(decode_utf8(rest, 0).bytes);
    return std::string(rest.substr(0, decode_utf8(rest, 0).bytes));
  }
  return Value::undefined("an item");
}

Value Interpreter::slice(const Node& node, const ScopePtr& scope) {
  const Value of = evaluate(*node.kids[0], scope);
  Value part[3];
  for (size_t i = 0; i < 3; ++i)
    if (node.kids[i + 1]) part[i] = evaluate(*node.kids[i + 1], scope);
  if (of.is_undefined()) return Value::undefined("a slice");
  if (!of.is(Value::Kind::kList) && !of.is(Value::Kind::kText))
    throw TemplateError(fmt::format("a value of type {} has no slices", of.kind_name()));
  spend(of.is(Value::Kind::kText) ? of.size() : of.size() * sizeof(Value));
  if (of.is(Value::Kind::kText)) {
    const auto all = split_characters(of.text());
    const SliceRange r = slice_range(part[0], part[1], part[2], static_cast<int64_t>(all.size()));
    std::string out;
    for (int64_t i = r.begin; r.step > 0 ? i < r.end : i > r.end; i += r.step) {
      out += all[static_cast<size_t>(i)];
    }
    return text(std::move(out));
  }
  const List& all = of.list();
  const SliceRange r = slice_range(part[0], part[1], part[2], static_cast<int64_t>(all.size()));
  List out;
  for (int64_t i = r.begin; r.step > 0 ? i < r.end : i > r.end; i += r.step) {
    out.push_back(all[static_cast<size_t>(i)]);
  }
  return Value(std::move(out), of.is_tuple());
}

Arguments Interpreter::arguments(const Node& node, const ScopePtr& scope) {
  Arguments args;
  for (size_t i = 0; i < node.words.size(); ++i) {
    Value v = evaluate(*node.kids[i + 1], scope);
    if (node.words[i].empty())
      args.positional.push_back(std::move(v));
    else
      args.named.emplace_back(node.words[i], std::move(v));
  }
  return args;
}

Value Interpreter::call(const Node& node, const ScopePtr& scope) {
  const Value f = evaluate(*node.kids[0], scope);
  if (f.is_undefined())
    throw TemplateError(fmt::format("{} is undefined; it cannot be called", printable(f.text())));
  if (!f.is(Value::Kind::kCallable))
    throw TemplateError(fmt::format("a value of type {} cannot be called", f.kind_name()));
  const Arguments args = arguments(node, scope);
  line_ = node.line;
  return f.callable().call(*this, args);
}

}  // namespace ferry::text::jinja
