// The server over a loopback connection, with a small model: what it answers is what the engine
// answers, what it refuses it names, and nobody's bad manners harm others.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/fault.h"
#include "checkpoint/chat_test_support.h"
#include "checkpoint/model_chat.h"
#include "device/cpu/cpu_device.h"
#include "engine/generate.h"
#include "running_service.h"
#include "serve/service.h"
#include "serve/test_support.h"
#include "small_model.h"
#include "text/utf8.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::json;

constexpr const char* kChat = R"("messages": [{"role": "user", "content": "Hello there"}])";

/// One server for the tests that do not change it.
class Serve : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = std::make_unique<Running>(); }
  static void TearDownTestSuite() { server_.reset(); }

  /// The tokens that the engine alone answers with.
  static std::vector<int32_t> alone(const std::vector<int32_t>& prompt,
                                    const engine::GenerateOptions& options) {
    engine::Engine engine(*server_->model->model, {.cache_tokens = 4096, .running = 1});
    const auto generated = engine::generate(
        engine, {.prompt = prompt, .options = options, .salt = ""}, [](auto&) { return true; });
    EXPECT_TRUE(generated);
    return generated->tokens;
  }
  static std::string decoded(const std::vector<int32_t>& ids) {
    return text::replace_ill_formed(server_->model->texts.tokenizer->decode(ids, true));
  }

  static std::unique_ptr<Running> server_;
};
std::unique_ptr<Running> Serve::server_;

/// The JSON documents of a stream's events, and whether it ended as it must.
std::vector<Json> events_of(const TestResponse& r) {
  EXPECT_EQ(r.status, 200) << r.body;
  EXPECT_NE(r.head.find("Content-Type: text/event-stream"), std::string::npos) << r.head;
  std::vector<Json> all;
  std::string_view rest = r.body;
  while (rest.starts_with("data: ")) {
    const size_t end = rest.find("\n\n");
    const std::string_view data = rest.substr(6, end - 6);
    rest.remove_prefix(end + 2);
    if (data == "[DONE]") {
      EXPECT_TRUE(rest.empty()) << rest;
      return all;
    }
    all.push_back(Json::parse(data));
  }
  ADD_FAILURE() << "no [DONE]: " << rest;
  return all;
}

TEST_F(Serve, TellsWhatItIs) {
  EXPECT_EQ(server_->get("/health").body, R"({"status":"ok"})");
  EXPECT_EQ(server_->get("/ferry/passport").body, R"({"model": "small"})");
  for (const char* path : {"/v1/models", "/models"}) {
    const Json models = Json::parse(server_->get(path).body);
    ASSERT_EQ(models["data"].size(), 2u);
    EXPECT_EQ(models["data"][0]["id"], "small");
    EXPECT_EQ(models["data"][0]["max_model_len"], 4096);
  }
  EXPECT_EQ(Json::parse(server_->get("/v1/models/other").body)["id"], "other");
  EXPECT_EQ(server_->get("/v1/models/third").status, 404);
  EXPECT_EQ(Json::parse(server_->get("/v1/models/%6fthe%72").body)["id"], "other");
  for (const char* name : {"other%", "other%2", "othe%zz", "other%00", "%C3%28"})
    EXPECT_EQ(server_->get(std::string("/v1/models/") + name).status, 404) << name;
  EXPECT_EQ(server_->get("/nothing").status, 404);
  EXPECT_EQ(server_->get("/v1/chat/completions").status, 405);
  EXPECT_EQ(server_->post("/v1/embeddings", R"({"input": "a"})").status, 400);
  const TestResponse page = server_->get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_NE(page.head.find("Content-Security-Policy: default-src 'none'"), std::string::npos);
  TestClient client(server_->port());
  client.send(TestClient::request("HEAD", "/health"));
  EXPECT_TRUE(client.head().starts_with("HTTP/1.1 200 "));  // and no body follows
  EXPECT_EQ(client.get("/version").status, 200);
}

TEST_F(Serve, AnswersWhatTheEngineAnswers) {
  const TestResponse r = server_->post(
      "/v1/chat/completions",
      std::string("{") + kChat +
          R"(, "max_tokens": 20, "temperature": 0.9, "top_p": 0.8, "seed": 7, "logprobs": true,
             "top_logprobs": 2, "return_token_ids": true})");
  ASSERT_EQ(r.status, 200) << r.body;
  const Json j = Json::parse(r.body);
  const auto prompt = render_chat(
      server_->model->texts, R"([{"role": "user", "content": "Hello there"}])", "test", "small");
  ASSERT_TRUE(prompt);
  EXPECT_EQ(j["prompt_token_ids"].get<std::vector<int32_t>>(), prompt->ids);
  engine::GenerateOptions o{.tokens_max = 20, .end_tokens = server_->model->texts.eos};
  o.sampling = {.temperature = 0.9, .top_p = 0.8, .seed = 7};
  const std::vector<int32_t> expected = alone(prompt->ids, o);
  const Json& choice = j["choices"][0];
  EXPECT_EQ(choice["token_ids"].get<std::vector<int32_t>>(), expected);
  EXPECT_EQ(choice["message"]["content"], decoded(expected));
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["finish_reason"], expected.size() == 20 ? "length" : "stop");
  ASSERT_EQ(choice["logprobs"]["content"].size(), expected.size());
  const Json& first = choice["logprobs"]["content"][0];
  EXPECT_LE(first["logprob"].get<double>(), 0);
  EXPECT_EQ(first["top_logprobs"].size(), 2u);
  EXPECT_EQ(j["usage"]["prompt_tokens"], prompt->ids.size());
  EXPECT_EQ(j["usage"]["completion_tokens"], expected.size());
  EXPECT_EQ(j["object"], "chat.completion");
}

TEST_F(Serve, AStreamIsTheSameAnswer) {
  const std::string settings =
      std::string(kChat) + R"(, "max_tokens": 30, "temperature": 1.1, "seed": 3, "n": 3)";
  const Json whole = Json::parse(server_->post("/v1/chat/completions", "{" + settings + "}").body);
  const auto events = events_of(server_->post(
      "/v1/chat/completions",
      "{" + settings + R"(, "stream": true, "stream_options": {"include_usage": true}})"));
  std::map<int, std::string> text;
  std::map<int, std::string> finish;
  for (const Json& e : events) {
    EXPECT_EQ(e["object"], "chat.completion.chunk");
    EXPECT_EQ(e["id"], events[0]["id"]);
    for (const Json& c : e["choices"]) {
      const int index = c["index"];
      EXPECT_FALSE(finish.contains(index)) << "after its end";
      if (c["delta"].contains("content")) text[index] += c["delta"]["content"];
      if (!c["finish_reason"].is_null()) finish[index] = c["finish_reason"];
    }
  }
  EXPECT_EQ(events[0]["choices"][0]["delta"]["role"], "assistant");
  ASSERT_EQ(whole["choices"].size(), 3u);
  for (const Json& c : whole["choices"]) {
    EXPECT_EQ(text[c["index"].get<int>()], c["message"]["content"]);
    EXPECT_EQ(finish[c["index"].get<int>()], c["finish_reason"]);
  }
  EXPECT_NE(text[0], text[1]) << "each choice is another";
  EXPECT_TRUE(events.back()["choices"].empty());
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
}

/// A model that knows nothing answers in the form that is asked for all the same.
TEST_F(Serve, AnswersHaveTheFormThatIsAskedFor) {
  const std::string schema =
      R"("response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema":
         {"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 70},
          "b": {"type": "string", "maxLength": 4}}, "required": ["a", "b"],
          "additionalProperties": false}}})";
  const auto ask = [&](const std::string& more) {
    return std::string("{") + kChat + R"(, "max_tokens": 400, "temperature": 1.5, )" + more + "}";
  };
  for (const char* seed : {"1", "2", "3"}) {
    const std::string whole = schema + R"(, "seed": )" + seed;
    const Json j = Json::parse(server_->post("/v1/chat/completions", ask(whole)).body);
    const std::string text = j["choices"][0]["message"]["content"];
    const Json document = Json::parse(text, nullptr, false);
    ASSERT_TRUE(document.is_object() && document.size() == 2) << text;
    EXPECT_TRUE(document["a"] >= 5 && document["a"] <= 70 && document["b"].is_string()) << text;
    EXPECT_EQ(j["choices"][0]["finish_reason"], "stop");
    std::string streamed;
    for (const Json& e :
         events_of(server_->post("/v1/chat/completions", ask(whole + R"(, "stream": true)"))))
      if (!e["choices"].empty()) streamed += e["choices"][0]["delta"].value("content", "");
    EXPECT_EQ(streamed, text);
  }
  const auto refused = [&](const std::string& more, const char* param, const char* says) {
    const TestResponse r = server_->post("/v1/chat/completions", ask(more));
    EXPECT_EQ(r.status, 400) << r.body;
    EXPECT_EQ(Json::parse(r.body)["error"]["param"], param) << r.body;
    EXPECT_NE(r.body.find(says), std::string::npos) << r.body;
  };
  const auto of = [](const std::string& json) {
    return R"("response_format": {"type": "json_schema", "json_schema": {"schema": )" + json + "}}";
  };
  refused(of(R"({"not": {}})"), "response_format", "'not' is not supported");
  refused(of(R"({"pattern": "^+[a-z]$"})"), "response_format", "repeats ^ or $");
  refused(R"("response_format": {"type": "xml"})", "response_format.type", "json_object");
  refused(schema + R"(, "ignore_eos": true)", "ignore_eos", "no end");
  // This model's template shows no calls.
  const std::string tool = R"("tools": [{"type": "function", "function": {"name": "f"}}])";
  refused(tool + R"(, "tool_choice": "required")", "tools", "how this model writes calls");
  refused(tool + R"(, "tool_choice": "sometimes")", "tool_choice", "required");
  refused(R"("tool_choice": "required")", "tool_choice", "there are none");
}

