#include "verify/server_client.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/json.h"

namespace ferry::verify {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int kTop = 5;  // more than that many are refused by some
constexpr double kFavour = 100;
constexpr double kEchoApart = 0.5;  // nats: more than any rounding

constexpr const char* kCompletions = "/v1/completions";
constexpr const char* kChat = "/v1/chat/completions";

/// Fields that not every server knows, with values that switch off what some do by default: whoever
/// asks for a temperature means the model's own distribution.
const OrderedJson& extras() {
  static const OrderedJson fields = {{"top_k", 0},
                                     {"min_p", 0},
                                     {"repetition_penalty", 1},
                                     {"repeat_penalty", 1},
                                     {"return_token_ids", true}};
  return fields;
}

bool refused(int status) {
  return status >= 400 && status != 401 && status != 403 && status != 404;
}

/// Whether a status says "not now", of all that is asked: nothing of a field or a path.
bool busy(int status) { return status == 408 || status == 429 || status == 503; }
bool busy(const Result<HttpReply>& reply) { return reply && busy(reply->status); }

/// Of a reply that is none: what the server says, and what is to be told of one that has no time.
std::string told_of(const HttpReply& reply, const std::string& told_if_busy) {
  return fmt::format("status {}: {}{}",
                     reply.status,
                     error_of(reply.body),
                     busy(reply.status) ? told_if_busy : "");
}

/// What clients ask again after, as a rule: no reply at all, and statuses that say "not now".
bool may_pass(const Result<HttpReply>& reply) {
  return !reply || busy(reply) || reply->status >= 500;
}

/// Whether a body is what a program answers, and not that something is wrong.
bool is_answer(const std::string& body) {
  const auto json = nlohmann::json::parse(body, nullptr, false);
  if (json.is_array()) return !json.empty();
  return json.is_object() && (!json.contains("error") || json["error"].is_null());
}

}  // namespace

Result<ServerClient> ServerClient::open(HttpClient http,
                                        const std::string& model,
                                        std::string key,
                                        Patience patience) {
  ServerClient client(std::move(http), std::move(key), std::move(patience));
  TRY(client.find_model(model));
  TRY(client.find_abilities());
  return client;
}

/// The replies in the order of the requests; one that is still busy had no time as long as the patience lasted.
std::vector<Result<HttpReply>> ServerClient::ask_patiently(std::span<const HttpRequest> requests) {
  std::vector<Result<HttpReply>> replies(requests.size(), HttpReply());
  std::vector<size_t> left(requests.size());
  std::iota(left.begin(), left.end(), 0);
  for (;;) {
    std::vector<HttpRequest> round;
    for (const size_t i : left) round.push_back(requests[i]);
    std::vector<Result<HttpReply>> came = http_.ask_together(round);
    requests_ += std::ssize(round);
    std::vector<size_t> again;
    std::optional<double> retry_after_s;
    for (size_t r = 0; r < left.size(); ++r) {
      if (busy(came[r])) {
        again.push_back(left[r]);
        retry_after_s = std::max(retry_after_s, came[r]->retry_after_s);
      }
      replies[left[r]] = std::move(came[r]);
    }
    if (again.size() < left.size()) patience_.answered();
    if (again.empty() || !patience_.wait(retry_after_s)) return replies;
    left = std::move(again);
  }
}

Result<HttpReply> ServerClient::ask_patiently(const HttpRequest& request) {
  return std::move(ask_patiently({&request, 1}).front());
}

Result<void> ServerClient::find_model(const std::string& wanted) {
  TRY_ASSIGN(const HttpReply reply, ask_patiently({.path = "/v1/models", .body = "", .key = key_}));
  const std::string where = address() + "/v1/models";
  if (reply.status == 401 || reply.status == 403)
    return fail(Code::kInvalidInput,
                "{}: {} (status {}); --api-key-file gives a key",
                where,
                key_.empty() ? "wants a key" : "refuses the key",
                reply.status);
  model_ = wanted;
  if (reply.status == 404 && !wanted.empty()) return {};
  if (busy(reply.status))
    return fail(Code::kUnavailable, "{}: {}", where, told_of(reply, patience_.told()));
  if (reply.status != 200)
    return fail(Code::kUnavailable,
                "{}: {}; is it an OpenAI-compatible server?",
                where,
                told_of(reply, patience_.told()));
  TRY_ASSIGN(const std::vector<std::string> names, read_models(reply.body, where));
  if (names.empty()) return fail(Code::kUnavailable, "{}: lists no model", where);
  if (wanted.empty()) {
    model_ = names.front();
  } else if (std::find(names.begin(), names.end(), wanted) == names.end()) {
    std::string all;
    for (const std::string& n : names) all += (all.empty() ? "" : ", ") + printable(n);
    return fail(
        Code::kInvalidInput, "{}: has no model {}; it lists {}", where, printable(wanted), all);
  }
  return {};
}

