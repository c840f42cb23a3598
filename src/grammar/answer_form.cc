#include "grammar/answer_form.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

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
  explicit Form(const AnswerForm& form)
      : form_(form),
        deepseek_(form.syntax == ToolSyntax::kDeepSeekV3 ||
                  form.syntax == ToolSyntax::kDeepSeekV31),
        // Their mark behind a call's arguments ends them for the parser wherever it stands.
        parts_(b_, deepseek_ && has_calls()),
        marks_(marks_of(form.syntax)) {}

  Result<std::shared_ptr<const Automaton>> automaton() {
    const State start = b_.start(b_.rule());
    if (has_calls()) TRY(calls());
    const State begin = after_thought(start);
    switch (form_.kind) {
      case AnswerForm::Kind::kObject: b_.end(parts_.object(begin)); break;
      case AnswerForm::Kind::kSchema: {
        TRY_ASSIGN(const State end,
                   read_schema(b_, parts_, begin, form_.schema, "the schema", work_));
        b_.end(end);
        break;
      }
      case AnswerForm::Kind::kCalls: break;
      case AnswerForm::Kind::kTextOrCalls: text_or_calls(begin); break;
    }
    if (has_calls() && form_.kind != AnswerForm::Kind::kTextOrCalls)
      b_.nothing(b_.literal(begin, marks_.begin + marks_.call), name_);
    Result<Automaton> a = b_.finish();
    if (!a) return fail(a.error().code, "the form of the answer: {}", a.error().message);
    return std::make_shared<const Automaton>(*std::move(a));
  }

 private:
  using Texts = std::vector<std::string>;

  bool has_calls() const {
    return !form_.tools.empty() || form_.kind == AnswerForm::Kind::kCalls ||
           form_.kind == AnswerForm::Kind::kTextOrCalls;
  }

  State after_thought(State from) {
    if (form_.thought == AnswerForm::Thought::kNone) return from;
    const bool begun = form_.thought == AnswerForm::Thought::kBegun;
    const State to = b_.state();
    if (!begun) b_.nothing(from, to);
    // DeepSeek's mark is a control token, no text that a thought may quote: a model that writes it there calls.
    Texts ends = {"</think>"};
    if (has_calls() && deepseek_) ends.push_back(marks_.begin);
    const std::vector<State> after = text_to(begun ? from : b_.literal(from, "<think>"), ends);
    if (ends.size() > 1) b_.nothing(b_.literal(after[1], marks_.call), name_);
    State at = after[0];
    b_.nothing(at, to);
    for (int i = 0; i < kLinesAfterThought; ++i) b_.nothing(at = b_.literal(at, "\n"), to);
    return to;
  }

  /// Text of any bytes up to the first of the marks, and the mark: the state after each (Aho and Corasick 1975,
  /// "Efficient string matching"). No mark is part of another.
  std::vector<State> text_to(State from, const Texts& marks) {
    Text text(b_, marks);
    b_.nothing(from, text.state(""));
    text.finish();
    return text.after();
  }

  /// The automaton of such text. Its states are what was read last, as far as a mark begins so.
  class Text {
   public:
    Text(AutomatonBuilder& b, Texts marks) : b_(b), marks_(std::move(marks)) {
      for (const std::string& mark : marks_) {
        after_.push_back(b_.state());
        for (size_t n = 0; n < mark.size(); ++n)
          if (states_.try_emplace(mark.substr(0, n), 0).second)
            states_[mark.substr(0, n)] = b_.state();
        for (const char c : mark) of_marks_.set(static_cast<uint8_t>(c));
      }
    }

    State state(const std::string& read) const { return states_.at(read); }
    const std::vector<State>& after() const { return after_; }

    /// Where this byte leads after what was read.
    State next(const std::string& read, uint8_t byte) const {
      if (!of_marks_[byte]) return state("");
      for (std::string now = read + static_cast<char>(byte);; now.erase(0, 1)) {
        if (const auto at = std::find(marks_.begin(), marks_.end(), now); at != marks_.end())
          return after_[static_cast<size_t>(at - marks_.begin())];
        if (const auto at = states_.find(now); at != states_.end()) return at->second;
      }
    }

    /// An edge for each byte, to where `to` says; none where it says nothing.
    template <typename To>
    void edges(State at, const To& to) {
      std::array<std::optional<State>, 256> all;
      for (unsigned byte = 0; byte < 256; ++byte) all[byte] = to(static_cast<uint8_t>(byte));
      for (unsigned byte = 0, end = 0; byte < 256; byte = end) {
        for (end = byte + 1; end < 256 && all[end] == all[byte];) ++end;
        if (all[byte])
          b_.bytes(at, static_cast<uint8_t>(byte), static_cast<uint8_t>(end - 1), *all[byte]);
      }
    }

    void finish(bool may_end = false) {
      for (const auto& [read, at] : states_) {
        if (may_end) b_.end(at);
        edges(at, [&, &r = read](uint8_t byte) -> std::optional<State> { return next(r, byte); });
      }
    }

   private:
    AutomatonBuilder& b_;
    Texts marks_;
    std::vector<State> after_;
    std::map<std::string, State> states_;
    std::bitset<256> of_marks_;  // bytes that one of them has
  };

  /// Text, in which every mark that the parser opens a call at is one.
  void text_or_calls(State begin) {
    const bool llama = form_.syntax == ToolSyntax::kLlama;
    const std::string each = marks_.call.substr(0, marks_.call.find('>') + 1);
    Texts marks = {llama ? "<|python_tag|>" : each};
    if (deepseek_) marks.push_back(marks_.begin);
    Text text(b_, marks);
    text.finish(true);
    const std::vector<State>& after = text.after();
    b_.nothing(b_.literal(after[0], llama ? marks_.call : marks_.call.substr(each.size())), name_);
    if (deepseek_) b_.nothing(b_.literal(after[1], marks_.call), name_);

    // Behind white space the answer still begins, for the parser: with a thought, which is none of the text, or in
    // Llama's syntax with a brace, which is a call.
    const State opened = b_.state(), brace = b_.state();
    b_.nothing(begin, opened);
    if (llama) b_.nothing(b_.literal(brace, marks_.call.substr(1)), name_);
    const Texts thoughts = {"<think>", "</think>"};
    std::map<std::string, State> states = {{"", opened}};
    for (const std::string& t : thoughts)
      for (size_t n = 1; n < t.size(); ++n)
        if (states.try_emplace(t.substr(0, n), 0).second) states[t.substr(0, n)] = b_.state();
    for (const auto& [read, at] : states) {
      b_.end(at);
      text.edges(at, [&, &r = read](uint8_t byte) -> std::optional<State> {
        const std::string more = r + static_cast<char>(byte);
        if (more == thoughts[0] || more == thoughts[1]) return std::nullopt;
        if (const auto on = states.find(more); on != states.end()) return on->second;
        if (r.empty() && std::string_view(" \t\r\n").find(more) != std::string_view::npos)
          return opened;
        if (r.empty() && llama && more == "{") return brace;
        return text.next(r, byte);
      });
    }
  }

  /// Calls, from the first one's name on; what is before it leads there.
  Result<void> calls() {
    if (form_.syntax == ToolSyntax::kNone)
      return fail(
          Code::kInvalidInput,
          "tools: how this model writes calls is not known: its chat template shows none of "
          "DeepSeek's, Qwen's (Hermes') and Llama's forms");
    const bool document =
        form_.kind == AnswerForm::Kind::kObject || form_.kind == AnswerForm::Kind::kSchema;
    if (document && form_.syntax == ToolSyntax::kLlama)
      return fail(Code::kInvalidInput,
                  "tools: this model writes calls as JSON objects (Llama's form), so that beside a "
                  "form of the "
                  "answer that is JSON, too, nobody can tell one from the other");
    if (form_.tools.empty() || form_.tools.size() > kToolsMax)
      return fail(Code::kInvalidInput, "tools: must be from 1 to {}", kToolsMax);
    name_ = b_.state();
    const State end = b_.state();
    for (const Tool& tool : form_.tools) {
      TRY_ASSIGN(const State after, call(tool, name_));
      b_.nothing(after, end);
    }
    if (form_.several_calls && form_.syntax != ToolSyntax::kLlama)
      b_.nothing(b_.literal(end, marks_.separator + marks_.call), name_);
    b_.end(b_.literal(end, marks_.end));
    return {};
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
  bool deepseek_;
  AutomatonBuilder b_;
  JsonParts parts_;
  SchemaWork work_;
  Marks marks_;
  State name_ = 0;  // of the first call
};

}  // namespace

Result<std::shared_ptr<const Automaton>> answer_automaton(const AnswerForm& form) {
  return Form(form).automaton();
}

}  // namespace ferry::grammar
