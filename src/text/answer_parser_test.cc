#include "text/answer_parser.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "text/answer_text.h"

namespace ferry::text {
namespace {

/// The deltas as lines: T thought, C content, N name of a call, A its arguments, E or ! its end, the
/// latter where its arguments are no JSON object. Neighbours of a kind are joined.
class Lines {
 public:
  void add(const std::vector<AnswerDelta>& deltas) {
    for (const AnswerDelta& d : deltas) {
      const char letter = d.kind == AnswerDelta::Kind::kCallEnd && !d.json_object
                              ? '!'
                              : "TCNAE"[static_cast<size_t>(d.kind)];
      const bool joins = (letter == 'T' || letter == 'C' || letter == 'A') && letter == last_;
      if (!joins) out_ += (out_.empty() ? "" : "|") + std::string(1, letter);
      if (!joins && std::string_view("NAE!").find(letter) != std::string_view::npos)
        out_ += std::to_string(d.call);
      if (!joins) out_ += ":";
      out_ += d.text;
      last_ = letter;
    }
  }
  const std::string& text() const { return out_; }

 private:
  std::string out_;
  char last_ = 0;
};

std::string parsed(const AnswerParserOptions& options, std::string_view text, size_t piece) {
  AnswerParser parser(options);
  Lines lines;
  for (size_t at = 0; at < text.size(); at += piece) lines.add(parser.push(text.substr(at, piece)));
  lines.add(parser.finish());
  return lines.text();
}

/// However it is cut.
std::string parsed(const AnswerParserOptions& options, std::string_view text) {
  const std::string whole = parsed(options, text, text.size() + 1);
  for (size_t piece = 1; piece < text.size(); ++piece)
    EXPECT_EQ(parsed(options, text, piece), whole) << "in pieces of " << piece;
  return whole;
}

AnswerParserOptions with(ToolSyntax tools, bool thinks = true, bool thinking = false) {
  return {.syntax = {.thinks = thinks, .tools = tools}, .thinking = thinking, .tools = {"f", "g"}};
}

TEST(AnswerParser, TextWithoutMarksIsContentByteForByte) {
  for (const ToolSyntax tools : {ToolSyntax::kNone,
                                 ToolSyntax::kDeepSeekV3,
                                 ToolSyntax::kDeepSeekV31,
                                 ToolSyntax::kHermes,
                                 ToolSyntax::kLlama})
    for (const std::string text :
         {"", " \n", "yes", "\n\n a < b <｜to </thi\n", "{\"a\": 1} \n", "{", "x</think>y", "}"})
      EXPECT_EQ(parsed(with(tools), text), text.empty() ? "" : "C:" + text);
}

TEST(AnswerParser, ThoughtsAreToldFromWhatIsSaid) {
  const AnswerParserOptions outside = with(ToolSyntax::kNone),
                            inside = with(ToolSyntax::kNone, true, true);
  EXPECT_EQ(parsed(outside, "<think>\nis it?\n</think>\n\nyes\n"), "T:is it?|C:yes\n");
  EXPECT_EQ(parsed(outside, " <think>hm</think>"), "T:hm");
  EXPECT_EQ(parsed(inside, "is it?\n</think>\n\nyes"), "T:is it?|C:yes");
  // Cut off, or never closed: nobody can know that it was meant as an answer.
  EXPECT_EQ(parsed(inside, "is it? "), "T:is it? ");
  EXPECT_EQ(parsed(inside, "is it? </thi"), "T:is it?");
  EXPECT_EQ(parsed(inside, "<tool_call>\n"), "T:<tool_call>\n");
  EXPECT_EQ(parsed(inside, "</think>yes"), "C:yes");
  EXPECT_EQ(parsed(inside, ""), "");
  // V3.1 closes a thought that its prompt has closed already.
  EXPECT_EQ(parsed(outside, "\n</think>\nyes</think>"), "C:yes</think>");
  EXPECT_EQ(parsed(outside, "write <think>x</think>"), "C:write <think>x</think>");
  EXPECT_EQ(parsed(outside, "<think>a</think><think>b"), "T:a|C:<think>b");
  EXPECT_EQ(parsed(with(ToolSyntax::kNone, false), "<think>a</think>"), "C:<think>a</think>");
}

/// Who joins what was given and what comes has the thought as the model wrote it.
TEST(AnswerParser, BlanksGoOnWithAThoughtThatHadBegun) {
  AnswerParserOptions begun = with(ToolSyntax::kNone, true, true);
  begun.thought_begun = true;
  EXPECT_EQ(parsed(begun, " or\nnot\n</think>\n\nyes"), "T: or\nnot|C:yes");
  EXPECT_EQ(parsed(begun, "\n</think>\n\nyes"), "C:yes");
  EXPECT_EQ(parsed(begun, " \n"), "T: \n");
  EXPECT_EQ(parsed(with(ToolSyntax::kNone, true, true), "\n or\n</think>"), "T:or");
}

TEST(AnswerParser, DeepSeekV3Calls) {
  const AnswerParserOptions o = with(ToolSyntax::kDeepSeekV3);
  const std::string one =
      "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": \"`x` "
      "```\"}\n```<｜tool▁call▁end｜>";
  EXPECT_EQ(parsed(o, "<｜tool▁calls▁begin｜>" + one + "<｜tool▁calls▁end｜>"),
            "N0:f|A0:{\"a\": \"`x` ```\"}|E0:");
  EXPECT_EQ(
      parsed(o, "Look:\n<｜tool▁calls▁begin｜>" + one + "\n" + one + "<｜tool▁calls▁end｜>\nso"),
      "C:Look:|N0:f|A0:{\"a\": \"`x` ```\"}|E0:|N1:f|A1:{\"a\": \"`x` ```\"}|E1:|C:so");
  // The outer mark forgotten, no fence, no arguments, no JSON, cut off.
  EXPECT_EQ(parsed(o, one), "N0:f|A0:{\"a\": \"`x` ```\"}|E0:");
  const std::string head = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n";
  EXPECT_EQ(parsed(o, head + "{\"a\":1}<｜tool▁call▁end｜>"), "N0:f|A0:{\"a\":1}|E0:");
  EXPECT_EQ(parsed(o, head + "<｜tool▁call▁end｜>"), "N0:f|A0:{}|E0:");
  EXPECT_EQ(parsed(o, head + "```json\n{a\n```\n<｜tool▁call▁end｜>"), "N0:f|A0:{a|!0:");
  EXPECT_EQ(parsed(o, head + "```json\n{\"a\": [1, "), "N0:f|A0:{\"a\": [1,|!0:");
  EXPECT_EQ(parsed(o, head), "N0:f|!0:");
  // A control token ends a thought.
  EXPECT_EQ(parsed(with(ToolSyntax::kDeepSeekV3, true, true), "hm " + head + "{}"),
            "T:hm|N0:f|A0:{}|E0:");
  // No name: text.
  EXPECT_EQ(parsed(o, "<｜tool▁call▁begin｜>function<｜tool▁call▁end｜>"),
            "C:<｜tool▁call▁begin｜>function<｜tool▁call▁end｜>");
  EXPECT_EQ(parsed(o, "a <｜tool▁call▁begin｜>func"), "C:a <｜tool▁call▁begin｜>func");
  const std::string longer(1000, 'x');
  EXPECT_EQ(parsed(o, "<｜tool▁call▁begin｜>" + longer), "C:<｜tool▁call▁begin｜>" + longer);
  AnswerParserOptions none = o;
  none.tools.clear();
  EXPECT_EQ(parsed(none, one), "C:" + one);
}

TEST(AnswerParser, DeepSeekV31Calls) {
  const AnswerParserOptions o = with(ToolSyntax::kDeepSeekV31);
  const std::string one = "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{\"a\": {}}<｜tool▁call▁end｜>";
  EXPECT_EQ(parsed(o, "</think><｜tool▁calls▁begin｜>" + one + one + "<｜tool▁calls▁end｜>"),
            "N0:g|A0:{\"a\": {}}|E0:|N1:g|A1:{\"a\": {}}|E1:");
}

TEST(AnswerParser, HermesCalls) {
  const AnswerParserOptions o = with(ToolSyntax::kHermes);
  EXPECT_EQ(parsed(o,
                   "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": "
                   "\"</tool_call>{\"}}\n</tool_call>"),
            "N0:f|A0:{\"a\": \"</tool_call>{\"}|E0:");
  EXPECT_EQ(parsed(o,
                   "<think>hm</think>\n\nWell.\n\n<tool_call>{\"arguments\": {\"a\": 1}, \"name\": "
                   "\"h\"}</tool_call>\n"
                   "<tool_call>\n{\"name\":\"f\"}\n</tool_call>"),
            "T:hm|C:Well.|N0:h|A0:{\"a\": 1}|E0:|N1:f|A1:{}|E1:");
  // Fields that no call has, once it is one, and those that come again.
  EXPECT_EQ(parsed(o,
                   R"(<tool_call>{"name": "f", "arguments": {"a": 1}, "thought": "{x}", )"
                   R"("name": "g", "arguments": 2}</tool_call>)"),
            "N0:f|A0:{\"a\": 1}|E0:");
  // Arguments in a string, a brace too many, the closing tag forgotten.
  EXPECT_EQ(
      parsed(o, R"(<tool_call>{"name": "f", "arguments": "{\"a\": \"\u00e4\"}"}}</tool_call>)"),
      "N0:f|A0:{\"a\": \"ä\"}|E0:");
  EXPECT_EQ(
      parsed(
          o,
          R"(<tool_call>{"name": "f", "arguments": {}} <tool_call>{"name": "g", "arguments": null})"),
      "N0:f|A0:{}|E0:|N1:g|A1:{}|E1:");
  EXPECT_EQ(parsed(o, R"(<tool_call>{"name": "f", "arguments": {"a": 1} and so on)"),
            "N0:f|A0:{\"a\": 1}|E0:|C:and so on");
  // Cut off, and none at all.
  EXPECT_EQ(parsed(o, R"(<tool_call>{"name": "f", "arguments": {"a": ")"),
            "N0:f|A0:{\"a\": \"|!0:");
  for (const std::string text : {"<tool_call>",
                                 "a <tool_call>{\"name\": \"f",
                                 " <tool_call>{\"nam\": \"f\"}</tool_call>",
                                 "<tool_call>{}</tool_call>",
                                 "<tool_call>f(1)</tool_call>\n",
                                 "<tool_call>{\"name\": 1, \"arguments\": {}}</tool_call>"})
    EXPECT_EQ(parsed(o, text), "C:" + text);
}

TEST(AnswerParser, LlamaCalls) {
  const AnswerParserOptions o = with(ToolSyntax::kLlama, false);
  EXPECT_EQ(parsed(o, R"({"name": "f", "parameters": {"a": [1, "}"]}})"),
            "N0:f|A0:{\"a\": [1, \"}\"]}|E0:");
  EXPECT_EQ(
      parsed(
          o,
          R"(<|python_tag|>{"type": "function", "name": "f", "parameters": {}}; {"name": "g", "parameters": {}})"),
      "N0:f|A0:{}|E0:|N1:g|A1:{}|E1:");
  for (const std::string text :
       {R"({"name": "Ada", "parameters": {"a": "<|python_tag|>x"}} and more)",
        R"({"name": "Ada", "age": 36})",
        R"(Call {"name": "f", "parameters": {}})",
        "<|python_tag|>print(1)"})
    EXPECT_EQ(parsed(o, text), "C:" + text);
}

