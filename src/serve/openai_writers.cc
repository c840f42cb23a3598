// Answers in the shapes of OpenAI's chat and text completions, with what DeepSeek, vLLM and llama.cpp
// add to them.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/json.h"
#include "base/json_string.h"
#include "serve/answer_writer.h"
#include "text/utf8.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::ordered_json;
using Kind = text::AnswerDelta::Kind;

constexpr double kLeastLogProb = -9999;  // JSON has no infinity

double log_prob_of(float value) { return std::max<double>(value, kLeastLogProb); }

const char* name_of(const std::optional<AnswerEnd>& end) {
  if (!end) return nullptr;
  switch (*end) {
    case AnswerEnd::kStop: return "stop";
    case AnswerEnd::kLength: return "length";
    case AnswerEnd::kToolCalls: return "tool_calls";
  }
  return nullptr;
}

Json text_or_null(const char* text) { return text == nullptr ? Json(nullptr) : Json(text); }

std::string event(const std::string& data) { return "data: " + data + "\n\n"; }

/// {"FIELD":"TEXT"} as JSON.
std::string object_text(std::string_view field, std::string_view text) {
  std::string json = "{\"";
  json += field;
  json += "\":";
  append_json_string(json, text);
  return json += '}';
}

Json usage_json(const AnswerUsage& u) {
  return {{"prompt_tokens", u.prompt},
          {"completion_tokens", u.completion},
          {"total_tokens", u.prompt + u.completion},
          {"prompt_tokens_details", {{"cached_tokens", u.cached}}},
          {"completion_tokens_details", {{"reasoning_tokens", u.thought}}},
          {"prompt_cache_hit_tokens", u.cached},
          {"prompt_cache_miss_tokens", u.prompt - u.cached}};
}

/// As llama.cpp has it. The first token of each answer comes with its prompt: the time after it is that of the others.
Json timings_json(const AnswerUsage& u) {
  const int64_t read = u.prompt - u.cached, later = u.completion - u.begun;
  const auto quotient = [](double a, double b) { return b > 0 ? a / b : 0; };
  const auto tokens = [](int64_t count) { return static_cast<double>(count); };
  return {{"cache_n", u.cached},
          {"prompt_n", read},
          {"prompt_ms", 1000 * u.prompt_s},
          {"prompt_per_token_ms", quotient(1000 * u.prompt_s, tokens(read))},
          {"prompt_per_second", quotient(tokens(read), u.prompt_s)},
          {"predicted_n", u.completion},
          {"predicted_ms", 1000 * u.completion_s},
          {"predicted_per_token_ms", quotient(1000 * u.completion_s, tokens(later))},
          {"predicted_per_second", quotient(tokens(later), u.completion_s)}};
}

/// What both kinds of documents share.
class OpenAiWriter : public AnswerWriter {
 public:
  OpenAiWriter(const ModelInfo& model,
               const Question& question,
               const AnswerHead& head,
               const char* prefix,
               const char* object,
               const char* chunk)
      : model_(model), question_(question), head_(head), prefix_(prefix), object_(object) {
    chunk_ = json_text(head_json(chunk));
    chunk_.back() = ',';  // what comes next goes on with the object
  }

  std::string document(const std::vector<Answer>& answers, const AnswerUsage& usage) override {
    Json j = head_json(object_);
    Json choices = Json::array();
    for (size_t i = 0; i < answers.size(); ++i) {
      Json choice = whole(i, answers[i]);
      if (question_.token_ids) choice["token_ids"] = ids_json(answers[i], 0);
      choices.push_back(std::move(choice));
    }
    j["choices"] = std::move(choices);
    j["usage"] = usage_json(usage);
    if (question_.token_ids && question_.chat)
      j["prompt_token_ids"] = question_.prompts.front().ids;
    if (question_.chat && question_.options.prompt_top_log_probs)
      j["prompt_logprobs"] = prompt_log_probs_json(answers.front());
    if (question_.timings) j["timings"] = timings_json(usage);
    return json_text(j);
  }

  std::string end(const std::vector<Answer>&, const AnswerUsage& usage) override {
    std::string events;
    if (question_.usage_in_stream) {
      const std::string timings =
          question_.timings ? ",\"timings\":" + json_text(timings_json(usage)) : "";
      events = event(chunk_ + "\"choices\":[],\"usage\":" + json_text(usage_json(usage)) + timings +
                     "}");
    }
    return events + event("[DONE]");
  }

