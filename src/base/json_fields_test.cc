#include "base/json_fields.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/json_string.h"

namespace ferry {
namespace {

using Json = nlohmann::json;

/// The message of reading this object so; empty if nothing was wrong.
std::string problem_of(const Json& json, const std::function<void(JsonFields&)>& read) {
  JsonProblem problem{.code = Code::kInvalidInput, .advice = "; write it anew"};
  JsonFields f(json, "f.json", problem);
  read(f);
  const Result<void> done = problem.done();
  if (done) return "";
  EXPECT_EQ(done.error().code, Code::kInvalidInput);
  EXPECT_TRUE(done.error().message.starts_with("f.json")) << done.error().message;
  EXPECT_TRUE(done.error().message.ends_with("; write it anew")) << done.error().message;
  return done.error().message;
}

TEST(JsonFields, TakesWhatIsThere) {
  const Json json = Json::parse(R"({"i": -3, "u": 18446744073709551615, "x": 0.5, "b": true,
    "t": "text", "ts": ["a", "b"], "xs": [1, 2.5], "ids": [3, 1, 3], "id": 4, "none": null,
    "o": {"i": 7}, "l": [{"i": 8}, {"i": 9}]})");
  EXPECT_EQ(problem_of(json,
                       [](JsonFields& f) {
                         EXPECT_EQ(f.integer("i", -5, 5), -3);
                         EXPECT_EQ(f.natural("u"), UINT64_MAX);
                         EXPECT_EQ(f.real("x", 0, 1), 0.5);
                         EXPECT_EQ(f.real("i"), -3);
                         EXPECT_TRUE(f.boolean("b"));
                         EXPECT_EQ(f.text("t"), "text");
                         EXPECT_EQ(f.texts("ts"), (std::vector<std::string>{"a", "b"}));
                         EXPECT_EQ(f.reals("xs"), (std::vector<double>{1, 2.5}));
                         EXPECT_EQ(f.integers("ids", 1, 3), (std::vector<int64_t>{3, 1, 3}));
                         EXPECT_EQ(f.ids("ids", 9), (std::vector<int64_t>{3, 1}));
                         EXPECT_EQ(f.ids("id", 9), (std::vector<int64_t>{4}));
                         EXPECT_TRUE(f.ids("none", 9).empty());
                         // What is null is not there.
                         EXPECT_FALSE(f.has("none"));
                         EXPECT_EQ(f.integer("none", 0, 9, 5), 5);
                         EXPECT_EQ(f.text("nowhere", "else"), "else");
                         EXPECT_EQ(f.object("o").integer("i", 0, 9), 7);
                         int64_t sum = 0;
                         size_t index = 0;
                         for (const Json& j : f.list("l"))
                           sum += f.item("l", j, index++).integer("i", 0, 9);
                         EXPECT_EQ(sum, 17);
                         f.only("i", -3);
                         f.refuse_unknown({}, "is unknown");
                       }),
            "");
}

/// The library takes a zero byte for the end of the text.
TEST(Json, NothingHidesBehindAZeroByte) {
  for (const std::string_view text : {std::string_view("{}\0{", 4), {"{}\0", 3}, {"\0{}", 3}}) {
    const auto json = parse_json(text, "FILE");
    ASSERT_FALSE(json) << text.size();
    EXPECT_EQ(json.error().code, Code::kCorrupt);
    EXPECT_NE(json.error().message.find("is zero"), std::string::npos) << json.error().message;
  }
}

TEST(JsonFields, RefusesByNameAndRemembersTheFirst) {
  const Json json = Json::parse(R"({"i": 9, "u": -1, "x": "1", "big": 9223372036854775808,
    "o": {"i": "7"}, "l": {}, "none": null, "ids": [1, 99], "ts": ["a", 1]})");
  const std::vector<std::pair<std::function<void(JsonFields&)>, const char*>> cases = {
      {[](JsonFields& f) { f.integer("i", 0, 5); }, "\"i\": 9 must be a whole number from 0 to 5"},
      {[](JsonFields& f) { f.integer("big", 0, INT64_MAX); }, "\"big\": 9223372036854775808 must"},
      {[](JsonFields& f) { f.natural("u"); }, "\"u\": -1 must be a whole number"},
      {[](JsonFields& f) { f.real("x", 0, 1); }, "\"x\": \"1\" must be a number from 0 to 1"},
      {[](JsonFields& f) { f.boolean("i"); }, "\"i\": 9 must be true or false"},
      {[](JsonFields& f) { f.text("i"); }, "\"i\": 9 must be a text"},
      {[](JsonFields& f) { f.text("nowhere"); }, "\"nowhere\" is missing"},
      {[](JsonFields& f) { f.text("none"); }, "\"none\" is null"},
      {[](JsonFields& f) { f.object("o").integer("i", 0, 9); }, "f.json: o: \"i\": \"7\" must"},
      {[](JsonFields& f) { f.object("i"); }, "f.json: i must be an object"},
      {[](JsonFields& f) { f.members("i"); }, "\"i\": 9 must be an object"},
      {[](JsonFields& f) { f.list("l"); }, "\"l\": {} must be a list"},
      {[](JsonFields& f) { f.ids("ids", 9); }, "\"ids\": [1,99] must be an id or a list of ids"},
      {[](JsonFields& f) { f.texts("ts"); }, "\"ts\": [\"a\",1] must be a list of texts"},
      {[](JsonFields& f) { f.only("i", 3); }, "\"i\": 9 is not supported; Ferry computes 3"},
      {[](JsonFields& f) { f.refuse_unknown({}, "is unknown"); }, "is unknown"},
      {[](JsonFields& f) { f.refuse("i", "is odd"); }, "\"i\": 9 is odd"},
  };
  for (const auto& [read, says] : cases) {
    const std::string message = problem_of(json, read);
    EXPECT_NE(message.find(says), std::string::npos) << message << " does not say " << says;
  }
  const std::string first = problem_of(json, [](JsonFields& f) {
    f.text("nowhere");
    EXPECT_EQ(f.integer("i", 0, 9), 0);  // nothing is read after a problem
    f.text("i");
  });
  EXPECT_NE(first.find("nowhere"), std::string::npos);
  EXPECT_NE(problem_of(Json::array(), [](JsonFields&) {}).find("must be an object"),
            std::string::npos);
}