/// Every answer that max_tokens can make of this one.
void cut_anywhere(AnswerParserOptions o, std::string_view head, std::string_view text) {
  const std::string all(text);
  for (const bool only : {true, false}) {
    o.only_calls = only;
    const std::string whole = parsed(o, all, all.size() + 1);
    for (size_t size = 0; size <= all.size(); ++size) {
      const std::string cut = parsed(o, all.substr(0, size), size + 1);
      for (const size_t piece : {1, 2, 7}) EXPECT_EQ(parsed(o, all.substr(0, size), piece), cut);
      // Auto: what has begun as the first call is content until its name is known.
      if (!only && size < head.size()) continue;
      const size_t said = cut.ends_with("!0:") || cut.ends_with("!1:")   ? cut.size() - 4
                          : cut.ends_with("E0:") || cut.ends_with("E1:") ? cut.size() - 3
                                                                         : cut.size();
      EXPECT_EQ(cut.substr(0, said), whole.substr(0, said))
          << all.substr(0, size) << (only ? " (only calls)" : "");
      EXPECT_EQ(cut.find("C:"), std::string::npos) << all.substr(0, size);
    }
  }
}

TEST(AnswerParser, CallsThatAreCutOffLeaveNoMarkup) {
  const std::string args = R"({"a": "x"})";
  const std::string v3 =
      "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n" + args + "\n```<｜tool▁call▁end｜>";
  const std::string v31 = "<｜tool▁call▁begin｜>f<｜tool▁sep｜>" + args + "<｜tool▁call▁end｜>";
  const std::string hermes =
      "<tool_call>\n{\"name\": \"f\", \"arguments\": " + args + "}\n</tool_call>";
  const std::string llama = R"({"name": "f", "parameters": )" + args + "}";
  for (const bool thinking : {false, true}) {
    const std::string thought = thinking ? "so <b</think>\n\n" : "";
    const std::string begin = "<｜tool▁calls▁begin｜>", end = "<｜tool▁calls▁end｜>";
    cut_anywhere(with(ToolSyntax::kDeepSeekV3, true, thinking),
                 thought + begin,
                 thought + begin + v3 + "\n" + v3 + end);
    cut_anywhere(with(ToolSyntax::kDeepSeekV31, true, thinking),
                 thought + begin,
                 thought + begin + v31 + v31 + end);
    cut_anywhere(with(ToolSyntax::kHermes, true, thinking),
                 thought + "<tool_call>\n{\"name\": \"f\", \"arguments\": {",
                 thought + hermes + "\n" + hermes);
    cut_anywhere(with(ToolSyntax::kLlama, true, thinking),
                 thought + R"({"name": "f", "parameters": {)",
                 thought + llama + "; " + llama);
    cut_anywhere(with(ToolSyntax::kLlama, true, thinking),
                 thought + R"(<|python_tag|>{"name": "f", "parameters": {)",
                 thought + "<|python_tag|>" + llama);
  }
  // What the newcomer saw, and a thought that the model may have begun with.
  AnswerParserOptions o = with(ToolSyntax::kHermes);
  o.only_calls = true;
  EXPECT_EQ(parsed(o, "<tool"), "");
  EXPECT_EQ(parsed(o, "<thi"), "");
  EXPECT_EQ(parsed(o, "<tool_call>\n{\"name\": \"get_weather"), "");
  EXPECT_EQ(parsed(o, "\n"), "");
  // Text that somebody may read stays text.
  EXPECT_EQ(parsed(with(ToolSyntax::kHermes), hermes + "\nso <tool_c"),
            "N0:f|A0:{\"a\": \"x\"}|E0:|C:so <tool_c");
}

