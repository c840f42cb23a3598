#include "text/answer_parser.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/json.h"
#include "text/call_object.h"

namespace ferry::text {
namespace {

constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>";
constexpr std::string_view kCalls = "<｜tool▁calls▁begin｜>", kCallsEnd = "<｜tool▁calls▁end｜>",
                           kCall = "<｜tool▁call▁begin｜>", kCallEnd = "<｜tool▁call▁end｜>",
                           kSeparator = "<｜tool▁sep｜>";
constexpr std::string_view kHermes = "<tool_call>", kHermesEnd = "</tool_call>";
constexpr std::string_view kPython = "<|python_tag|>";
constexpr std::string_view kFence = "```";
constexpr std::string_view kBlanks = " \t\r\n";

constexpr size_t kNameBytesMax = 256;  // of a tool's name, and of what stands around it

using Kind = AnswerDelta::Kind;

std::string_view trimmed_end(std::string_view text) {
  return text.substr(0, text.find_last_not_of(kBlanks) + 1);
}

std::string_view trimmed(std::string_view text) {
  text = trimmed_end(text);
  return text.substr(std::min(text.find_first_not_of(kBlanks), text.size()));
}

bool is_json_object(const std::string& text) {
  return trimmed(text).starts_with('{') && zero_byte(text) == text.npos &&
         nlohmann::json::accept(text);
}

/// Bytes at the end of `text` that may be the beginning of the mark.
size_t begun(std::string_view text, std::string_view mark) {
  for (size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n)
    if (text.ends_with(mark.substr(0, n))) return n;
  return 0;
}

/// How much of arguments whose end has not come is certain to be theirs: what a closing fence and
/// white space beside it may be part of is not.
size_t certain_arguments(std::string_view text) {
  text = trimmed_end(text.substr(0, text.size() - begun(text, kCallEnd)));
  for (size_t i = 0; i < kFence.size() && text.ends_with('`'); ++i) text.remove_suffix(1);
  return trimmed_end(text).size();
}

}  // namespace

struct AnswerParser::State {
  enum class Place {
    kBegin,      // nothing was said yet, or a thought has ended
    kThought,    //
    kContent,    //
    kCalls,      // after a call, or after the mark that calls follow
    kHead,       // DeepSeek: of a call, up to its arguments
    kFence,      // DeepSeek V3: before the arguments
    kArguments,  // DeepSeek
    kObject,     // Hermes, Llama
  };

  AnswerParserOptions options;
  Place place = Place::kBegin;
  std::string held;          // text that no place has taken
  std::string blanks;        // white space, no part of anything if a mark follows
  bool after_mark = false;   // nor if it follows a mark
  bool among_calls = false;  // one was read, or the mark that calls follow
  bool thoughts = true;      // one may begin
  bool ended = false;        // no more text will come
  std::vector<AnswerDelta> out;
  // The call that is being read
  int64_t calls = 0;
  bool calling = false;   // its name is out
  std::string arguments;  // all of them
  std::string_view mark;  // that opened it
  CallObject object;

  ToolSyntax tools() const {
    return options.tools.empty() ? ToolSyntax::kNone : options.syntax.tools;
  }
  bool deepseek() const {
    return tools() == ToolSyntax::kDeepSeekV3 || tools() == ToolSyntax::kDeepSeekV31;
  }

  bool step() {
    switch (place) {
      case Place::kBegin: return begin();
      case Place::kThought: return thought();
      case Place::kContent: return content();
      case Place::kCalls: return between_calls();
      case Place::kHead: return head();
      case Place::kFence: return fence();
      case Place::kArguments: return read_arguments();
      case Place::kObject: return read_object();
    }
    return false;
  }