TEST(JsonText, IllFormedTextIsReplacedAndTheRestIsAsItWas) {
  EXPECT_EQ(json_text(nlohmann::json{{"path", "/x/caf\xe9"}}), "{\"path\":\"/x/caf\uFFFD\"}");
  const nlohmann::ordered_json whole = {{"b", "Überfahrt"}, {"a", {1, 2.5}}};
  EXPECT_EQ(json_text(whole), whole.dump());
  EXPECT_EQ(json_text(whole, 2), whole.dump(2));
}

/// Written alone, a string is what it is in a document.
TEST(JsonText, StringsAreAsInDocuments) {
  std::vector<std::string> texts = {"", "plain text", "caf\xe9", "日本 \xF0\x9F\x98\x80", "\x7f"};
  for (int c = 0; c < 256; ++c) texts.push_back("a" + std::string(1, static_cast<char>(c)) + "b");
  // The bounds of what is well-formed, and what is beyond them.
  for (const int first :
       {0x80, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5})
    for (const int second : {0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0})
      for (const char* const rest : {"", "\x80", "\xBF", "\x80\xBF", "\xBF\x7F", "\x80\x80\n\"\\"})
        texts.push_back(std::string{static_cast<char>(first), static_cast<char>(second)} + rest);
  for (const std::string& text : texts) {
    std::string out = "x";
    append_json_string(out, text);
    EXPECT_EQ(out, "x" + json_text(Json(text)));
  }
}

}  // namespace
}  // namespace ferry