TEST(AnswerParser, AnyTextGivesTheSameHoweverItIsCut) {
  const std::vector<std::string> parts = {"<think>",
                                          "</think>",
                                          "<tool_call>",
                                          "</tool_call>",
                                          "<｜tool▁calls▁begin｜>",
                                          "<｜tool▁calls▁end｜>",
                                          "<｜tool▁call▁begin｜>",
                                          "<｜tool▁call▁end｜>",
                                          "<｜tool▁sep｜>",
                                          "<|python_tag|>",
                                          "```json",
                                          "```",
                                          "`",
                                          "\n",
                                          " ",
                                          "{",
                                          "}",
                                          "\"",
                                          "\\",
                                          "\"name\"",
                                          ":",
                                          "\"arguments\"",
                                          "\"f\"",
                                          ",",
                                          "f",
                                          "function",
                                          "ä",
                                          "<",
                                          ";",
                                          "1",
                                          "{\"name\": \"f\", \"arguments\": "};
  for (uint64_t i = 0; i < 3000; ++i) {
    const Random random(i, RandomPurpose::kTest, 0);
    auto draw = [&, n = uint64_t{0}](uint64_t below) mutable { return random.below(n++, below); };
    AnswerParserOptions o = with(static_cast<ToolSyntax>(draw(5)), draw(4) != 0, draw(2) != 0);
    o.only_calls = draw(4) == 0;
    std::string text;
    for (size_t n = draw(16); n > 0; --n) text += parts[draw(parts.size())];
    const std::string whole = parsed(o, text, text.size() + 1);
    for (const size_t piece : {size_t{1}, size_t{2}, 3 + draw(9)})
      EXPECT_EQ(parsed(o, text, piece), whole) << text;
  }
}

