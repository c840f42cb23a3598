// That a schema takes no longer, and no more memory, than its size and the limits allow; a refusal names the limit.
#include <gtest/gtest.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "grammar/answer_form.h"
#include "grammar/grammar_testing.h"
#include "grammar/schema_merge.h"

namespace ferry::grammar {
namespace {

using Json = nlohmann::ordered_json;

/// The processor's time that this takes, whatever else the machine does.
double refusal_s(const std::string& schema) {
  const std::clock_t began = std::clock();
  refusal(schema);
  return static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
}

/// `text` for each number below `count`, between commas; in it @ is the number.
std::string each(int count, const std::string& text) {
  std::string out;
  for (int i = 0; i < count; ++i) {
    if (i > 0) out += ',';
    for (const char c : text)
      if (c == '@')
        out += std::to_string(i);
      else
        out += c;
  }
  return out;
}

// Where the constant is converted for each value, four times as much takes sixteen times as long.
TEST(SchemaLimits, AConstantBesideManyValuesIsReadOnce) {
  const auto schema = [](int count) {
    std::string zeros = "0", objects = "{}";
    for (int i = 1; i < count; ++i) {
      zeros += ",0";
      objects += ",{}";
    }
    return R"({"enum": [)" + zeros + R"(], "const": [)" + objects + "]}";
  };
  EXPECT_NE(refusal(schema(10)).find("nothing satisfies"), std::string::npos);
  EXPECT_LT(refusal_s(schema(12'000)), 9 * refusal_s(schema(3'000)) + 0.1);
}

// Where they are not, this takes minutes.
TEST(SchemaLimits, ValuesThatManyFieldsAreGivenAreLimited) {
  std::string names = "\"a\"", zeros = "0";
  for (int i = 0; i < 4000; ++i) names += ",\"" + std::to_string(i) + "\"";
  for (int i = 0; i < 200'000; ++i) zeros += ",0";
  for (const auto& [keyword, part] :
       {std::pair("enum", "more than 50000 schemas"), {"const", "it needs more than"}}) {
    const std::string schema = R"({"required": [)" + names + R"(], "additionalProperties": {")" +
                               keyword + "\": [" + zeros + "]}}";
    EXPECT_NE(refusal(schema).find(part), std::string::npos) << keyword;
    EXPECT_LT(refusal_s(schema), 10) << keyword;
  }
}

TEST(SchemaLimits, PlacesOfLongNamesStayShort) {
  const std::string name(50'000, 'n');
  const std::string why =
      refusal(R"({"properties": {")" + name + R"(": {"properties": {"b": {"not": 1}}}}})");
  EXPECT_NE(why.find("'not' is not supported"), std::string::npos) << why;
  EXPECT_LT(why.size(), 2000u);
}

TEST(SchemaLimits, WhatOnlyExplainsIsLeftOut) {
  const Json root = Json::parse(
      R"({"$defs": {"a": {"type": "string", "description": "d", "title": "t", "x-y": 1}}})");
  const Json limit = Json::parse(R"({"maxLength": 3, "examples": ["e"]})");
  SchemaWork work;
  const auto both =
      References(root, work)
          .merge(Json::parse(R"({"$ref": "#/$defs/a", "title": "u"})"), limit, "schema");
  ASSERT_TRUE(both) << both.error().message;
  EXPECT_EQ(json_text(*both), R"({"type":"string","maxLength":3})");
}

// Pydantic writes a Literal so.
TEST(SchemaLimits, ATypeBesideGivenValuesCostsNothing) {
  const std::string parameters =
      R"({"properties": {)" + each(400, R"("p@": {"type": "string", "enum": ["a", "b"]})") + "}}";
  EXPECT_EQ(refusal(parameters), "taken");
}

// Where each tool has limits of its own, 512 of them take a minute.
TEST(SchemaLimits, HoldForAllToolsOfARequestTogether) {
  const std::string parameters = R"({"$defs": {"a": {"enum": [)" + each(20'000, "0") +
                                 R"(]}}, "properties": {"b": {"anyOf": [)" +
                                 each(30, R"({"$ref": "#/$defs/a", "maxLength": 3})") + "]}}}";
  AnswerForm form;
  form.kind = AnswerForm::Kind::kCalls;
  form.syntax = text::ToolSyntax::kHermes;
  form.tools = {{"f", parameters}};
  const auto one = answer_automaton(form);
  EXPECT_TRUE(one) << one.error().message;
  form.tools.push_back({"g", parameters});
  const auto two = answer_automaton(form);
  ASSERT_FALSE(two);
  EXPECT_NE(two.error().message.find("tool 'g'"), std::string::npos) << two.error().message;
}

TEST(SchemaLimits, ManyCopiesOfALongExplanationAreNoneAtAll) {
  const std::string target =
      R"({"type": "string", "description": ")" + std::string(500'000, 'd') + "\"}";
  const std::string ref = R"({"$ref": "#/$defs/a", "maxLength": 3})";
  EXPECT_EQ(refusal(R"({"$defs": {"a": )" + target + R"(}, "anyOf": [)" + each(1000, ref) + "]}"),
            "taken");
}

TEST(SchemaLimits, TextsThatAreCopiedAreLimited) {
  const std::string named =
      R"("properties": {"a": {"title": ")" + std::string(500'000, 't') + "\"}}";
  const std::string ref = R"({"$ref": "#/$defs/a", "required": ["a"]})";
  for (const std::string& schema :
       {R"({"$defs": {"a": {)" + named + R"(}}, "anyOf": [)" + each(2000, ref) + "]}",
        // What the other part leaves as it is counts, too.
        "{" + named + R"(, "anyOf": [)" + each(2000, "true") + "]}",
        "{" + named + R"(, "allOf": [)" + each(2000, "{}") + "]}"}) {
    const std::string why = refusal(schema);
    EXPECT_NE(why.find("67108864 bytes of text"), std::string::npos) << why;
  }
}

TEST(SchemaLimits, ARefusalOfVariantsNamesTheLimit) {
  const auto variants = [](int count, const char* key) {
    return R"({"oneOf": [)" +
           each(count,
                R"({"type": "object", "required": ["k"], "properties": {")" + std::string(key) +
                    R"(": {"const": @}}})") +
           "]}";
  };
  EXPECT_NE(refusal(variants(2, "l")).find("may satisfy both 0 and 1"), std::string::npos);
  EXPECT_NE(refusal(variants(1000, "k")).find("1000000 values"), std::string::npos);
}

// Where a field is looked for by going through all, four times as many take sixteen times as long.
TEST(SchemaLimits, ManyFieldsAreLookedUp) {
  const auto twice = [](const std::string& of, const std::string& one, const std::string& other) {
    return R"({")" + of + R"(": [)" + one + "," + other + "]}";
  };
  const auto fields = [&](int count) {
    return twice("allOf",
                 R"({"properties": {)" + each(count, R"("@":1)") + "}}",
                 R"({"properties": {)" + each(count, R"("a@":1)") + "}}");
  };
  const auto keywords = [&](int count) {
    return twice(
        "allOf", "{" + each(count, R"("@":1)") + "}", "{" + each(count, R"("a@":1)") + "}");
  };
  const auto variants = [&](int count) {
    const std::string variant = R"({"type": "object", "required": [)" + each(count, R"("@")") +
                                R"(], "properties": {)" + each(count, R"("@":true)") + "}}";
    return twice("oneOf", variant, variant);
  };
  EXPECT_NE(refusal(fields(3'000)).find("more than 4096 fields"), std::string::npos);
  EXPECT_NE(refusal(keywords(10)).find("'0' is not supported"), std::string::npos);
  EXPECT_NE(refusal(variants(10)).find("may satisfy both"), std::string::npos);
  EXPECT_LT(refusal_s(fields(20'000)), 9 * refusal_s(fields(5'000)) + 0.1);
  EXPECT_LT(refusal_s(keywords(20'000)), 9 * refusal_s(keywords(5'000)) + 0.1);
  EXPECT_LT(refusal_s(variants(20'000)), 9 * refusal_s(variants(5'000)) + 0.1);
}

}  // namespace
}  // namespace ferry::grammar
