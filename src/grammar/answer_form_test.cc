#include "grammar/answer_form.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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

struct Call {
  std::string name, arguments;
};

struct Parts {
  std::string content;
  std::vector<Call> calls;
};

Parts parts_of(const text::AnswerParserOptions& options, const std::string& answer) {
  text::AnswerParser parser(options);
  Parts out;
  for (const auto& deltas : {parser.push(answer), parser.finish()})
    for (const text::AnswerDelta& d : deltas) {
      if (d.kind == text::AnswerDelta::Kind::kContent) out.content += d.text;
      if (d.kind == text::AnswerDelta::Kind::kCall) out.calls.push_back({d.text, ""});
      if (d.kind == text::AnswerDelta::Kind::kArguments) out.calls.back().arguments += d.text;
    }
  return out;
}

/// f wants {"a": a whole number} and nothing else, g {"s": a text}.
bool holds(const Call& call) {
  const auto json = nlohmann::json::parse(call.arguments, nullptr, false);
  const std::string field = call.name == "f" ? "a" : "s";
  return (call.name == "f" || call.name == "g") && json.is_object() && json.size() == 1 &&
         json.contains(field) &&
         (call.name == "f" ? json["a"].is_number_integer() : json["s"].is_string());
}

const std::vector<Tool> kHeldTools = {
    {"f",
     R"({"properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false})"},
    {"g",
     R"({"properties": {"s": {"type": "string"}}, "required": ["s"], "additionalProperties": false})"}};

/// What the forms are made of, and calls that are not as they must be, in every family's way.
const std::vector<std::string> kPieces = {
    R"({"name": "f", "parameters": {"b":"no"}})",
    R"({"name": "f", "arguments": {"b":"no"}})",
    "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\":\"no\"}}\n</tool_call>",
    "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"b\":\"no\"}<｜tool▁call▁end｜>",
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"b\":\"no\"}\n```<｜tool▁call▁end｜>",
    "<tool_call>\n{\"name\": \"f\", \"arguments\": ",
    "}\n</tool_call>",
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n",
    "\n```<｜tool▁call▁end｜>",
    "<think>",
    "</think>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "function",
    "\n```json\n",
    "\n```",
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "{\"name\": \"f\"",
    "{\"name\": \"g\"",
    ", \"parameters\": ",
    ", \"arguments\": ",
    "{\"a\": 1}",
    "{\"s\": \"",
    "\"}",
    "}",
    "{",
    "\"",
    "f",
    "g",
    "\n",
    " ",
    "\t",
    ";",
    "so"};

/// With tools whose arguments are held to their schemas no call of anything that the grammar reads breaks them: where
/// the parser of answers opens a call, the grammar has opened it, too, and where it ends one.
TEST(AnswerForm, NoCallThatIsReadBreaksItsSchema) {
  for (const ToolSyntax syntax :
       {ToolSyntax::kDeepSeekV3, ToolSyntax::kDeepSeekV31, ToolSyntax::kHermes, ToolSyntax::kLlama})
    for (const Kind kind : {Kind::kCalls, Kind::kTextOrCalls})
      for (const Thought thought : {Thought::kNone, Thought::kMay, Thought::kBegun})
        for (const bool thinks : {true, false}) {
          if (!thinks && thought != Thought::kNone) continue;
          const text::AnswerParserOptions options{.syntax = {.thinks = thinks, .tools = syntax},
                                                  .thinking = thought == Thought::kBegun,
                                                  .tools = {"f", "g"}};
          const auto constraint = constraint_of(
              automaton({.kind = kind, .thought = thought, .tools = kHeldTools, .syntax = syntax}));
          int calls = 0, with_text = 0;
          for (uint64_t seed = 0; seed < 200; ++seed) {
            const Random random(seed, RandomPurpose::kTest, 0);
            Matcher matcher(constraint);
            std::string answer;
            for (uint64_t n = 0; n < 300; ++n) {
              const std::string& piece = kPieces[random.below(n, kPieces.size())];
              if (!matcher.accept(piece)) continue;
              answer += piece;
              if (!matcher.may_end()) continue;
              const Parts parts = parts_of(options, answer);
              for (const Call& call : parts.calls) ASSERT_TRUE(holds(call)) << answer;
              ASSERT_FALSE(kind == Kind::kCalls && parts.calls.empty()) << answer;
              calls += !parts.calls.empty();
              with_text += !parts.calls.empty() && !parts.content.empty();
            }
          }
          EXPECT_GT(calls, 5);  // enough was tried
          EXPECT_TRUE(kind == Kind::kCalls || syntax == ToolSyntax::kLlama || with_text > 1);
        }
}

