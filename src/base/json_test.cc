// JSON of outside origin: what is refused, what is kept, and that no text takes longer than its size allows.
#include "base/json.h"

#include <gtest/gtest.h>

#include <ctime>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/json_fields.h"
#include "base/lenient_json.h"
#include "base/ordered_json.h"
#include "base/python_json.h"

namespace ferry {
namespace {

std::string problem_of(const std::string& text) {
  const auto strict = parse_json(text, "f");
  const auto ordered = parse_ordered_json(text, "f");
  EXPECT_EQ(strict.has_value(), ordered.has_value()) << text;
  if (strict || ordered) return "";
  EXPECT_EQ(strict.error().code, Code::kCorrupt);
  EXPECT_EQ(strict.error().message, ordered.error().message);
  return strict.error().message;
}

std::string nested(size_t levels, const std::string& inside) {
  return std::string(levels, '[') + inside + std::string(levels, ']');
}

TEST(Json, IsWhatTheLibraryReads) {
  const std::string text =
      R"({"z": [1, -2, 18446744073709551615, 2.5e3, -0.0, true, null, "\u00e9\ud83d\ude00"], "a": {"c": {}, "b": []}})";
  const auto strict = parse_json(text, "f");
  ASSERT_TRUE(strict);
  EXPECT_EQ(*strict, nlohmann::json::parse(text));
  EXPECT_EQ(json_text(*strict), json_text(nlohmann::json::parse(text)));
  const auto ordered = parse_ordered_json(text, "f");
  ASSERT_TRUE(ordered);
  EXPECT_EQ(json_text(*ordered), json_text(nlohmann::ordered_json::parse(text)));
  for (const char* one : {"3", "null", "\"a\"", " [] ", "{}"}) EXPECT_EQ(problem_of(one), "");
}

TEST(Json, WhatIsNoneIsRefusedWithItsPlace) {
  for (const char* bad : {"", "[", "[1,]", "{\"a\"}", "1 2", "nul", "\"\xff\"", "{\"a\":1}}"})
    EXPECT_NE(problem_of(bad).find("f: not JSON: "), std::string::npos) << bad;
  EXPECT_NE(problem_of("[1, 2\n, x]").find("line 2, column 3"), std::string::npos);
  EXPECT_EQ(problem_of(std::string("[1]\0", 4)), "f: not JSON: byte 4 is zero");
  EXPECT_EQ(problem_of("[1e400]"), "f: the number '1e400' is out of range: beyond 64 bits");
}

TEST(Json, AKeyStandsOnce) {
  EXPECT_EQ(problem_of(R"({"a": 1, "b": {"a": 2}, "c": [{"a": 1}, {"a": 1}]})"), "");
  EXPECT_EQ(problem_of(R"({"b": {"a": 1, "c": {}, "\u0061": 2}})"), "f: the key 'a' occurs twice");
  const auto lenient = parse_lenient_json(R"({"a": [1], "a": {"b": 2}})", "f");
  ASSERT_TRUE(lenient);
  EXPECT_EQ(json_text(*lenient), R"({"a":{"b":2}})");
}

TEST(Json, LevelsAreLimited) {
  EXPECT_EQ(problem_of(nested(64, "1")), "");
  EXPECT_EQ(problem_of(nested(65, "")), "f: nested deeper than 64 levels");
  EXPECT_EQ(problem_of(std::string(1'000'000, '[')), "f: nested deeper than 64 levels");
}

/// Of this process, in reading the text both ways; whatever else the machine does.
double processor_s(const std::string& text) {
  const std::clock_t began = std::clock();
  EXPECT_TRUE(parse_json(text, "f"));
  EXPECT_TRUE(parse_ordered_json(text, "f"));
  return static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
}

// What looks through a list for each of its objects, or through fields for each of them, takes sixteen times as long
// for four times as much, and what copies fields where they grow does so at each level.
TEST(Json, IsReadInTheTimeThatItsSizeAllows) {
  const auto list = [](int n) {
    std::string text = "[{}";
    for (int i = 1; i < n; ++i) text += ",{}";
    return text + "]";
  };
  const auto fields = [](int n) {
    std::string text = "{\"\":0";
    for (int i = 1; i < n; ++i) text += ",\"" + std::to_string(i) + "\":0";
    return text + "}";
  };
  for (const auto& text :
       {std::function<std::string(int)>(list), std::function<std::string(int)>(fields)})
    EXPECT_LT(processor_s(text(200'000)), 9 * processor_s(text(50'000)) + 0.1);
  // Behind a field that holds much come others, on each level.
  const auto levels = [&](int depth) {
    std::string text = list(100'000);
    for (int level = 0; level < depth; ++level) {
      std::string outer = "{\"a\":" + text;
      for (int i = 0; i < 100; ++i) outer += ",\"" + std::to_string(i) + "\":0";
      text = outer + "}";
    }
    return text;
  };
  EXPECT_LT(processor_s(levels(60)), 4 * processor_s(levels(1)) + 0.1);
}

TEST(Json, OfPythonsNumbersOnlyThoseThatAreReadMatter) {
  const std::string strict = R"({"a": 1, "b": "NaN, \"Infinity"})";
  EXPECT_EQ(json_of_python(strict), strict);
  EXPECT_EQ(without_odd_numbers(strict, OddNumber::kNull), "");
  const std::string odd = R"({"a":[NaN,-Infinity,1e999,1e9],"NaN":"\"NaN","b":Infinity})";
  EXPECT_EQ(without_odd_numbers(odd, OddNumber::kNull),
            R"({"a":[null,null,null,1e9],"NaN":"\"NaN","b":null})");
  const auto read = parse_python_json(odd, "f");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(is_not_finite(read->at("a").at(0)) && is_not_finite(read->at("b")));
  EXPECT_FALSE(is_not_finite(read->at("a").at(3)) || is_not_finite(read->at("NaN")));
  EXPECT_EQ(shown_json(read->at("b")), "\"Infinity (not finite)\"");
  EXPECT_EQ(shown_json(nlohmann::json::array({read->at("a").at(2), 1})),
            "[\"1e999 (not finite)\",1]");
  // A text is one, whatever it says; and such a number is no text.
  const nlohmann::json told = "Infinity (not finite)";
  EXPECT_FALSE(is_not_finite(told));
  EXPECT_EQ(shown_json(told), "\"Infinity (not finite)\"");
  JsonProblem of_text, of_texts;
  EXPECT_EQ(JsonFields(*read, "f", of_text).text("b"), "");
  EXPECT_EQ(of_text.done().error().message, "f: \"b\": \"Infinity (not finite)\" must be a text");
  static_cast<void>(JsonFields(*read, "f", of_texts).texts("a"));
  EXPECT_FALSE(of_texts.done());
  // What is no JSON beside is refused where it stands in the file.
  for (const std::string text :
       {R"({"a": NaN, "b": nan})", R"({"a": NaN)", R"({"a": NaN, "a": 1})"})
    EXPECT_FALSE(parse_python_json(text, "f")) << text;
  EXPECT_EQ(json_of_python(R"({"a": NaN)"), R"({"a": NaN)");
}

}  // namespace
}  // namespace ferry