std::string ServerClient::body_of(const Ask& q) const {
  OrderedJson body = {{"model", model_}};
  if (q.chat)
    body["messages"] = OrderedJson::parse(std::get<std::string>(q.prompt));
  else if (const auto* ids = std::get_if<std::vector<int32_t>>(&q.prompt))
    body["prompt"] = *ids;
  else
    body["prompt"] = std::get<std::string>(q.prompt);
  body["max_tokens"] = q.tokens;
  body["temperature"] = q.temperature;
  body["top_p"] = 1;
  if (q.seed) body["seed"] = *q.seed;
  if (q.favoured) body["logit_bias"] = {{std::to_string(*q.favoured), kFavour}};
  const bool prompt = q.prompt_log_probs && gives_prompt_log_probs();
  if ((q.log_probs || prompt) && gives_log_probs(q.chat)) {
    if (q.chat) {
      body["logprobs"] = true;
      body["top_logprobs"] = kTop;
    } else {
      body["logprobs"] = kTop;
    }
  }
  if (prompt) {
    if (prompt_log_probs_ == PromptLogProbs::kEcho)
      body["echo"] = true;
    else
      body["prompt_logprobs"] = kTop;
  }
  for (const auto& [name, value] : extras().items())
    if (!left_out_.contains(name)) body[name] = value;
  return json_text(body);
}

Result<ServerAnswer> ServerClient::read(const Ask& q,
                                        const Result<HttpReply>& reply,
                                        const std::string& told_if_busy) const {
  if (!reply) return tl::unexpected(reply.error());
  const std::string where = address() + (q.chat ? kChat : kCompletions);
  if (reply->status != 200)
    return fail(Code::kUnavailable, "{}: {}", where, told_of(*reply, told_if_busy));
  return read_answer(
      reply->body, where, q.prompt_log_probs && prompt_log_probs_ == PromptLogProbs::kEcho);
}

/// Whether there was something to leave away: what the refusal names, or else all that is left.
bool ServerClient::leave_out(const std::string& refusal) {
  bool named = false;
  for (const auto& [name, value] : extras().items())
    if (refusal.find(name) != std::string::npos) named |= left_out_.insert(name).second;
  if (named) return true;
  const size_t before = left_out_.size();
  for (const auto& [name, value] : extras().items()) left_out_.insert(name);
  return left_out_.size() > before;
}

Result<ServerAnswer> ServerClient::ask(const Ask& q) {
  return std::move(ask_together({&q, 1}).front());
}

std::vector<Result<ServerAnswer>> ServerClient::ask_together(std::span<const Ask> questions) {
  const std::vector<Result<HttpReply>> replies = ask_patiently(requests_of(questions));
  std::vector<Result<ServerAnswer>> answers;
  for (size_t i = 0; i < questions.size(); ++i)
    answers.push_back(read(questions[i], replies[i], patience_.told()));
  return answers;
}

std::vector<HttpRequest> ServerClient::requests_of(std::span<const Ask> questions) const {
  std::vector<HttpRequest> requests;
  for (const Ask& q : questions)
    requests.push_back({.path = q.chat ? kChat : kCompletions, .body = body_of(q), .key = key_});
  return requests;
}

std::vector<ServerClient::Attempt> ServerClient::attempt_together(std::span<const Ask> questions) {
  requests_ += std::ssize(questions);
  const std::vector<Result<HttpReply>> replies = http_.ask_together(requests_of(questions));
  std::vector<Attempt> attempts;
  for (size_t i = 0; i < questions.size(); ++i)
    attempts.push_back({.answer = read(questions[i], replies[i], ""),
                        .may_pass = may_pass(replies[i]),
                        .busy = busy(replies[i]),
                        .retry_after_s = replies[i] ? replies[i]->retry_after_s : std::nullopt});
  return attempts;
}

