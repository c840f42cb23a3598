// See faulty_server.h.
#include "faulty_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "checkpoint/model_chat.h"
#include "checkpoint/model_source.h"
#include "checkpoint/model_texts.h"
#include "device/cpu/cpu_device.h"
#include "engine/generate.h"
#include "models/registry.h"
#include "ops/dispatch.h"
#include "probe/directory_model.h"
#include "text/answer_text.h"

namespace ferry {
namespace {

using Json = nlohmann::json;
using Fault = ServerFault;
using LogProbs = ServerManner::LogProbs;

constexpr double kPenalty = 2;  // in nats

struct Reply {
  int status = 200;
  std::string body;
  std::string headers = {};  // lines
};

Reply refusal(int status, const std::string& words) {
  return {status, Json{{"error", {{"message", words}, {"type", "invalid_request_error"}}}}.dump()};
}

/// Spoils what the model is given of the tokens behind a place.
class Garbler final : public ops::Observer {
 public:
  explicit Garbler(int64_t keeps) : keeps_(keeps) {}
  void after(const ops::OpCall& call) override {
    if (std::string_view(call.op) != "embedding") return;
    const View& y = call.outputs.front().view;
    check(y.dtype == DType::kF32, "faulty server: garbles f32 alone");
    auto* const values = static_cast<float*>(y.data);
    for (int64_t r = 0; r < y.shape[0]; ++r, ++position_)
      if (position_ >= keeps_) std::reverse(values + r * y.shape[1], values + (r + 1) * y.shape[1]);
  }

 private:
  int64_t keeps_, position_ = 0;
};

template <typename T>
T must(Result<T> result) {
  check(result.has_value(), "faulty server: {}", result ? "" : result.error().message);
  return *std::move(result);
}

}  // namespace

struct FaultyServer::State {
  State(const std::string& path, Fault f, const ServerManner& m)
      : fault(f), manner(m), directory(path), source(must(open_model_source(path))) {
    texts = must(read_model_texts(*source));
    must_model();
    engine = std::make_unique<engine::Engine>(
        *model, engine::EngineOptions{.cache_tokens = 8192, .running = 4, .remember = !garbles()});
    listen_on_any_port();
    accepting = std::thread([this] { accept_all(); });
  }

  ~State() {
    closing = true;
    ::shutdown(listening, SHUT_RDWR);
    accepting.join();
    {
      const std::lock_guard<std::mutex> lock(mutex_of_connections);
      for (const int c : connections) ::shutdown(c, SHUT_RDWR);
    }
    for (std::thread& t : threads) t.join();
    ::close(listening);
  }

  std::atomic<int64_t> requests = 0, asked = 0, without_extras = 0;

  /// Whether what comes together matters: then each question has a connection of its own.
  bool counts_together() const {
    return fault == Fault::kLoad || fault == Fault::kLoadOne || fault == Fault::kLoadSlips;
  }
  bool garbles() const { return fault == Fault::kGarbled || fault == Fault::kGarbledLate; }

  void must_model() {
    models::FittedConfig fitted = must(probe::fit_to(*source));
    if (fault == Fault::kRopeIgnored) {
      Json config = Json::parse(fitted.json);
      check(config.erase("rope_scaling") == 1, "faulty server: there is no scaling to ignore");
      fitted.json = config.dump();
    }
    std::optional<WeightCodes> codes;
    if (fault == Fault::kInt8) codes = WeightCodes::kInt8;
    if (fault == Fault::kInt4) codes = WeightCodes::kInt4;
    model =
        must(models::make_model(fitted.json, "config", cpu_device(), manner.compute, std::nullopt));
    check(probe::load_fitted(*source, fitted, *model, {.quantise = codes}).has_value(),
          "faulty server: weights");
    if (fault != Fault::kOtherModel) return;
    for (Weight* w : model->weights()) {
      std::vector<float> v = w->value.to_f32();
      std::reverse(v.begin(), v.end());
      w->value.assign_f32(v);
      w->changed();
    }
  }

  // ---- HTTP --------------------------------------------------------------------------------------

  void listen_on_any_port() {
    listening = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    auto* const address = reinterpret_cast<sockaddr*>(&at);
    check(::bind(listening, address, size) == 0 && ::listen(listening, 64) == 0 &&
              ::getsockname(listening, address, &size) == 0,
          "faulty server: no port");
    port = ntohs(at.sin_port);
  }

