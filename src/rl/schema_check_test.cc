// Answers that satisfy a schema and those that do not, however both are written, and that no schema or answer takes
// longer than it may.
#include "rl/schema_check.h"

#include <gtest/gtest.h>

#include "base/clock.h"

namespace ferry::rl {
namespace {

bool satisfies(const std::string& schema, std::string_view answer) {
  const auto check = SchemaCheck::compile(schema);
  EXPECT_TRUE(check) << schema << ": " << check.error().message;
  return check && check->satisfied_by(answer);
}

constexpr const char* kPerson = R"({
  "type": "object",
  "properties": {
    "name": {"type": "string", "minLength": 1},
    "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 3}
  },
  "required": ["name", "age"],
  "additionalProperties": false,
  "$defs": {"tag": {"type": "object",
                    "properties": {"key": {"type": "string"}, "value": {"type": "number"}},
                    "required": ["key", "value"]}}
})";

TEST(SchemaCheck, OrderAndSpellingDoNotCount) {
  for (const char* right :
       {R"({"name": "Ada", "age": 36})",
        R"({"age":36,"name":"Ada"})",
        R"({"age": 36.0, "name": "Ad\u0061"})",
        "\n{ \"age\" :36 ,\n\n\t\"name\":\"\\u00e9\"}\n",
        R"({"tags": [{"value": 1.5, "key": "a", "more": [1]}, {"key": "b", "value": -2}],
                                "age": 0, "name": "x"})"})
    EXPECT_TRUE(satisfies(kPerson, right)) << right;
}

TEST(SchemaCheck, WhatDoesNotSatisfyIsWrong) {
  for (const char* wrong : {"",
                            "{}",
                            R"({"name": "Ada"})",
                            R"({"name": "", "age": 36})",
                            R"({"name": "Ada", "age": 36.5})",
                            R"({"name": "Ada", "age": 151})",
                            R"({"name": "Ada", "age": "36"})",
                            R"({"name": "Ada", "age": 36, "more": 1})",
                            R"({"name": "Ada", "age": 36, "age": 36})",
                            R"({"name": "Ada", "age": 36, "tags": [{"key": "a"}]})",
                            R"({"name": "Ada", "age": 36} {"name": "Ada", "age": 36})",
                            R"(```{"name": "Ada", "age": 36}```)",
                            R"({"name": "Ada", "age": 36)"})
    EXPECT_FALSE(satisfies(kPerson, wrong)) << wrong;
}