TEST(AnswerParser, SyntaxIsToldFromTemplateAndVocabulary) {
  const auto load = [](const std::string& name) {
    return Tokenizer::load(std::string(FERRY_SOURCE_DIR) + "/testdata/tokenizer/" + name).value();
  };
  const Tokenizer qwen = load("qwen2.json"), llama = load("llama3.json");
  const auto tools = [&](std::string_view chat_template) {
    return answer_syntax(chat_template, llama).tools;
  };
  EXPECT_EQ(tools("<｜tool▁calls▁begin｜> ```json"), ToolSyntax::kDeepSeekV3);
  EXPECT_EQ(tools("<｜tool▁calls▁begin｜>"), ToolSyntax::kDeepSeekV31);
  EXPECT_EQ(tools("x <tool_call> y"), ToolSyntax::kHermes);
  EXPECT_EQ(tools("x <tool_call> <function=name>"), ToolSyntax::kNone);
  EXPECT_EQ(tools("<|python_tag|>"), ToolSyntax::kLlama);
  EXPECT_EQ(tools("<|start_header_id|> '\"parameters\": '"), ToolSyntax::kLlama);
  EXPECT_EQ(tools("<|im_start|>"), ToolSyntax::kNone);
  EXPECT_FALSE(answer_syntax("<|im_start|>", llama).thinks);
  const AnswerSyntax thinks = answer_syntax("content.split('</think>')", qwen);
  EXPECT_TRUE(thinks.thinks);
  EXPECT_TRUE(begins_thinking(thinks, "<｜Assistant｜><think>\n"));
  EXPECT_FALSE(begins_thinking(thinks, "<｜Assistant｜></think>"));
  EXPECT_FALSE(begins_thinking({}, "what is <think>"));
}

TEST(AnswerText, ShowsTheSpecialTokensThatAreMarks) {
  const Tokenizer tokenizer =
      Tokenizer::load(std::string(FERRY_SOURCE_DIR) + "/testdata/tokenizer/llama3.json").value();
  const int32_t mark = tokenizer.token_id("<|sp|>").value(),
                other = tokenizer.token_id("<|bos|>").value();
  const auto shown = [&](const std::vector<int32_t>& marks) {
    AnswerText text(tokenizer, {}, marks);
    std::string out;
    for (const int32_t id : {tokenizer.token_id("a").value(), mark, other}) out += text.push(id);
    return out + text.flush();
  };
  EXPECT_EQ(shown({}), "a");
  EXPECT_EQ(shown({mark}), "a<|sp|>");
}

}  // namespace
}  // namespace ferry::text
