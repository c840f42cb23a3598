// What a model's answer consists of: what it thought, what it says, which tools it calls. Families of
// models mark these in the text, each in its own way; one parser reads them all as the text arrives.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace ferry::text {

/// How a model writes that it calls a tool.
enum class ToolSyntax {
  kNone,  // it was not taught to, or in a way that is not known here
  kDeepSeekV3,  // <｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME, then JSON in a Markdown fence
  kDeepSeekV31,  // <｜tool▁call▁begin｜>NAME<｜tool▁sep｜>JSON<｜tool▁call▁end｜>
  kHermes,       // <tool_call>{"name": NAME, "arguments": JSON}</tool_call>: Qwen2.5, Qwen3, Hermes
  kLlama,        // {"name": NAME, "parameters": JSON} and nothing else; may follow <|python_tag|>
};

struct AnswerSyntax {
  bool thinks = false;  // thoughts stand between <think> and </think>
  ToolSyntax tools = ToolSyntax::kNone;
  /// Special tokens that are marks of the syntax: AnswerText is to show them.
  std::vector<int32_t> marks = {};
};

/// What the model was taught, told from its chat template and its vocabulary.
AnswerSyntax answer_syntax(std::string_view chat_template, const Tokenizer& tokenizer);

/// Whether an answer to this prompt begins within a thought: the template has opened one.
bool begins_thinking(const AnswerSyntax& syntax, std::string_view prompt);

/// Whether it ends with a thought that has ended.
bool ends_thinking(std::string_view prompt);

struct AnswerDelta {
  enum class Kind {
    kReasoning,  // text: more of what was thought
    kContent,    // text: more of what is said
    kCall,       // text: the tool that is called; arguments follow
    kArguments,  // text: more of the call's arguments, JSON as the model wrote it
    kCallEnd,    // the call is complete
  };
  Kind kind = Kind::kContent;
  std::string text = {};
  int64_t call = 0;         // which of the answer's calls, from 0
  bool json_object = true;  // of kCallEnd: whether the arguments, joined, are a JSON object
};

struct AnswerParserOptions {
  AnswerSyntax syntax = {};
  bool thinking = false;  // the answer begins within a thought: see begins_thinking
  bool thought_begun =
      false;  // more of it than its mark stands before the answer: blanks at the beginning go on with it
  /// Names of the tools that were offered. With none, marks of calls are text like any other.
  std::vector<std::string> tools = {};
  /// The answer is held to calls, behind a thought perhaps: what is cut off before it is one is nothing.
  bool only_calls = false;
};

/// One answer. However its text is cut into pieces, the deltas, joined where neighbours are of the
/// same kind and call, are the same. What may yet become a mark is held back.
///
/// - An answer without marks is content, byte for byte; if it begins within a thought that does not
///   end, it is reasoning.
/// - Marks, and white space beside them, are no part of anything. <think> opens a thought only where
///   nothing but white space stands before it; elsewhere it is text, as somebody may have asked for.
///   A </think> that closes nothing is dropped there, too, and text elsewhere.
/// - Within a thought nothing is a call, but <｜tool▁calls▁begin｜>, a control token, ends it.
/// - A call whose name cannot be read is content, as the model wrote it. Arguments that are no JSON
///   object are given as they are, and the call's end says so; arguments in a JSON string are given
///   without its quotes.
/// - Llama's calls are those of tools that were offered: other JSON is content.
/// - An answer may be cut off anywhere. The beginning of a mark that closes (a thought, a call, calls) is
///   dropped at its end, and so is what began as a further call, where only marks or calls can follow:
///   after a call, after <｜tool▁calls▁begin｜>, and everywhere in answers that are `only_calls`.
class AnswerParser {
 public:
  explicit AnswerParser(AnswerParserOptions options);
  AnswerParser(AnswerParser&&) noexcept;
  AnswerParser& operator=(AnswerParser&&) noexcept;
  ~AnswerParser();

  std::vector<AnswerDelta> push(std::string_view piece);
  /// The answer has ended: what was held back. A call that is cut off ends.
  std::vector<AnswerDelta> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ferry::text
