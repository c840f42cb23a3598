// Schemas that are drawn, and documents: what a walk under the masks gives satisfies the schema, as a
// validator judges that shares nothing with the automaton; and documents that satisfy it are read.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "grammar/grammar_testing.h"
#include "grammar/schema.h"
#include "text/utf8.h"

namespace ferry::grammar {
namespace {

using Json = nlohmann::ordered_json;

bool equal(const Json& a, const Json& b) { return nlohmann::json(a) == nlohmann::json(b); }

/// A pattern, a text that matches, and what matching it means, in words of its own.
struct Pattern {
  std::string pattern, example;
  bool (*matches)(std::u32string);
};

bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }

const std::vector<Pattern> kPatterns = {
    {"^[a-c]{2,4}$",
     "abc",
     [](std::u32string v) {
       return v.size() >= 2 && v.size() <= 4 && v.find_first_not_of(U"abc") == v.npos;
     }},
    {"x(y|z)*$",
     "quxyz",
     [](std::u32string v) {
       const size_t last = v.find_last_not_of(U"yz");
       return last != v.npos && v[last] == 'x';
     }},
    {"^\\d+\\.\\d{2}",
     "12.345",
     [](std::u32string v) {
       const size_t point = v.find('.');
       return point != v.npos && point > 0 &&
              std::all_of(v.begin(), v.begin() + static_cast<long>(point), is_digit) &&
              v.size() >= point + 3 && is_digit(v[point + 1]) && is_digit(v[point + 2]);
     }},
    {"^(?:ab|c?)d+?[^e\"]$",
     "cdd!",
     [](std::u32string v) {
       if (v.empty() || v.back() == 'e' || v.back() == '"') return false;
       v.pop_back();
       if (v.starts_with(U"ab"))
         v.erase(0, 2);
       else if (v.starts_with(U"c"))
         v.erase(0, 1);
       return !v.empty() && v.find_first_not_of(U"d") == v.npos;
     }},
    {"[\"\\\\]", "a\"b", [](std::u32string v) { return v.find_first_of(U"\"\\") != v.npos; }}};

/// Of JSON Schema, what Drawer uses. `spelled`: fields must also stand as automata have them.
class Validator {
 public:
  explicit Validator(const Json& root, bool spelled = false) : root_(root), spelled_(spelled) {}

  bool valid(const Json& s, const Json& v) const {
    if (s.is_boolean()) return s.get<bool>();
    if (s.contains("$ref") &&
        !valid(root_.at(Json::json_pointer(s["$ref"].get<std::string>().substr(1))), v))
      return false;
    if (s.contains("type")) {
      const Json types = s["type"].is_array() ? s["type"] : Json::array({s["type"]});
      if (std::none_of(types.begin(), types.end(), [&](const Json& t) { return is(t, v); }))
        return false;
    }
    if (s.contains("enum") && std::none_of(s["enum"].begin(), s["enum"].end(), [&](const Json& e) {
          return equal(e, v);
        }))
      return false;
    if (s.contains("const") && !equal(s["const"], v)) return false;
    const auto holds = [&](const Json& part) { return valid(part, v); };
    if (s.contains("allOf") && !std::all_of(s["allOf"].begin(), s["allOf"].end(), holds))
      return false;
    if (s.contains("anyOf") && std::none_of(s["anyOf"].begin(), s["anyOf"].end(), holds))
      return false;
    if (v.is_number()) return number(s, v.get<double>());
    if (v.is_string()) return string(s, v.get<std::string>());
    if (v.is_array()) return array(s, v);
    return !v.is_object() || object(s, v);
  }

