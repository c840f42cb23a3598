#include "rl/schema_check.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/ordered_json.h"
#include "grammar/matcher.h"
#include "grammar/schema.h"
#include "grammar/schema_merge.h"

namespace ferry::rl {
namespace {

using Json = nlohmann::json;
using SchemaJson = nlohmann::ordered_json;  // as the grammar reads it

constexpr size_t kAnswerBytesMax = size_t{64} << 10;
constexpr int64_t kLooksMax = 3'000'000;  // at values, keywords and characters, for one answer
constexpr int kWithinMax = 1000;          // schemas within schemas, as they are followed

/// A token for each byte: texts are read, none is written.
std::shared_ptr<const grammar::Vocabulary> bytes_alone() {
  static const std::shared_ptr<const grammar::Vocabulary> vocabulary = [] {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
    return grammar::Vocabulary::of(std::move(tokens));
  }();
  return vocabulary;
}

/// Whole numbers beyond these are doubles alone.
std::optional<int64_t> signed_of(const Json& n) {
  if (n.is_number_unsigned()) {
    const auto u = n.get<uint64_t>();
    return u <= INT64_MAX ? std::optional(static_cast<int64_t>(u)) : std::nullopt;
  }
  if (n.is_number_integer()) return n.get<int64_t>();
  const auto d = n.get<double>();
  if (d != std::floor(d) || !(d >= -0x1p63 && d < 0x1p63)) return std::nullopt;
  return static_cast<int64_t>(d);
}

/// Below 0, 0 or above 0, as a is below, equal to or above b.
int compare_numbers(const Json& a, const Json& b) {
  const std::optional<int64_t> x = signed_of(a), y = signed_of(b);
  if (x && y) return *x < *y ? -1 : *x > *y;
  if (a.is_number_unsigned() && b.is_number_unsigned()) {
    const auto u = a.get<uint64_t>(), v = b.get<uint64_t>();
    return u < v ? -1 : u > v;
  }
  const auto d = a.get<double>(), e = b.get<double>();
  return d < e ? -1 : d > e;
}

bool is_whole(const Json& n) {
  return n.is_number_integer() || n.get<double>() == std::floor(n.get<double>());
}

struct Bound {
  Json at;
  bool low = false, excluded = false;
};

/// One schema, its keywords read: what they say of other types than a value's is not asked.
struct Node {
  std::optional<bool> always;  // true or false
  std::optional<std::vector<std::string>> types;
  std::vector<std::vector<Json>> given;       // enum, const: one of each list
  std::vector<const Node*> all;               // allOf
  std::vector<std::vector<const Node*>> any;  // anyOf; oneOf, whose schemas exclude each other
  const Node* refers = nullptr;
  std::map<std::string, const Node*> properties;
  std::vector<std::string> required;
  const Node* other_fields = nullptr;
  std::vector<const Node*> first_items;
  const Node* other_items = nullptr;
  std::optional<uint64_t> items_least, items_most, length_least, length_most;
  std::vector<size_t> patterns;  // of Compiled
  std::vector<Bound> bounds;
};

const char* name_of_type(const Json& v) {
  switch (v.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::boolean: return "boolean";
    case Json::value_t::string: return "string";
    case Json::value_t::object: return "object";
    case Json::value_t::array: return "array";
    default: return "number";
  }
}

std::optional<uint64_t> count_in(const SchemaJson& schema, const char* keyword) {
  const auto it = schema.find(keyword);
  if (it == schema.end() || !it->is_number() || it->get<double>() < 0) return std::nullopt;
  return it->get<uint64_t>();
}

Json sorted(const SchemaJson& v) { return Json::parse(json_text(v)); }

}  // namespace

struct SchemaCheck::Compiled {
  std::deque<Node> nodes;  // the first is the whole schema
  std::vector<std::shared_ptr<const grammar::Constraint>> patterns;
};

namespace {

/// Reads a schema that the grammar has taken; what it did not look at, since no value reaches it, may be anything.
class Compiler {
 public:
  Compiler(const SchemaJson& root,
           std::deque<Node>& nodes,
           std::vector<std::shared_ptr<const grammar::Constraint>>& patterns)
      : references_(root, work_), nodes_(nodes), patterns_(patterns) {
    node_of(root);
  }

