// The forms that an answer may be held to: JSON, calls of tools as a family of models writes them,
// each behind a thought where the model thinks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "grammar/automaton.h"
#include "text/answer_parser.h"

namespace ferry::grammar {

struct Tool {
  std::string name;
  /// What its arguments, an object, must satisfy; a JSON schema.
  std::string parameters = "{}";
  bool operator==(const Tool&) const = default;
};

struct AnswerForm {
  enum class Kind {
    kObject,       // any JSON object; where there are tools, it or calls
    kSchema,       // what satisfies `schema`; where there are tools, it or calls
    kCalls,        // calls of `tools`, at least one
    kTextOrCalls,  // text, calls, or text and then calls
  };
  enum class Thought {
    kNone,
    kMay,    // the model may begin with one
    kBegun,  // its prompt has opened one
  };
  Kind kind = Kind::kObject;
  Thought thought = Thought::kNone;
  std::string schema = {};  // JSON
  std::vector<Tool> tools = {};
  text::ToolSyntax syntax = text::ToolSyntax::kNone;
  bool several_calls = true;  // Llama's syntax has no more than one
  bool operator==(const AnswerForm&) const = default;
};

/// Calls begin wherever text::AnswerParser opens one, and end where it ends them: with the tools' names for its
/// own it finds in what is read no call whose arguments do not satisfy the tool's schema.
///
/// Errors: kInvalidInput, naming the schema or tool: what read_schema() refuses, arguments that are no
/// object, a name that the syntax cannot hold, a model whose syntax is not known; an object or calls in
/// Llama's syntax, where a call is an object itself.
Result<std::shared_ptr<const Automaton>> answer_automaton(const AnswerForm& form);

}  // namespace ferry::grammar
