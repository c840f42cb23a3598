#include "grammar/schema.h"

#include <gtest/gtest.h>

#include "grammar/grammar_testing.h"

namespace ferry::grammar {
namespace {

std::shared_ptr<const Automaton> automaton(const std::string& schema) {
  auto out = schema_automaton(schema, "schema");
  if (!out) ADD_FAILURE() << schema << ": " << out.error().message;
  return out ? *out : nullptr;
}

void expect(const std::string& schema,
            const std::vector<std::string>& read,
            const std::vector<std::string>& refused) {
  const auto a = automaton(schema);
  ASSERT_TRUE(a) << schema;
  for (const std::string& text : read) EXPECT_TRUE(reads(a, text)) << schema << "\n" << text;
  for (const std::string& text : refused) EXPECT_FALSE(reads(a, text)) << schema << "\n" << text;
}

TEST(Schema, AnyValueIsJson) {
  expect("{}",
         {"{}",
          "[]",
          "{ }",
          "null",
          "true",
          "\"\"",
          "-0.5e+7",
          "0",
          R"({"a": [1, {"b": "c"}], "d":null})",
          "{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}",
          R"("\u00e9\ud83d\ude00\n\/ é😀")"},
         {"",
          " {}",
          "{} ",
          "{,}",
          "[1,]",
          "01",
          "1.",
          ".5",
          "+1",
          "nul",
          "'a'",
          "{a:1}",
          "\"\n\"",
          R"("\x")",
          R"("\ud83d")",
          R"("\ude00")",
          R"("\ud83d\u0041")",
          "\"\xff\"",
          "\"\xc3\"",
          "\"\xed\xa0\x80\"",
          "[1  ,2]",
          "\"a"});
  expect("true", {"1", "{\"a\":1}"}, {"a"});
  EXPECT_NE(refusal("false").find("nothing satisfies"), std::string::npos);
}

TEST(Schema, Types) {
  expect(R"({"type": "integer"})",
         {"0", "-12", "123456789012345678901234567890", "-0"},
         {"1.0", "1e3", "\"1\""});
  expect(R"({"type": "number"})", {"0", "-1.25", "1E-9"}, {"null"});
  expect(R"({"type": ["string", "null"]})", {"null", "\"a\""}, {"1", "[]"});
  expect(R"({"type": "boolean"})", {"true", "false"}, {"True", "0"});
  expect(R"({"enum": ["a", 1, null, {"b": [1, 2]}, "ü\n"]})",
         {"\"a\"", "1", "null", "{\"b\":[1,2]}", "{\"b\": [1, 2]}", "\"ü\\n\""},
         {"\"b\"", "12", "{}"});
  expect(R"({"enum": ["a", 1, 2.5], "type": "integer"})", {"1"}, {"\"a\"", "2.5"});
  expect(
      R"({"enum": ["a", "bcd", 7, 2.0, 9], "type": ["integer", "string"], "maxLength": 2, "maximum": 8})",
      {"\"a\"", "7", "2.0"},
      {"\"bcd\"", "9"});
  expect(R"({"const": "x"})", {"\"x\""}, {"\"y\""});
  expect(R"({"enum": [{"b": 1, "a": 2}, 3], "const": {"a": 2, "b": 1}})",
         {R"({"b": 1, "a": 2})"},
         {"3"});
}

TEST(Schema, Objects) {
  const std::string schema =
      R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"},
          "c": {"type": "null"}}, "required": ["b"], "additionalProperties": false})";
  expect(schema,
         {R"({"a": 1, "b": "x", "c": null})",
          R"({"b":"x"})",
          "{\n\t\"b\": \"x\",\n\t\"c\": null\n}",
          R"({"a":1,"b":""})"},
         {"{}",
          R"({"a": 1})",
          R"({"b": "x", "a": 1})",
          R"({"b": "x", "d": 1})",
          R"({"b": "x",})",
          R"({"a": "x", "b": "x"})",
          R"({,"b": "x"})",
          R"({"b": "x" , "c": null})"});
  expect(
      R"({"properties": {"ab": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}})",
      {"{}",
       R"({"ab": 1})",
       R"({"ab": 1, "abc": true, "a": false, "": true})",
       R"({"x": true})",
       "3"},
      {R"({"ab": true})", R"({"x": true, "ab": true})", R"({"x": 1})", R"({"\u0061b": true})"});
  expect(
      R"({"type": "object", "required": ["z"]})", {R"({"z": 1, "y": 2})", R"({"z": 1})"}, {"{}"});
  EXPECT_NE(refusal(R"({"type": "object", "required": ["z"], "additionalProperties": false})")
                .find("nothing satisfies"),
            std::string::npos);
  // What need not be there and cannot be is left out.
  expect(
      R"({"type": "object", "properties": {"a": false, "b": {"enum": []}, "c": {"const": 1}},
          "additionalProperties": false})",
      {"{}", R"({"c": 1})"},
      {R"({"a": 1})"});
}