 private:
  static bool is(const Json& type, const Json& v) {
    if (type == "integer")
      return v.is_number_integer() ||
             (v.is_number() && std::floor(v.get<double>()) == v.get<double>());
    return v.is_number() ? type == "number" : type == v.type_name();
  }
  static bool number(const Json& s, double v) {
    return !(s.contains("minimum") && v < s["minimum"].get<double>()) &&
           !(s.contains("maximum") && v > s["maximum"].get<double>()) &&
           !(s.contains("exclusiveMinimum") && v <= s["exclusiveMinimum"].get<double>()) &&
           !(s.contains("exclusiveMaximum") && v >= s["exclusiveMaximum"].get<double>());
  }
  static bool string(const Json& s, const std::string& v) {
    const std::u32string points = text::utf8_points(v);
    if (s.contains("minLength") && points.size() < s["minLength"].get<size_t>()) return false;
    if (s.contains("maxLength") && points.size() > s["maxLength"].get<size_t>()) return false;
    if (!s.contains("pattern")) return true;
    const auto is_it = [&](const Pattern& p) { return s["pattern"] == p.pattern; };
    return std::find_if(kPatterns.begin(), kPatterns.end(), is_it)->matches(points);
  }
  bool array(const Json& s, const Json& v) const {
    if (s.contains("minItems") && v.size() < s["minItems"].get<size_t>()) return false;
    if (s.contains("maxItems") && v.size() > s["maxItems"].get<size_t>()) return false;
    const size_t listed = s.contains("prefixItems") ? s["prefixItems"].size() : 0;
    for (size_t i = 0; i < v.size(); ++i)
      if (i < listed ? !valid(s["prefixItems"][i], v[i])
                     : s.contains("items") && !valid(s["items"], v[i]))
        return false;
    return true;
  }
  bool in_order(const Json& s, const Json& v) const {
    std::vector<std::string> names;
    if (s.contains("properties"))
      for (const auto& [name, of] : s["properties"].items()) names.push_back(name);
    if (s.contains("required"))
      for (const Json& name : s["required"])
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    auto last = names.begin();
    for (const auto& [name, field] : v.items()) {
      const auto at = std::find(names.begin(), names.end(), name);
      if (at < last || (at == names.end() && name.find('"') != name.npos)) return false;
      last = at;
    }
    return true;
  }
  bool object(const Json& s, const Json& v) const {
    if (spelled_ && !in_order(s, v)) return false;
    if (s.contains("required"))
      for (const Json& name : s["required"])
        if (!v.contains(name.get<std::string>())) return false;
    for (const auto& [name, field] : v.items())
      if (s.contains("properties") && s["properties"].contains(name)) {
        if (!valid(s["properties"][name], field)) return false;
      } else if (s.contains("additionalProperties") && !valid(s["additionalProperties"], field)) {
        return false;
      }
    return true;
  }
  const Json& root_;
  bool spelled_;
};

/// Draws schemas, and documents that may satisfy them.
class Drawer {
 public:
  explicit Drawer(uint64_t seed) : random_(seed, RandomPurpose::kTest, 1) {}

  Json root() {
    Json s = schema(3);
    if (s.is_boolean()) s = Json::object();
    s["$defs"] = {
        {"leaf", leaf()},
        {"tree",
         {{"type", "object"},
          {"properties",
           {{"v", schema(0)},
            {"kids", {{"type", "array"}, {"items", {{"$ref", "#/$defs/tree"}}}, {"maxItems", 2}}}}},
          {"required", {"kids"}}}}};
    return s;
  }

  Json leaf() {
    Json s = schema(1);
    while (s.dump().find("$ref") != std::string::npos) s = schema(1);
    return s;
  }

