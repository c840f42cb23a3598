#include "grammar/answer_form.h"

#include <gtest/gtest.h>

#include "grammar/grammar_testing.h"

namespace ferry::grammar {
namespace {

using Kind = AnswerForm::Kind;
using Thought = AnswerForm::Thought;
using text::ToolSyntax;

const std::vector<Tool> kTools = {
    {"f",
     R"({"properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false})"},
    {"g"}};

std::shared_ptr<const Automaton> automaton(const AnswerForm& form) {
  auto out = answer_automaton(form);
  if (!out) ADD_FAILURE() << out.error().message;
  return *out;
}

/// What the parser of answers makes of it: thought / content / calls with arguments.
std::string parsed(ToolSyntax syntax, bool thinking, const std::string& answer) {
  text::AnswerParser parser(
      {.syntax = {.thinks = true, .tools = syntax}, .thinking = thinking, .tools = {"f", "g"}});
  std::string out;
  for (auto deltas : {parser.push(answer), parser.finish()})
    for (const text::AnswerDelta& d : deltas) {
      if (d.kind == text::AnswerDelta::Kind::kCall) out += "@";
      out += d.text;
      if (d.kind == text::AnswerDelta::Kind::kCallEnd && !d.json_object) out += "!";
    }
  return out;
}

TEST(AnswerForm, ObjectsStandBehindThoughts) {
  const auto plain = automaton({.kind = Kind::kObject});
  EXPECT_TRUE(reads(plain, R"({"a": [1]})"));
  EXPECT_FALSE(reads(plain, "[1]"));
  EXPECT_FALSE(reads(plain, "<think>a</think>{}"));
  const auto begun = automaton({.kind = Kind::kObject, .thought = Thought::kBegun});
  EXPECT_TRUE(reads(begun, "so </thi</think>{}"));
  EXPECT_TRUE(reads(begun, "{\"</think>\n\n{}"));
  EXPECT_FALSE(reads(begun, "{}"));
  EXPECT_FALSE(reads(begun, "a</think>b</think>{}"));
  const auto may = automaton(
      {.kind = Kind::kSchema, .thought = Thought::kMay, .schema = R"({"type": "integer"})"});
  EXPECT_TRUE(reads(may, "1"));
  EXPECT_TRUE(reads(may, "<think>\n{}\n</think>\n\n12"));
  EXPECT_FALSE(reads(may, "<think>1"));
}

TEST(AnswerForm, CallsAreWhatTheParserReads) {
  for (const ToolSyntax syntax :
       {ToolSyntax::kDeepSeekV3, ToolSyntax::kDeepSeekV31, ToolSyntax::kHermes, ToolSyntax::kLlama})
    for (const Kind kind : {Kind::kCalls, Kind::kTextOrCalls})
      for (uint64_t seed = 0; seed < 30; ++seed) {
        AnswerForm form{.kind = kind, .tools = kTools, .syntax = syntax};
        form.thought = seed % 2 == 0 ? Thought::kNone : Thought::kBegun;
        const auto constraint = constraint_of(automaton(form),
                                              vocabulary_with({">x",
                                                               "think>so",
                                                               "</think>",
                                                               "<｜tool▁calls▁begin｜>",
                                                               "<tool_call>",
                                                               "<|python_tag|>"}));
        const std::string answer = drawn(constraint, seed, 0, 4000);
        const std::string out = parsed(syntax, seed % 2 == 1, answer);
        if (kind == Kind::kCalls && !answer.empty()) {
          EXPECT_NE(out.find('@'), std::string::npos) << answer;
          EXPECT_EQ(out.find('!'), seed % 2 == 1 ? out.find('!') : std::string::npos) << answer;
        }
      }
  const auto one =
      automaton({.kind = Kind::kCalls, .tools = kTools, .syntax = ToolSyntax::kHermes});
  const std::string call =
      "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
  EXPECT_TRUE(reads(one, call));
  EXPECT_TRUE(reads(one, call + "\n" + call));
  EXPECT_FALSE(reads(one, "Well. " + call));
  EXPECT_FALSE(reads(one, "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"));
  EXPECT_TRUE(reads(one, "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>"));
  EXPECT_FALSE(reads(one, "<tool_call>\n{\"name\": \"h\", \"arguments\": {}}\n</tool_call>"));
  const auto either = automaton({.kind = Kind::kTextOrCalls,
                                 .tools = kTools,
                                 .syntax = ToolSyntax::kHermes,
                                 .several_calls = false});
  EXPECT_TRUE(reads(either, "Well."));
  EXPECT_TRUE(reads(either, ""));
  EXPECT_TRUE(reads(either, "<tool_ Well. " + call));
  EXPECT_FALSE(reads(either, call + "\n" + call));
  EXPECT_FALSE(reads(either, "<tool_call>\nno"));
  const auto llama =
      automaton({.kind = Kind::kTextOrCalls, .tools = kTools, .syntax = ToolSyntax::kLlama});
  EXPECT_TRUE(reads(llama, "Well {}."));
  EXPECT_TRUE(reads(llama, R"({"name": "f", "parameters": {"a": 1}})"));
  EXPECT_TRUE(reads(llama, R"(<|python_tag|>{"name": "f", "parameters": {"a": 1}})"));
  EXPECT_FALSE(reads(llama, R"({"name": "f", "parameters": {}})"));
  const auto deepseek =
      automaton({.kind = Kind::kCalls, .tools = kTools, .syntax = ToolSyntax::kDeepSeekV3});
  EXPECT_TRUE(reads(
      deepseek,
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```"
      "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"));
}

TEST(AnswerForm, RefusesByName) {
  const auto says = [](const AnswerForm& form, const std::string& part) {
    const auto out = answer_automaton(form);
    ASSERT_FALSE(out);
    EXPECT_NE(out.error().message.find(part), std::string::npos) << out.error().message;
  };
  says({.kind = Kind::kSchema, .schema = "{\"not\": 1}"}, "the schema: 'not'");
  says({.kind = Kind::kCalls, .tools = kTools}, "how this model writes calls is not known");
  says({.kind = Kind::kCalls, .syntax = ToolSyntax::kHermes}, "tools: must be");
  says({.kind = Kind::kCalls, .tools = {{"a b"}}, .syntax = ToolSyntax::kHermes},
       "tool 'a b': a name");
  says({.kind = Kind::kCalls,
        .tools = {{"f", "{\"type\": \"array\"}"}},
        .syntax = ToolSyntax::kHermes},
       "tool 'f': parameters must be");
  says({.kind = Kind::kCalls, .tools = {{"f", "{\"not\": 1}"}}, .syntax = ToolSyntax::kHermes},
       "tool 'f': 'not'");
}

}  // namespace
}  // namespace ferry::grammar
