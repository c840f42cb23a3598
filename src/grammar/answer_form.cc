#include "grammar/answer_form.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/ordered_json.h"
#include "grammar/schema.h"

namespace ferry::grammar {
namespace {

using text::ToolSyntax;

constexpr size_t kNameBytesMax = 64;
constexpr const char* kNameCharacters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.";
constexpr size_t kToolsMax = 512;
constexpr int kLinesAfterThought = 3;

/// How calls are written: what stands around them all, around each, and within each around its name.
struct Marks {
  std::string begin, end, separator;  // of all calls
  std::string call, arguments, call_end;
  bool quoted;  // the name is a JSON string
};

Marks marks_of(ToolSyntax syntax) {
  switch (syntax) {
    case ToolSyntax::kDeepSeekV3:
      return {"<｜tool▁calls▁begin｜>",
              "<｜tool▁calls▁end｜>",
              "\n",
              "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
              "\n```json\n",
              "\n```<｜tool▁call▁end｜>",
              false};
    case ToolSyntax::kDeepSeekV31:
      return {"<｜tool▁calls▁begin｜>",
              "<｜tool▁calls▁end｜>",
              "",
              "<｜tool▁call▁begin｜>",
              "<｜tool▁sep｜>",
              "<｜tool▁call▁end｜>",
              false};
    case ToolSyntax::kHermes:
      return {
          "", "", "\n", "<tool_call>\n{\"name\": ", ", \"arguments\": ", "}\n</tool_call>", true};
    case ToolSyntax::kLlama:
    case ToolSyntax::kNone: break;
  }
  return {"", "", "", "{\"name\": ", ", \"parameters\": ", "}", true};
}

class Form {
 public:
  explicit Form(const AnswerForm& form) : form_(form), parts_(b_), marks_(marks_of(form.syntax)) {}

  Result<std::shared_ptr<const Automaton>> automaton() {
    const State begin = after_thought(b_.start(b_.rule()));
    switch (form_.kind) {
      case AnswerForm::Kind::kObject: b_.end(parts_.object(begin)); break;
      case AnswerForm::Kind::kSchema: {
        TRY_ASSIGN(const State end,
                   read_schema(b_, parts_, begin, form_.schema, "the schema", work_));
        b_.end(end);
        break;
      }
      case AnswerForm::Kind::kCalls: {
        TRY_ASSIGN(const State end, calls(begin));
        b_.end(end);
        break;
      }
      case AnswerForm::Kind::kTextOrCalls: {
        TRY_ASSIGN(const State end, text_or_calls(begin));
        b_.end(end);
        break;
      }
    }
    Result<Automaton> a = b_.finish();
    if (!a) return fail(a.error().code, "the form of the answer: {}", a.error().message);
    return std::make_shared<const Automaton>(*std::move(a));
  }

 private:
  State after_thought(State from) {
    if (form_.thought == AnswerForm::Thought::kNone) return from;
    const bool begun = form_.thought == AnswerForm::Thought::kBegun;
    const State to = b_.state();
    if (!begun) b_.nothing(from, to);
    State at = text_to(begun ? from : b_.literal(from, "<think>"), "</think>", false);
    b_.nothing(at, to);
    for (int i = 0; i < kLinesAfterThought; ++i) b_.nothing(at = b_.literal(at, "\n"), to);
    return to;
  }