  void put(Kind kind, std::string text) {
    if (text.empty() && kind != Kind::kCallEnd) return;
    AnswerDelta delta{.kind = kind, .text = std::move(text)};
    if (kind == Kind::kCall || kind == Kind::kArguments || kind == Kind::kCallEnd)
      delta.call = calls;
    if (kind == Kind::kArguments) arguments += delta.text;
    if (kind == Kind::kCallEnd) delta.json_object = is_json_object(arguments);
    const bool joins = !out.empty() && out.back().kind == kind && kind != Kind::kCall &&
                       kind != Kind::kCallEnd && out.back().call == delta.call;
    if (joins)
      out.back().text += delta.text;
    else
      out.push_back(std::move(delta));
  }

  /// More of a thought or of what is said, with the white space at its edges held back.
  void say(Kind kind, std::string_view text) {
    if (ended && options.only_calls && kind == Kind::kContent) return;
    if (after_mark) text = text.substr(std::min(text.find_first_not_of(kBlanks), text.size()));
    if (text.empty()) return;
    after_mark = false;
    const size_t size = trimmed_end(text).size();
    if (size > 0) put(kind, std::exchange(blanks, "") + std::string(text.substr(0, size)));
    blanks += text.substr(size);
  }

  /// A mark was read: something else begins.
  void leave(Place next) {
    blanks.clear();
    after_mark = true;
    place = next;
  }

  /// What is held without the white space that it begins with, which is said if it is said at all.
  std::string_view after_blanks(bool said) {
    const size_t at = std::min(held.find_first_not_of(kBlanks), held.size());
    if (said) say(Kind::kContent, std::string_view(held).substr(0, at));
    held.erase(0, at);
    return held;
  }

  /// Nothing is said where only calls may be: what is held was cut off before it was one.
  bool cut_off_call() const { return ended && (options.only_calls || among_calls); }

  /// What is held, and what stands before it, is a beginning of something that will not come.
  bool drop() {
    held.clear();
    blanks.clear();
    return false;
  }

  bool take(std::string_view expected) {
    if (!held.starts_with(expected)) return false;
    held.erase(0, expected.size());
    return true;
  }

  bool may_become(std::string_view expected) const {
    return !ended && held.size() < expected.size() && expected.starts_with(held);
  }

  /// Marks that a call may begin with.
  std::vector<std::string_view> call_marks() const {
    switch (tools()) {
      case ToolSyntax::kNone: return {};
      case ToolSyntax::kDeepSeekV3:
      case ToolSyntax::kDeepSeekV31: return {kCalls, kCall};
      case ToolSyntax::kHermes: return {kHermes};
      case ToolSyntax::kLlama: return {kPython};
    }
    return {};
  }

  /// Takes the mark; white space before it still is what it was, until the call is known to be one.
  void open(std::string_view opened) {
    held.erase(0, opened.size());
    mark = opened;
    if (opened == kCalls) {
      among_calls = true;
      place = Place::kCalls;
    } else if (opened == kCall) {
      place = Place::kHead;
    } else {
      begin_object();
    }
  }

  void begin_object() {
    object = CallObject();
    place = Place::kObject;
  }

  bool begin() {
    if (after_blanks(true).empty()) return false;
    std::vector<std::string_view> marks = call_marks();
    if (options.syntax.thinks && thoughts) marks.insert(marks.end(), {kThink, kThinkEnd});
    for (const std::string_view m : marks) {
      if (may_become(m)) return false;
      if (!held.starts_with(m)) continue;
      if (m != kThink && m != kThinkEnd) {
        open(m);
        return true;
      }
      held.erase(0, m.size());
      thoughts = false;
      leave(m == kThink ? Place::kThought : Place::kBegin);
      return true;
    }
    if (tools() == ToolSyntax::kLlama && held.front() == '{') {
      mark = "";
      begin_object();
    } else {
      place = Place::kContent;
    }
    return true;
  }

  /// Says what stands before the first of the marks, which is then what is held begins with; "" if
  /// there is none.
  std::string_view say_to_mark(Kind kind, const std::vector<std::string_view>& marks) {
    size_t end = held.size();
    std::string_view first;
    for (const std::string_view m : marks)
      if (const size_t at = held.find(m); at < end) {
        end = at;
        first = m;
      }
    if (first.empty() && (!ended || kind == Kind::kReasoning))
      for (const std::string_view m : marks) end = std::min(end, held.size() - begun(held, m));
    say(kind, std::string_view(held).substr(0, end));
    held.erase(0, end);
    return first;
  }