TEST(AnswerForm, CallsBeginWhereTheParserOpensThem) {
  const auto form = [](ToolSyntax syntax, Thought thought = Thought::kNone) {
    return automaton(
        {.kind = Kind::kTextOrCalls, .thought = thought, .tools = kHeldTools, .syntax = syntax});
  };
  const auto llama = form(ToolSyntax::kLlama), v3 = form(ToolSyntax::kDeepSeekV3),
             v31 = form(ToolSyntax::kDeepSeekV31);
  const std::string good = R"({"name": "f", "parameters": {"a": 1}})",
                    bad = R"({"name": "f", "parameters": {"b":"no"}})";
  for (const std::string before : {"", " ", "\n\n", "\t\r\n"}) {
    EXPECT_TRUE(reads(llama, before + good));
    EXPECT_FALSE(reads(llama, before + bad));
    EXPECT_FALSE(reads(llama, before + "<think></think>" + bad));
    EXPECT_FALSE(reads(llama, before + "</think>" + bad));
    EXPECT_TRUE(reads(llama, before + "So " + bad));  // which is text for the parser, too
  }
  const std::string begin = "<｜tool▁call▁begin｜>", end = "<｜tool▁call▁end｜>",
                    after = "<｜tool▁sep｜>";
  const auto call31 = [&](const std::string& arguments) {
    return begin + "f" + after + arguments + end;
  };
  const auto call3 = [&](const std::string& arguments) {
    return begin + "function" + after + "f\n```json\n" + arguments + "\n```" + end;
  };
  for (const std::string before : {"", "So ", "<｜tool▁calls▁begin｜>"}) {
    EXPECT_TRUE(reads(v31, before + call31("{\"a\": 1}") + "<｜tool▁calls▁end｜>"));
    EXPECT_FALSE(reads(v31, before + call31("{\"b\":\"no\"}")));
    EXPECT_TRUE(reads(v3, before + call3("{\"a\": 1}") + "<｜tool▁calls▁end｜>"));
    EXPECT_FALSE(reads(v3, before + call3("{\"b\":\"no\"}")));
  }
  // The outer mark ends a thought, for the parser as for the grammar; the inner one is part of it.
  for (const Kind kind : {Kind::kCalls, Kind::kTextOrCalls}) {
    const auto thinks = automaton({.kind = kind,
                                   .thought = Thought::kBegun,
                                   .tools = kHeldTools,
                                   .syntax = ToolSyntax::kDeepSeekV3});
    const std::string all = "hm <｜tool▁calls▁begin｜>";
    EXPECT_TRUE(reads(thinks, all + call3("{\"a\": 1}") + "<｜tool▁calls▁end｜>"));
    EXPECT_FALSE(reads(thinks, all + call3("{\"b\":\"no\"}") + "<｜tool▁calls▁end｜>"));
    EXPECT_FALSE(reads(thinks, all + "</think>" + all + call3("{\"a\": 1}")));
    EXPECT_TRUE(reads(thinks,
                      "hm " + begin + "</think><｜tool▁calls▁begin｜>" + call3("{\"a\": 1}") +
                          "<｜tool▁calls▁end｜>"));
  }
  // The mark that ends a call for the parser, in a text of its arguments.
  const std::string g = "<｜tool▁calls▁begin｜>" + begin + "g" + after;
  EXPECT_FALSE(reads(v31, g + "{\"s\": \"" + end + "\"}" + end + "<｜tool▁calls▁end｜>"));
  EXPECT_TRUE(reads(v31, g + "{\"s\": \"｜\\u2581\"}" + end + "<｜tool▁calls▁end｜>"));
}

/// A document, or calls: whatever texts a document holds, the parser finds all of it, and no call.
TEST(AnswerForm, ADocumentOrCalls) {
  const std::string schema =
      R"({"properties": {"n": {"type": "string"}}, "required": ["n"], "additionalProperties": false,
          "type": "object"})";
  for (const ToolSyntax syntax :
       {ToolSyntax::kDeepSeekV3, ToolSyntax::kDeepSeekV31, ToolSyntax::kHermes})
    for (const Kind kind : {Kind::kObject, Kind::kSchema})
      for (const Thought thought : {Thought::kNone, Thought::kMay, Thought::kBegun}) {
        const text::AnswerParserOptions options{.syntax = {.thinks = true, .tools = syntax},
                                                .thinking = thought == Thought::kBegun,
                                                .tools = {"f", "g"}};
        const auto constraint = constraint_of(automaton({.kind = kind,
                                                         .thought = thought,
                                                         .schema = schema,
                                                         .tools = kHeldTools,
                                                         .syntax = syntax}));
        int calls = 0, documents = 0;
        for (uint64_t seed = 0; seed < 200; ++seed) {
          const Random random(seed, RandomPurpose::kTest, 0);
          Matcher matcher(constraint);
          std::string answer;
          const size_t documents_piece = kPieces.size();
          for (uint64_t n = 0; n < 300; ++n) {
            const size_t drawn = random.below(n, kPieces.size() + 5);
            const std::string& piece = drawn < documents_piece ? kPieces[drawn] : "{\"n\": \"";
            if (!matcher.accept(piece)) continue;
            answer += piece;
            if (!matcher.may_end()) continue;
            const Parts parts = parts_of(options, answer);
            for (const Call& call : parts.calls) ASSERT_TRUE(holds(call)) << answer;
            calls += !parts.calls.empty();
            if (!parts.calls.empty()) continue;
            ++documents;
            const auto json = nlohmann::json::parse(parts.content, nullptr, false);
            ASSERT_TRUE(json.is_object()) << answer;
            ASSERT_TRUE(answer.ends_with(parts.content)) << answer;
            ASSERT_TRUE(kind == Kind::kObject || (json.size() == 1 && json["n"].is_string()));
          }
        }
        EXPECT_GT(calls, 0);
        EXPECT_GT(documents, 5);
      }
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
  says({.kind = Kind::kObject, .tools = kTools, .syntax = ToolSyntax::kLlama},
       "tools: this model writes calls as JSON objects");
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