  Result<void> run() {
    while (!open_.empty()) {
      const auto [schema, node] = open_.back();
      open_.pop_back();
      TRY(read(*schema, *node));
    }
    return {};
  }

 private:
  const Node* node_of(const SchemaJson& schema) {
    const auto [it, is_new] = known_.try_emplace(&schema, nullptr);
    if (is_new) {
      it->second = &nodes_.emplace_back();
      open_.emplace_back(&schema, it->second);
    }
    return it->second;
  }

  std::vector<const Node*> list_of(const SchemaJson& schemas) {
    std::vector<const Node*> out;
    for (const SchemaJson& s : schemas) out.push_back(node_of(s));
    return out;
  }

  Result<void> read(const SchemaJson& s, Node& n) {
    if (s.is_boolean()) n.always = s.get<bool>();
    if (!s.is_object()) return {};
    const auto part = [&](const char* keyword) -> const SchemaJson* {
      const auto it = s.find(keyword);
      return it == s.end() ? nullptr : &*it;
    };
    if (const SchemaJson* ref = part("$ref")) {
      TRY_ASSIGN(const SchemaJson* const target, references_.find(*ref, "the schema"));
      n.refers = node_of(*target);
    }
    if (const SchemaJson* all = part("allOf"); all && all->is_array()) n.all = list_of(*all);
    for (const char* keyword : {"anyOf", "oneOf"})
      if (const SchemaJson* any = part(keyword); any && any->is_array())
        n.any.push_back(list_of(*any));
    if (const SchemaJson* one = part("const")) n.given.push_back({sorted(*one)});
    if (const SchemaJson* list = part("enum"); list && list->is_array()) {
      n.given.emplace_back();
      for (const SchemaJson& v : *list) n.given.back().push_back(sorted(v));
    }
    if (const SchemaJson* type = part("type")) {
      n.types.emplace();
      for (const SchemaJson& t : type->is_array() ? *type : SchemaJson::array({*type}))
        if (t.is_string()) n.types->push_back(t.get<std::string>());
    }
    read_object(s, n);
    read_array(s, n);
    n.length_least = count_in(s, "minLength");
    n.length_most = count_in(s, "maxLength");
    for (const auto& [keyword, low, excluded] : {std::tuple{"minimum", true, false},
                                                 {"exclusiveMinimum", true, true},
                                                 {"maximum", false, false},
                                                 {"exclusiveMaximum", false, true}})
      if (const SchemaJson* at = part(keyword); at && at->is_number())
        n.bounds.push_back({sorted(*at), low, excluded});
    return read_patterns(s, n);
  }

  void read_object(const SchemaJson& s, Node& n) {
    if (const auto it = s.find("properties"); it != s.end() && it->is_object())
      for (const auto& [name, of] : it->items()) n.properties.emplace(name, node_of(of));
    if (const auto it = s.find("required"); it != s.end() && it->is_array())
      for (const SchemaJson& name : *it)
        if (name.is_string()) n.required.push_back(name.get<std::string>());
    if (const auto it = s.find("additionalProperties"); it != s.end())
      n.other_fields = node_of(*it);
  }

  void read_array(const SchemaJson& s, Node& n) {
    // Drafts before 2020-12 call the first items' list "items", and what comes after it "additionalItems".
    const auto items = s.find("items"), prefix = s.find("prefixItems");
    const bool old = items != s.end() && items->is_array();
    if (const auto first = old ? items : prefix; first != s.end() && first->is_array())
      n.first_items = list_of(*first);
    if (const auto rest = old ? s.find("additionalItems") : items; rest != s.end())
      n.other_items = node_of(*rest);
    n.items_least = count_in(s, "minItems");
    n.items_most = count_in(s, "maxItems");
  }