  bool thought() {
    std::vector<std::string_view> marks = {kThinkEnd};
    if (deepseek()) marks.push_back(kCalls);
    const bool waits = !held.empty();  // for a mark that had begun
    const std::string_view found = say_to_mark(Kind::kReasoning, marks);
    if (found.empty() && ended && waits) drop();
    if (found.empty()) return false;
    leave(Place::kBegin);  // which reads the mark of calls
    if (found == kThinkEnd) held.erase(0, found.size());
    return true;
  }

  bool content() {
    const std::string_view found = say_to_mark(Kind::kContent, call_marks());
    if (!found.empty()) open(found);
    return !found.empty();
  }

  /// What had begun like a call was none: its mark is said, and the rest looked at as any other text.
  void call_is_text(std::string_view rest) {
    place = Place::kContent;
    say(Kind::kContent, mark);
    held.insert(0, rest);
  }

  void begin_call(std::string name) {
    leave(place);
    calling = true;
    arguments.clear();
    put(Kind::kCall, std::move(name));
  }

  void end_call() {
    if (arguments.empty() && !ended) put(Kind::kArguments, "{}");
    put(Kind::kCallEnd, "");
    calling = false;
    among_calls = true;
    ++calls;
    place = Place::kCalls;
  }

  bool between_calls() {
    if (after_blanks(false).empty()) return false;
    std::vector<std::string_view> marks;
    if (deepseek()) marks = {kCall, kCallsEnd, kCalls};
    if (tools() == ToolSyntax::kHermes)
      marks = {kHermes, kHermesEnd, "}"};  // one too many is common
    if (tools() == ToolSyntax::kLlama) marks = {kPython, ";"};
    for (const std::string_view m : marks) {
      if (may_become(m)) return false;
      if (ended && held.size() < m.size() && m.starts_with(held)) return drop();
      if (!held.starts_with(m)) continue;
      if (m == kCallsEnd || m == kHermesEnd || m == "}" || m == ";")
        held.erase(0, m.size());
      else
        open(m);
      return true;
    }
    if (!deepseek() && held.front() == '{') {
      mark = "";
      begin_object();
    } else {
      place = Place::kContent;
    }
    return true;
  }

  bool head() {
    const bool v3 = tools() == ToolSyntax::kDeepSeekV3;
    const size_t separator = held.find(kSeparator), end = held.find(kCallEnd);
    const size_t name = v3 ? separator + kSeparator.size() : 0;
    size_t name_end = separator;
    if (v3 && separator != held.npos) name_end = held.find('\n', name);
    if (name_end != held.npos && name_end < end && name_end <= kNameBytesMax) {
      const std::string called(trimmed(std::string_view(held).substr(name, name_end - name)));
      if (!called.empty()) {
        held.erase(0, v3 ? name_end : name_end + kSeparator.size());
        begin_call(called);
        place = v3 ? Place::kFence : Place::kArguments;
        after_blanks(false);
        return true;
      }
    } else if (name_end == held.npos && end == held.npos && !ended &&
               held.size() < kNameBytesMax + kSeparator.size()) {
      return false;
    }
    if (cut_off_call() && end == held.npos) return drop();
    call_is_text("");
    return true;
  }

  /// The line that opens a fence, if there is one.
  bool fence() {
    const std::string_view text = after_blanks(false);
    if ((text.empty() && !ended) || may_become(kFence)) return false;
    if (text.starts_with(kFence)) {
      const size_t line = std::min(text.find('\n'), text.find(kCallEnd));
      if (line == text.npos && !ended && text.size() < kNameBytesMax) return false;
      if (std::min(line, text.size()) < kNameBytesMax) held.erase(0, line);
    }
    place = Place::kArguments;
    return true;
  }