  void accept_all() {
    while (!closing) {
      const int c = ::accept(listening, nullptr, nullptr);
      if (c < 0) continue;
      const std::lock_guard<std::mutex> lock(mutex_of_connections);
      connections.insert(c);
      threads.emplace_back([this, c] {
        serve(c);
        const std::lock_guard<std::mutex> closed(mutex_of_connections);
        connections.erase(c);
        ::close(c);
      });
    }
  }

  void serve(int c) {
    std::string in;
    for (;;) {
      size_t end = std::string::npos;
      const auto more = [&] {
        char buffer[4096];
        const ssize_t got = ::recv(c, buffer, sizeof buffer, 0);
        if (got > 0) in.append(buffer, static_cast<size_t>(got));
        return got > 0;
      };
      while ((end = in.find("\r\n\r\n")) == std::string::npos)
        if (!more()) return;
      const std::string head = in.substr(0, end + 2);
      const size_t length_at = head.find("Content-Length: ");
      const size_t length =
          length_at == std::string::npos ? 0 : std::stoul(head.substr(length_at + 16));
      while (in.size() < end + 4 + length)
        if (!more()) return;
      const std::string body = in.substr(end + 4, length);
      in.erase(0, end + 4 + length);
      const size_t path_at = head.find(' ') + 1;
      const Reply reply =
          answer(head.substr(path_at, head.find(' ', path_at) - path_at), head, body);
      if (reply.status == 0) {
        ::shutdown(c, SHUT_RDWR);
        return;
      }
      if (counts_together()) {
        // Before whoever asked can ask the next one.
        const std::lock_guard<std::mutex> lock(mutex_of_connections);
        connections.erase(c);
      }
      const std::string out = fmt::format(
          "HTTP/1.1 {} OK\r\nContent-Type: application/json\r\n{}{}Content-Length: {}\r\n\r\n{}",
          reply.status,
          reply.headers,
          counts_together() ? "Connection: close\r\n" : "",
          reply.body.size(),
          reply.body);
      for (size_t sent = 0; sent < out.size();) {
        const ssize_t n = ::send(c, out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) return;
        sent += static_cast<size_t>(n);
      }
      if (counts_together()) return;
    }
  }

  /// Counts a question as underway. Returns whether another one is, or becomes so within a while if others are
  /// connected: a busy machine may run their threads one after the other.
  bool begins_beside_another() {
    const int64_t arrived = ++arrivals;
    bool beside = ++underway > 1;
    const auto others_connected = [&] {
      const std::lock_guard<std::mutex> lock(mutex_of_connections);
      return connections.size() > 1;
    };
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    while (counts_together() && !beside && others_connected() &&
           std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      beside = arrivals > arrived;
    }
    return beside;
  }

  // ---- The API -----------------------------------------------------------------------------------

  Reply not_now() const {
    Reply r = refusal(manner.not_now_status, "not now");
    if (!manner.retry_after.empty()) r.headers = "Retry-After: " + manner.retry_after + "\r\n";
    return r;
  }