  std::string failure(const ApiError& error) override {
    return event(error_json(error, ApiStyle::kOpenAi));
  }

 protected:
  virtual Json whole(size_t index, const Answer& answer) = 0;

  /// What a token is called. Those that are parts of a character may share a name.
  std::string name_of_token(int32_t id) const {
    return question_.ids_for_texts
               ? fmt::format("token_id:{}", id)
               : text::replace_ill_formed(model_.texts.tokenizer->token_bytes(id));
  }

  /// As vLLM has it: for each token of the prompt null, or {"ID": {"logprob", ..}} of it and of the
  /// most probable ones.
  Json prompt_log_probs_json(const Answer& answer) const {
    Json all = Json::array({nullptr});
    for (const engine::Token& token : answer.prompt) {
      Json one = Json::object();
      const auto add = [&](int32_t id, float log_prob) {
        one[std::to_string(id)] = {
            {"logprob", log_prob_of(log_prob)},
            {"decoded_token", std::string(model_.texts.tokenizer->token_bytes(id))}};
      };
      add(token.id, token.log_prob);
      for (size_t rank = 0; rank < token.top.size(); ++rank) {
        add(token.top[rank].first, token.top[rank].second);
        one[std::to_string(token.top[rank].first)]["rank"] = rank + 1;
      }
      all.push_back(std::move(one));
    }
    return all;
  }

  /// {"token": .., "logprob": .., "bytes": [..]} as chats have it; llama.cpp adds the id. A control
  /// token is marked: its text can be no part of a message that is sent back.
  Json token_json(int32_t id, float log_prob) const {
    const std::string_view bytes = model_.texts.tokenizer->token_bytes(id);
    Json list = Json::array();
    for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
    Json token = {{"id", id},
                  {"token", name_of_token(id)},
                  {"logprob", log_prob_of(log_prob)},
                  {"bytes", std::move(list)}};
    if (model_.texts.tokenizer->is_special(id)) token["special"] = true;
    return token;
  }

  Json ids_json(const Answer& answer, size_t first) const {
    Json ids = Json::array();
    for (size_t t = first; t < answer.tokens.size(); ++t) ids.push_back(answer.tokens[t].id);
    return ids;
  }

  /// A choice of a stream's event, as text: there is an event for each token, and building documents for them would be
  /// most of what they cost. `name`, `said`: its own field and that field's JSON. `log_probs`, `ids`: null without.
  static std::string choice(size_t index,
                            std::string_view name,
                            std::string_view said,
                            const Json& log_probs,
                            const std::optional<AnswerEnd>& end,
                            const Json& ids) {
    std::string text = "{\"index\":" + std::to_string(index) + ",\"";
    text += name;
    text += "\":";
    text += said;
    text += ",\"logprobs\":";
    text += log_probs.is_null() ? "null" : json_text(log_probs);
    text += ",\"finish_reason\":";
    if (end)
      append_json_string(text, name_of(end));
    else
      text += "null";
    if (!ids.is_null()) text += ",\"token_ids\":" + json_text(ids);
    return text += '}';
  }

  /// An event with one choice. `usage`: nullptr, where no token came.
  std::string chunk(std::string_view choice, const AnswerUsage* usage) const {
    std::string data = chunk_ + "\"choices\":[";
    data += choice;
    data += ']';
    if (question_.usage_in_stream) data += ",\"usage\":null";
    if (question_.timings && usage != nullptr)
      data += ",\"timings\":" + json_text(timings_json(*usage));
    return event(data + "}");
  }

  const ModelInfo& model_;
  const Question& question_;

 private:
  Json head_json(const char* object) const {
    return {{"id", prefix_ + head_.id},
            {"object", object},
            {"created", head_.created_s},
            {"model", head_.model},
            {"system_fingerprint", head_.fingerprint}};
  }

  AnswerHead head_;
  std::string prefix_;
  const char* object_;
  std::string chunk_;
};

class ChatWriter : public OpenAiWriter {
 public:
  ChatWriter(const ModelInfo& model, const Question& question, const AnswerHead& head)
      : OpenAiWriter(
            model, question, head, "chatcmpl-", "chat.completion", "chat.completion.chunk") {}