/// Nothing: it does not answer that. Errors: it has no time, which says nothing of what it can do.
Result<std::optional<ServerAnswer>> ServerClient::try_ask(const Ask& q) {
  const Result<HttpReply> reply = ask_patiently(requests_of({&q, 1}).front());
  Result<ServerAnswer> answer = read(q, reply, patience_.told());
  if (busy(reply)) return tl::unexpected(answer.error());
  return answer ? std::optional(*std::move(answer)) : std::nullopt;
}

/// Each ability is what the server shows when it is asked for it.
Result<void> ServerClient::find_abilities() {
  Ask q{.prompt = "The ferry leaves at", .tokens = 2};
  std::string refusal;
  for (const bool chat : {false, true}) {
    if (chat) q = {.prompt = R"([{"role":"user","content":"Hello"}])", .chat = true, .tokens = 2};
    bool& log_probs = chat ? chat_log_probs_ : log_probs_;
    const std::set<std::string> left_out = left_out_;
    for (;;) {
      TRY_ASSIGN(const HttpReply reply, ask_patiently(requests_of({&q, 1}).front()));
      if (reply.status == 200) {
        TRY_ASSIGN(const ServerAnswer answer, read(q, reply, patience_.told()));
        (chat ? chats_ : completes_) = true;
        log_probs &= std::any_of(answer.tokens.begin(), answer.tokens.end(), [](const auto& t) {
          return t.chosen.log_prob.has_value();
        });
        break;
      }
      refusal = told_of(reply, patience_.told());
      if (reply.status == 401 || reply.status == 403)
        return fail(Code::kInvalidInput,
                    "{}: {} ({}); --api-key-file gives a key",
                    address(),
                    key_.empty() ? "wants a key" : "refuses the key",
                    refusal);
      if (busy(reply.status))
        return fail(Code::kUnavailable, "{}: is busy ({})", address(), refusal);
      if (!refused(reply.status)) break;
      if (log_probs && reply.body.find("logprobs") != std::string::npos) {
        log_probs = false;
      } else if (!leave_out(reply.body)) {
        if (!log_probs) break;
        log_probs = false;
      }
    }
    // What is left away for the sake of an endpoint that is not there, is left away for nothing.
    if (!(chat ? chats_ : completes_)) left_out_ = left_out;
  }
  if (!completes_ && !chats_)
    return fail(Code::kUnavailable,
                "{}: answers neither {} nor {}: {}",
                address(),
                kCompletions,
                kChat,
                refusal);
  if (!completes_) return {};
  const std::vector<int32_t> ids = {1, 2, 3};
  TRY_ASSIGN(const std::optional<ServerAnswer> by_ids,
             try_ask({.prompt = ids, .tokens = 1, .log_probs = false}));
  takes_ids_ = by_ids && by_ids->prompt_tokens.value_or(0) == std::ssize(ids);
  if (!log_probs_) return {};
  Ask both{.prompt = "The ferry leaves at noon", .tokens = 1};
  TRY_ASSIGN(const std::optional<ServerAnswer> plain, try_ask(both));
  both.prompt_log_probs = true;
  for (const PromptLogProbs way : {PromptLogProbs::kField, PromptLogProbs::kEcho}) {
    prompt_log_probs_ = way;
    TRY_ASSIGN(const std::optional<ServerAnswer> answer, try_ask(both));
    if (!answer || std::none_of(answer->prompt.begin(), answer->prompt.end(), [](const auto& t) {
          return t.chosen.log_prob || !t.top.empty();
        }))
      continue;
    // Some servers give each token of an echo what belongs to the next one.
    const auto first = [](const std::optional<ServerAnswer>& a) {
      return a && !a->tokens.empty() ? a->tokens.front().chosen.log_prob : std::nullopt;
    };
    if (!first(plain) || !first(answer) || std::abs(*first(plain) - *first(answer)) <= kEchoApart)
      return {};
    notes_.push_back(
        "with the prompt repeated it gives the same token another log-probability: those of "
        "prompts "
        "are not used");
  }
  prompt_log_probs_ = PromptLogProbs::kNone;
  return {};
}