  Json schema(int depth) {
    switch (below(depth > 0 ? 14 : 8)) {
      case 0: return whole({{"type", "integer"}});
      case 1: return fraction({{"type", "number"}});
      case 2: {
        Json s = {{"type", "string"}};
        if (coin()) s["minLength"] = below(3);
        if (coin()) s["maxLength"] = 2 + below(4);
        return s;
      }
      case 3: return {{"type", "string"}, {"pattern", kPatterns[below(kPatterns.size())].pattern}};
      case 4: return {{"enum", {"é", 3, nullptr, "a\"b", {{"k", {1, 2}}}}}};
      case 5: return {{"const", "a"}};
      case 6: return {{"type", {"boolean", "null"}}};
      case 7: return coin() ? Json(true) : Json{{"type", "integer"}, {"minimum", -3}};
      case 8:
      case 9: return object(depth);
      case 10: return array(depth);
      case 11: return {{"anyOf", {schema(depth - 1), schema(depth - 1)}}};
      case 12:
        switch (below(3)) {
          case 0: return {{"allOf", {object(depth - 1), object(depth - 1)}}};
          case 1: return {{"allOf", {array(depth - 1), array(depth - 1)}}};
          default: return {{"allOf", {schema(depth - 1), schema(depth - 1)}}};
        }
      default: return {{"$ref", coin() ? "#/$defs/leaf" : "#/$defs/tree"}};
    }
  }

  /// A document that the schema describes; not all of it need hold.
  Json document(const Json& root, const Json& s, int depth) {
    if (s.is_boolean()) return s.get<bool>() ? any(depth) : Json();
    if (s.contains("$ref"))
      return document(
          root, root.at(Json::json_pointer(s["$ref"].get<std::string>().substr(1))), depth - 1);
    if (s.contains("const")) return s["const"];
    if (s.contains("enum")) return s["enum"][below(s["enum"].size())];
    for (const char* several : {"anyOf", "allOf"})
      if (s.contains(several)) return document(root, s[several][below(s[several].size())], depth);
    if (!s.contains("type")) return any(depth);
    const Json type = s["type"].is_array() ? s["type"][below(s["type"].size())] : s["type"];
    if (type == "null") return nullptr;
    if (type == "boolean") return coin();
    if (type == "integer" || type == "number") return static_cast<int64_t>(below(40)) - 20;
    if (type == "string") return text(s);
    if (type == "array") {
      Json out = Json::array();
      const size_t listed = s.contains("prefixItems") ? s["prefixItems"].size() : 0;
      for (size_t i = 0, n = depth > 0 ? below(4) : 0; i < n; ++i)
        out.push_back(document(root,
                               i < listed            ? s["prefixItems"][i]
                               : s.contains("items") ? s["items"]
                                                     : Json(true),
                               depth - 1));
      return out;
    }
    Json out = Json::object();
    if (s.contains("properties"))
      for (const auto& [name, of] : s["properties"].items())
        if (coin() ||
            (s.contains("required") &&
             std::find(s["required"].begin(), s["required"].end(), name) != s["required"].end()))
          out[name] = document(root, of, depth - 1);
    if (coin())
      out["zz"] =
          document(root,
                   s.contains("additionalProperties") ? s["additionalProperties"] : Json(true),
                   depth - 1);
    return out;
  }

 private:
  uint64_t below(uint64_t n) { return random_.below(draws_++, n); }
  bool coin() { return below(2) == 0; }
  Json any(int depth) {
    if (depth > 0 && coin()) return {{"x", any(depth - 1)}};
    return coin() ? Json("é\n\"") : Json(below(100));
  }
  Json text(const Json& s) {
    if (s.contains("pattern"))
      for (const Pattern& p : kPatterns)
        if (s["pattern"] == p.pattern) return p.example;
    std::string out;
    for (uint64_t n = below(6); n > 0; --n)
      out += std::vector<std::string>{"a", "é", "\"", "\n", "😀", "/"}[below(6)];
    return out;
  }
  Json whole(Json s) {
    if (coin())
      s[coin() ? "minimum" : "exclusiveMinimum"] = static_cast<int64_t>(below(2000)) - 1000;
    if (coin())
      s[coin() ? "maximum" : "exclusiveMaximum"] = static_cast<int64_t>(below(2000)) - 500;
    return s;
  }
  Json fraction(Json s) {
    const auto value = [&] {
      return (static_cast<double>(below(4000)) - 2000) / (coin() ? 8 : 100);
    };
    if (coin()) s[coin() ? "minimum" : "exclusiveMinimum"] = value();
    if (coin()) s[coin() ? "maximum" : "exclusiveMaximum"] = value() + 10;
    return s;
  }
  Json array(int depth) {
    Json s = {{"type", "array"}};
    if (coin()) s["items"] = schema(depth - 1);
    if (below(3) == 0) s["prefixItems"] = {schema(depth - 1), schema(0)};
    if (coin()) s["minItems"] = below(3);
    if (coin()) s["maxItems"] = 1 + below(4);
    return s;
  }
  Json object(int depth) {
    Json s = {{"type", "object"}};
    const std::vector<std::string> names = {"a", "ab", "b", "é\"", "long name"};
    for (const std::string& name : names)
      if (coin()) s["properties"][name] = schema(depth - 1);
    Json required = Json::array();
    for (const std::string& name : names)
      if (below(4) == 0) required.push_back(name);
    if (!required.empty()) s["required"] = required;
    if (coin()) s["additionalProperties"] = below(3) == 0 ? schema(0) : Json(false);
    return s;
  }