  /// Patterns and formats are read by the automaton of a string that has them.
  Result<void> read_patterns(const SchemaJson& s, Node& n) {
    const bool strings =
        !n.types || std::find(n.types->begin(), n.types->end(), "string") != n.types->end();
    for (const char* keyword : {"pattern", "format"}) {
      const auto it = s.find(keyword);
      if (!strings || it == s.end() || !it->is_string()) continue;
      const SchemaJson alone = {{"type", "string"}, {keyword, *it}};
      const std::string text = json_text(alone);
      const auto [known, is_new] = pattern_index_.try_emplace(text, patterns_.size());
      if (is_new) {
        TRY_ASSIGN(std::shared_ptr<const grammar::Automaton> automaton,
                   grammar::schema_automaton(text, "the schema"));
        patterns_.push_back(std::make_shared<const grammar::Constraint>(
            grammar::Constraint{std::move(automaton), bytes_alone()}));
      }
      n.patterns.push_back(known->second);
    }
    return {};
  }

  grammar::SchemaWork work_;
  grammar::References references_;
  std::deque<Node>& nodes_;
  std::vector<std::shared_ptr<const grammar::Constraint>>& patterns_;
  std::map<const SchemaJson*, Node*> known_;
  std::map<std::string, size_t> pattern_index_;
  std::vector<std::pair<const SchemaJson*, Node*>> open_;
};

/// Holds one document against the schema.
class Validator {
 public:
  explicit Validator(const std::vector<std::shared_ptr<const grammar::Constraint>>& patterns)
      : patterns_(patterns), matchers_(patterns.size()) {}

  bool satisfies(const Json& v, const Node& n) {
    if (!look() || within_ == kWithinMax) {
      looks_ = kLooksMax;  // what follows is not told either
      return false;
    }
    ++within_;
    const bool yes = holds(v, n);
    --within_;
    return yes && looks_ < kLooksMax;
  }

 private:
  bool look(size_t times = 1) {
    looks_ = std::min(kLooksMax, looks_ + static_cast<int64_t>(times));
    return looks_ < kLooksMax;
  }

  bool holds(const Json& v, const Node& n) {
    if (n.always) return *n.always;
    if (n.types && !of_types(v, *n.types)) return false;
    for (const std::vector<Json>& list : n.given)
      if (std::none_of(list.begin(), list.end(), [&](const Json& g) { return equal(v, g); }))
        return false;
    if (v.is_number() && !within_bounds(v, n)) return false;
    if (v.is_string() && !string_holds(v.get_ref<const std::string&>(), n)) return false;
    if (v.is_object() && !object_holds(v, n)) return false;
    if (v.is_array() && !array_holds(v, n)) return false;
    for (const Node* part : n.all)
      if (!satisfies(v, *part)) return false;
    for (const auto& parts : n.any)
      if (std::none_of(
              parts.begin(), parts.end(), [&](const Node* part) { return satisfies(v, *part); }))
        return false;
    return n.refers == nullptr || refers_to(v, *n.refers);
  }

  /// A schema that refers to itself may come back to a value by many ways: each is gone once. What comes back to a
  /// question that is still open says nothing for it.
  bool refers_to(const Json& v, const Node& n) {
    const std::pair key(&v, &n);
    const auto [it, is_new] = answers_.try_emplace(key, Answer::kOpen);
    if (!is_new) {
      came_back_ += it->second == Answer::kOpen;
      return it->second == Answer::kYes;
    }
    const int64_t before = came_back_;
    const bool yes = satisfies(v, n);
    // A no that rests on an open question may become a yes.
    if (yes || came_back_ == before)
      answers_[key] = yes ? Answer::kYes : Answer::kNo;
    else
      answers_.erase(key);
    return yes;
  }

  static bool of_types(const Json& v, const std::vector<std::string>& types) {
    const std::string_view own = name_of_type(v);
    return std::any_of(types.begin(), types.end(), [&](const std::string& t) {
      return t == own || (t == "integer" && v.is_number() && is_whole(v));
    });
  }