  bool read_arguments() {
    if (arguments.empty()) after_blanks(false);
    const size_t end = held.find(kCallEnd);
    if (end == held.npos) {
      const size_t certain = certain_arguments(held);
      put(Kind::kArguments, held.substr(0, certain));
      held.erase(0, ended ? held.npos : certain);
      if (ended) end_call();
      return false;
    }
    std::string_view text = trimmed_end(std::string_view(held).substr(0, end));
    if (text.ends_with(kFence)) text = trimmed_end(text.substr(0, text.size() - kFence.size()));
    put(Kind::kArguments, std::string(text));
    held.erase(0, end + kCallEnd.size());
    end_call();
    return !held.empty();
  }

  bool read_object() {
    held.erase(0, object.push(held));
    const CallObject::Status status = object.status();
    const bool known = object.name().has_value() &&
                       (object.has_arguments() || status == CallObject::Status::kDone);
    const bool offered =
        tools() != ToolSyntax::kLlama ||
        std::find(options.tools.begin(), options.tools.end(), object.name()) != options.tools.end();
    if (!calling && known && offered) begin_call(*object.name());
    if (calling) put(Kind::kArguments, object.take_arguments());
    const bool over = status != CallObject::Status::kOpen || ended;
    if (calling && over)
      end_call();
    else if (cut_off_call() && !known && status == CallObject::Status::kOpen)
      return drop();
    else if (over || (known && !offered))
      call_is_text(object.raw());
    else
      return false;
    return !held.empty();
  }

  /// The place that had to wait decides, now that nothing will come.
  void finish() {
    ended = true;
    while (step()) continue;
    if (options.only_calls && place != Place::kThought) return;
    put(place == Place::kThought ? Kind::kReasoning : Kind::kContent, std::exchange(blanks, ""));
  }
};

AnswerParser::AnswerParser(AnswerParserOptions options) : state_(std::make_unique<State>()) {
  if (options.thinking) {
    state_->thoughts = false;
    state_->leave(State::Place::kThought);
    state_->after_mark = !options.thought_begun;
  }
  state_->options = std::move(options);
}

AnswerParser::AnswerParser(AnswerParser&&) noexcept = default;
AnswerParser& AnswerParser::operator=(AnswerParser&&) noexcept = default;
AnswerParser::~AnswerParser() = default;

std::vector<AnswerDelta> AnswerParser::push(std::string_view piece) {
  state_->held += piece;
  while (state_->step()) continue;
  return std::exchange(state_->out, {});
}

std::vector<AnswerDelta> AnswerParser::finish() {
  state_->finish();
  return std::exchange(state_->out, {});
}

AnswerSyntax answer_syntax(std::string_view chat_template, const Tokenizer& tokenizer) {
  const auto has = [&](std::string_view text) { return chat_template.find(text) != text.npos; };
  AnswerSyntax syntax;
  // A vocabulary with a token for it was made for a model that thinks.
  syntax.thinks = has(kThink) || has(kThinkEnd) || tokenizer.token_id(kThinkEnd).has_value();
  if (has(kCalls))
    syntax.tools = has("```json") ? ToolSyntax::kDeepSeekV3 : ToolSyntax::kDeepSeekV31;
  else if (has(kHermes) && !has("<function="))  // Qwen3-Coder writes arguments as XML
    syntax.tools = ToolSyntax::kHermes;
  else if (has(kPython) || (has("<|start_header_id|>") && has("\"parameters\": ")))
    syntax.tools = ToolSyntax::kLlama;
  for (const std::string_view mark : {kThink,
                                      kThinkEnd,
                                      kCalls,
                                      kCallsEnd,
                                      kCall,
                                      kCallEnd,
                                      kSeparator,
                                      kHermes,
                                      kHermesEnd,
                                      kPython})
    if (const auto id = tokenizer.token_id(mark)) syntax.marks.push_back(*id);
  return syntax;
}

bool ends_thinking(std::string_view prompt) { return trimmed_end(prompt).ends_with(kThinkEnd); }

bool begins_thinking(const AnswerSyntax& syntax, std::string_view prompt) {
  return syntax.thinks && trimmed_end(prompt).ends_with(kThink);
}

}  // namespace ferry::text