TEST(Schema, Arrays) {
  expect(R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3})",
         {"[1]", "[1, 2,3]"},
         {"[]", "[1, 2, 3, 4]", "[\"a\"]"});
  expect(R"({"type": "array", "items": {"type": "null"}})", {"[]", "[null, null]"}, {"[1]"});
  expect(R"({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3}})",
         {"[]", "[1]", "[1, 2]", "[1, 2, 3, 3]"},
         {"[2]", "[1, 3]", "[1, 2, 4]"});
  expect(R"({"type": "array", "items": [{"const": 1}], "additionalItems": false, "minItems": 1})",
         {"[1]"},
         {"[]", "[1, 1]"});
  expect(R"({"type": "array", "minItems": 2})", {"[1, []]", "[1, 2, 3]"}, {"[1]"});
}

/// Lists that are put together hold place by place, whichever of them names the place.
TEST(Schema, ListsArePutTogetherPlaceByPlace) {
  const std::string texts = R"({"type": "array", "items": {"type": "string"}})",
                    first = R"({"prefixItems": [{"type": "integer"}]})",
                    old =
                        R"({"items": [{"type": "integer"}], "additionalItems": {"minLength": 2}})",
                    loose = R"({"prefixItems": [{"minLength": 1}, {"enum": ["ab", "c", 3]}]})";
  const auto both = [](const std::string& a, const std::string& b) {
    return R"({"type": "array", "allOf": [)" + a + ", " + b + "]}";
  };
  for (const auto& [a, b] : {std::pair{texts, first}, {first, texts}})
    expect(both(a, b), {"[]"}, {"[1]", R"(["a"])", R"([1,"a"])"});
  for (const auto& [a, b] : {std::pair{texts, loose}, {loose, texts}})
    expect(both(a, b),
           {"[]", R"(["a"])", R"(["a","c"])", R"(["a","ab","d"])"},
           {R"([""])", R"(["a","d"])", R"(["a",3])", R"(["a","ab",1])"});
  for (const auto& [a, b] : {std::pair{old, loose}, {loose, old}})
    expect(both(a, b), {"[1]", R"([1,"ab","de"])"}, {R"([1,"c"])", R"([1,"ab","d"])", R"(["a"])"});
  // What earlier drafts say of items beyond a list says nothing where there is none.
  const std::string closed = R"({"items": [{"type": "integer"}], "additionalItems": false})";
  for (const auto& [a, b] : {std::pair{closed, texts}, {texts, closed}})
    expect(both(a, b), {"[]"}, {"[1]", R"(["a"])"});
  for (const auto& [a, b] : {std::pair{closed, first}, {first, closed}})
    expect(both(a, b), {"[]", "[1]"}, {"[1,2]", R"(["a"])"});
  expect(both(R"({"additionalItems": false})", R"({"items": [{"type": "integer"}]})"),
         {"[1,2]"},
         {R"(["a"])"});
  // Counts, and what no branch of alternatives may lose.
  expect(both(R"({"minItems": 1, "maxItems": 3})", R"({"minItems": 2, "items": {"type": "null"}})"),
         {"[null,null]", "[null,null,null]"},
         {"[null]", "[null,null,null,null]", "[null,1]"});
  expect(R"({"type": "array", "items": {"type": "string"},
             "anyOf": [{"prefixItems": [{"const": "a"}]}, {"prefixItems": [true, {"const": 1}]}]})",
         {R"(["a"])", R"(["a","b"])", R"(["b"])"},
         {R"(["b",1])", R"(["b","c"])", R"(["a",1])"});
  EXPECT_NE(refusal(both(R"({"items": [true], "prefixItems": [true]})", texts))
                .find("'items' is asked for twice"),
            std::string::npos);
}