TEST(SchemaCheck, FieldsAreOrderedThroughEveryWayToASchema) {
  constexpr const char* kPoint =
      R"({"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
          "required": ["x", "y"]})";
  const std::string point(kPoint);
  for (const std::string& schema : {R"({"anyOf": [{"type": "null"}, )" + point + "]}",
                                    R"({"allOf": [)" + point + "]}",
                                    R"({"$ref": "#/$defs/p", "$defs": {"p": )" + point + "}}"})
    EXPECT_TRUE(satisfies(schema, R"({"y": 1, "x": 2})")) << schema;
  EXPECT_TRUE(satisfies(R"({"type": "object", "additionalProperties": )" + point + "}",
                        R"({"any": {"y": 1, "x": 2}})"));
  EXPECT_TRUE(
      satisfies(R"({"type": "array", "prefixItems": [{"type": "string"}], "items": )" + point + "}",
                R"(["a", {"y": 1, "x": 2}])"));
  EXPECT_FALSE(
      satisfies(R"({"type": "array", "prefixItems": [{"type": "string"}], "items": )" + point + "}",
                R"([{"y": 1, "x": 2}])"));
}

/// Whatever way a document and its schema are written: neither has an order, and numbers are what they are.
TEST(SchemaCheck, AreComparedAsValues) {
  struct Case {
    const char *schema, *answer;
    bool right;
  };
  const std::string branches = R"({"anyOf": [
      {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
       "required": ["a", "b"], "additionalProperties": false},
      {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}},
       "required": ["b", "a"], "additionalProperties": false}]})";
  const std::string one_of = R"({"oneOf": [
      {"type": "object", "properties": {"k": {"const": "a"}, "v": {"type": "integer"}}, "required": ["k", "v"]},
      {"type": "object", "properties": {"v": {"type": "string"}, "k": {"const": "b"}}, "required": ["k", "v"]}]})";
  const std::string list =
      R"({"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [{"type": "null"}, {"type": "object",
          "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/n"}},
          "required": ["v", "next"]}]}}})";
  for (
      const auto& [schema, answer, right] : std::vector<Case>{
          {R"({"type": "object", "required": ["name", "age"]})", R"({"age":1,"name":"x"})", true},
          {R"({"type": "object", "required": ["name", "age"]})", R"({"name":"x","age":1})", true},
          {R"({"type": "object", "required": ["name", "age"]})", R"({"name":"x"})", false},
          {R"({"const": {"b": 1, "a": 2}})", R"({"b":1,"a":2})", true},
          {R"({"const": {"b": 1, "a": 2}})", R"({"a":2,"b":1})", true},
          {R"({"const": {"b": 1, "a": 2}})", R"({"a":1,"b":2})", false},
          {R"({"const": {"b": 1, "a": [2.0]}})", R"({"a":[2],"b":1.0})", true},
          {R"({"enum": [2.0, "a"]})", "2", true},
          {R"({"enum": [2]})", "2.0", true},
          {R"({"enum": [2]})", "true", false},
          {R"({"enum": [2]})", "\"2\"", false},
          {R"({"enum": [1]})", "true", false},
          {R"({"enum": [100]})", "1e2", true},
          {R"({"const": 0.1})", "1e-1", true},
          {R"({"const": 9007199254740993})", "9007199254740992", false},
          {R"({"const": 18446744073709551615})", "18446744073709551614", false},
          {R"({"type": "number", "minimum": 0, "maximum": 1})", "1e-7", true},
          {R"({"type": "number", "minimum": 0, "maximum": 1})", "1.0000001", false},
          {R"({"type": "number", "exclusiveMinimum": 0})", "0.0", false},
          {R"({"type": "number", "exclusiveMinimum": 0})", "1e-9", true},
          {R"({"type": "number", "minimum": 0})", "1e25", true},
          {R"({"type": "integer"})", "1e25", true},
          {R"({"type": "integer"})", "9007199254740994.0", true},
          {R"({"type": "integer"})", "1e-7", false},
          {R"({"type": "integer", "maximum": 9007199254740992})", "9007199254740993", false},
          {branches.c_str(), R"({"b":2,"a":1})", true},
          {branches.c_str(), R"({"a":"s","b":2})", true},
          {branches.c_str(), R"({"b":2,"a":null})", false},
          {one_of.c_str(), R"({"k":"b","v":"s"})", true},
          {one_of.c_str(), R"({"v":1,"k":"a"})", true},
          {one_of.c_str(), R"({"v":1,"k":"b"})", false},
          {list.c_str(), R"({"next":{"v":2,"next":null},"v":1})", true},
          {list.c_str(), R"({"next":{"v":2},"v":1})", false},
          {R"({"type": "string", "pattern": "^[a-z]+$"})", R"("\u0061b")", true},
          {R"({"type": "string", "pattern": "^[a-z]+$"})", R"("aB")", false},
          {R"({"type": "string", "pattern": "b", "maxLength": 2})", R"("abc")", false},
          {R"({"type": "string", "format": "date"})", R"("2026-11-30")", true},
          {R"({"type": "string", "format": "date"})", R"("2026-11-31")", false},
          {R"({"type": "string", "minLength": 2})", R"("\ud83d\ude00")", false},
          {R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2})",
           "[1, 2e0]",
           true},
          {R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2})",
           "[1,2,3]",
           false},
          {R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2})",
           "[]",
           false},
          {R"({"type": "array", "items": [{"type": "string"}], "additionalItems": {"type": "integer"}})",
           R"(["a", 1])",
           true},
          {R"({"type": "array", "items": [{"type": "string"}], "additionalItems": {"type": "integer"}})",
           R"(["a", "b"])",
           false},
          {R"({"allOf": [{"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]},
                          {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}]})",
           R"({"a":1,"b":"s"})",
           false}})
    EXPECT_EQ(satisfies(schema, answer), right) << schema << "\n" << answer;
}