  /// As values: 2 is 2.0, and fields have no order.
  bool equal(const Json& a, const Json& b) {
    if (!look()) return false;
    if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
    if (a.type() != b.type()) return false;
    if (!a.is_structured()) return a == b;
    if (a.size() != b.size()) return false;
    const auto same = [&](const auto& x, const auto& y) { return equal(x, y); };
    if (a.is_array()) return std::equal(a.begin(), a.end(), b.begin(), same);
    const auto& x = a.get_ref<const Json::object_t&>();
    const auto& y = b.get_ref<const Json::object_t&>();
    return std::equal(x.begin(), x.end(), y.begin(), [&](const auto& f, const auto& g) {
      return f.first == g.first && equal(f.second, g.second);
    });
  }

  static bool within_bounds(const Json& v, const Node& n) {
    return std::all_of(n.bounds.begin(), n.bounds.end(), [&](const Bound& b) {
      const int c = compare_numbers(v, b.at) * (b.low ? 1 : -1);
      return b.excluded ? c > 0 : c >= 0;
    });
  }

  bool string_holds(const std::string& text, const Node& n) {
    if (n.length_least || n.length_most) {
      if (!look(text.size())) return false;
      const auto points = static_cast<uint64_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<uint8_t>(c) & 0xC0) != 0x80;
      }));
      if (points < n.length_least.value_or(0) || (n.length_most && points > *n.length_most))
        return false;
    }
    return std::all_of(n.patterns.begin(), n.patterns.end(), [&](size_t p) {
      constexpr size_t kTimesAByte = 10;  // a byte of a pattern is dearer than a look
      if (!look(kTimesAByte * (text.size() + 2))) return false;
      if (!matchers_[p]) matchers_[p].emplace(patterns_[p]);
      matchers_[p]->restart();
      return matchers_[p]->accept(json_text(Json(text))) && matchers_[p]->may_end();
    });
  }

  bool object_holds(const Json& v, const Node& n) {
    if (!look(n.required.size())) return false;
    for (const std::string& name : n.required)
      if (!v.contains(name)) return false;
    if (n.properties.empty() && n.other_fields == nullptr) return true;
    for (const auto& [name, item] : v.get_ref<const Json::object_t&>()) {
      if (!look()) return false;
      const auto property = n.properties.find(name);
      const Node* const of = property != n.properties.end() ? property->second : n.other_fields;
      if (of != nullptr && !satisfies(item, *of)) return false;
    }
    return true;
  }

  bool array_holds(const Json& v, const Node& n) {
    if (v.size() < n.items_least.value_or(0) || (n.items_most && v.size() > *n.items_most))
      return false;
    for (size_t i = 0; i < v.size(); ++i) {
      const Node* const of = i < n.first_items.size() ? n.first_items[i] : n.other_items;
      if (of != nullptr && !satisfies(v[i], *of)) return false;
    }
    return true;
  }

  enum class Answer { kOpen, kYes, kNo };

  const std::vector<std::shared_ptr<const grammar::Constraint>>& patterns_;
  std::deque<std::optional<grammar::Matcher>> matchers_;
  std::map<std::pair<const Json*, const Node*>, Answer> answers_;
  int64_t looks_ = 0, came_back_ = 0;
  int within_ = 0;
};

}  // namespace

Result<SchemaCheck> SchemaCheck::compile(const std::string& schema) {
  // That it is JSON, of keywords that are known, and that some document satisfies it.
  TRY(grammar::schema_automaton(schema, "the schema"));
  TRY_ASSIGN(const SchemaJson root, parse_ordered_json(schema, "the schema"));
  auto compiled = std::make_shared<Compiled>();
  TRY(Compiler(root, compiled->nodes, compiled->patterns).run());
  return SchemaCheck(std::move(compiled));
}

bool SchemaCheck::satisfied_by(std::string_view text) const {
  if (text.size() > kAnswerBytesMax) return false;
  const Result<Json> document = parse_json(text, "the answer");
  return document && Validator(compiled_->patterns).satisfies(*document, compiled_->nodes.front());
}

}  // namespace ferry::rl