/// An object's own fields are additional ones of what it is put together with.
TEST(Schema, FieldsOfOneAreTheOthersAdditionalOnes) {
  const std::string named = R"({"type": "object", "properties": {"a": {"type": "integer"}}})",
                    texts = R"({"additionalProperties": {"type": "string"}})",
                    closed = R"({"properties": {"b": true}, "additionalProperties": false})";
  for (const auto& [a, b] : {std::pair{named, texts}, {texts, named}})
    expect(R"({"type": "object", "allOf": [)" + a + ", " + b + "]}",
           {"{}", R"({"c":"x"})"},
           {R"({"a":1})", R"({"a":"x"})", R"({"c":1})"});
  for (const auto& [a, b] : {std::pair{named, closed}, {closed, named}})
    expect(R"({"type": "object", "allOf": [)" + a + ", " + b + "]}",
           {"{}", R"({"b":1})"},
           {R"({"a":1})", R"({"c":1})"});
}

TEST(Schema, Strings) {
  expect(R"({"type": "string", "minLength": 2, "maxLength": 3})",
         {"\"ab\"", "\"éöü\"", R"("\u00e9\ud83d\ude00x")", "\"😀😀\""},
         {"\"a\"", "\"abcd\"", "\"\""});
  expect(R"({"type": "string", "pattern": "^[a-z]+\\d{2,3}$"})",
         {"\"ab12\"", "\"z123\""},
         {"\"12\"", "\"ab1\"", "\"ab1234\"", "\" ab12\""});
  expect(R"({"type": "string", "pattern": "b+"})", {"\"abc\"", "\"b\""}, {"\"ac\"", "\"\""});
  expect(R"({"type": "string", "pattern": "^a|b$"})", {"\"ax\"", "\"xb\""}, {"\"xax\"", "\"bx\""});
  expect(R"({"type": "string", "pattern": "^.*$", "minLength": 2, "maxLength": 4})",
         {"\"ab\"", "\"a\\\"\\\\b\""},
         {"\"a\"", "\"abcde\"", "\"a\\nb\""});
  expect(R"({"type": "string", "pattern": "^(?:x|[^a-c\"]|\\t)(?<n>y)?\\u00e9\\/\\x41$"})",
         {"\"xyé/A\"", "\"dé/A\"", "\"\\té/A\""},
         {"\"ayé/A\"", "\"\\\"é/A\""});
  expect(R"({"type": "string", "format": "date"})",
         {"\"2026-11-29\""},
         {"\"2026-13-01\"", "\"2026-02-30\""});
  expect(R"({"type": "string", "format": "date-time"})",
         {"\"2026-11-29T02:03:04.5Z\""},
         {"\"2026-11-29\""});
  expect(R"({"type": "string", "format": "uuid"})",
         {"\"123e4567-e89b-12d3-a456-426614174000\""},
         {"\"123e4567\""});
  expect(
      R"({"type": "string", "format": "email"})", {"\"a.b@c-d.org\""}, {"\"a@b\"", "\"@c.org\""});
  expect(R"({"type": "string", "format": "ipv4"})", {"\"10.0.255.1\""}, {"\"256.1.1.1\""});
}