  std::string begin(const std::vector<Answer>& answers, const AnswerUsage&) override {
    std::string events;
    for (size_t i = 0; i < answers.size(); ++i) {
      Json choice = {{"index", i},
                     {"delta", {{"role", "assistant"}, {"content", ""}}},
                     {"logprobs", nullptr},
                     {"finish_reason", nullptr}};
      if (i == 0 && question_.token_ids) choice["prompt_token_ids"] = question_.prompts[0].ids;
      events += chunk(json_text(choice), nullptr);
    }
    return events;
  }

  std::string more(size_t index,
                   const Answer& answer,
                   const AnswerNews& news,
                   const AnswerUsage& usage) override {
    std::string events;
    Json log_probs = log_probs_json(answer, news.first_token);
    Json ids;  // null: none are new, or wanted
    if (question_.token_ids && news.first_token < answer.tokens.size())
      ids = ids_json(answer, news.first_token);
    const auto add = [&](std::string_view delta, const std::optional<AnswerEnd>& end) {
      events += chunk(choice(index,
                             "delta",
                             delta,
                             std::exchange(log_probs, nullptr),
                             end,
                             std::exchange(ids, nullptr)),
                      &usage);
    };
    for (const text::AnswerDelta& d : news.deltas) {
      const auto call = static_cast<size_t>(d.call);
      switch (d.kind) {
        case Kind::kReasoning: add(object_text("reasoning_content", d.text), std::nullopt); break;
        case Kind::kContent: add(object_text("content", d.text), std::nullopt); break;
        case Kind::kCall:
          add(json_text(Json{{"tool_calls",
                              {{{"index", d.call},
                                {"id", answer.calls[call].id},
                                {"type", "function"},
                                {"function", {{"name", d.text}, {"arguments", ""}}}}}}}),
              std::nullopt);
          break;
        case Kind::kArguments:
          add(json_text(Json{
                  {"tool_calls", {{{"index", d.call}, {"function", {{"arguments", d.text}}}}}}}),
              std::nullopt);
          break;
        case Kind::kCallEnd: break;
      }
    }
    // Tokens whose text is held back still have log-probabilities.
    if (!log_probs.is_null() || !ids.is_null() || answer.end) add("{}", answer.end);
    return events;
  }

 protected:
  Json whole(size_t index, const Answer& a) override {
    Json message = {{"role", "assistant"}, {"content", a.content}, {"refusal", nullptr}};
    if (a.content.empty() && !a.calls.empty()) message["content"] = nullptr;
    if (!a.reasoning.empty()) message["reasoning_content"] = a.reasoning;
    Json calls = Json::array();
    for (const ToolCall& c : a.calls)
      calls.push_back({{"id", c.id},
                       {"type", "function"},
                       {"function", {{"name", c.name}, {"arguments", c.arguments}}}});
    if (!calls.empty()) message["tool_calls"] = std::move(calls);
    return {{"index", index},
            {"message", std::move(message)},
            {"logprobs", log_probs_json(a, 0)},
            {"finish_reason", text_or_null(name_of(a.end))}};
  }

 private:
  /// Null where there are none.
  Json log_probs_json(const Answer& answer, size_t first) const {
    if (!question_.options.top_log_probs || first >= answer.tokens.size()) return nullptr;
    Json content = Json::array();
    for (size_t t = first; t < answer.tokens.size(); ++t) {
      const engine::Token& token = answer.tokens[t];
      Json one = token_json(token.id, token.log_prob);
      Json top = Json::array();
      for (const auto& [id, log_prob] : token.top) top.push_back(token_json(id, log_prob));
      one["top_logprobs"] = std::move(top);
      content.push_back(std::move(one));
    }
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }
};

class CompletionWriter : public OpenAiWriter {
 public:
  CompletionWriter(const ModelInfo& model, const Question& question, const AnswerHead& head)
      : OpenAiWriter(model, question, head, "cmpl-", "text_completion", "text_completion") {
    written_.resize(static_cast<size_t>(question.answers()));
  }

  std::string begin(const std::vector<Answer>&, const AnswerUsage&) override { return ""; }