TEST(ServeTools, AreCalledWhereTheyMustBe) {
  auto model = small_loaded_model();
  model->texts.files["chat_template.jinja"] = std::string(kChatml) + "{# <tool_call> #}";
  model->syntax = answer_syntax(model->texts);
  Running server({}, model);
  const auto ask = [&](const std::string& choice) {
    return Json::parse(
        server
            .post(
                "/v1/chat/completions",
                std::string("{") + kChat +
                    R"(, "max_tokens": 600, "temperature": 1.2, "seed": 4, "parallel_tool_calls": false,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object",
            "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["a"],
            "additionalProperties": false}}}, {"type": "function", "function": {"name": "g",
            "parameters": {"properties": {}, "additionalProperties": false}}}], "tool_choice": )" +
                    choice + "}")
            .body);
  };
  for (const char* choice :
       {R"("required")", R"({"type": "function", "function": {"name": "f"}})"}) {
    const Json j = ask(choice);
    const Json& answer = j["choices"][0];
    EXPECT_EQ(answer["finish_reason"], "tool_calls") << j;
    ASSERT_EQ(answer["message"]["tool_calls"].size(), 1u) << j;
    const Json& function = answer["message"]["tool_calls"][0]["function"];
    const Json arguments = Json::parse(function["arguments"].get<std::string>());
    EXPECT_TRUE(function["name"] == "g" ? arguments.empty()
                                        : arguments["a"] >= 1 && arguments["a"] <= 99)
        << j;
    EXPECT_TRUE(function["name"] == "f" || choice[0] == '"') << j;
  }
  EXPECT_EQ(ask(R"({"type": "function", "function": {"name": "h"}})")["error"]["param"],
            "tool_choice");
}

/// Tokens that are parts of a character are all written as U+FFFD.
TEST_F(Serve, NoNameOfATokenIsWrittenTwice) {
  const TestResponse r = server_->post(
      "/v1/completions",
      R"({"prompt": "the sea", "max_tokens": 40, "temperature": 2, "seed": 1, "logprobs": 20})");
  ASSERT_EQ(r.status, 200) << r.body;
  std::vector<std::set<std::string>> names;
  int shared = 0;
  const Json j = Json::parse(r.body, [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) names.emplace_back();
    if (event == Json::parse_event_t::object_end) names.pop_back();
    if (event == Json::parse_event_t::key) {
      EXPECT_TRUE(names.back().insert(value.get<std::string>()).second) << value;
      shared += value == "\uFFFD";
    }
    return true;
  });
  EXPECT_GT(shared, 0) << "some of these tokens are parts of characters";
  for (const Json& best : j["choices"][0]["logprobs"]["top_logprobs"]) EXPECT_LE(best.size(), 20u);
}

TEST_F(Serve, CompletesTextsAndTokens) {
  const TestResponse r = server_->post(
      "/v1/completions",
      R"({"prompt": ["the sea", "a stone"], "n": 2, "max_tokens": 5, "temperature": 0, "logprobs": 1})");
  ASSERT_EQ(r.status, 200) << r.body;
  const Json j = Json::parse(r.body);
  ASSERT_EQ(j["choices"].size(), 4u);
  std::vector<int32_t> ids;
  server_->model->texts.tokenizer->encode("a stone", text::Tokenizer::Specials::kAsText, ids);
  const auto expected = alone(ids, {.tokens_max = 5, .end_tokens = server_->model->texts.eos});
  EXPECT_EQ(j["choices"][2]["text"], decoded(expected));
  EXPECT_EQ(j["choices"][2]["text"], j["choices"][3]["text"]);
  EXPECT_EQ(j["choices"][2]["logprobs"]["tokens"].size(), expected.size());
  const Json of_ids =
      Json::parse(server_
                      ->post("/completions",
                             Json{{"prompt", ids}, {"max_tokens", 5}, {"temperature", 0}}.dump())
                      .body);
  EXPECT_EQ(of_ids["choices"][0]["text"], decoded(expected));
  // Where its text is, an answer ends before it.
  const std::string text = decoded(expected);
  ASSERT_GE(text.size(), 3u);
  const Json stopped = Json::parse(server_
                                       ->post("/v1/completions",
                                              Json{{"prompt", ids},
                                                   {"max_tokens", 5},
                                                   {"temperature", 0},
                                                   {"stop", text.substr(text.size() - 2)}}
                                                  .dump())
                                       .body);
  const std::string cut = stopped["choices"][0]["text"];
  EXPECT_EQ(cut, text.substr(0, text.find(text.substr(text.size() - 2))));
  EXPECT_EQ(stopped["choices"][0]["finish_reason"], "stop");
}

/// As other servers do: samples of one prompt are another each, unless the request names their seed.
TEST_F(Serve, EqualPromptsAreAnsweredAlikeOnlyWithASeed) {
  const auto texts = [&](const std::string& more) {
    const TestResponse r = server_->post(
        "/v1/completions",
        R"({"prompt": ["the sea", "the sea", "the sea"], "max_tokens": 12, "temperature": 1)" +
            more + "}");
    EXPECT_EQ(r.status, 200) << r.body;
    std::set<std::string> all;
    const Json j = Json::parse(r.body);
    for (const Json& choice : j["choices"]) all.insert(choice["text"]);
    return all;
  };
  // Nobody says what these draw: two of them may come to an end at once, and say the same.
  EXPECT_GE(texts("").size(), 2u);
  EXPECT_GE(texts(R"(, "n": 2)").size(), 4u);
  const std::set<std::string> drawn = texts(R"(, "seed": 5)");
  EXPECT_EQ(drawn.size(), 1u);
  EXPECT_EQ(texts(R"(, "seed": 5)"), drawn);
  EXPECT_EQ(texts(R"(, "seed": 5, "n": 2)").size(), 2u);
}

TEST_F(Serve, TellsOfPrompts) {
  const std::vector<int32_t> ids = {70, 71, 72, 73};
  const Json j = Json::parse(
      server_
          ->post("/v1/completions",
                 Json{{"prompt", ids}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 2}}.dump())
          .body);
  const Json& choice = j["choices"][0];
  EXPECT_EQ(choice["text"], decoded(ids));
  ASSERT_EQ(choice["logprobs"]["tokens"].size(), 4u) << j;
  EXPECT_TRUE(choice["logprobs"]["token_logprobs"][0].is_null());
  EXPECT_LT(choice["logprobs"]["token_logprobs"][1].get<double>(), 0);
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(j["usage"]["completion_tokens"], 0);
  const Json scored = Json::parse(
      server_
          ->post("/v1/completions",
                 Json{{"prompt", ids}, {"max_tokens", 1}, {"prompt_logprobs", 2}}.dump())
          .body)["choices"][0]["prompt_logprobs"];
  ASSERT_EQ(scored.size(), 4u);
  EXPECT_EQ(scored[1]["71"]["logprob"], choice["logprobs"]["token_logprobs"][1]);
}

/// Where tokens begin in the text, in characters, as clients count.
TEST_F(Serve, OffsetsAreOfCharacters) {
  const std::string prompt = "né 日本 x";
  const auto ask = [&](bool stream) {
    return server_
        ->post("/v1/completions",
               Json{{"prompt", prompt},
                    {"max_tokens", 2},
                    {"temperature", 0},  // drawn, an end token may come first
                    {"echo", true},
                    {"logprobs", 0},
                    {"stream", stream}}
                   .dump())
        .body;
  };
  const Json logprobs = Json::parse(ask(false))["choices"][0]["logprobs"];
  std::vector<int32_t> ids = *server_->model->texts.prompt(
      prompt, text::Tokenizer::Specials::kAsText, server_->model->directory);
  ASSERT_GT(logprobs["text_offset"].size(), ids.size());
  std::string before;
  for (size_t t = 0; t < ids.size(); ++t) {
    const size_t whole = text::well_formed_prefix(before);  // a token may end within a character
    EXPECT_EQ(logprobs["text_offset"][t], text::utf8_points(before.substr(0, whole)).size()) << t;
    if (!server_->model->texts.tokenizer->is_special(ids[t]))
      before += server_->model->texts.tokenizer->token_bytes(ids[t]);
  }
  EXPECT_EQ(before, prompt);
  EXPECT_EQ(logprobs["text_offset"][ids.size()], 7);  // of the answer
}

TEST_F(Serve, AnswersAsResponses) {
  const std::string ask = R"("input": "Hello there", "max_output_tokens": 12, "seed": 5)";
  const Json j = Json::parse(server_->post("/v1/responses", "{" + ask + "}").body);
  EXPECT_EQ(j["object"], "response");
  const Json chat =
      Json::parse(server_
                      ->post("/v1/chat/completions",
                             std::string("{") + kChat + R"(, "max_tokens": 12, "seed": 5})")
                      .body);
  const Json text = chat["choices"][0]["message"]["content"];
  EXPECT_EQ(j["output"][0]["content"][0]["text"], text);
  EXPECT_EQ(j["usage"]["output_tokens"], chat["usage"]["completion_tokens"]);
  EXPECT_EQ(j["max_output_tokens"], 12);
  const TestResponse stream = server_->post("/v1/responses", "{" + ask + R"(, "stream": true})");
  std::string told;
  int64_t events = 0;
  for (size_t at = 0; (at = stream.body.find("data: ", at)) != std::string::npos; ++at) {
    const Json e = Json::parse(stream.body.substr(at + 6, stream.body.find('\n', at) - at - 6));
    EXPECT_EQ(e["sequence_number"], events++);
    if (e["type"] == "response.output_text.delta") told += e["delta"];
  }
  EXPECT_EQ(told, text);
  EXPECT_TRUE(stream.body.starts_with("event: response.created\n"));
  EXPECT_EQ(server_->post("/v1/responses", "{" + ask + R"(, "previous_response_id": "x"})").status,
            400);
}