/// A document of 60 KB takes no more than its bytes: 40 times what one of 1.5 KB takes, not 1,600 times.
TEST(SchemaCheck, ManyFieldsAreJudgedAtOnce) {
  std::string answer = "{", properties;
  for (int n = 0; n < 5'500; ++n) answer += (n > 0 ? ",\"f" : "\"f") + std::to_string(n) + "\":1";
  answer += "}";
  for (int n = 0; n < 2'000; ++n)
    properties += (n > 0 ? ",\"f" : "\"f") + std::to_string(n) + "\":{\"type\":\"integer\"}";
  for (const std::string& schema :
       {std::string("{}"),
        std::string(R"({"type":"object","additionalProperties":{"type":"integer"}})"),
        R"({"type":"object","properties":{)" + properties + "}}"}) {
    const auto check = SchemaCheck::compile(schema);
    ASSERT_TRUE(check) << check.error().message;
    const double begin_s = system_clock().monotonic_s();
    EXPECT_TRUE(check->satisfied_by(answer)) << schema.substr(0, 80);
    EXPECT_LT(system_clock().monotonic_s() - begin_s, 1) << schema.substr(0, 80);
  }
}

TEST(SchemaCheck, ASchemaThatIsNotTakenIsNamed) {
  for (const auto& [schema, named] :
       {std::pair{R"({"type": "number", "multipleOf": 3})", "multipleOf"},
        {R"({"type": "string", "minLength": 2, "maxLength": 1})", ""},
        {"false", ""},
        {"{", ""}}) {
    const auto check = SchemaCheck::compile(schema);
    ASSERT_FALSE(check) << schema;
    EXPECT_NE(check.error().message.find(named), std::string::npos) << check.error().message;
  }
}

TEST(SchemaCheck, SchemasMayReferToThemselves) {
  const std::string lists =
      R"({"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "null"}]})";
  const auto nested = [](size_t levels) {
    return std::string(levels, '[') + "null" + std::string(levels, ']');
  };
  EXPECT_TRUE(satisfies(lists, nested(0)));
  EXPECT_TRUE(satisfies(lists, nested(64)));
  EXPECT_FALSE(satisfies(lists, nested(65))) << "deeper than JSON is read";
  EXPECT_FALSE(satisfies(lists, "[[1]]"));
  // By ways that come back to where they began without a value read between.
  const std::string round =
      R"({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]},
          "b": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "array", "items": {"$ref": "#/$defs/b"}}]}}})";
  EXPECT_TRUE(satisfies(round, "[[], [[]]]"));
  EXPECT_FALSE(satisfies(round, "[[], [1]]"));
}

