#include "checkpoint/chat_lessons.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "checkpoint/model_chat.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kOpen = "<think>", kClose = "</think>";

/// A text field of a message; empty: it has none.
std::string field(const Json& message, const char* name) {
  const auto it = message.find(name);
  return it != message.end() && it->is_string() ? it->get<std::string>() : "";
}

std::string_view trimmed(std::string_view s) {
  constexpr const char* kSpace = " \t\r\n";
  const size_t begin = s.find_first_not_of(kSpace);
  if (begin == s.npos) return {};
  return s.substr(begin, s.find_last_not_of(kSpace) - begin + 1);
}

class Lessons {
 public:
  Lessons(const ModelTexts& texts, const Json& conversation, const std::string& directory)
      : texts_(texts),
        messages_(conversation.at("messages")),
        asked_(conversation),
        directory_(directory) {}

  Result<std::vector<text::Lesson>> learn() {
    for (size_t i = 0; i < messages_.size(); ++i) {
      if (field(messages_[i], "role") != "assistant") continue;
      const auto weight = messages_[i].find("weight");
      if (weight != messages_[i].end() && *weight == 0) continue;
      TRY(learn(i));
    }
    if (lessons_.empty())
      return fail(Code::kInvalidInput, "has no message of the assistant to learn from");
    return std::move(lessons_);
  }

 private:
  /// The first `count` messages.
  Result<ChatPrompt> render(size_t count, bool generation_prompt) {
    asked_["messages"] = Json(messages_.begin(), messages_.begin() + static_cast<ptrdiff_t>(count));
    asked_["add_generation_prompt"] = generation_prompt;
    return render_chat(texts_, json_text(asked_), "conversation", directory_);
  }

  Result<void> learn(size_t i) {
    if (i == 0) return fail(Code::kInvalidInput, "begins with an answer");
    TRY_ASSIGN(const ChatPrompt prompt, render(i, true));
    TRY_ASSIGN(const ChatPrompt whole, render(i + 1, false));
    TRY_ASSIGN(const std::string answer, answer_of(i, prompt.text, whole.text));
    std::vector<int32_t> ids;
    texts_.tokenizer->encode(answer, text::Tokenizer::Specials::kParse, ids);
    const auto end =
        std::find_first_of(ids.begin(), ids.end(), texts_.eos.begin(), texts_.eos.end());
    ids.erase(end, ids.end());
    ids.push_back(end_token(whole.ids));
    const bool goes_on = !lessons_.empty() && begins_with(prompt.ids, lessons_.back().ids);
    if (!goes_on) lessons_.emplace_back();
    text::Lesson& lesson = lessons_.back();
    lesson.ids.insert(lesson.ids.end(),
                      prompt.ids.begin() + static_cast<ptrdiff_t>(lesson.ids.size()),
                      prompt.ids.end());
    lesson.learnt.resize(lesson.ids.size(), false);
    lesson.ids.insert(lesson.ids.end(), ids.begin(), ids.end());
    lesson.learnt.resize(lesson.ids.size(), true);
    return {};
  }

  /// What follows the prompt, at least to the end token if the template writes one.
  Result<std::string> answer_of(size_t i,
                                const std::string& prompt,
                                const std::string& whole) const {
    const Json& message = messages_[i];
    const std::string reasoning = field(message, "reasoning_content");
    if (whole.starts_with(prompt)) {
      const std::string answer = whole.substr(prompt.size());
      for (const std::string_view said : {std::string_view(reasoning), content_of(message)})
        if (answer.find(trimmed(said)) == std::string::npos) return left_out(i);
      const auto calls = message.find("tool_calls");
      if (calls != message.end() && calls->is_array())
        for (const Json& call : *calls)
          if (call.is_object() && call.contains("function") && call["function"].is_object() &&
              answer.find(field(call["function"], "name")) == std::string::npos)
            return left_out(i);
      return answer;
    }
    // The prompt opens a thought that the template does not keep.
    if (!trimmed(prompt).ends_with(kOpen) || message.contains("tool_calls")) return left_out(i);
    const std::string content(content_of(message));
    if (!reasoning.empty() || content.find(kClose) == std::string::npos)
      return reasoning + (reasoning.ends_with('\n') ? "" : "\n") + std::string(kClose) + "\n\n" +
             content;
    const std::string_view thought = trimmed(content);
    if (!thought.starts_with(kOpen)) return content;
    const std::string_view rest = thought.substr(kOpen.size());
    return std::string(rest.substr(rest.starts_with('\n') ? 1 : 0));
  }

  static std::string_view content_of(const Json& message) {
    const auto it = message.find("content");
    return it != message.end() && it->is_string()
               ? std::string_view(it->get_ref<const std::string&>())
               : std::string_view();
  }

  tl::unexpected<Status> left_out(size_t i) const {
    return fail(Code::kInvalidInput,
                "message {}: the chat template of {} leaves out what it says (thoughts, calls of "
                "tools), so that it cannot be learnt; take that out, or use another template",
                i + 1,
                directory_);
  }

  /// The end token that the template writes; else the model's first.
  int32_t end_token(const std::vector<int32_t>& whole) const {
    const auto last =
        std::find_first_of(whole.rbegin(), whole.rend(), texts_.eos.begin(), texts_.eos.end());
    return last != whole.rend() && *last != texts_.bos ? *last : texts_.eos.front();
  }

  static bool begins_with(const std::vector<int32_t>& ids, const std::vector<int32_t>& with) {
    return ids.size() > with.size() && std::equal(with.begin(), with.end(), ids.begin());
  }

  const ModelTexts& texts_;
  const Json messages_;
  Json asked_;
  const std::string& directory_;
  std::vector<text::Lesson> lessons_;
};

}  // namespace

Result<std::vector<text::Lesson>> chat_lessons(const ModelTexts& texts,
                                               std::string_view conversation,
                                               const std::string& directory) {
  TRY(parse_json(conversation, "conversation"));
  const Json json = Json::parse(conversation);
  Json kept = Json::object();
  if (json.is_array()) kept["messages"] = json;
  if (json.is_object())
    for (const char* name : {"messages", "tools", "chat_template_kwargs"})
      if (json.contains(name)) kept[name] = json[name];
  if (!kept.contains("messages") || !kept["messages"].is_array())
    return fail(
        Code::kInvalidInput,
        "is no conversation: {{\"messages\": [{{\"role\": \"user\", \"content\": \"...\"}}, "
        "...]}}");
  if (texts.eos.empty())
    return fail(Code::kInvalidInput,
                "{}: no file of the model says with which token an answer ends",
                directory);
  return Lessons(texts, kept, directory).learn();
}

}  // namespace ferry