TEST_F(Serve, AnswersAsMessages) {
  const std::string ask =
      R"("messages": [{"role": "user", "content": [{"type": "text", "text": "Hello there"}]}])";
  const Json j = Json::parse(
      server_->post("/v1/messages", "{" + ask + R"(, "max_tokens": 12, "seed": 5})").body);
  const Json chat =
      Json::parse(server_
                      ->post("/v1/chat/completions",
                             std::string("{") + kChat + R"(, "max_tokens": 12, "seed": 5})")
                      .body);
  EXPECT_EQ(j["content"][0]["text"], chat["choices"][0]["message"]["content"]);
  EXPECT_EQ(j["stop_reason"],
            chat["choices"][0]["finish_reason"] == "length" ? "max_tokens" : "end_turn");
  EXPECT_EQ(j["usage"]["output_tokens"], chat["usage"]["completion_tokens"]);
  const TestResponse stream = server_->post(
      "/v1/messages", "{" + ask + R"(, "max_tokens": 12, "seed": 5, "stream": true})");
  std::string told;
  for (size_t at = 0; (at = stream.body.find("data: ", at)) != std::string::npos; ++at) {
    const Json e = Json::parse(stream.body.substr(at + 6, stream.body.find('\n', at) - at - 6));
    if (e["type"] == "content_block_delta") told += e["delta"]["text"];
  }
  EXPECT_EQ(told, j["content"][0]["text"]);
  EXPECT_TRUE(stream.body.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"))
      << stream.body;
  const Json counted =
      Json::parse(server_->post("/v1/messages/count_tokens", "{" + ask + "}").body);
  EXPECT_EQ(counted["input_tokens"], chat["usage"]["prompt_tokens"]);
  const TestResponse refused = server_->post("/v1/messages", "{" + ask + "}");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(Json::parse(refused.body)["error"]["type"], "invalid_request_error");
  EXPECT_EQ(Json::parse(refused.body)["type"], "error");
}

TEST_F(Serve, SaysWhatItUnderstands) {
  const Json j = Json::parse(server_->get("/openapi.json").body);
  EXPECT_EQ(j["openapi"], "3.1.0");
  for (const auto& [path, methods] : j["paths"].items())
    for (const auto& [method, operation] : methods.items()) {
      const TestResponse r =
          method == "get" ? server_->get(path) : server_->post(path, R"({"no_such_field": 1})");
      EXPECT_EQ(r.status, method == "get" ? 200 : 400) << path << ": " << r.body;
    }
}

TEST_F(Serve, TokensAreTokenizedAndBack) {
  const Json j = Json::parse(server_->post("/tokenize", R"({"prompt": "the sea"})").body);
  std::vector<int32_t> ids;
  server_->model->texts.tokenizer->encode("the sea", text::Tokenizer::Specials::kAsText, ids);
  EXPECT_EQ(j["tokens"].get<std::vector<int32_t>>(), ids);
  EXPECT_EQ(j["count"], ids.size());
  const Json back = Json::parse(server_->post("/detokenize", Json{{"tokens", ids}}.dump()).body);
  EXPECT_EQ(back["prompt"], "the sea");
  const Json chat = Json::parse(server_->post("/tokenize", std::string("{") + kChat + "}").body);
  EXPECT_GT(chat["count"], 3);
  EXPECT_EQ(server_->post("/detokenize", R"({"tokens": [1000000]})").status, 400);
}

/// Who applies a template alone sends its text, of which the model must see what a chat's would be.
TEST_F(Serve, TextsOfControlTokensArePromptsTokens) {
  const Json chat = Json::parse(
      server_
          ->post("/v1/chat/completions",
                 std::string("{") + kChat +
                     R"(, "max_tokens": 5, "temperature": 0, "return_token_ids": true})")
          .body);
  const Json text =
      Json::parse(server_->post("/detokenize", Json{{"tokens", chat["prompt_token_ids"]}}.dump())
                      .body)["prompt"];
  ASSERT_NE(text.get<std::string>().find("<|bos|>"), std::string::npos);
  const Json asked = {{"prompt", text},
                      {"max_tokens", 5},
                      {"temperature", 0},
                      {"return_token_ids", true},
                      {"logprobs", 0},
                      {"echo", true}};
  const Json whole = Json::parse(server_->post("/v1/completions", asked.dump()).body)["choices"][0];
  EXPECT_EQ(whole["prompt_token_ids"], chat["prompt_token_ids"]);
  EXPECT_EQ(whole["token_ids"], chat["choices"][0]["token_ids"]);
  // What is repeated is what was sent, and places in it are of its characters.
  EXPECT_TRUE(whole["text"].get<std::string>().starts_with(text.get<std::string>()));
  const Json& offsets = whole["logprobs"]["text_offset"];
  EXPECT_EQ(offsets[chat["prompt_token_ids"].size()], text.get<std::string>().size());
  // One rule for what runs and what is counted.
  for (const bool begin : {true, false}) {
    const std::string body =
        Json{{"prompt", "<|bos|>a<|eos|>"}, {"add_special_tokens", begin}}.dump();
    Json completion = Json::parse(body);
    completion["max_tokens"] = 1;
    completion["return_token_ids"] = true;
    EXPECT_EQ(Json::parse(server_->post("/tokenize", body).body)["tokens"],
              Json::parse(server_->post("/v1/completions", completion.dump())
                              .body)["choices"][0]["prompt_token_ids"]);
  }
}

TEST_F(Serve, AContinuedMessageIsPartOfThePrompt) {
  const auto tokens = [&](const std::string& more) {
    const TestResponse r = server_->post(
        "/v1/tokenize",
        R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So")" +
            more);
    EXPECT_EQ(r.status, 200) << r.body;
    return decoded(Json::parse(r.body)["tokens"].get<std::vector<int32_t>>());
  };
  EXPECT_TRUE(tokens(R"(, "prefix": true}]})").ends_with("assistant\nSo"));
  EXPECT_EQ(tokens(R"(, "prefix": true}]})"),
            tokens(R"(}], "continue_final_message": true, "add_generation_prompt": false})"));
  EXPECT_FALSE(tokens("}]}").ends_with("So"));
}

/// Each is answered with 400 and the name of the field at fault, and the server goes on.
TEST_F(Serve, RefusesByName) {
  struct Case {
    const char* more;
    const char* param;
  };
  for (const Case& c : std::initializer_list<Case>{
           {R"("temperature": "hot")", "temperature"},
           {R"("temperature": -1)", "temperature"},
           {R"("max_tokens": -5)", "max_tokens"},
           {R"("max_tokens": 1.5)", "max_tokens"},
           {R"("max_tokens": 12345678901234567890)", "max_tokens"},
           {R"("n": 1000000)", "n"},
           {R"("n": 0)", "n"},
           {R"("top_p": 0)", "top_p"},
           {R"("top_logprobs": 21, "logprobs": true)", "top_logprobs"},
           {R"("top_logprobs": 2)", "top_logprobs"},
           {R"("stop": [""])", "stop"},
           {R"("stop": 5)", "stop"},
           {R"("logit_bias": {"x": 1})", "logit_bias"},
           {R"("logit_bias": [1])", "logit_bias"},
           {R"("logit_bias": {"49153": 5})", "logit_bias"},
           {R"("logit_bias": {"-1": 5})", "logit_bias"},
           {R"("logit_bias": {"1": 1e6})", "logit_bias"},
           {R"("seed": 1.5)", "seed"},
           {R"("stream_options": {"include_usage": true})", "stream_options"},
           {R"("stream": true, "stream_options": {"what": true})", "stream_options.what"},
           {R"("echo": true)", "echo"},
           {R"("min_tokens": 5)", "min_tokens"},
           {R"("guided_json": {})", "guided_json"},
           {R"("no_such_field": 1)", "no_such_field"},
           {R"("tools": [{"type": "retrieval"}])", "tools[0].type"},
           {R"("tools": [{"type": "function", "function": {}}])", "tools[0].function.name"},
           {R"("chat_template_kwargs": {"messages": []})", "chat_template_kwargs"},
           {R"("thinking": {"type": "perhaps"})", "thinking.type"},
           {R"("reasoning_effort": "vast")", "reasoning_effort"},
           {R"("thinking": {"type": "enabled"})", "thinking"},
           {R"("reasoning_effort": "high")", "reasoning_effort"},
           {R"("chat_template_kwargs": {"enable_thinking": true})",
            "chat_template_kwargs.enable_thinking"},
           {R"("chat_template_kwargs": {"mood": 1})", "chat_template_kwargs.mood"},
           {R"("stop_token_ids": [-1])", "stop_token_ids"}}) {
    const TestResponse r =
        server_->post("/v1/chat/completions", std::string("{") + kChat + ", " + c.more + "}");
    EXPECT_EQ(r.status, 400) << c.more << ": " << r.body;
    const Json j = Json::parse(r.body, nullptr, false);
    ASSERT_TRUE(j.is_object()) << r.body;
    EXPECT_EQ(j["error"]["param"], c.param) << r.body;
    EXPECT_EQ(j["error"]["type"], "invalid_request_error");
  }
  for (const char* messages :
       {"[]",
        "{}",
        "5",
        R"([{"role": "user"}])",
        R"([{"role": "wizard", "content": "a"}])",
        R"([{"role": "user", "content": "a", "mood": 1}])",
        R"([{"role": "user", "content": 7}])",
        R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])",
        R"([{"role": "user", "content": "<|eos|>"}])",
        R"([{"role": "assistant", "content": "a", "prefix": true}])"}) {
    const TestResponse r = server_->post(
        "/v1/chat/completions", std::string(R"({"max_tokens": 1, "messages": )") + messages + "}");
    EXPECT_EQ(r.status, 400) << messages << ": " << r.body;
    EXPECT_TRUE(Json::parse(r.body)["error"]["param"].get<std::string>().starts_with("messages"));
  }
  EXPECT_EQ(
      server_->post("/v1/chat/completions", std::string(R"({"model": "else", )") + kChat + "}")
          .status,
      404);
  for (const char* prompt : {"[]", "[[]]", "[-1]", "[999999]", "{}", R"([{"a": 1}])", "[1, \"a\"]"})
    EXPECT_EQ(server_->post("/v1/completions", std::string(R"({"prompt": )") + prompt + "}").status,
              400)
        << prompt;
  EXPECT_EQ(server_->post("/v1/completions", R"({"prompt": "a", "suffix": "b"})").status, 400);
  EXPECT_EQ(server_->get("/health").status, 200);
}

