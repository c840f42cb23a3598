#include "checkpoint/chat_lessons.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/ordered_json.h"
#include "checkpoint/chat_renderer.h"
#include "checkpoint/model_chat.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kOpen = "<think>", kClose = "</think>";

std::string_view trimmed(std::string_view s) {
  constexpr const char* kSpace = " \t\r\n";
  const size_t begin = s.find_first_not_of(kSpace);
  if (begin == s.npos) return {};
  return s.substr(begin, s.find_last_not_of(kSpace) - begin + 1);
}

/// Text, or parts that are text, which are lines as where a model is served; std::nullopt: neither.
std::optional<std::string> text_of(const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return std::nullopt;
  std::string text;
  for (const Json& part : content) {
    const bool is_text = part.is_object() && part.contains("type") && part["type"] == "text" &&
                         part.contains("text") && part["text"].is_string();
    if (!is_text) return std::nullopt;
    if (&part != &content.front()) text += '\n';
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

/// A message of the assistant. Views of the conversation's JSON.
struct Answer {
  std::string_view content, reasoning;
  std::vector<std::string> called;  // names and arguments, in order: what must be found in the text
  bool says = false;                // it has one of these, be it empty
  bool learnt = true;
};

/// Every text within a call's arguments, as far as it is to be seen in any way of writing them.
void add_leaves(const Json& json, std::vector<std::string>& to) {
  if (json.is_string()) {
    const std::string escaped = json_text(json);
    to.push_back(escaped.substr(1, escaped.size() - 2));
  } else if (json.is_structured()) {
    for (const auto& item : json) add_leaves(item, to);
  } else if (json.is_number()) {
    to.push_back(json_text(json));
  }
}

Result<void> read_calls(const Json& calls, Answer& answer) {
  for (const Json& call : calls) {
    const Json& function = call.is_object() && call.contains("function") ? call["function"] : call;
    if (!function.is_object() || !function.contains("name") || !function["name"].is_string())
      return fail(Code::kInvalidInput, "has a call of a tool without a name");
    answer.called.push_back(function["name"].get<std::string>());
    if (!function.contains("arguments")) continue;
    const Json& arguments = function["arguments"];
    const Json parsed = arguments.is_string()
                            ? Json::parse(arguments.get_ref<const std::string&>(), nullptr, false)
                            : arguments;
    if (parsed.is_discarded())
      return fail(Code::kInvalidInput, "calls a tool with arguments that are not JSON");
    add_leaves(parsed, answer.called);
  }
  return {};
}

Result<Answer> read_answer(const Json& message) {
  Answer answer;
  for (const auto& item : message.items()) {
    const std::string& name = item.key();
    const Json& value = item.value();
    const auto text = [&]() -> std::string_view { return value.get_ref<const std::string&>(); };
    const bool empty = value.is_null() || (value.is_structured() && value.empty());
    if (empty || name == "role" || name == "name") continue;
    if (name == "content" && value.is_string()) {
      answer.content = text();
      answer.says = true;
    } else if (name == "reasoning_content" && value.is_string()) {
      answer.reasoning = text();
      answer.says = true;
    } else if (name == "tool_calls" && value.is_array()) {
      TRY(read_calls(value, answer));
      answer.says = true;
    } else if (name == "weight" && (value == 0 || value == 1)) {
      answer.learnt = value == 1;
    } else {
      return fail(
          Code::kInvalidInput,
          "has \"{}\", which is no field of an answer that is learnt, or of the wrong type; "
          "there are content and reasoning_content (texts; content also in parts of text), "
          "tool_calls, name and weight (0 "
          "or 1)",
          printable(name));
    }
  }
  if (!answer.says)
    return fail(Code::kInvalidInput,
                "says nothing: it has neither content nor reasoning_content nor tool_calls");
  return answer;
}

class Lessons {
 public:
  Lessons(const ModelTexts& texts, const ChatRenderer& renderer, const std::string& directory)
      : texts_(texts), renderer_(renderer), directory_(directory) {}

  Result<void> learn(size_t i, const Answer& answer) {
    if (i == 0) return fail(Code::kInvalidInput, "begins the conversation: nobody asks for it");
    TRY_ASSIGN(const std::string prompt, renderer_.text(i, true));
    TRY_ASSIGN(const std::string whole, renderer_.text(i + 1, false));
    if (prompt.empty()) return fail(Code::kInvalidInput, "has an empty prompt");
    TRY_ASSIGN(const std::string said, said_in(answer, prompt, whole));
    std::vector<int32_t> ids;
    encode(said, ids);
    const auto end =
        std::find_first_of(ids.begin(), ids.end(), texts_.eos.begin(), texts_.eos.end());
    if (end == ids.end()) TRY(check_end(ids));
    const int32_t end_token = end == ids.end() ? texts_.eos.front() : *end;
    ids.erase(end, ids.end());
    ids.push_back(end_token);
    // The end token is a special one, where the tokenizer cuts the text: what follows may be read
    // alone.
    const std::string_view end_text = texts_.tokenizer->token_bytes(end_token);
    const std::string learnt_text = said.substr(0, said.find(end_text)) + std::string(end_text);
    const bool goes_on = !lessons_.empty() && prompt.starts_with(text_);
    if (!goes_on) {
      lessons_.emplace_back();
      text_.clear();
    }
    text::Lesson& lesson = lessons_.back();
    encode(std::string_view(prompt).substr(text_.size()), lesson.ids);
    lesson.learnt.resize(lesson.ids.size(), false);
    lesson.ids.insert(lesson.ids.end(), ids.begin(), ids.end());
    lesson.learnt.resize(lesson.ids.size(), true);
    text_ = prompt + learnt_text;
    return {};
  }

  std::vector<text::Lesson> take() { return std::move(lessons_); }

  /// What the assistant says may not look like its end.
  Result<void> check_words(const Answer& answer) const {
    for (const std::string_view words : {answer.content, answer.reasoning}) {
      std::vector<int32_t> ids;
      encode(words, ids);
      const auto end =
          std::find_first_of(ids.begin(), ids.end(), texts_.eos.begin(), texts_.eos.end());
      if (end != ids.end())
        return fail(Code::kInvalidInput,
                    "holds {}, with which answers of this model end; write it differently",
                    printable(texts_.tokenizer->token_bytes(*end)));
    }
    return {};
  }

 private:
  void encode(std::string_view text, std::vector<int32_t>& ids) const {
    texts_.tokenizer->encode(text, text::Tokenizer::Specials::kParse, ids);
  }

  /// What follows the prompt, at least to the end token if the template writes one.
  Result<std::string> said_in(const Answer& answer,
                              const std::string& prompt,
                              const std::string& whole) const {
    if (whole.starts_with(prompt)) {
      std::string said = whole.substr(prompt.size());
      size_t at = 0;
      const auto follows = [&](std::string_view words) {
        const size_t found = said.find(words, at);
        if (found == said.npos) return false;
        at = found + words.size();
        return true;
      };
      bool all = follows(trimmed(answer.reasoning)) && follows(trimmed(answer.content));
      for (const std::string& words : answer.called) all = all && follows(words);
      if (!all) return left_out();
      return said;
    }
    // The prompt opens a thought that the template does not keep.
    if (!trimmed(prompt).ends_with(kOpen) || !answer.called.empty()) return left_out();
    if (!answer.reasoning.empty() || answer.content.find(kClose) == answer.content.npos) {
      std::string said(answer.reasoning);
      if (!said.ends_with('\n')) said += '\n';
      return said.append(kClose).append("\n\n").append(answer.content);
    }
    std::string_view thought = trimmed(answer.content);
    if (thought.starts_with(kOpen)) {
      thought.remove_prefix(kOpen.size());
      if (thought.starts_with('\n')) thought.remove_prefix(1);
    }
    return std::string(thought);
  }

  tl::unexpected<Status> left_out() const {
    return fail(
        Code::kInvalidInput,
        "the chat template of {} leaves out what it says (thoughts, calls of tools), so that "
        "it cannot be learnt; take that out, or use another template",
        directory_);
  }

  /// A special token at the end of what the template writes is meant to end it.
  Result<void> check_end(const std::vector<int32_t>& ids) const {
    for (size_t i = ids.size(); i-- > 0;) {
      const std::string_view bytes = texts_.tokenizer->token_bytes(ids[i]);
      if (texts_.tokenizer->is_special(ids[i]))
        return fail(Code::kInvalidInput,
                    "the chat template of {} ends it with {}, at which generation would not stop: "
                    "add {} to eos_token_id in the model's {}",
                    directory_,
                    printable(bytes),
                    ids[i],
                    kGenerationConfigName);
      if (!trimmed(bytes).empty()) break;
    }
    return {};
  }

  const ModelTexts& texts_;
  const ChatRenderer& renderer_;
  const std::string& directory_;
  std::vector<text::Lesson> lessons_;
  std::string text_;  // of the last lesson
};

/// With "" for content that is absent, where the template needs some.
Result<ChatRenderer> renderer_of(const ModelTexts& texts,
                                 const Json& conversation,
                                 const std::string& directory,
                                 const Moment& now) {
  const auto make = [&](const Json& json) {
    return ChatRenderer::make(texts, json_text(json), "conversation", directory, now);
  };
  TRY_ASSIGN(ChatRenderer plain, make(conversation));
  TRY(plain.check_not_padded("conversation"));
  Json filled = conversation;
  bool any = false;
  for (Json& message : filled["messages"])
    if (message["role"] == "assistant" &&
        (!message.contains("content") || message["content"].is_null())) {
      message["content"] = "";
      any = true;
    }
  if (!any) return plain;
  TRY_ASSIGN(ChatRenderer full, make(filled));
  const bool needed =
      needs_content(plain.text(plain.messages(), false), full.text(full.messages(), false));
  return needed ? std::move(full) : std::move(plain);
}

/// Answers in parts are made texts, for templates and for whoever looks for them there.
void join_parts(Json& messages) {
  for (Json& message : messages) {
    if (!message.is_object() || !message.contains("role") || message["role"] != "assistant")
      continue;
    if (!message.contains("content") || !message["content"].is_array()) continue;
    const std::optional<std::string> text = text_of(message["content"]);
    if (message["content"].empty())
      message["content"] = nullptr;
    else if (text)
      message["content"] = *text;
  }
}

/// "system" beside the messages, as Anthropic's API has it, is the first of them. Whether one was added.
Result<bool> add_system(const Json& conversation, Json& messages) {
  if (!conversation.contains("system") || conversation["system"].is_null()) return false;
  const std::optional<std::string> text = text_of(conversation["system"]);
  if (!text)
    return fail(Code::kInvalidInput, "\"system\" must be text, or a list of parts of text");
  if (text->empty()) return false;
  const Json& first = messages.empty() ? Json() : messages.front();
  if (first.is_object() && first.contains("role") && first["role"] == "system") {
    if (first.contains("content") && text_of(first["content"]) == text) return false;
    return fail(Code::kInvalidInput,
                "\"system\" and the first message say different things: leave one of them");
  }
  messages.insert(messages.begin(), Json{{"role", "system"}, {"content", *text}});
  return true;
}

}  // namespace

Result<std::vector<text::Lesson>> chat_lessons(const ModelTexts& texts,
                                               std::string_view conversation,
                                               const std::string& directory,
                                               const Moment& now) {
  TRY_ASSIGN(const Json json, parse_ordered_json(conversation, "conversation"));
  Json kept = Json::object();
  if (json.is_object())
    for (const char* name : {"messages", "tools", "chat_template_kwargs"})
      if (json.contains(name) && !json[name].is_null()) kept[name] = json[name];
  if (!kept.contains("messages") || !kept["messages"].is_array())
    return fail(
        Code::kInvalidInput,
        "is no conversation: {{\"messages\": [{{\"role\": \"user\", \"content\": \"...\"}}, "
        "...]}}");
  if (texts.eos.empty())
    return fail(Code::kInvalidInput,
                "{}: no file of the model says with which token an answer ends",
                directory);
  join_parts(kept["messages"]);
  TRY_ASSIGN(const bool added, add_system(json, kept["messages"]));
  TRY_ASSIGN(const ChatRenderer renderer, renderer_of(texts, kept, directory, now));
  Lessons lessons(texts, renderer, directory);
  bool any = false;
  const Json& messages = kept["messages"];
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i]["role"] != "assistant") continue;
    const auto learn = [&]() -> Result<bool> {
      TRY_ASSIGN(const Answer answer, read_answer(messages[i]));
      TRY(lessons.check_words(answer));
      if (answer.learnt) TRY(lessons.learn(i, answer));
      return answer.learnt;
    };
    const Result<bool> learnt = learn();
    if (!learnt)
      return fail(learnt.error().code, "message {}: {}", added ? i : i + 1, learnt.error().message);
    any = any || *learnt;
  }
  if (!any) return fail(Code::kInvalidInput, "has no message of the assistant to learn from");
  return lessons.take();
}

}  // namespace ferry