Result<std::optional<std::vector<int32_t>>> ServerClient::tokens_of(const std::string& text) {
  const std::pair<const char*, OrderedJson> ways[] = {
      {"/tokenize", {{"model", model_}, {"prompt", text}}},
      {"/tokenize", {{"content", text}}},
      {"/extras/tokenize", {{"input", text}}},
  };
  for (const auto& [path, body] : ways) {
    TRY_ASSIGN(const HttpReply reply,
               ask_patiently({.path = path, .body = json_text(body), .key = key_}));
    if (busy(reply.status))
      return fail(
          Code::kUnavailable, "{}{}: {}", address(), path, told_of(reply, patience_.told()));
    if (reply.status != 200) continue;
    TRY_ASSIGN(std::vector<int32_t> ids, read_tokens(reply.body, address() + path));
    if (ids.empty())
      continue;  // llama.cpp reads `content` alone, and has no tokens for another field
    return ids;
  }
  return std::nullopt;
}

/// The paths beside those that questions go to by which servers are known to run the model, or to tell
/// of it, each with a request that costs little.
std::vector<std::pair<std::string, std::string>> ServerClient::paths_aside() const {
  const OrderedJson messages = {{{"role", "user"}, {"content", "Hello"}}};
  const OrderedJson chat = {{"model", model_}, {"messages", messages}, {"max_tokens", 1}};
  const OrderedJson text = {{"model", model_}, {"prompt", "The"}, {"max_tokens", 1}};
  const std::pair<const char*, OrderedJson> all[] = {
      {"/chat/completions", chat},
      {"/completions", text},
      {"/v1/responses", {{"model", model_}, {"input", "Hello"}, {"max_output_tokens", 16}}},
      {"/v1/messages", chat},
      {"/v1/messages/count_tokens", {{"model", model_}, {"messages", messages}}},
      {"/tokenize", {{"model", model_}, {"prompt", "The"}, {"content", "The"}}},
      {"/tokenize", {{"model", model_}, {"prompt", "The"}}},
      {"/tokenize", {{"content", "The"}}},
      {"/extras/tokenize", {{"input", "The"}}},
      {"/completion", {{"prompt", "The"}, {"n_predict", 1}}},  // llama.cpp
      {"/invocations", chat},                                  // vLLM
      {"/invocations", text},
      {"/generate", {{"text", "The"}, {"sampling_params", {{"max_new_tokens", 1}}}}},  // SGLang
      {"/generate", {{"inputs", "The"}, {"parameters", {{"max_new_tokens", 1}}}}},     // TGI's form
      {"/api/generate", {{"model", model_}, {"prompt", "The"}, {"stream", false}}},    // ollama
      {"/api/chat", {{"model", model_}, {"messages", messages}, {"stream", false}}},
  };
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [path, body] : all) out.emplace_back(path, json_text(body));
  return out;
}

Result<ServerClient::Paths> ServerClient::open_with(const std::string& key) {
  Paths found;
  std::vector<std::pair<std::string, std::string>> paths;
  if (completes_)
    paths.emplace_back(kCompletions, body_of({.prompt = "The", .tokens = 1, .log_probs = false}));
  if (chats_)
    paths.emplace_back(kChat,
                       body_of({.prompt = R"([{"role":"user","content":"Hello"}])",
                                .chat = true,
                                .tokens = 1,
                                .log_probs = false}));
  for (const auto& [path, body] : paths) {
    TRY_ASSIGN(const HttpReply reply, ask_patiently({.path = path, .body = body, .key = key}));
    if (reply.status == 200) found.open.push_back(path);
    if (busy(reply.status)) found.busy.push_back(path);
  }
  for (const auto& [path, body] : paths_aside()) {
    if (!found.open.empty() && found.open.back() == path) continue;
    // Not every server has them, and what one without them says (redirected, a page) is no answer.
    const Result<HttpReply> reply = ask_patiently({.path = path, .body = body, .key = key});
    if (reply && reply->status == 200 && is_answer(reply->body)) found.open.push_back(path);
    if (busy(reply)) found.busy.push_back(path);
  }
  return found;
}

}  // namespace ferry::verify