/// Long, and within the limits.
TEST(SchemaCheck, LongEnumsAndPatternsAreHeld) {
  std::string values = R"({"enum": [0)", chain = R"({"$ref": "#/$defs/n0", "$defs": {)";
  for (int i = 1; i < 12'000; ++i) values += "," + std::to_string(i);
  for (int i = 0; i < 90; ++i)
    chain +=
        "\"n" + std::to_string(i) + R"(": {"$ref": "#/$defs/n)" + std::to_string(i + 1) + "\"},";
  values += "]}";
  chain += R"("n90": {"type": "integer"}}})";
  EXPECT_TRUE(satisfies(values, "11999"));
  EXPECT_FALSE(satisfies(values, "12000"));
  EXPECT_TRUE(satisfies(chain, "7"));
  EXPECT_FALSE(satisfies(chain, "\"7\""));
  const std::string pattern = R"({"type": "string", "pattern": "^(?:a{100}){100}$"})";
  for (const size_t n : {size_t{9'999}, size_t{10'000}, size_t{10'001}})
    EXPECT_EQ(satisfies(pattern, '"' + std::string(n, 'a') + '"'), n == 10'000) << n;
}

/// What is too large is said to be, and not that nothing satisfies it.
TEST(SchemaCheck, ALimitIsNamedAsOne) {
  std::string values = R"({"enum": ["")", within, chain = R"({"$ref": "#/$defs/n0", "$defs": {)";
  for (int i = 0; i < 60'000; ++i) values += ",\"" + std::to_string(i * 2654435761LL % 9999999967) + "x\"";
  for (int i = 0; i < 60; ++i) within += R"({"allOf": [)";
  for (int i = 0; i < 200; ++i)
    chain +=
        "\"n" + std::to_string(i) + R"(": {"$ref": "#/$defs/n)" + std::to_string(i + 1) + "\"},";
  values += "]}";
  within += "true" + std::string(60, ' ');
  for (int i = 0; i < 60; ++i) within += "]}";
  chain += R"("n200": {"type": "integer"}}})";
  for (const auto& [schema, named] :
       {std::pair{values, "states"},
        {within, "levels"},
        {chain, "or only what nests deeper than 96 levels"},
        {std::string(R"({"type": "string", "pattern": "^(?:a{200}){200}$"})"),
         "unfolds to more than"},
        {std::string(R"({"$ref": "#"})"), "nothing satisfies it, or only what nests deeper"},
        {"{\"title\": \"" + std::string(1 << 20, 'a') + "\"}", "is longer than"}}) {
    const auto check = SchemaCheck::compile(schema);
    ASSERT_FALSE(check) << schema.substr(0, 80);
    EXPECT_NE(check.error().message.find(named), std::string::npos) << check.error().message;
  }
}

/// Whatever the two are, the judge comes to an end soon, and what it cannot tell is wrong.
TEST(SchemaCheck, HostileAnswersTakeNoLongerThanTheyMay) {
  // Each level may be one of many schemas that refer to all of them again.
  std::string tree = R"({"$ref": "#/$defs/n0", "$defs": {)";
  for (int n = 0; n < 12; ++n) {
    tree += (n > 0 ? "," : "") + std::string("\"n") + std::to_string(n) +
            R"(": {"type": "object", "properties": {"k)" + std::to_string(n) +
            R"(": {"type": "string"}, "below": {"anyOf": [)";
    for (int m = 0; m < 12; ++m)
      tree +=
          (m > 0 ? "," : "") + std::string(R"({"$ref": "#/$defs/n)") + std::to_string(m) + "\"}";
    tree += "]}}}";
  }
  tree += "}}";
  std::string deep, wide = "[", nested(60'000, '[');
  for (int n = 0; n < 60; ++n) deep += R"({"z": 1, "k3": "s", "below": )";
  deep += "{}" + std::string(60, '}');
  for (int n = 0; n < 20'000; ++n) wide += "{},";
  wide += "{}]";
  const double begin_s = system_clock().monotonic_s();
  for (const std::string& schema : {tree, std::string("{}"), std::string(kPerson)})
    for (const std::string& answer : {deep, wide, nested, std::string(100'000, '1')})
      static_cast<void>(satisfies(schema, answer));
  EXPECT_LT(system_clock().monotonic_s() - begin_s, 60);
  EXPECT_FALSE(satisfies("{}", nested));
  EXPECT_FALSE(satisfies(R"({"type": "string"})", '"' + std::string(100'000, 'a') + '"'));
}

}  // namespace
}  // namespace ferry::rl