/// What is not of the type that it must be, at every depth.
TEST(Service, OtherTypesAreRefused) {
  auto model = small_loaded_model();
  model->texts.files["chat_template.jinja"] =
      std::string(kChatml) +
      "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}"
      "{% endfor %}{{ a if enable_thinking }}";
  const Running server({}, model);
  const std::pair<const char*, Json> requests[] = {
      {"/v1/responses",
       {{"input",
         {{{"role", "user"}, {"content", {{{"type", "input_text"}, {"text", "a"}}}}},
          {{"type", "function_call"}, {"call_id", "1"}, {"name", "f"}, {"arguments", "{}"}},
          {{"type", "function_call_output"}, {"call_id", "1"}, {"output", "b"}}}},
        {"instructions", "x"},
        {"tools", {{{"type", "function"}, {"name", "f"}, {"parameters", Json::object()}}}},
        {"tool_choice", "auto"},
        {"text", {{"format", {{"type", "text"}}}}},
        {"reasoning", {{"effort", "low"}}},
        {"max_output_tokens", 1}}},
      {"/v1/messages",
       {{"system", {{{"type", "text"}, {"text", "x"}}}},
        {"messages",
         {{{"role", "user"}, {"content", {{{"type", "text"}, {"text", "a"}}}}},
          {{"role", "assistant"},
           {"content",
            {{{"type", "tool_use"}, {"id", "1"}, {"name", "f"}, {"input", Json::object()}}}}},
          {{"role", "user"},
           {"content", {{{"type", "tool_result"}, {"tool_use_id", "1"}, {"content", "b"}}}}}}},
        {"tools", {{{"name", "f"}, {"input_schema", Json::object()}}}},
        {"tool_choice", {{"type", "auto"}}},
        {"thinking", {{"type", "enabled"}, {"budget_tokens", 5}}},
        {"stop_sequences", {"a"}},
        {"max_tokens", 1}}},
      {"/v1/chat/completions",
       {{"messages",
         {{{"role", "user"}, {"content", {{{"type", "text"}, {"text", "a"}}}}},
          {{"role", "assistant"},
           {"tool_calls",
            {{{"id", "1"},
              {"type", "function"},
              {"function", {{"name", "f"}, {"arguments", "{}"}}}}}}},
          {{"role", "tool"}, {"tool_call_id", "1"}, {"content", "b"}}}},
        {"tools", {{{"type", "function"}, {"function", {{"name", "f"}}}}}},
        {"tool_choice", "auto"},
        {"chat_template_kwargs", {{"a", 1}}},
        {"thinking", {{"type", "enabled"}}},
        {"logit_bias", {{"5", 1}}},
        {"stop", {"a"}},
        {"max_tokens", 1}}}};
  for (const auto& [path, request] : requests) {
    EXPECT_EQ(server.post(path, request.dump()).status, 200)
        << server.post(path, request.dump()).body;
    const Json flat = request.flatten();
    for (const auto& [place, unused] : flat.items()) {
      // The value itself, and everything that it lies in.
      for (Json::json_pointer at(place); !at.empty(); at = at.parent_pointer())
        for (const Json& other : {Json(nullptr),
                                  Json(5),
                                  Json(true),
                                  Json("text"),
                                  Json::array(),
                                  Json::object(),
                                  Json::array({nullptr}),
                                  Json::array({5})}) {
          Json changed = request;
          changed[at] = other;
          const TestResponse r = server.post(path, changed.dump());
          EXPECT_TRUE(r.status == 200 || r.status == 400 || r.status == 404)
              << path << " " << at << " " << other << ": " << r.status << " " << r.body;
        }
    }
  }
}

TEST_F(Serve, BadJsonIsRefused) {
  const std::string deep(100000, '[');
  for (const std::string& body : {std::string("{"),
                                  std::string("nonsense"),
                                  std::string("[]"),
                                  deep,
                                  std::string(R"({"a": 1e400})"),
                                  std::string(R"({"a": 123456789012345678901234567890})"),
                                  std::string(R"({"a": NaN})"),
                                  std::string("{\"a\": \"\xff\"}"),
                                  std::string(R"({"prompt": "\ud800"})"),
                                  std::string("{\"prompt\": \"a\0b\"}", 16),
                                  std::string(R"({"prompt": "a", "prompt": "b"})")}) {
    const TestResponse r = server_->post("/v1/completions", body);
    EXPECT_EQ(r.status, 400) << body.substr(0, 60) << ": " << r.body;
  }
  // A zero in a text is a character like any other.
  EXPECT_EQ(server_->post("/v1/completions", R"({"prompt": "a\u0000b", "max_tokens": 1})").status,
            200);
}

/// A bug that one request finds, or memory that it alone needs, is its own answer, and nobody else's end.
TEST_F(Serve, WhatFailsInReadingARequestEndsThatRequestAlone) {
  const std::string chat = std::string("{") + kChat + R"(, "max_tokens": 1})";
  for (const auto& [path, body] : std::map<std::string, std::string>{
           {"/v1/chat/completions", chat}, {"/tokenize", R"({"prompt": "a"})"}}) {
    arm_faults("serve.read:1:eio,serve.read:2:enospc");
    EXPECT_EQ(server_->post(path, body).status, 500) << path;
    const TestResponse full = server_->post(path, body);
    EXPECT_EQ(full.status, 503) << path;
    EXPECT_EQ(Json::parse(full.body)["error"]["code"], "server_overloaded") << full.body;
    arm_faults("");
    EXPECT_EQ(server_->post(path, body).status, 200) << path;
  }
}

TEST_F(Serve, APromptThatDoesNotFitIsRefusedAndNeverCut) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "sea stone ";
  const TestResponse r = server_->post("/v1/completions", Json{{"prompt", text}}.dump());
  EXPECT_EQ(r.status, 400);
  EXPECT_EQ(Json::parse(r.body)["error"]["code"], "context_length_exceeded") << r.body;
  // What is only scored needs no room behind it.
  const auto scored = [&](size_t tokens, int answer) {
    return server_->post("/v1/completions",
                         Json{{"prompt", std::vector<int>(tokens, 70)},
                              {"max_tokens", answer},
                              {"echo", true},
                              {"logprobs", 0}}
                             .dump());
  };
  const TestResponse whole = scored(4096, 0);
  ASSERT_EQ(whole.status, 200) << whole.body;
  EXPECT_EQ(Json::parse(whole.body)["choices"][0]["logprobs"]["tokens"].size(), 4096u);
  EXPECT_EQ(scored(4096, 1).status, 400);
  EXPECT_EQ(scored(4097, 0).status, 400);
}

TEST_F(Serve, SpeaksHttp) {
  TestClient client(server_->port());
  // Several requests in one piece, each answered in its turn on one connection.
  std::string many;
  for (int i = 0; i < 500; ++i) many += TestClient::request("GET", "/health");
  many += TestClient::request("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 2})") +
          TestClient::request("GET", "/version");
  ASSERT_TRUE(client.send(many));
  for (int i = 0; i < 500; ++i) ASSERT_EQ(client.response().status, 200) << i;
  EXPECT_NE(client.response().body.find("text_completion"), std::string::npos);
  EXPECT_NE(client.response().body.find("version"), std::string::npos);
  // A body in chunks, and byte by byte.
  const std::string chunked =
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
      "8\r\n{\"prompt\r\n7\r\n\": \"a\"}\r\n0\r\n\r\n";
  for (const char c : chunked) ASSERT_TRUE(client.send(std::string(1, c)));
  const TestResponse from_chunks = client.response();
  EXPECT_EQ(from_chunks.status, 200) << from_chunks.body;
  // Who waits to be asked for the body.
  ASSERT_TRUE(
      client.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                  "Content-Length: 15\r\n\r\n"));
  EXPECT_TRUE(client.head().starts_with("HTTP/1.1 100 "));
  ASSERT_TRUE(client.send(R"({"prompt": "a"})"));
  EXPECT_EQ(client.response().status, 200);
  // A refusal whose body has come leaves the connection as it is.
  ASSERT_TRUE(client.send(TestClient::request("POST", "/nowhere", "{}") +
                          TestClient::request("GET", "/version")));
  EXPECT_EQ(client.response().status, 404);
  EXPECT_EQ(client.response().status, 200);
  // HTTP/1.0 has no chunks: the end of the stream is the connection's.
  TestClient old(server_->port());
  const std::string body = R"({"prompt": "a", "max_tokens": 3, "stream": true})";
  old.send("POST /v1/completions HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body);
  const TestResponse r = old.response();
  EXPECT_EQ(r.status, 200);
  EXPECT_TRUE(r.body.ends_with("data: [DONE]\n\n")) << r.body;
}

TEST_F(Serve, WhoHasSaidAllStillGetsWhatWasAnswered) {
  TestClient client(server_->port());
  // More than the buffers of both sockets hold.
  constexpr const char* kLarge = "/page/lib/katex.js";
  constexpr size_t kBuffers = size_t{16} << 20;
  const size_t each = server_->get(kLarge).body.size();
  ASSERT_GT(each, size_t{100000});
  const int requests = static_cast<int>(kBuffers / each);
  std::string many;
  for (int i = 0; i < requests; ++i) many += TestClient::request("GET", kLarge);
  ASSERT_TRUE(client.send(many));
  client.close_sending();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // for the server to see it
  int answered = 0;
  while (client.response().status == 200) ++answered;
  EXPECT_EQ(answered, requests);
  EXPECT_TRUE(client.closed());
}