  std::string more(size_t index,
                   const Answer& answer,
                   const AnswerNews& news,
                   const AnswerUsage& usage) override {
    std::string text = written_[index].began ? "" : echoed(index);
    for (const text::AnswerDelta& d : news.deltas) text += d.text;
    const Json log_probs = log_probs_json(index, answer, news.first_token);
    const bool ids = question_.token_ids && news.first_token < answer.tokens.size();
    if (text.empty() && log_probs.is_null() && !ids && !answer.end) return "";
    std::string said;
    append_json_string(said, text);
    return chunk(choice(index,
                        "text",
                        said,
                        log_probs,
                        answer.end,
                        ids ? ids_json(answer, news.first_token) : Json()),
                 &usage);
  }

 protected:
  Json whole(size_t index, const Answer& a) override {
    Json choice = {{"index", index},
                   {"text", echoed(index) + a.content},
                   {"logprobs", log_probs_json(index, a, 0)},
                   {"finish_reason", text_or_null(name_of(a.end))}};
    if (question_.token_ids) choice["prompt_token_ids"] = prompt(index).ids;
    if (question_.options.prompt_top_log_probs)
      choice["prompt_logprobs"] = prompt_log_probs_json(a);
    return choice;
  }

 private:
  const Prompt& prompt(size_t index) const {
    return question_.prompts[index / static_cast<size_t>(question_.choices)];
  }
  std::string echoed(size_t index) const { return question_.echo ? prompt(index).text : ""; }

  /// Of the prompt, too, if it is repeated, and of the answer's tokens from `first` on.
  Json log_probs_json(size_t index, const Answer& answer, size_t first) {
    Written& w = written_[index];
    const bool repeats = question_.echo && !std::exchange(w.began, true);
    if (!question_.options.top_log_probs || (!repeats && first >= answer.tokens.size()))
      return nullptr;
    Json tokens = Json::array(), log_probs = tokens, top = tokens, offsets = tokens;
    const auto add = [&](int32_t id, Json log_prob, Json best, bool said) {
      tokens.push_back(name_of_token(id));
      log_probs.push_back(std::move(log_prob));
      top.push_back(std::move(best));
      offsets.push_back(w.characters);
      if (said) w.add(model_.texts.tokenizer->token_bytes(id));
    };
    // Of special tokens there is nothing in what is answered, but in a text that has theirs.
    const auto is_said = [&](int32_t id) { return !model_.texts.tokenizer->is_special(id); };
    const auto add_token = [&](const engine::Token& token, bool said) {
      Json best = Json::object();  // of tokens that share a name, the most probable: it comes first
      for (const auto& [id, log_prob] : token.top)
        best.emplace(name_of_token(id), log_prob_of(log_prob));
      add(token.id, log_prob_of(token.log_prob), std::move(best), said);
    };
    if (repeats) {
      const Prompt& p = prompt(index);
      const int32_t begin = p.ids.front();
      // Nothing stands before it.
      add(begin, nullptr, nullptr, is_said(begin) || (p.as_text && !p.begun));
      for (const engine::Token& token : answer.prompt)
        add_token(token, p.as_text || is_said(token.id));
    }
    for (size_t t = first; t < answer.tokens.size(); ++t)
      add_token(answer.tokens[t], is_said(answer.tokens[t].id));
    return {{"tokens", std::move(tokens)},
            {"token_logprobs", std::move(log_probs)},
            {"top_logprobs", std::move(top)},
            {"text_offset", std::move(offsets)}};
  }

  /// The text of the tokens that were told, the prompt's included: clients cut it at these places.
  struct Written {
    bool began = false;
    size_t characters = 0;
    std::string open;  // bytes of one that is not whole yet

    void add(std::string_view bytes) {
      open += bytes;
      size_t at = 0;
      while (at < open.size()) {
        const text::Utf8Char c = text::decode_utf8(open, at);
        if (c.cut_short) break;
        at += c.bytes;
        ++characters;
      }
      open.erase(0, at);
    }
  };
  std::vector<Written> written_;  // of each answer
};

}  // namespace

std::unique_ptr<AnswerWriter> chat_writer(const ModelInfo& model,
                                          const Question& question,
                                          const AnswerHead& head) {
  return std::make_unique<ChatWriter>(model, question, head);
}

std::unique_ptr<AnswerWriter> completion_writer(const ModelInfo& model,
                                                const Question& question,
                                                const AnswerHead& head) {
  return std::make_unique<CompletionWriter>(model, question, head);
}

}  // namespace ferry::serve
