#include "rl/schema_check.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/json.h"
#include "grammar/schema.h"
#include "grammar/schema_merge.h"

namespace ferry::rl {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kAnswerBytesMax = size_t{64} << 10;
constexpr int64_t kLooksMax = 1'000'000;          // at a schema, for one answer
constexpr double kExactMax = 9007199254740992.0;  // doubles up to here hold every whole number

/// A token for each byte: texts are read, none is written.
std::shared_ptr<const grammar::Vocabulary> bytes_alone() {
  static const std::shared_ptr<const grammar::Vocabulary> vocabulary = [] {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
    return grammar::Vocabulary::of(std::move(tokens));
  }();
  return vocabulary;
}

bool reads(const std::shared_ptr<const grammar::Constraint>& constraint, std::string_view text) {
  grammar::Matcher matcher(constraint);
  return matcher.accept(text) && matcher.may_end();
}

/// Brings the fields of a document into the order in which its schema names them.
class Ordering {
 public:
  explicit Ordering(const Json& root) : root_(root), references_(root) {}

  Json ordered(const Json& value) { return ordered(value, {&root_}); }
  bool gave_up() const { return looks_ > kLooksMax; }

 private:
  using Schemas = std::vector<const Json*>;

  /// The schemas and all that they are put together from, each once. A list of alternatives counts whole: what is none
  /// of the value's only names fields that it does not have.
  Schemas all_of(const Schemas& given) {
    Schemas all;
    std::set<const Json*> seen;
    Schemas open(given.rbegin(), given.rend());  // the first is looked at first
    while (!open.empty() && !gave_up()) {
      const Json* const s = open.back();
      open.pop_back();
      ++looks_;
      if (!s->is_object() || !seen.insert(s).second) continue;
      all.push_back(s);
      Schemas parts;
      if (s->contains("$ref"))
        if (const auto found = references_.find((*s)["$ref"], "")) parts.push_back(*found);
      for (const char* list : {"allOf", "anyOf", "oneOf"})
        if (s->contains(list) && (*s)[list].is_array())
          for (const Json& part : (*s)[list]) parts.push_back(&part);
      open.insert(open.end(), parts.rbegin(), parts.rend());
    }
    return all;
  }

  Json ordered(const Json& value, const Schemas& given) {
    if (value.is_number_float()) return whole_if_it_is(value);
    if (!value.is_structured() || gave_up()) return value;
    const Schemas schemas = all_of(given);
    return value.is_array() ? ordered_array(value, schemas) : ordered_object(value, schemas);
  }

  /// 2.0 is an integer to a schema.
  static Json whole_if_it_is(const Json& value) {
    const auto number = value.get<double>();
    if (number != std::floor(number) || std::abs(number) > kExactMax) return value;
    return static_cast<int64_t>(number);
  }

  Json ordered_array(const Json& value, const Schemas& schemas) {
    Json out = Json::array();
    for (const Json& item : value) {
      Schemas below;
      for (const Json* s : schemas) {
        // Drafts before 2020-12 call the first items' list "items".
        const char* rest = "items";
        for (const char* list : {"prefixItems", "items"}) {
          if (!s->contains(list) || !(*s)[list].is_array()) continue;
          if (list == std::string_view("items")) rest = "additionalItems";
          if (out.size() < (*s)[list].size()) {
            below.push_back(&(*s)[list][out.size()]);
            rest = nullptr;
            break;
          }
        }
        if (rest != nullptr && s->contains(rest)) below.push_back(&(*s)[rest]);
        ++looks_;
      }
      out.push_back(ordered(item, below));
    }
    return out;
  }

  Json ordered_object(const Json& value, const Schemas& schemas) {
    std::vector<std::string> keys;
    std::set<std::string> placed;
    const auto place = [&](const std::string& key) {
      if (value.contains(key) && placed.insert(key).second) keys.push_back(key);
    };
    for (const Json* s : schemas)
      if (s->contains("properties") && (*s)["properties"].is_object())
        for (const auto& property : (*s)["properties"].items()) {
          ++looks_;
          place(property.key());
        }
    for (const auto& field : value.items()) place(field.key());
    Json out = Json::object();
    for (const std::string& key : keys) {
      Schemas below;
      for (const Json* s : schemas) {
        ++looks_;
        if (s->contains("properties") && (*s)["properties"].contains(key))
          below.push_back(&(*s)["properties"][key]);
        else if (s->contains("additionalProperties"))
          below.push_back(&(*s)["additionalProperties"]);
      }
      out[key] = ordered(value[key], below);
    }
    return out;
  }

  const Json& root_;
  grammar::References references_;
  int64_t looks_ = 0;
};

}  // namespace

Result<SchemaCheck> SchemaCheck::compile(const std::string& schema) {
  TRY_ASSIGN(std::shared_ptr<const grammar::Automaton> automaton,
             grammar::schema_automaton(schema, "the schema"));
  // It is JSON, or there would be no automaton.
  return SchemaCheck(std::make_shared<const Json>(Json::parse(schema)),
                     std::make_shared<const grammar::Constraint>(
                         grammar::Constraint{std::move(automaton), bytes_alone()}));
}

bool SchemaCheck::satisfied_by(std::string_view text) const {
  if (text.size() > kAnswerBytesMax) return false;
  if (!parse_json(text, "the answer")) return false;
  if (reads(constraint_, text)) return true;
  Ordering ordering(*schema_);
  const Json document = ordering.ordered(Json::parse(text));
  return !ordering.gave_up() && reads(constraint_, json_text(document));
}

}  // namespace ferry::rl