TEST_F(Serve, HostileConnectionsAreRefused) {
  const auto answer = [&](const std::string& bytes) {
    TestClient client(server_->port());
    client.send(bytes);
    const TestResponse r = client.response();
    EXPECT_TRUE(client.closed());
    return r.status;
  };
  EXPECT_EQ(answer("nonsense\r\n\r\n"), 400);
  EXPECT_EQ(answer("GET / HTTP/9.9\r\n\r\n"), 400);
  EXPECT_EQ(answer("GET ?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(answer("GET /health HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(answer("GET /health HTTP/1.1\r\nX: " + std::string(100000, 'x')), 431);
  std::string headers = "GET /health HTTP/1.1\r\n";
  for (int i = 0; i < 10000; ++i) headers += "X-" + std::to_string(i) + ": 1\r\n";
  EXPECT_EQ(answer(headers), 431);
  EXPECT_EQ(answer("POST /v1/completions HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n{"), 413);
  EXPECT_EQ(
      answer("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"),
      400);
  EXPECT_EQ(
      answer("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
             "Content-Length: 5\r\n\r\n0\r\n\r\n"),
      400);
  EXPECT_EQ(server_->get("/health").status, 200);
}

TEST_F(Serve, NoRequestEndsTheServer) {
  // The form's only token is also to end the answer.
  Json ids = Json::array();
  for (int32_t id = 0; id < server_->model->texts.tokenizer->vocab_size(); ++id)
    if (std::string_view("7 \n\t\r").find(server_->model->texts.tokenizer->token_bytes(id)) !=
        std::string_view::npos)
      ids.push_back(id);
  Json dead = Json::parse("{" + std::string(kChat) + "}");
  dead["response_format"] = {{"type", "json_schema"},
                             {"json_schema", {{"schema", {{"const", 7}}}}}};
  dead["stop_token_ids"] = ids;
  const TestResponse refused = server_->post("/v1/chat/completions", dead.dump());
  EXPECT_EQ(refused.status, 400) << refused.body;
  EXPECT_NE(refused.body.find("stop_token_ids"), std::string::npos) << refused.body;
  // JSON in a text, deeper than any stack.
  for (const char* path : {"/v1/chat/completions", "/tokenize"}) {
    const std::string deep = "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}";
    const Json call = {
        {"id", "1"}, {"type", "function"}, {"function", {{"name", "f"}, {"arguments", deep}}}};
    const Json messages = {{{"role", "user"}, {"content", "a"}},
                           {{"role", "assistant"}, {"content", "b"}, {"tool_calls", {call}}},
                           {{"role", "user"}, {"content", "c"}}};
    const TestResponse r =
        server_->post(path, Json{{"messages", messages}, {"max_tokens", 1}}.dump());
    EXPECT_NE(r.status, 0) << path;
  }
  EXPECT_EQ(server_->get("/health").status, 200);
}

/// RFC 9110, 15.5.6: what a path is for is told with the refusal.
TEST_F(Serve, AllowSaysWhatAPathIsFor) {
  const auto asked = [&](const std::string& method, const std::string& path) {
    const TestResponse r = TestClient(server_->port()).ask(method, path);
    const size_t allow = r.head.find("\r\nAllow: ");
    if (allow == std::string::npos) return std::to_string(r.status);
    const std::string methods =
        r.head.substr(allow + 9, r.head.find("\r\n", allow + 2) - allow - 9);
    EXPECT_NE(r.body.find("is for " + methods), std::string::npos) << r.body;
    return std::to_string(r.status) + " " + methods;
  };
  EXPECT_EQ(asked("GET", "/v1/chat/completions"), "405 POST");
  EXPECT_EQ(asked("PUT", "/v1/messages"), "405 POST");
  EXPECT_EQ(asked("POST", "/v1/models"), "405 GET, HEAD");
  EXPECT_EQ(asked("DELETE", "/v1/models/small"), "405 GET, HEAD");
  EXPECT_EQ(asked("OPTIONS", "/health"), "405 GET, HEAD");
  EXPECT_EQ(asked("POST", "/"), "405 GET, HEAD");
  EXPECT_EQ(asked("OPTIONS", "/nowhere"), "404");
  EXPECT_EQ(asked("POST", "/nowhere"), "404");
}

/// What HTTP refuses comes in the form of the path's API, as all else that is refused.
TEST_F(Serve, RefusalsOfHttpAreTheApis) {
  const auto answer = [&](const std::string& bytes, int status) {
    TestClient client(server_->port());
    client.send(bytes);
    const TestResponse r = client.response();
    EXPECT_EQ(r.status, status);
    EXPECT_NE(r.head.find("Content-Type: application/json"), std::string::npos) << r.head;
    const Json j = Json::parse(r.body, nullptr, false);
    return j.is_object() ? j : Json{{"error", {{"message", r.body}, {"type", ""}}}};
  };
  const std::string head = " HTTP/1.1\r\nHost: localhost\r\n",
                    large = "Content-Length: 1000000000\r\n\r\n{";
  for (const std::string& length :
       {large, "Transfer-Encoding: chunked\r\n\r\n900000\r\n" + std::string(9 << 20, ' ')}) {
    const Json chat = answer("POST /v1/chat/completions" + head + length, 413);
    EXPECT_EQ(chat["error"]["type"], "invalid_request_error");
    EXPECT_NE(chat["error"]["message"].get<std::string>().find("--body-mib"), std::string::npos)
        << chat;
    const Json message = answer("POST /v1/messages" + head + length, 413);
    EXPECT_EQ(message["type"], "error");
    EXPECT_EQ(message["error"]["type"], "request_too_large");
  }
  const Json header = answer("GET /health" + head + "X: " + std::string(100000, 'x'), 431);
  EXPECT_NE(header["error"]["message"].get<std::string>().find("32768 bytes"), std::string::npos)
      << header;
  EXPECT_EQ(answer("nonsense\r\n\r\n", 400)["error"]["type"], "invalid_request_error");
  EXPECT_EQ(
      answer("POST /v1/messages" + head + "Transfer-Encoding: gzip, chunked\r\n\r\n", 400)["type"],
      "error");
}

TEST_F(Serve, PackedBodiesAreRefusedByName) {
  const auto asked = [&](const std::string& headers) {
    TestClient client(server_->port());
    const TestResponse r =
        client.ask("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 1})", headers);
    if (r.status == 200) return std::string();
    EXPECT_EQ(r.status, 415);
    EXPECT_NE(r.head.find("\r\nAccept-Encoding: identity\r\n"), std::string::npos) << r.head;
    EXPECT_EQ(client.get("/health").status, 200) << "the connection goes on";
    const Json error = Json::parse(r.body)["error"];
    EXPECT_EQ(error["param"], "Content-Encoding");
    return error["message"].get<std::string>();
  };
  for (const std::string coding : {"gzip", "zstd", "br", "deflate"})
    EXPECT_NE(asked("Content-Encoding: " + coding + "\r\n").find("'" + coding + "'"),
              std::string::npos);
  EXPECT_NE(
      asked("Content-Encoding: identity\r\nContent-Encoding: identity , GZIP\r\n").find("'gzip'"),
      std::string::npos);
  EXPECT_EQ(asked("Content-Encoding: identity\r\n"), "");
  EXPECT_EQ(asked("Content-Encoding: Identity, identity\r\n"), "");
  EXPECT_EQ(asked("Content-Encoding:\r\n"), "");
}

TEST_F(Serve, ChunksHaveHeadsOfBoundedLength) {
  for (const char* begin : {"1;", "0\r\nX: "}) {
    TestClient client(server_->port());
    client.send("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(begin);
    client.send(std::string(200000, 'a'));
    EXPECT_EQ(client.response().status, 431) << begin;
    EXPECT_TRUE(client.closed());
  }
}

/// Whoever sends on while he is answered is noticed when he leaves.
TEST_F(Serve, WhoSendsAheadAndLeavesIsForgotten) {
  arm_faults("serve.step:*:delay3");
  TestClient client(server_->port());
  ASSERT_TRUE(client.send(TestClient::request(
      "POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 4000, "ignore_eos": true})")));
  ASSERT_TRUE(client.send(std::string(300000, ' ')));
  EXPECT_TRUE(
      Running::eventually([&] { return server_->metric("vllm:num_requests_running") == 1; }));
  client.leave();
  EXPECT_TRUE(
      Running::eventually([&] { return server_->metric("vllm:num_requests_running") == 0; }));
  arm_faults("");
}

TEST_F(Serve, TextToGoOnWithHoldsNoControlTokens) {
  for (const char* field : {"content", "reasoning_content"}) {
    Json last = {{"role", "assistant"}, {"content", ""}, {"prefix", true}};
    last[field] = "x<|pad|>";
    const Json asked = {{"messages", {{{"role", "user"}, {"content", "a"}}, last}},
                        {"max_tokens", 1}};
    const TestResponse r = server_->post("/v1/chat/completions", asked.dump());
    EXPECT_EQ(r.status, 400) << field;
    EXPECT_NE(r.body.find("control token"), std::string::npos) << r.body;
  }
}

TEST_F(Serve, WhatDoesNotFitIsCounted) {
  Json asked = {{"messages", {{{"role", "user"}, {"content", std::string(30000, 'q') + " zebra"}}}},
                {"model", "small"}};
  const TestResponse counted = server_->post("/v1/messages/count_tokens", asked.dump());
  EXPECT_EQ(counted.status, 200) << counted.body;
  EXPECT_GT(Json::parse(counted.body)["input_tokens"].get<int64_t>(), server_->model->context());
  asked["max_tokens"] = 1;
  EXPECT_EQ(server_->post("/v1/messages", asked.dump()).status, 400);
}

TEST_F(Serve, PagesOfOthersMayNotAsk) {
  const auto asked = [&](const std::string& host, const std::string& origin) {
    TestClient client(server_->port());
    client.send("GET /v1/models HTTP/1.1\r\nHost: " + host + "\r\nOrigin: " + origin + "\r\n\r\n");
    return client.response().status;
  };
  EXPECT_EQ(asked("localhost:8000", "http://localhost:8000"), 200);
  EXPECT_EQ(asked("127.0.0.1:8000", "http://127.0.0.1:8000"), 200);
  EXPECT_EQ(asked("localhost:8000", "http://evil.example"), 403);
  EXPECT_EQ(asked("evil.example", "http://evil.example"), 403);  // a name that leads here
  EXPECT_EQ(asked("localhost", "null"), 403);
  // A proxy's page: it is told what to do.
  TestClient client(server_->port());
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://ferry.lan:18800\r\n"
      "Content-Length: 2\r\n\r\n{}");
  const TestResponse refused = client.response();
  EXPECT_EQ(refused.status, 403);
  for (const char* words : {"pages of http://ferry.lan:18800", "--cors http://ferry.lan:18800"})
    EXPECT_NE(refused.body.find(words), std::string::npos) << refused.body;
}

/// Without an Origin, too, which browsers leave out where a page reads what it takes for its own.
TEST_F(Serve, NamesThatWereMadeToLeadHereMayNotRead) {
  const auto asked = [](const Running& server, const std::string& host, const std::string& path) {
    TestClient client(server.port());
    client.send("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
    return client.response().status;
  };
  for (const char* path : {"/v1/models", "/ferry/passport", "/metrics", "/", "/health"}) {
    for (const char* host : {"evil.example",
                             "evil.example:8000",
                             "127.0.0.1.evil.example",
                             "localhost.evil.example",
                             "evillocalhost"})
      EXPECT_EQ(asked(*server_, host, path), 403) << host << path;
    for (const char* host : {"localhost",
                             "LocalHost:8000",
                             "127.0.0.1:1",
                             "127.1.2.3",
                             "[::1]:8000",
                             "ferry.localhost:8000",
                             "host.docker.internal"})
      EXPECT_EQ(asked(*server_, host, path), 200) << host << path;
    EXPECT_EQ(asked(*server_, "localhost", "http://evil.example" + std::string(path)), 403);
    EXPECT_EQ(asked(*server_, "evil.example", "http://localhost" + std::string(path)), 200);
  }
  TestClient old(server_->port());
  old.send("GET /v1/models HTTP/1.0\r\n\r\n");
  EXPECT_EQ(old.response().status, 200);
  const TestResponse r = TestClient(server_->port()).ask("GET", "http://evil.example/v1/models");
  EXPECT_NE(r.body.find("'evil.example' is none of this server's names"), std::string::npos)
      << r.body;
  EXPECT_NE(r.body.find("--cors"), std::string::npos) << r.body;
  const Running named({.origins = {"https://app.example:444"}});
  EXPECT_EQ(asked(named, "App.example", "/v1/models"), 200);
  EXPECT_EQ(asked(named, "evil.example", "/v1/models"), 403);
  const Running all({.origins = {"*"}});
  EXPECT_EQ(asked(all, "evil.example", "/v1/models"), 200);
}

/// Pages that are trusted ask with whatever headers their libraries add.
TEST(Service, TrustedPagesAskWithTheirOwnHeaders) {
  const Running server({.origins = {"https://app.example"}});
  TestClient client(server.port());
  client.send(
      "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example\r\n"
      "Access-Control-Request-Method: POST\r\n"
      "Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n\r\n");
  const TestResponse r = client.response();
  EXPECT_EQ(r.status, 204);
  EXPECT_NE(r.head.find("Access-Control-Allow-Headers: authorization,content-type,x-stainless-os"),
            std::string::npos)
      << r.head;
  EXPECT_NE(r.head.find("Access-Control-Allow-Origin: https://app.example"), std::string::npos);
}

TEST_F(Serve, WhoLeavesIsForgotten) {
  arm_faults("serve.step:*:delay3");
  for (const bool stream : {true, false}) {
    TestClient client(server_->port());
    ASSERT_TRUE(client.send(TestClient::request(
        "POST",
        "/v1/completions",
        Json{{"prompt", "a"}, {"max_tokens", 4000}, {"ignore_eos", true}, {"stream", stream}}
            .dump())));
    EXPECT_TRUE(
        Running::eventually([&] { return server_->metric("vllm:num_requests_running") == 1; }));
    client.leave();
    EXPECT_TRUE(
        Running::eventually([&] { return server_->metric("vllm:num_requests_running") == 0; }));
    EXPECT_EQ(server_->metric("vllm:kv_cache_usage_perc"), 0);
  }
  arm_faults("");
}

TEST_F(Serve, WhatWasReadIsCounted) {
  const std::string body =
      Json{{"prompt", std::string(1500, 's') + "ea"}, {"max_tokens", 1}}.dump();
  const Json first = Json::parse(server_->post("/v1/completions", body).body);
  const Json again = Json::parse(server_->post("/v1/completions", body).body);
  EXPECT_EQ(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  const int64_t cached = again["usage"]["prompt_tokens_details"]["cached_tokens"];
  EXPECT_GT(cached, 100);
  EXPECT_EQ(again["usage"]["prompt_cache_hit_tokens"], cached);
  EXPECT_EQ(again["usage"]["prompt_cache_miss_tokens"],
            again["usage"]["prompt_tokens"].get<int64_t>() - cached);
  // Another salt finds nothing.
  Json salted = Json::parse(body);
  salted["cache_salt"] = "mine";
  const Json other = Json::parse(server_->post("/v1/completions", salted.dump()).body);
  EXPECT_EQ(other["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

/// Also where one pass reads it all and brings the first token.
TEST_F(Serve, ReadingAPromptTakesTime) {
  const double before = server_->metric("vllm:request_prefill_time_seconds_sum");
  const Json j = Json::parse(
      server_
          ->post("/v1/completions",
                 R"({"prompt": "time goes by", "max_tokens": 3, "timings_per_token": true})")
          .body);
  EXPECT_GT(j["timings"]["prompt_ms"], 0);
  EXPECT_GT(j["timings"]["prompt_per_second"], 0);
  EXPECT_GT(server_->metric("vllm:request_prefill_time_seconds_sum"), before);
}

TEST(ServeKeys, GuardEveryPathThatRunsTheModel) {
  const std::string file = testing::TempDir() + "/keys";
  std::ofstream(file) << "# ours\nsecret-one\nsecret-two\n";
  ServiceOptions options;
  auto keys = ApiKeys::read(file);
  ASSERT_TRUE(keys);
  options.keys = *keys;
  Running server(std::move(options));
  const auto status =
      [&](const std::string& method, const std::string& path, const std::string& headers) {
        return TestClient(server.port())
            .ask(method, path, method == "POST" ? "{}" : "", headers)
            .status;
      };
  for (const char* path : {"/v1/chat/completions",
                           "/chat/completions",
                           "/beta/completions",
                           "/v1/completions",
                           "/completions",
                           "/tokenize",
                           "/v1/tokenize",
                           "/detokenize",
                           "/v1/responses",
                           "/v1/responses/input_tokens",
                           "/v1/messages",
                           "/v1/messages/count_tokens",
                           "/v1/embeddings"}) {
    EXPECT_EQ(status("POST", path, ""), 401) << path;
    EXPECT_EQ(status("POST", path, "Authorization: Bearer secret\r\n"), 401) << path;
    EXPECT_EQ(status("POST", path, "Authorization: secret-one\r\n"), 401) << path;
    EXPECT_EQ(status("POST", path, "Authorization: Bearer secret-two\r\n"), 400) << path;
    EXPECT_EQ(status("POST", path, "X-Api-Key: secret-one\r\n"), 400) << path;
  }
  EXPECT_EQ(status("GET", "/v1/models", ""), 401);
  EXPECT_EQ(status("GET", "/ferry/passport", ""), 401);
  EXPECT_EQ(status("GET", "/v1/models", "authorization: bearer secret-one\r\n"), 200);
  for (const char* path : {"/health", "/version", "/metrics", "/"})
    EXPECT_EQ(status("GET", path, ""), 200) << path;
  // One key's questions find nothing that another's left.
  const std::string body = Json{{"prompt", std::string(1500, 's')}, {"max_tokens", 1}}.dump();
  const auto cached = [&](const std::string& key) {
    const TestResponse r = TestClient(server.port())
                               .ask("POST", "/v1/completions", body, "X-Api-Key: " + key + "\r\n");
    return Json::parse(r.body)["usage"]["prompt_cache_hit_tokens"].get<int64_t>();
  };
  EXPECT_EQ(cached("secret-one"), 0);
  EXPECT_EQ(cached("secret-two"), 0);
  EXPECT_GT(cached("secret-one"), 0);
}

TEST(ServeLimits, SlowClientsAreDroppedAndOthersServed) {
  ServiceOptions options;
  options.http.header_s = 0.3;
  options.http.body_s = 0.3;
  options.http.idle_s = 0.3;
  options.http.connections = 20;
  Running server(std::move(options));
  std::vector<std::unique_ptr<TestClient>> slow;
  for (int i = 0; i < 60; ++i) {
    slow.push_back(std::make_unique<TestClient>(server.port()));
    slow.back()->send(
        i % 2 == 0
            ? "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow"
            : "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{");
  }
  EXPECT_EQ(server.get("/health").status, 200);
  for (auto& client : slow) EXPECT_TRUE(client->closed());
  EXPECT_LE(server.metric("ferry:connections"), 20);
}

TEST(ServeLimits, TooMuchIsRefusedWithWhenToComeAgain) {
  auto model = small_loaded_model();
  model->engine.running = 1;
  model->engine.waiting = 1;
  Running server({}, model);
  arm_faults("serve.step:*:delay5");
  const std::string body =
      Json{{"prompt", "a"}, {"max_tokens", 4000}, {"ignore_eos", true}, {"stream", true}}.dump();
  TestClient first(server.port()), second(server.port());
  first.send(TestClient::request("POST", "/v1/completions", body));
  ASSERT_TRUE(first.head().starts_with("HTTP/1.1 200"));
  EXPECT_TRUE(Running::eventually([&] { return server.metric("vllm:num_requests_running") == 1; }));
  second.send(TestClient::request("POST", "/v1/completions", body));
  EXPECT_TRUE(Running::eventually([&] { return server.metric("vllm:num_requests_waiting") == 1; }));
  // /health has said 503, too, if it was asked while the model was being loaded.
  const auto refusals = [&] {
    return std::max(0.,
                    server.metric(R"(ferry:http_responses_total{model_name="small",status="503")"));
  };
  const double before = refusals();
  const TestResponse third = server.post("/v1/completions", body);
  EXPECT_EQ(third.status, 503);
  EXPECT_NE(third.head.find("Retry-After: 1"), std::string::npos);
  EXPECT_EQ(Json::parse(third.body)["error"]["type"], "overloaded_error");
  // Nobody answered it, so it is none of those that are over.
  EXPECT_EQ(server.metric("vllm:prompt_tokens_total"), 0);
  EXPECT_EQ(server.metric("vllm:e2e_request_latency_seconds_count"), 0);
  EXPECT_EQ(
      server.metric(R"(vllm:request_success_total{model_name="small",finished_reason="error")"), 0);
  EXPECT_EQ(refusals(), before + 1);
  first.leave();
  second.leave();
  arm_faults("");
}

/// To try again would be no advice: there would never be more room than there is.
TEST(ServeLimits, WhatOneRequestAsksForIsTakenWhereNothingWaits) {
  auto model = small_loaded_model();
  model->engine.running = 2;
  model->engine.waiting = 3;
  model->engine.waiting_tokens = 4;
  Running server({}, model);
  const auto choices_of = [&](const std::string& body) {
    const TestResponse r = server.post("/v1/completions", body);
    EXPECT_EQ(r.status, 200) << r.body;
    return r.status == 200 ? Json::parse(r.body)["choices"].size() : 0;
  };
  EXPECT_EQ(choices_of(R"({"prompt": "a", "n": 16, "max_tokens": 2})"), 16u);
  EXPECT_EQ(
      choices_of(Json{
          {"prompt", Json(std::vector<std::string>(9, "the sea"))}, {"n", 2}, {"max_tokens", 2}}
                     .dump()),
      18u);
  // Where others run and wait, it is all of it that must find room, or none of it is taken.
  arm_faults("serve.step:*:delay5");
  const std::string body =
      Json{{"prompt", "a"}, {"max_tokens", 4000}, {"ignore_eos", true}, {"stream", true}}.dump();
  TestClient first(server.port()), second(server.port());
  for (TestClient* const client : {&first, &second}) {
    client->send(TestClient::request("POST", "/v1/completions", body));
    ASSERT_TRUE(client->head().starts_with("HTTP/1.1 200"));
  }
  EXPECT_TRUE(Running::eventually([&] { return server.metric("vllm:num_requests_running") == 2; }));
  const TestResponse r =
      server.post("/v1/completions", R"({"prompt": "a", "n": 4, "max_tokens": 2})");
  EXPECT_EQ(r.status, 503) << r.body;
  EXPECT_EQ(server.metric("vllm:num_requests_waiting"), 0);
  first.leave();
  EXPECT_TRUE(Running::eventually([&] { return server.metric("vllm:num_requests_running") == 1; }));
  EXPECT_EQ(choices_of(R"({"prompt": "a", "n": 16, "max_tokens": 2})"), 16u);
  second.leave();
  arm_faults("");
}

/// What takes long to read, or to write, holds nobody up who wants little.
TEST(ServeLimits, WhatIsLargeHoldsNobodyUp) {
  Running server;
  const std::string little = R"({"prompt": "a", "max_tokens": 1})";
  // A long document is written for six seconds ...
  std::vector<int32_t> ids;
  while (ids.size() < 2000) ids.push_back(static_cast<int32_t>(5 + ids.size() % 50));
  const std::string large = Json{
      {"prompt", {ids, ids}},
      {"max_tokens", 0},
      {"echo", true},
      {"logprobs", 0},
      {"prompt_logprobs", 20}}.dump();
  arm_faults("serve.write:1:delay6000");
  TestClient waits(server.port());
  waits.send(TestClient::request("POST", "/v1/completions", large));
  EXPECT_TRUE(Running::eventually([] { return fault_point_count("serve.write") == 1; }));
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(server.get("/health").status, 200);
  EXPECT_EQ(server.post("/v1/completions", little).status, 200);
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(5000));
  arm_faults("");  // ends the delay
  const TestResponse whole = waits.response();
  EXPECT_EQ(whole.status, 200);
  EXPECT_EQ(Json::parse(whole.body)["choices"][1]["prompt_logprobs"].size(), 2000u);
  // ... or cannot be: that request alone hears of it.
  arm_faults("serve.write:1:eio");
  EXPECT_EQ(server.post("/v1/completions", large).status, 500);
  arm_faults("serve.write:1:enospc");
  EXPECT_EQ(server.post("/v1/completions", little).status, 503);
  // Who leaves meanwhile is forgotten.
  arm_faults("serve.write:1:delay300");
  {
    TestClient leaves(server.port());
    leaves.send(TestClient::request("POST", "/v1/completions", large));
    EXPECT_TRUE(Running::eventually([] { return fault_point_count("serve.write") == 1; }));
  }
  EXPECT_EQ(server.post("/v1/completions", little).status, 200);
  // Several long texts are counted for seconds, one after the other.
  const std::string long_text =
      Json{{"prompt", std::string(size_t{300} << 10, 'a')}, {"add_special_tokens", false}}.dump();
  arm_faults("serve.read:*:delay600");
  std::vector<std::unique_ptr<TestClient>> counting;
  for (int i = 0; i < 4; ++i) {
    counting.push_back(std::make_unique<TestClient>(server.port()));
    counting.back()->send(TestClient::request("POST", "/tokenize", long_text));
  }
  EXPECT_TRUE(Running::eventually([&] { return server.metric("vllm:num_requests_waiting") >= 3; }));
  EXPECT_EQ(server.post("/v1/completions", little).status, 200);
  EXPECT_GE(server.metric("ferry:num_requests_waiting"), 1) << "it waited for all of them";
  for (const auto& client : counting) EXPECT_EQ(client->response().status, 200);
  arm_faults("");
}

/// Nor does what is small and takes long.
TEST(ServeLimits, WhatTakesLongHoldsNobodyUp) {
  Running server;
  Json properties;
  for (int i = 0; i < 200; ++i) properties["p" + std::to_string(i)] = {{"type", "null"}};
  Json asked = Json::parse("{" + std::string(kChat) + R"(, "max_tokens": 1})");
  asked["response_format"] = {{"type", "json_schema"},
                              {"json_schema", {{"schema", {{"properties", properties}}}}}};
  for (const auto& [path, body] : std::map<std::string, std::string>{
           {"/v1/chat/completions", asked.dump()},
           {"/v1/messages/count_tokens",
            Json{{"messages", Json(std::vector<Json>(600, asked["messages"][0]))}}.dump()}}) {
    arm_faults("serve.read:2:delay6000");
    TestClient waits(server.port());
    waits.send(TestClient::request("POST", path, body));
    EXPECT_TRUE(Running::eventually([] { return fault_point_count("serve.read") == 2; }));
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(server.post("/v1/completions", R"({"prompt": "a", "max_tokens": 1})").status, 200);
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(5000));
    arm_faults("");  // ends the delay
    const TestResponse r = waits.response();
    EXPECT_EQ(r.status, 200) << r.body;
  }
  arm_faults("");
}

/// A document grows with answers, tokens and alternatives together.
TEST_F(Serve, MoreLogProbabilitiesThanADocumentHoldsAreRefusedByName) {
  const std::vector<int32_t> ids(4000, 7);
  const auto param_of = [&](const std::string& path, const Json& body) {
    const TestResponse r = server_->post(path, body.dump());
    EXPECT_EQ(r.status, 400) << r.body;
    return Json::parse(r.body)["error"]["param"];
  };
  const std::string text = "/v1/completions";
  EXPECT_EQ(param_of(text,
                     {{"prompt", Json(std::vector<Json>(30, ids))},
                      {"max_tokens", 0},
                      {"prompt_logprobs", 20}}),
            "prompt_logprobs");
  EXPECT_EQ(param_of(text,
                     {{"prompt", Json(std::vector<Json>(30, ids))},
                      {"max_tokens", 0},
                      {"echo", true},
                      {"logprobs", 20}}),
            "logprobs");
  // Nor does a stream repeat a prompt with more than fits into an event.
  EXPECT_EQ(param_of(text, {{"prompt", ids}, {"echo", true}, {"logprobs", 5}, {"stream", true}}),
            "logprobs");
}

TEST(ServeHealth, TurnsBadWithoutPasses) {
  ServiceOptions options;
  options.stall_s = 0.1;
  Running server(std::move(options));
  arm_faults("serve.step:1:delay700");
  TestClient client(server.port());
  client.send(
      TestClient::request("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 1})"));
  EXPECT_TRUE(Running::eventually([&] { return server.get("/health").status == 503; }));
  EXPECT_EQ(server.get("/health").body, R"({"status":"stalled"})");
  EXPECT_EQ(client.response().status, 200);
  EXPECT_EQ(server.get("/health").status, 200);
  arm_faults("");
}

/// Nor do steps help that find nothing to run.
TEST(ServeHealth, TurnsBadWithStepsThatRunNothing) {
  ServiceOptions options;
  options.stall_s = 0.1;
  Running server(std::move(options));
  arm_faults("serve.step:*:eio");
  TestClient client(server.port());
  client.send(
      TestClient::request("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 1})"));
  EXPECT_TRUE(Running::eventually([&] { return server.get("/health").status == 503; }));
  EXPECT_EQ(server.get("/health").body, R"({"status":"stalled"})");
  arm_faults("");
  EXPECT_EQ(client.response().status, 200);
  EXPECT_EQ(server.get("/health").status, 200);
}

/// Its first events repeat the request, which may be more than a client may leave unread.
TEST(ServeLimits, WhatAResponseRepeatsClosesNoSlowClient) {
  ServiceOptions options;
  options.http.unread_bytes = 64 << 10;
  Running server(std::move(options));
  TestClient client(server.port());
  const Json request = {{"input", "a"},
                        {"stream", true},
                        {"max_output_tokens", 200},
                        {"metadata", {{"a", std::string(size_t{6} << 20, 'b')}}}};
  ASSERT_TRUE(client.send(TestClient::request("POST", "/v1/responses", request.dump())));
  EXPECT_TRUE(
      Running::eventually([&] { return server.metric("vllm:generation_tokens_total") > 0; }));
  EXPECT_TRUE(Running::eventually([&] { return server.metric("vllm:num_requests_running") == 0; }));
  const TestResponse r = client.response();
  EXPECT_TRUE(r.body.starts_with("event: response.created\n"));
  EXPECT_TRUE(r.body.ends_with("\n\n"));
  EXPECT_GT(r.body.size(), size_t{18} << 20);  // said three times, the last at the end
}

/// A proxy between must not take a stream for dead that has nothing to say yet.
TEST(ServeLimits, AStreamThatWaitsCarriesComments) {
  ServiceOptions options;
  options.quiet_s = 0.1;
  Running server(std::move(options));
  arm_faults("serve.step:1:delay2500");
  const TestResponse r =
      server.post("/v1/completions", R"({"prompt": "a", "max_tokens": 1, "stream": true})");
  EXPECT_TRUE(r.body.starts_with(": keep-alive\n\n")) << r.body;
  EXPECT_TRUE(r.body.ends_with("data: [DONE]\n\n")) << r.body;
  arm_faults("");
}

/// Boards that were made for vLLM find what they look for.
TEST_F(Serve, MetricsHaveVllmsNames) {
  server_->post("/v1/completions", R"({"prompt": "a", "max_tokens": 2})");
  const std::string text = server_->get("/metrics").body;
  const auto has = [&](const std::string& line) {
    EXPECT_NE(text.find("\n" + line), std::string::npos) << line;
  };
  const std::string label = R"({model_name="small")";
  for (const char* name : {"num_requests_running",
                           "num_requests_waiting",
                           "kv_cache_usage_perc",
                           "prefix_cache_queries_total",
                           "prefix_cache_hits_total",
                           "prompt_tokens_total",
                           "generation_tokens_total"})
    has("vllm:" + std::string(name) + label + "} ");
  for (const char* name : {"time_to_first_token_seconds",
                           "inter_token_latency_seconds",
                           "e2e_request_latency_seconds",
                           "request_queue_time_seconds",
                           "request_prefill_time_seconds",
                           "request_decode_time_seconds",
                           "request_prompt_tokens",
                           "request_generation_tokens",
                           "request_max_num_generation_tokens"}) {
    has("# TYPE vllm:" + std::string(name) + " histogram\n");
    has("vllm:" + std::string(name) + "_bucket" + label + R"(,le="+Inf"} )");
    has("vllm:" + std::string(name) + "_count" + label + "} ");
  }
  has("vllm:request_success_total" + label + R"(,finished_reason="length"} )");
}

/// ... and what they find is what happened.
TEST(ServeMetrics, AreOfWhatWasAnswered) {
  Running server;
  const auto ask = [&](Json body) {
    body["ignore_eos"] = true;
    return server.post("/v1/completions", body.dump());
  };
  // Ten tokens of a prompt and four of an answer; eight, and two answers of three; and one that is refused.
  std::vector<int32_t> ids(10, 70);
  EXPECT_EQ(ask({{"prompt", ids}, {"max_tokens", 4}}).status, 200);
  ids.assign(8, 71);
  EXPECT_EQ(ask({{"prompt", ids}, {"max_tokens", 3}, {"n", 2}, {"stream", true}}).status, 200);
  EXPECT_EQ(ask({{"prompt", "a"}, {"max_tokens", 0}}).status, 400);
  const auto expect = [&](const std::string& name, double value) {
    for (const char* prefix : {"vllm:", "ferry:"})
      EXPECT_EQ(server.metric(prefix + name), value) << name;
  };
  expect("prompt_tokens_total", 18);
  expect("generation_tokens_total", 10);
  expect("num_requests_running", 0);
  expect("num_requests_waiting", 0);
  expect("kv_cache_usage_perc", 0);
  expect("num_preemptions_total", 0);
  expect("prefix_cache_queries_total", 26);
  const std::string reason = R"(request_success_total{model_name="small",finished_reason=")";
  expect(reason + "length\"", 2);
  expect(reason + "stop\"", 0);
  expect(reason + "abort\"", 0);
  expect(reason + "error\"", 0);
  const auto expect_spread = [&](const std::string& name, double count, double sum) {
    expect(name + "_count", count);
    expect(name + "_sum", sum);
  };
  expect_spread("request_prompt_tokens", 2, 18);
  expect_spread("request_generation_tokens", 2, 10);
  expect_spread("request_max_num_generation_tokens", 2, 7);
  expect("time_to_first_token_seconds_count", 2);
  expect("request_queue_time_seconds_count", 2);
  expect("e2e_request_latency_seconds_count", 2);
  expect("request_prefill_time_seconds_count", 2);
  expect("request_decode_time_seconds_count", 2);
  expect("inter_token_latency_seconds_count", 3 + 2 + 2);
  for (const char* name : {"time_to_first_token", "request_prefill_time", "request_decode_time"})
    EXPECT_LE(server.metric("vllm:" + std::string(name) + "_seconds_sum"),
              server.metric("vllm:e2e_request_latency_seconds_sum"))
        << name;
  const std::string status = R"(ferry:http_responses_total{model_name="small",status=")";
  EXPECT_EQ(server.metric(status + "400\""), 1);
  EXPECT_GT(server.metric("ferry:passes_total"), 0);
  // Who leaves is counted with what he had.
  arm_faults("serve.step:*:delay3");
  {
    TestClient leaves(server.port());
    leaves.send(TestClient::request(
        "POST",
        "/v1/completions",
        Json{{"prompt", ids}, {"max_tokens", 4000}, {"ignore_eos", true}, {"stream", true}}
            .dump()));
    EXPECT_FALSE(leaves.head().empty());
  }
  EXPECT_TRUE(
      Running::eventually([&] { return server.metric("vllm:" + reason + "abort\"") == 1; }));
  arm_faults("");
  expect("prompt_tokens_total", 26);
  expect("request_prompt_tokens_count", 3);
}

TEST(ServeEnd, WhatIsUnderWayIsAnsweredAndNothingNewTaken) {
  Running server;
  arm_faults("serve.step:*:delay10");
  TestClient client(server.port()), idle(server.port()), other(server.port());
  EXPECT_EQ(other.get("/health").status, 200);
  client.send(TestClient::request(
      "POST",
      "/v1/completions",
      R"({"prompt": "a", "max_tokens": 30, "ignore_eos": true, "stream": true, "return_token_ids": true})"));
  ASSERT_TRUE(client.head().starts_with("HTTP/1.1 200"));
  server.stop();
  EXPECT_TRUE(other.closed());
  const TestResponse refused = server.post("/v1/completions", R"({"prompt": "a"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(server.get("/health").status, 503);
  std::string events;
  for (std::string piece; !(piece = client.chunk()).empty();) events += piece;
  EXPECT_TRUE(events.ends_with("data: [DONE]\n\n")) << events;
  EXPECT_TRUE(server.ended_by_itself());
  arm_faults("");
}

/// Its time is over: an answer that is under way is cut off, and nothing breaks.
TEST(ServeEnd, WhatTakesTooLongIsCutOff) {
  ServiceOptions options;
  options.drain_s = 0.2;
  Running server(std::move(options));
  arm_faults("serve.step:*:delay20");
  TestClient client(server.port());
  client.send(TestClient::request(
      "POST",
      "/v1/completions",
      R"({"prompt": "a", "max_tokens": 4000, "ignore_eos": true, "stream": true})"));
  ASSERT_TRUE(client.head().starts_with("HTTP/1.1 200"));
  TestClient whole(server.port());  // of whose answer no byte was sent
  whole.send(TestClient::request(
      "POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 4000, "ignore_eos": true})"));
  EXPECT_TRUE(
      Running::eventually([&] { return server.metric("ferry:num_requests_running") == 2; }));
  server.stop();
  const TestResponse refused = whole.response();
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(refused.body.find("\"code\":\"ending\""), std::string::npos) << refused.body;
  EXPECT_NE(refused.head.find("Retry-After"), std::string::npos) << refused.head;
  std::string events;
  for (std::string piece; !(piece = client.chunk()).empty();) events += piece;
  EXPECT_NE(events.find("this server is ending"), std::string::npos) << events;
  EXPECT_EQ(events.find("[DONE]"), std::string::npos);
  EXPECT_TRUE(server.ended_by_itself());
  server.close();
  EXPECT_TRUE(client.closed());
  arm_faults("");
}

/// A client that reads slowly gets the whole of its answer, however many others come.
TEST(ServeLimits, AnAnswerOnItsWayIsNotCutForOthers) {
  ServiceOptions options;
  options.http.connections = 3;
  Running server(std::move(options));
  TestClient slow(server.port());
  // More than the sockets hold.
  std::string text(1 << 20, 'a');
  slow.send(TestClient::request(
      "POST", "/tokenize", Json{{"prompt", text}, {"return_token_strs", true}}.dump()));
  const std::string head = slow.head();
  ASSERT_TRUE(head.starts_with("HTTP/1.1 200"));
  const size_t length_at = head.find("Content-Length: ");
  ASSERT_NE(length_at, std::string::npos) << head;
  const size_t length = std::stoul(head.substr(length_at + 16));
  std::vector<std::unique_ptr<TestClient>> others;
  for (int i = 0; i < 6; ++i) {
    others.push_back(std::make_unique<TestClient>(server.port()));
    EXPECT_NE(others.back()->get("/health").status, 0);
  }
  EXPECT_GT(length, 2u << 20);
  EXPECT_EQ(slow.rest(), length);
}

TEST(ServeEnd, AnEngineThatFailsEndsTheServer) {
  Result<std::unique_ptr<Service>> service =
      Service::start({.port = 0, .names = {"small"}, .log_requests = false}, [] {
        return Result<std::shared_ptr<const LoadedModel>>(fail(Code::kNotFound, "no such model"));
      });
  ASSERT_TRUE(service);
  const Result<void> outcome = (*service)->run();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().message, "no such model");
}

}  // namespace
}  // namespace ferry::serve