  /// Text of any bytes up to the mark's first occurrence, and the mark (Knuth, Morris and Pratt 1977,
  /// "Fast pattern matching in strings"). `may_end`: the answer may end in the text, too.
  State text_to(State from, std::string_view mark, bool may_end, char not_first = 0) {
    const State after = b_.state();
    std::vector<State> states(mark.size());  // so many bytes of the mark were read last
    for (State& s : states) {
      s = b_.state();
      if (may_end) b_.end(s);
    }
    const auto next = [&](size_t read, char c) {
      std::string seen = std::string(mark.substr(0, read)) + c;
      while (!mark.starts_with(seen)) seen.erase(0, 1);
      return seen.size();
    };
    const auto edges = [&](State at, size_t read, char without) {
      for (unsigned byte = 0, end = 0; byte < 256; byte = end) {
        const size_t to = next(read, static_cast<char>(byte));
        end = byte + 1;
        if (without != 0 && static_cast<char>(byte) == without) continue;
        while (end < 256 && (without == 0 || static_cast<char>(end) != without) &&
               next(read, static_cast<char>(end)) == to)
          ++end;
        b_.bytes(at,
                 static_cast<uint8_t>(byte),
                 static_cast<uint8_t>(end - 1),
                 to == mark.size() ? after : states[to]);
      }
    };
    for (size_t read = 0; read < mark.size(); ++read) edges(states[read], read, 0);
    if (not_first == 0)
      b_.nothing(from, states[0]);
    else
      edges(from, 0, not_first);
    if (may_end) b_.end(from);
    return after;
  }

  Result<State> text_or_calls(State begin) {
    const bool llama = form_.syntax == ToolSyntax::kLlama;
    const std::string opening = marks_.begin.empty() ? marks_.call : marks_.begin;
    const std::string mark = llama ? "<|python_tag|>" : opening.substr(0, opening.find('>') + 1);
    // An answer of Llama that begins with a brace is a call, and behind its mark one begins afresh.
    const State marked = text_to(begin, mark, true, llama ? '{' : '\0');
    if (!llama) return calls(marked, mark.size());
    const State call = b_.state();
    b_.nothing(begin, call);
    b_.nothing(marked, call);
    return calls(call);
  }

  /// Calls, of which the first `skipped` bytes were read already.
  Result<State> calls(State from, size_t skipped = 0) {
    if (form_.syntax == ToolSyntax::kNone)
      return fail(
          Code::kInvalidInput,
          "tools: how this model writes calls is not known: its chat template shows none of "
          "DeepSeek's, Qwen's (Hermes') and Llama's forms");
    if (form_.tools.empty() || form_.tools.size() > kToolsMax)
      return fail(Code::kInvalidInput, "tools: must be from 1 to {}", kToolsMax);
    const std::string first = (marks_.begin + marks_.call).substr(skipped);
    const State name = b_.state(), end = b_.state();
    b_.nothing(b_.literal(from, first), name);
    for (const Tool& tool : form_.tools) {
      TRY_ASSIGN(const State after, call(tool, name));
      b_.nothing(after, end);
    }
    if (form_.several_calls && form_.syntax != ToolSyntax::kLlama)
      b_.nothing(b_.literal(end, marks_.separator + marks_.call), name);
    return b_.literal(end, marks_.end);
  }

  /// From the call's name to its end.
  Result<State> call(const Tool& tool, State from) {
    const std::string where = fmt::format("tool {}", printable(tool.name));
    if (tool.name.empty() || tool.name.size() > kNameBytesMax ||
        tool.name.find_first_not_of(kNameCharacters) != tool.name.npos)
      return fail(Code::kInvalidInput,
                  "{}: a name is of 1 to {} letters, digits, and any of _ - .",
                  where,
                  kNameBytesMax);
    const State named =
        b_.literal(from, (marks_.quoted ? '"' + tool.name + '"' : tool.name) + marks_.arguments);
    TRY_ASSIGN(auto schema, parse_ordered_json(tool.parameters, where));
    if (!schema.is_object() || (schema.contains("type") && schema["type"] != "object"))
      return fail(Code::kInvalidInput,
                  "{}: parameters must be a schema of an object (\"type\": \"object\")",
                  where);
    schema["type"] = "object";
    TRY_ASSIGN(const State end, read_schema(b_, parts_, named, json_text(schema), where, work_));
    return b_.literal(end, marks_.call_end);
  }

  const AnswerForm& form_;
  AutomatonBuilder b_;
  JsonParts parts_;
  SchemaWork work_;
  Marks marks_;
};

}  // namespace

Result<std::shared_ptr<const Automaton>> answer_automaton(const AnswerForm& form) {
  return Form(form).automaton();
}

}  // namespace ferry::grammar