  Random random_;
  uint64_t draws_ = 0;
};

bool has_fractions(const Json& json) {
  if (json.is_number_float()) return true;
  return json.is_structured() && std::any_of(json.begin(), json.end(), has_fractions);
}

TEST(RandomSchema, WalksSatisfyItAndWhatSatisfiesItIsRead) {
  const auto vocabulary = vocabulary_with({"{\"",
                                           "\": ",
                                           "\", \"",
                                           "\"}",
                                           "},",
                                           "[[",
                                           "]]",
                                           "tru",
                                           "e\"",
                                           "\\u0",
                                           "12",
                                           "0.",
                                           "a\":",
                                           "  ",
                                           "\n  ",
                                           "é",
                                           "\xc3",
                                           "ab",
                                           "-1"});
  int satisfiable = 0, finished = 0, described = 0;
  std::ofstream walks;  // for tools/oracle/check_schema_walks.py
  if (const char* const path = std::getenv("FERRY_SCHEMA_WALKS")) walks.open(path);
  for (uint64_t seed = 0; seed < 400; ++seed) {
    Drawer drawer(seed);
    const Json schema = drawer.root();
    const std::string text = schema.dump();
    const auto automaton = schema_automaton(text, "schema");
    if (!automaton) {
      // What is drawn is supported, but where two demands would have to become one.
      const std::string& why = automaton.error().message;
      EXPECT_TRUE(why.find("nothing satisfies") != why.npos ||
                  why.find("cannot be put together") != why.npos ||
                  why.find("beside values that are given") != why.npos)
          << text << "\n"
          << why;
      continue;
    }
    ++satisfiable;
    const Validator validator(schema);
    for (uint64_t walk = 0; walk < 4; ++walk) {
      const std::string out =
          drawn(constraint_of(*automaton, vocabulary), seed * 8 + walk, 40 * walk, 20'000);
      if (out.empty()) continue;
      ++finished;
      const Json document = Json::parse(out, nullptr, false);
      ASSERT_FALSE(document.is_discarded()) << text << "\n" << out;
      EXPECT_TRUE(validator.valid(schema, document)) << text << "\n" << out;
      if (walks.is_open())
        walks << "{\"schema\": " << text << ", \"document\": " << document.dump() << "}\n";
      const bool canonical = !has_fractions(document);
      for (const int indent : {-1, 2}) {
        EXPECT_TRUE(!canonical || reads(*automaton, document.dump(indent))) << text << "\n"
                                                                            << document.dump();
      }
    }
    for (int i = 0; i < 8; ++i) {
      const Json document = drawer.document(schema, schema, 4);
      if (!Validator(schema, true).valid(schema, document)) continue;
      ++described;
      for (const int indent : {-1, 4})
        EXPECT_TRUE(reads(*automaton, document.dump(indent))) << text << "\n" << document.dump();
    }
  }
  // Enough was tried.
  EXPECT_GT(satisfiable, 250);
  EXPECT_GT(finished, 3 * satisfiable);
  EXPECT_GT(described, satisfiable);
}
}  // namespace
}  // namespace ferry::grammar