  Reply answer(const std::string& path, const std::string& head, const std::string& body) {
    if (requests++ < manner.loading) return not_now();
    const bool aside = path == "/invocations";  // as vLLM has it: what the other paths answer
    if (!manner.key.empty() && fault != Fault::kKeyUnasked && path != "/v1/models" &&
        !(aside && fault == Fault::kKeyUnaskedAside) &&
        head.find("Authorization: Bearer " + manner.key + "\r\n") == std::string::npos)
      return refusal(401, "wrong key: " + head);  // as some proxies do
    if (path == "/v1/models")
      return {200,
              Json{{"object", "list"}, {"data", {{{"id", "tiny"}, {"object", "model"}}}}}.dump()};
    const Json request = Json::parse(body, nullptr, false);
    const bool chat = path == "/v1/chat/completions" ||
                      (aside && request.is_object() && request.contains("messages"));
    const bool completion = path == "/v1/completions" || (aside && !chat);
    if (!(completion && manner.completes) && !(chat && manner.chats))
      return refusal(404, "no such path");
    if (asked++ < manner.busy) return not_now();
    if (manner.not_now) {
      const std::lock_guard<std::mutex> one_at_a_time(mutex_of_model);
      if (manner.not_now(body)) return not_now();
    }
    if (!request.is_object()) return refusal(400, "no JSON");
    if (fault == Fault::kBreaksOff && asked > 8) return {0, ""};
    without_extras += !request.contains("repetition_penalty");
    if (manner.strict)
      for (const char* name : {"repeat_penalty", "return_token_ids"})
        if (request.contains(name)) return refusal(400, fmt::format("{}: unknown field", name));
    if (fault == Fault::kNotJson) return {200, "<html>Bad gateway"};
    if (fault == Fault::kWrongTypes) return {200, R"({"choices":[{"text":17}]})"};
    if (fault == Fault::kNan)
      return {200,
              R"({"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[NaN]}}]})"};
    if (fault == Fault::kEndlessBody)
      return {200, R"({"choices":[{"text":")" + std::string(size_t{65} << 20, 'a') + "\"}]}"};
    const bool together = begins_beside_another();
    const auto done = [&](Reply r) {
      --underway;
      return r;
    };
    const std::lock_guard<std::mutex> lock(mutex_of_model);
    std::vector<int32_t> ids;
    if (chat) {
      Json conversation = {{"messages", request["messages"]}};
      if (fault == Fault::kNoAnswerAsked) conversation["add_generation_prompt"] = false;
      if (fault == Fault::kSystemDropped && conversation["messages"][0]["role"] == "system")
        conversation["messages"].erase(0);
      if (fault == Fault::kOtherTemplate) {
        std::string text;
        for (const Json& m : request["messages"])
          text += "<|im_start|>" + m["role"].get<std::string>() + "\n" +
                  m["content"].get<std::string>() + "<|im_end|>\n";
        if (texts.begins) ids.push_back(*texts.bos);
        texts.tokenizer->encode(
            text + "<|im_start|>assistant\n", text::Tokenizer::Specials::kParse, ids);
      } else {
        const auto prompt = render_chat(texts, conversation.dump(), "chat", directory);
        if (!prompt) return done(refusal(400, prompt.error().message));
        ids = prompt->ids;
      }
    } else if (request["prompt"].is_array()) {
      if (manner.log_probs != LogProbs::kIds) return done(refusal(422, "prompt: must be a text"));
      ids = request["prompt"].get<std::vector<int32_t>>();
    } else {
      ids = ids_of(request["prompt"].get<std::string>());
    }
    return done(complete(request, ids, chat, together));
  }

  std::vector<int32_t> ids_of(const std::string& text) const {
    std::vector<int32_t> ids;
    if (texts.begins && fault != Fault::kBeginLost) ids.push_back(*texts.bos);
    if (texts.begins && fault == Fault::kBeginTwice) ids.push_back(*texts.bos);
    if (fault == Fault::kOtherTokenizer)  // no merges
      for (const char c : text)
        texts.tokenizer->encode(std::string(1, c), text::Tokenizer::Specials::kAsText, ids);
    else
      texts.tokenizer->encode(text, text::Tokenizer::Specials::kAsText, ids);
    if (fault == Fault::kOtherIds && ids.size() > 2) ++ids[ids.size() / 2];
    return ids;
  }

  /// The prompt as the model gets it.
  std::vector<int32_t> read_as(std::vector<int32_t> ids, bool together) {
    if (fault == Fault::kCut && std::ssize(ids) > kFaultyServerKeeps)
      ids.erase(ids.begin(), ids.end() - kFaultyServerKeeps);
    if (loses_one(ids, together)) lose_one(ids);
    return ids;
  }

  static void lose_one(std::vector<int32_t>& ids) {
    if (ids.size() > 4) ids.erase(ids.end() - 3);
  }

  bool loses_one(const std::vector<int32_t>& ids, bool together) {
    if (together && fault == Fault::kLoad) return true;
    if (together && fault == Fault::kLoadOne) return ++spoilt % 8 == 0;
    const bool again = !met.insert(ids).second;
    if (again && fault == Fault::kCache) return true;
    if (again && fault == Fault::kCacheOne) return ++spoilt % 8 == 0;
    if (std::ssize(ids) <= kFaultyServerBlock) return false;
    const bool block_met =
        !blocks_met.insert({ids.begin(), ids.begin() + kFaultyServerBlock}).second;
    return block_met && (fault == Fault::kCacheBlocks || (fault == Fault::kCacheEndings && !again));
  }

  /// Whether it is a long text with the ending that it did not have at first.
  static bool ends_otherwise(const Json& request) {
    return request.dump().find("At noon they rest, and then") != std::string::npos;
  }

  Reply complete(const Json& request, const std::vector<int32_t>& ids, bool chat, bool together) {
    const int64_t positions = model->max_positions();
    std::vector<int32_t> prompt = read_as(ids, together);
    if (std::ssize(prompt) >= positions)
      return refusal(400, fmt::format("{} tokens, {} positions", prompt.size(), positions));
    engine::GenerateOptions o;
    o.tokens_max = request.value("max_tokens", 16);
    if (fault == Fault::kTalksOn) o.tokens_max += 3;
    if (fault != Fault::kEndless) o.end_tokens = texts.eos;
    if (fault == Fault::kEndsEarly)
      for (int32_t id = 20; id < 60; ++id) o.end_tokens.push_back(id);
    o.sampling.temperature = request.value("temperature", 1.0);
    if (fault == Fault::kAlwaysGreedy) o.sampling.temperature = 0;
    if (fault == Fault::kNeverGreedy) o.sampling.temperature = 1;
    if (fault == Fault::kHot) o.sampling.temperature *= 2;
    if (fault == Fault::kCool) o.sampling.temperature *= 0.6;
    o.sampling.seed = request.value("seed", counted++);
    if (fault == Fault::kSeedIgnored || fault == Fault::kNeverGreedy) o.sampling.seed = counted++;
    if (fault == Fault::kSeedFixed) o.sampling.seed = 3;
    if (request.contains("logit_bias") && manner.biases)
      for (const auto& [id, bias] : request["logit_bias"].items())
        o.sampling.logit_bias.emplace_back(std::stoi(id), bias.get<double>());
    if (fault == Fault::kPenalised) {
      penalised.clear();
      penalised.insert(prompt.begin(), prompt.end());
      for (const int32_t id : penalised) o.sampling.logit_bias.emplace_back(id, -kPenalty);
    }
    const bool wanted = request.contains("logprobs") && manner.log_probs != LogProbs::kNone &&
                        (manner.chat_log_probs || !chat);
    const int64_t top = !wanted ? 0
                        : chat  ? request.value("top_logprobs", 0)
                                : request["logprobs"].get<int64_t>();
    if (wanted) o.top_log_probs = fault == Fault::kPenalised ? 64 : top;
    const bool echo = request.value("echo", false) && manner.log_probs == LogProbs::kTexts;
    const bool of_prompt =
        wanted &&
        (echo || (request.contains("prompt_logprobs") && manner.log_probs == LogProbs::kIds));
    if (of_prompt) o.prompt_top_log_probs = top;
    Garbler garbler(fault == Fault::kGarbled ? kFaultyServerKeeps : kFaultyServerKeepsMost);
    std::optional<ops::Observing> garbling;
    if (garbles()) garbling.emplace(garbler);
    std::vector<engine::Token> tokens;
    const auto generate = [&] {
      tokens.clear();
      return engine::generate(
          *engine, {.prompt = prompt, .options = o, .salt = ""}, [&](const engine::Token& t) {
            tokens.push_back(t);
            if (fault == Fault::kPenalised) penalise(tokens.back(), top);
            return true;
          });
    };
    const auto generated = generate();
    if (!generated) return refusal(400, generated.error().message);
    const bool slips = (fault == Fault::kLoadSlips && together && ++spoilt % 4 == 0) ||
                       (fault == Fault::kEndingSlips && ends_otherwise(request));
    if (slips && !tokens.empty() && !tokens.back().top.empty())
      std::tie(tokens.back().id, tokens.back().log_prob) = tokens.back().top.back();
    if (fault == Fault::kLateAnswers && std::ssize(prompt) > kFaultyServerKeepsMost) {
      lose_one(prompt);
      check(generate().has_value(), "faulty server: nothing written behind another text");
    }
    return {200, written(ids, *generated, tokens, chat, wanted, of_prompt, echo).dump()};
  }

  /// What the penalty makes of a token's log-probabilities; beyond the 64 best there is next to nothing.
  void penalise(engine::Token& t, int64_t top) const {
    double sum = 1;
    for (const auto& [id, log_prob] : t.top)
      if (penalised.contains(id)) sum += std::exp(log_prob - kPenalty) - std::exp(log_prob);
    const auto changed = [&](int32_t id, float log_prob) {
      return static_cast<float>(log_prob - (penalised.contains(id) ? kPenalty : 0) - std::log(sum));
    };
    t.log_prob = changed(t.id, t.log_prob);
    for (auto& [id, log_prob] : t.top) log_prob = changed(id, log_prob);
    std::sort(t.top.begin(), t.top.end(), [](const auto& a, const auto& b) {
      return a.second > b.second;
    });
    t.top.resize(static_cast<size_t>(top));
  }

  std::string text_of(int32_t id) const { return std::string(texts.tokenizer->token_bytes(id)); }

  /// As far as it is UTF-8: what servers show of a token.
  std::string shown(int32_t id) const {
    const std::string dumped =
        Json(text_of(id)).dump(-1, ' ', false, Json::error_handler_t::ignore);
    return Json::parse(dumped).get<std::string>();
  }

  Json written(const std::vector<int32_t>& ids,
               const engine::Generated& generated,
               const std::vector<engine::Token>& tokens,
               bool chat,
               bool log_probs,
               bool of_prompt,
               bool echo) const {
    text::AnswerText pieces(*texts.tokenizer, {});
    std::string text;
    for (const engine::Token& t : tokens) text += pieces.push(t.id);
    text += pieces.flush();
    Json choice = {{"index", 0},
                   {"finish_reason", generated.finish == engine::Finish::kEnd ? "stop" : "length"}};
    if (chat)
      choice["message"] = {{"role", "assistant"},
                           {"content", manner.thinks || fault == Fault::kUnshown ? "" : text},
                           {"reasoning_content", manner.thinks ? Json(text) : Json()}};
    else
      choice["text"] = text;
    if (log_probs && chat) {
      Json content = Json::array();
      for (const engine::Token& t : tokens) {
        Json entry = {
            {"token", shown(t.id)}, {"logprob", t.log_prob}, {"top_logprobs", Json::array()}};
        const auto bytes = [&](int32_t id) {
          const std::string b = text_of(id);
          return std::vector<int>(reinterpret_cast<const unsigned char*>(b.data()),
                                  reinterpret_cast<const unsigned char*>(b.data()) + b.size());
        };
        entry["bytes"] = bytes(t.id);
        for (const auto& [id, log_prob] : t.top)
          entry["top_logprobs"].push_back(
              {{"token", shown(id)}, {"logprob", log_prob}, {"bytes", bytes(id)}});
        content.push_back(entry);
      }
      choice["logprobs"] = {{"content", content}};
    } else if (log_probs) {
      Json l = {{"tokens", Json::array()},
                {"token_logprobs", Json::array()},
                {"top_logprobs", Json::array()}};
      const auto add = [&](const engine::Token& t) {
        l["tokens"].push_back(shown(t.id));
        l["token_logprobs"].push_back(t.log_prob);
        Json best = Json::object();
        for (const auto& [id, log_prob] : t.top) best[shown(id)] = log_prob;
        l["top_logprobs"].push_back(best);
      };
      if (echo) {
        l["tokens"].push_back(shown(ids[0]));
        l["token_logprobs"].push_back(nullptr);
        l["top_logprobs"].push_back(nullptr);
        for (const engine::Token& t : generated.prompt) add(t);
      }
      for (const engine::Token& t : tokens) add(t);
      choice["logprobs"] = l;
    }
    if (manner.log_probs == LogProbs::kIds && !chat) {
      choice["prompt_token_ids"] = ids;
      choice["token_ids"] = Json::array();
      for (const engine::Token& t : tokens) choice["token_ids"].push_back(t.id);
      if (of_prompt) {
        choice["prompt_logprobs"] = {nullptr};
        for (const engine::Token& t : generated.prompt) {
          Json entry = {{std::to_string(t.id), {{"logprob", t.log_prob}, {"rank", 1}}}};
          for (const auto& [id, log_prob] : t.top)
            entry[std::to_string(id)] = {{"logprob", log_prob}, {"rank", 1}};
          choice["prompt_logprobs"].push_back(entry);
        }
      }
    }
    Json usage = {{"prompt_tokens", ids.size()},
                  {"completion_tokens", tokens.size()},
                  {"total_tokens", ids.size() + tokens.size()}};
    if (manner.cached) usage["prompt_tokens_details"] = {{"cached_tokens", *manner.cached}};
    return {{"id", "x"},
            {"object", "text_completion"},
            {"choices", Json::array({choice})},
            {"usage", usage}};
  }

  Fault fault;
  ServerManner manner;
  std::string directory;
  std::unique_ptr<ModelSource> source;
  ModelTexts texts;
  std::unique_ptr<models::TrainableLm> model;
  std::unique_ptr<engine::Engine> engine;
  std::set<std::vector<int32_t>> met, blocks_met;
  int64_t spoilt = 0;  // that could be
  std::set<int32_t> penalised;
  uint64_t counted = 1000;
  std::mutex mutex_of_model, mutex_of_connections;
  std::atomic<int> underway = 0;
  std::atomic<int64_t> arrivals = 0;
  std::atomic<bool> closing = false;
  int listening = -1, port = 0;
  std::set<int> connections;
  std::vector<std::thread> threads;
  std::thread accepting;
};

FaultyServer::FaultyServer(const std::string& directory,
                           ServerFault fault,
                           const ServerManner& manner)
    : state_(std::make_unique<State>(directory, fault, manner)) {}
FaultyServer::~FaultyServer() = default;

int64_t FaultyServer::without_extras() const { return state_->without_extras; }

std::string FaultyServer::address() const {
  return fmt::format("http://127.0.0.1:{}", state_->port);
}

}  // namespace ferry