TEST(Schema, Bounds) {
  expect(R"({"type": "integer", "minimum": -7, "maximum": 123})",
         {"-7", "-1", "0", "9", "99", "100", "123"},
         {"-8", "-0", "124", "200", "1000", "00", "1.5"});
  expect(R"({"type": "integer", "exclusiveMinimum": 9, "maximum": 9007199254740991})",
         {"10", "9007199254740991"},
         {"9", "9007199254740992", "10000000000000000"});
  expect(R"({"type": "integer", "minimum": 95})",
         {"95", "100", "12345678901234567890"},
         {"94", "9", "-100"});
  expect(R"({"type": "integer", "maximum": -95.5})",
         {"-96", "-100", "-1234"},
         {"-95", "95", "0", "-9"});
  expect(R"({"type": "number", "minimum": 0, "maximum": 1})",
         {"0", "0.0", "0.55", "1", "1.000", "0.99999"},
         {"1.01", "-0.1", "2", "1.", "1e-3"});
  // No model can go on with digits for ever.
  for (const std::string& begun : std::vector<std::string>{"0.", "0.5", "1."})
    expect(R"({"type": "number", "minimum": 0, "maximum": 1})",
           {begun + std::string(42 - begun.size(), '0')},
           {begun + std::string(43 - begun.size(), '0')});
  expect(R"({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1.25})",
         {"0.001", "1", "1.0", "1.2", "1.249", "1.24999"},
         {"0", "0.0", "0.000", "1.25", "1.250", "1.3", "-1"});
  expect(R"({"type": "number", "minimum": -2.5, "exclusiveMaximum": -0.05})",
         {"-2.5", "-2.50", "-1", "-0.06", "-0.051", "-2.4999"},
         {"-2.51", "-0.05", "-0.050", "0", "-3", "1", "-0.04"});
  expect(R"({"type": "number", "minimum": 99.9})",
         {"99.9", "99.95", "100", "5000.1"},
         {"99.8", "9", "99", "-100"});
  expect(R"({"type": "number", "exclusiveMaximum": 0})", {"-0.1", "-5"}, {"0", "-0", "-0.0", "1"});
}

TEST(Schema, SchemasOfSchemas) {
  expect(R"({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]})",
         {"12", "\"a\""},
         {"\"ab\"", "true"});
  expect(R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
             "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "additionalProperties": false})",
         {R"({"a": 1})", R"({"b": 1})", R"({"a": 1, "b": 2})"},
         {"{}"});
  expect(R"({"allOf": [{"type": "object", "properties": {"a": {"minimum": 3}}, "required": ["a"]},
                       {"properties": {"a": {"type": "integer", "maximum": 5}, "b": {"const": 1}}},
                       {"$ref": "#/$defs/closed"}],
             "$defs": {"closed": {"properties": {"a": true, "c": true}, "additionalProperties": false}}})",
         {R"({"a": 4})", R"({"a": 3, "c": []})"},
         {R"({"a": 6})", R"({"a": 4, "b": 1})", R"({"b": 1})", "{}"});
  expect(
      R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"},
                       "x": {"type": "null"}}, "required": ["kind", "x"]},
                       {"$ref": "#/definitions/b"}], "definitions": {"b": {"type": "object",
              "properties": {"kind": {"enum": ["b", "c"]}}, "required": ["kind"]}}})",
      {R"({"kind": "a", "x": null})", R"({"kind": "b"})", R"({"kind": "c", "x": 1})"},
      {R"({"kind": "a"})", R"({"kind": "a", "x": 1})"});
  // A list, and a tree, which end.
  expect(R"({"$ref": "#/$defs/list", "$defs": {"list": {"type": "object", "properties":
              {"v": {"type": "integer"}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/list"}]}},
              "required": ["v", "next"], "additionalProperties": false}}})",
         {R"({"v": 1, "next": {"v": 2, "next": null}})"},
         {R"({"v": 1})", R"({"v": 1, "next": {"v": 2}})"});
  expect(R"({"type": "array", "items": {"$ref": "#"}})", {"[]", "[[], [[]]]"}, {"[1]"});
  expect(R"({"$ref": "#/$defs/a~1b%25", "description": "d", "$defs": {"a/b%": {"const": 1}}})",
         {"1"},
         {"2"});
}

