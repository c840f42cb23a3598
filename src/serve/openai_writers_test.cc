// What OpenAI's streams say: JSON whatever is in it, an event for each kind.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "serve/answer_writer.h"
#include "serve/request_test_support.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::json;
using Kind = text::AnswerDelta::Kind;

/// The documents of events.
std::vector<Json> documents(std::string_view events) {
  std::vector<Json> all;
  while (events.starts_with("data: ")) {
    const size_t end = events.find("\n\n");
    all.push_back(Json::parse(events.substr(6, end - 6)));
    events.remove_prefix(end + 2);
  }
  EXPECT_TRUE(events.empty()) << events;
  return all;
}

std::string byte_name(const ByteModelRules& model, int32_t id) {
  return std::string(model.model().texts.tokenizer->token_bytes(id));
}
std::vector<int> bytes_of(const ByteModelRules& model, int32_t id) {
  const std::string name = byte_name(model, id);
  return {name.begin(), name.end()};
}

/// Events are written as text, without a document: whatever they say, each is the document that says it.
TEST(OpenAiWriters, EventsAreJsonWhateverTheySay) {
  const ByteModelRules model("");
  const Json timings = {{"cache_n", 1},
                        {"prompt_n", 2},
                        {"prompt_ms", 500.0},
                        {"prompt_per_token_ms", 250.0},
                        {"prompt_per_second", 4.0},
                        {"predicted_n", 4},
                        {"predicted_ms", 1500.0},
                        {"predicted_per_token_ms", 500.0},
                        {"predicted_per_second", 2.0}};
  const AnswerUsage used{
      .prompt = 3, .cached = 1, .completion = 4, .begun = 1, .prompt_s = 0.5, .completion_s = 1.5};
  const std::map<std::string, std::string> said_and_heard = {
      {"yes", "yes"},
      {"\"\\/\n\t\x01\x7f", "\"\\/\n\t\x01\x7f"},
      {"né 日本 \xF0\x9F\x98\x80", "né 日本 \xF0\x9F\x98\x80"},
      {"</script>", "</script>"},
      {std::string("a\0b", 3), std::string("a\0b", 3)},
      {"caf\xe9 \xE6\x97", "caf\uFFFD \uFFFD"}};
  for (const bool chat : {true, false})
    for (const bool more : {true, false})
      for (const auto& texts : said_and_heard) {
        const std::string &said = texts.first, &heard = texts.second;
        Question q{.prompts = {{.ids = {1}}},
                   .chat = chat,
                   .usage_in_stream = more,
                   .token_ids = more,
                   .timings = more};
        if (more) q.options.top_log_probs = 1;
        const AnswerHead head{
            .id = "5", .model = "a \"model\" " + said, .fingerprint = "f", .created_s = 7};
        const auto writer = (chat ? chat_writer : completion_writer)(model.model(), q, head);
        const auto event_with = [&](Json choice) {
          Json event = {{"id", chat ? "chatcmpl-5" : "cmpl-5"},
                        {"object", chat ? "chat.completion.chunk" : "text_completion"},
                        {"created", 7},
                        {"model", "a \"model\" " + heard},
                        {"system_fingerprint", "f"},
                        {"choices", Json::array({std::move(choice)})}};
          if (more) event["usage"] = nullptr;
          if (more) event["timings"] = timings;
          return event;
        };
        const auto token = [&](int32_t id, double log_prob) {
          return Json{{"id", id},
                      {"token", byte_name(model, id)},
                      {"logprob", log_prob},
                      {"bytes", bytes_of(model, id)}};
        };
        Json token_and_top = token(65, -0.5);
        const int32_t control = model.model().texts.eos.front();
        Json control_token = token(control, -4);
        control_token["special"] = true;  // a message that is sent back cannot have it
        token_and_top["top_logprobs"] = Json::array({token(66, -0.25), control_token});
        const Json chat_log_probs = {{"content", Json::array({token_and_top})},
                                     {"refusal", nullptr}};
        const Json text_log_probs = {
            {"tokens", Json::array({byte_name(model, 65)})},
            {"token_logprobs", Json::array({-0.5})},
            {"top_logprobs",
             Json::array({Json{{byte_name(model, 66), -0.25}, {byte_name(model, control), -4}}})},
            {"text_offset", Json::array({0})}};
        Answer a;
        a.tokens = {{.id = 65, .log_prob = -0.5F, .top = {{66, -0.25F}, {control, -4}}}};
        Json choice = {{"index", 0}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
        if (chat)
          choice["delta"] = {{"content", heard}};
        else
          choice["text"] = heard;
        if (more) choice["logprobs"] = chat ? chat_log_probs : text_log_probs;
        if (more) choice["token_ids"] = Json::array({65});
        EXPECT_EQ(documents(writer->more(
                      0, a, {.deltas = {{.kind = Kind::kContent, .text = said}}}, used)),
                  std::vector<Json>{event_with(choice)});

        a.end = AnswerEnd::kStop;
        Json last = {{"index", 0}, {"logprobs", nullptr}, {"finish_reason", "stop"}};
        if (chat)
          last["delta"] = Json::object();
        else
          last["text"] = "";
        EXPECT_EQ(documents(writer->more(0, a, {.first_token = 1}, used)),
                  std::vector<Json>{event_with(last)});
      }
}

/// A stream's first event brings no token, its last tells the whole.
TEST(OpenAiWriters, TimingsAreOfTokens) {
  const ByteModelRules model("");
  const Question q{
      .prompts = {{.ids = {1}}}, .chat = true, .usage_in_stream = true, .timings = true};
  const auto writer = chat_writer(model.model(), q, {.id = "5", .model = "m"});
  const AnswerUsage first{
      .prompt = 1, .completion = 3, .begun = 3, .prompt_s = 0.5, .completion_s = 1e-6};
  const std::vector<Json> begun = documents(writer->begin({{}}, first));
  ASSERT_EQ(begun.size(), 1u);
  EXPECT_EQ(begun[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_FALSE(begun[0].contains("timings"));
  const std::string end = writer->end({{}}, first);
  const Json last = documents(end.substr(0, end.find("\n\n") + 2))[0];
  EXPECT_TRUE(last["choices"].empty());
  EXPECT_EQ(last["usage"]["completion_tokens"], 3);
  EXPECT_EQ(last["timings"]["prompt_ms"], 500.0);
  EXPECT_EQ(last["timings"]["predicted_per_second"], 0);  // none came after the first of each
}

/// Of several deltas the first event has the tokens.
TEST(OpenAiWriters, EachKindHasItsEvent) {
  const ByteModelRules model("");
  Question q{.prompts = {{.ids = {1}}}, .chat = true, .token_ids = true};
  const auto writer = chat_writer(model.model(), q, {.id = "5", .model = "m"});
  Answer a;
  a.tokens = {{.id = 65}};
  a.calls = {{.id = "call_1", .name = "f"}};
  a.end = AnswerEnd::kToolCalls;
  const std::vector<Json> events =
      documents(writer->more(0,
                             a,
                             {.deltas = {{.kind = Kind::kReasoning, .text = "h\"m"},
                                         {.kind = Kind::kCall, .text = "f"},
                                         {.kind = Kind::kArguments, .text = "{\"a\":1}"},
                                         {.kind = Kind::kCallEnd}}},
                             {}));
  ASSERT_EQ(events.size(), 4u);
  std::vector<Json> deltas;
  for (const Json& e : events) deltas.push_back(e["choices"][0]["delta"]);
  EXPECT_EQ(deltas[0], Json::parse(R"({"reasoning_content": "h\"m"})"));
  EXPECT_EQ(deltas[1],
            Json::parse(R"({"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
                                       "function": {"name": "f", "arguments": ""}}]})"));
  EXPECT_EQ(
      deltas[2],
      Json::parse(R"({"tool_calls": [{"index": 0, "function": {"arguments": "{\"a\":1}"}}]})"));
  EXPECT_EQ(deltas[3], Json::object());
  EXPECT_TRUE(events[0]["choices"][0].contains("token_ids"));
  EXPECT_FALSE(events[1]["choices"][0].contains("token_ids"));
  EXPECT_TRUE(events[2]["choices"][0]["finish_reason"].is_null());
  EXPECT_EQ(events[3]["choices"][0]["finish_reason"], "tool_calls");
}

}  // namespace
}  // namespace ferry::serve
