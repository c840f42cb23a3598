// Answers that satisfy a schema and those that do not, in any order and spelling, and that no schema or answer takes
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