TEST(Schema, WhatCannotBeDoneIsRefusedByName) {
  const auto says = [](const std::string& schema, const std::string& part) {
    EXPECT_NE(refusal(schema).find(part), std::string::npos) << schema << "\n" << refusal(schema);
  };
  says("{", "schema: not JSON");
  says("3", "a schema is an object");
  says(R"({"type": "text"})", "'\"text\"' is none");
  says(R"({"properties": {"a": {"uniqueItems": true}}})",
       "schema/a: 'uniqueItems' is not supported");
  says(R"({"not": {}})", "'not' is not supported");
  says(R"({"format": "color"})", "format");
  says(R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "may satisfy both 0 and 1");
  says(R"({"$ref": "http://x/y"})", "does not begin with #");
  says(R"({"$ref": "#/$defs/no"})", "refers to nothing");
  says(R"({"$ref": "#/~9"})", "is no JSON pointer");
  says(R"({"minLength": -1})", "minLength must be");
  says(R"({"maxItems": 1000000000})", "maxItems must be");
  says(R"({"enum": ["a"], "minItems": 3})", "minItems beside values");
  says(R"({"minimum": "a"})", "minimum must be a number");
  says(R"({"minimum": 1e300})", "a bound is too large");
  says(R"({"const": 12345678901234567890123})", "12345678901234567890123 is beyond 64 bits");
  says(R"({"enum": [1, -9223372036854775809]})", "-9223372036854775809 is beyond 64 bits");
  says(R"({"type": "integer", "minimum": 3, "maximum": 2})", "nothing satisfies");
  // What made other servers crash, or work for ever.
  says(R"({"pattern": "^+[a-z]$"})", "repeats ^ or $");
  says(R"({"pattern": ")" + std::string(60'000, '(') + "\"}", "longer than");
  says(R"({"pattern": ")" + std::string(2'000, '(') + std::string(2'000, ')') + "\"}",
       "nested deeper");
  says(R"({"pattern": "((a{900}){900}){900}"})", "unfolds to more");
  says(R"({"pattern": "a{1001}"})", "repeats more than");
  says(R"x({"pattern": "(?=a)b"})x", "looks ahead");
  says(R"({"pattern": "(a)\\1"})", "uses \\1");
  says(R"({"pattern": "a$b"})", "has ^ or $ within");
  says(R"({"pattern": "[b-a]"})", "range");
  says(R"({"pattern": "["})", "not closed");
  says(R"x({"pattern": "a)"})x", "closes nothing");
  says(R"({"pattern": "*a"})", "repeats nothing");
  says(R"({"pattern": "\\ud800"})", "of no character");
  says(R"({"$ref": "#"})", "nothing satisfies");
  says(R"({"$ref": "#", "minLength": 1})", "leads on");
  says(R"({"allOf": [{"$ref": "#"}, {"type": "array"}]})", "within each other");
  says(R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
       "nothing satisfies");
  says(R"({"properties": {"x": {"allOf": [{"$ref": "#"}, {"minLength": 1}]}}})",
       "within each other");
  std::string deep = "{}";
  for (int i = 0; i < 100; ++i) deep = R"({"items": )" + deep + "}";
  says(deep, "nested deeper than 64 levels");
  says(R"({"type": "string", "pattern": "^(a|b)*c(a|b){12}$", "maxLength": 20000})",
       "it needs more than");
}

TEST(Schema, ManyValuesAreNoAlternatives) {
  std::string values;
  for (int i = 0; i < 3000; ++i)
    values += std::string(i > 0 ? ", " : "") + "\"v" + std::to_string(i) + "\"";
  const std::string list = R"({"enum": [)" + values + "]}";
  expect(list, {"\"v0\"", "\"v29\"", "\"v299\"", "\"v2999\""}, {"\"v\"", "\"v3000\"", "\"v29"});
  expect(R"({"allOf": [)" + list + R"(, {"enum": ["v7", "w"]}]})", {"\"v7\""}, {"\"v8\"", "\"w\""});
}

TEST(Schema, DeepAnswersAreClosedInTime) {
  // A model that only ever opens: it is made to close, and can.
  for (const char* schema :
       {R"({"type": "array"})", R"({"type": "array", "items": {"$ref": "#"}})"}) {
    Matcher matcher(constraint_of(automaton(schema)));
    size_t open = 0;
    while (matcher.accept("[")) ++open;
    EXPECT_GT(open, 40u);
    while (open-- > 0) EXPECT_TRUE(matcher.accept("]"));
    EXPECT_TRUE(matcher.may_end());
  }
}

}  // namespace
}  // namespace ferry::grammar
