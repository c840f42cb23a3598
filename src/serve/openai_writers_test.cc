// What OpenAI's streams say: JSON whatever is in it, an event for each kind.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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

/// Events are written as text, without a document: whatever they say, it is JSON, and the same.
TEST(OpenAiWriters, EventsAreJsonWhateverTheySay) {
  const ByteModelRules model("");
  for (const bool chat : {true, false})
    for (const bool usage : {true, false})
      for (const std::string& said : std::vector<std::string>{"yes",
                                                              "\"\\/\n\t\x01\x7f",
                                                              "né 日本 \xF0\x9F\x98\x80",
                                                              "</script>",
                                                              std::string("a\0b", 3)}) {
        Question q{.prompts = {{.ids = {1}}},
                   .chat = chat,
                   .usage_in_stream = usage,
                   .token_ids = true,
                   .timings = usage};
        q.options.top_log_probs = 1;
        const AnswerHead head{
            .id = "5", .model = "a \"model\"", .fingerprint = "f", .created_s = 7};
        const auto writer = (chat ? chat_writer : completion_writer)(model.model(), q, head);
        Answer a;
        a.tokens = {{.id = 65, .log_prob = -0.5F, .top = {{66, -0.25F}}}};
        const std::vector<Json> events =
            documents(writer->more(0, a, {.deltas = {{.kind = Kind::kContent, .text = said}}}, {}));
        ASSERT_EQ(events.size(), 1u);
        EXPECT_EQ(events[0]["id"], chat ? "chatcmpl-5" : "cmpl-5");
        EXPECT_EQ(events[0]["model"], head.model);
        EXPECT_EQ(events[0].contains("usage"), usage);
        EXPECT_EQ(events[0].contains("timings"), usage);
        const Json& choice = events[0]["choices"][0];
        EXPECT_EQ(choice["index"], 0);
        EXPECT_EQ(chat ? choice["delta"]["content"] : choice["text"], said);
        EXPECT_TRUE(choice["finish_reason"].is_null());
        EXPECT_EQ(choice["token_ids"], Json({65}));
        EXPECT_EQ(chat ? choice["logprobs"]["content"][0]["logprob"]
                       : choice["logprobs"]["token_logprobs"][0],
                  -0.5);
        a.end = AnswerEnd::kStop;
        const std::vector<Json> end = documents(writer->more(0, a, {.first_token = 1}, {}));
        ASSERT_EQ(end.size(), 1u);
        EXPECT_EQ(end[0]["choices"][0]["finish_reason"], "stop");
        EXPECT_TRUE(end[0]["choices"][0]["logprobs"].is_null());
        EXPECT_FALSE(end[0]["choices"][0].contains("token_ids"));
        EXPECT_EQ(end[0]["choices"][0].contains("delta"), chat);
      }
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
