// What an answer's tokens become, whole and as a stream: both must list the same.
#include "serve/answering.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "serve/messages_api.h"
#include "serve/request_test_support.h"
#include "serve/responses_api.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::json;

/// Keeps what is sent; before a stream's pieces "200 ", before a whole answer its status.
class Kept : public HttpExchange {
 public:
  explicit Kept(std::string& sent) : sent_(sent) {}
  void answer(HttpResponse response) override {
    sent_ += std::to_string(response.status) + " " + response.body;
  }
  void begin(HttpResponse head) override { sent_ += std::to_string(head.status) + " "; }
  void write(std::string_view piece) override { sent_ += piece; }
  void end() override {}
  void abort() override {}
  void when_gone(std::function<void()>) override {}

 private:
  std::string& sent_;
};

/// What a client is sent of an answer with this text, a byte a pass.
std::string sent(WriterMaker writer,
                 bool stream,
                 const std::string& text,
                 engine::Finish finish,
                 bool one_call = false) {
  const auto model = std::make_shared<ModelInfo>(byte_model("{# <tool_call> <think> #}"));
  std::vector<int32_t> ids;
  model->texts.tokenizer->encode(text, text::Tokenizer::Specials::kAsText, ids);
  const Question question{.prompts = {{.ids = {1}}},
                          .chat = true,
                          .tools = {"f"},
                          .one_call = one_call,
                          .stream = stream,
                          .repeated = "{}"};
  std::string out;
  Metrics metrics;
  Answering answering(
      model, question, {.id = "7"}, writer, std::make_shared<Kept>(out), 0, [](size_t) {});
  answering.accepted();
  for (const int32_t id : ids) answering.take(0, {.id = 1, .tokens = {{.id = id}}}, 0, 1, metrics);
  answering.take(0, {.id = 1, .finish = finish}, 0, 1, metrics);
  EXPECT_TRUE(answering.done());
  EXPECT_EQ(answering.owes_document(), !stream);
  if (!stream) answering.answer(answering.document());
  EXPECT_TRUE(out.starts_with("200 ")) << out;
  return out.substr(4);
}

std::vector<Json> events_of(const std::string& stream) {
  std::vector<Json> all;
  for (size_t at = 0; (at = stream.find("data: ", at)) != std::string::npos; ++at)
    all.push_back(Json::parse(stream.substr(at + 6, stream.find('\n', at) - at - 6)));
  return all;
}

struct Said {
  const char* text;
  std::vector<std::string> kinds;  // of the items
  bool ends_whole = false;         // the last is one to which nothing could have been added
};

const std::vector<Said>& texts() {
  constexpr const char* kBoth =
      "First.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>Then this.";
  static const std::vector<Said> all = {
      {"Said.", {"message"}},
      {"", {"message"}},
      {kBoth, {"message", "function_call", "message"}},
      {"<think>Hm.</think>Said.", {"reasoning", "message"}},
      {"<think>Hm", {"reasoning"}},
      {"First.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>",
       {"message", "function_call"},
       true},
  };
  return all;
}

TEST(Answering, AResponsesDocumentListsWhatItsStreamAnnounced) {
  for (const engine::Finish finish : {engine::Finish::kEnd, engine::Finish::kLength})
    for (const Said& said : texts()) {
      const Json whole = Json::parse(sent(response_writer, false, said.text, finish));
      const std::vector<Json> events = events_of(sent(response_writer, true, said.text, finish));
      Json announced = Json::array(), done = announced, kinds = announced;
      for (const Json& e : events) {
        if (e["type"] == "response.output_item.added") {
          EXPECT_EQ(e["output_index"], announced.size());
          announced.push_back(e["item"]["id"]);
        }
        if (e["type"] == "response.output_item.done") done.push_back(e["item"]);
      }
      Json ids = Json::array();
      for (const Json& item : whole["output"]) {
        ids.push_back(item["id"]);
        kinds.push_back(item["type"]);
      }
      EXPECT_EQ(kinds, said.kinds) << whole;
      EXPECT_EQ(announced, ids);
      EXPECT_EQ(done, whole["output"]);
      EXPECT_EQ(events.back()["response"]["output"], whole["output"]);
      for (const Json& item : whole["output"]) {
        const bool cut = &item == &whole["output"].back() && !said.ends_whole &&
                         finish == engine::Finish::kLength;
        EXPECT_EQ(item["status"], cut ? "incomplete" : "completed") << item;
      }
    }
}

/// Until then a proxy may ask another server, and the status says what failed.
TEST(Answering, AStreamBeginsWithItsFirstBytes) {
  struct Case {
    WriterMaker writer;
    std::vector<std::string> waiting, again, failed;  // the events' types
  };
  const std::string created = "response.created", going_on = "response.in_progress";
  for (const Case& c : {Case{chat_writer, {}, {}, {""}},
                        Case{response_writer, {created, going_on}, {going_on}, {"response.failed"}},
                        Case{message_writer, {"ping"}, {"ping"}, {"error"}}}) {
    const auto model = std::make_shared<ModelInfo>(byte_model(""));
    std::string out;
    const auto answering = [&] {
      return std::make_unique<Answering>(
          model,
          Question{.prompts = {{.ids = {1}}}, .chat = true, .stream = true, .repeated = "{}"},
          AnswerHead{.id = "7"},
          c.writer,
          std::make_shared<Kept>(out),
          0,
          [](size_t) {});
    };
    const auto types = [&] {
      std::vector<std::string> all;
      for (const Json& e : events_of(std::exchange(out, ""))) all.push_back(e.value("type", ""));
      return all;
    };
    Metrics metrics;
    const engine::Progress fault{.id = 1,
                                 .finish = engine::Finish::kFailed,
                                 .error = {.code = Code::kVerdict, .message = "no numbers"}};
    auto a = answering();
    a->accepted();
    a->keep_alive(5, 15);
    EXPECT_EQ(out, "");
    a->take(0, fault, 0, 1, metrics);
    EXPECT_TRUE(out.starts_with("500 {")) << out;
    EXPECT_TRUE(a->refused());
    out.clear();
    a = answering();
    a->accepted();
    a->keep_alive(15, 15);
    EXPECT_TRUE(out.starts_with("200 ")) << out;
    EXPECT_EQ(types(), c.waiting);
    a->keep_alive(30, 15);
    EXPECT_EQ(types(), c.again);
    a->take(0, fault, 0, 31, metrics);
    EXPECT_EQ(types(), c.failed);
    EXPECT_FALSE(a->refused());
    // What was said while it waited is not said again.
    a = answering();
    a->accepted();
    a->keep_alive(15, 15);
    a->take(0, {.id = 1, .tokens = {{.id = 70}}}, 0, 16, metrics);
    const std::vector<std::string> all = types();
    EXPECT_EQ(std::count(all.begin(), all.end(), created), c.waiting.size() == 2 ? 1 : 0);
  }
}

/// Clients may count events, not bytes, to tell a stream that is alive; what is large is repeated to them no more often
/// than needs be.
TEST(Answering, WhatAResponseRepeatsOfALargeRequestIsNoKeepAlive) {
  for (const size_t size : {size_t{1} << 10, size_t{3} << 20}) {
    std::string out;
    Answering answering(
        std::make_shared<ModelInfo>(byte_model("")),
        Question{.prompts = {{.ids = {1}}},
                 .chat = true,
                 .stream = true,
                 .repeated = json_text(Json{{"instructions", std::string(size, 'x')}})},
        AnswerHead{.id = "7"},
        response_writer,
        std::make_shared<Kept>(out),
        0,
        [](size_t) {});
    answering.accepted();
    answering.keep_alive(15, 15);
    const std::vector<Json> first = events_of(out);
    ASSERT_EQ(first.size(), 2U);
    EXPECT_EQ(first[0]["type"], "response.created");
    EXPECT_EQ(first[1]["type"], "response.in_progress");
    EXPECT_EQ(first[1]["sequence_number"], 1);
    EXPECT_EQ(first[0]["response"]["instructions"].get_ref<const std::string&>().size(), size);
    EXPECT_EQ(first[0]["response"], first[1]["response"]);
    out.clear();
    answering.keep_alive(30, 15);
    if (size > 1 << 20) {
      EXPECT_EQ(out, ": keep-alive\n\n");
    } else {
      EXPECT_EQ(events_of(out).front()["response"], first[0]["response"]);
    }
  }
}

TEST(Answering, AMessageHasTheBlocksOfItsStream) {
  for (const Said& said : texts()) {
    const Json whole = Json::parse(sent(message_writer, false, said.text, engine::Finish::kEnd));
    Json blocks = Json::array();
    for (const Json& e : events_of(sent(message_writer, true, said.text, engine::Finish::kEnd))) {
      if (e["type"] == "content_block_start") {
        EXPECT_EQ(e["index"], blocks.size());
        blocks.push_back(e["content_block"]);
      }
      if (e["type"] != "content_block_delta") continue;
      Json& block = blocks[e["index"].get<size_t>()];
      const Json& delta = e["delta"];
      for (const char* name : {"text", "thinking"})
        if (delta.contains(name))
          block[name] = block[name].get<std::string>() + delta[name].get<std::string>();
      if (delta.contains("partial_json"))
        block["arguments"] =
            block.value("arguments", "") + delta["partial_json"].get<std::string>();
    }
    for (Json& block : blocks) {
      if (!block.contains("arguments")) continue;
      block["input"] = Json::parse(block["arguments"].get<std::string>());
      block.erase("arguments");
    }
    EXPECT_EQ(blocks, whole["content"]) << said.text;
    EXPECT_EQ(blocks.size(), said.kinds.size());
  }
}

/// Whoever runs calls runs none of which a half is missing.
TEST(Answering, ACallThatIsCutOffIsToldAsThat) {
  constexpr const char* kHalf = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1";
  for (const bool one_call : {false, true}) {
    const auto said = [&](WriterMaker writer, bool stream) {
      return sent(writer, stream, kHalf, engine::Finish::kLength, one_call);
    };
    const Json whole = Json::parse(said(response_writer, false));
    EXPECT_EQ(whole["status"], "incomplete");
    EXPECT_EQ(whole["output"][0]["arguments"], "{\"a\": 1");
    EXPECT_EQ(whole["output"][0]["status"], "incomplete");
    const std::vector<Json> events = events_of(said(response_writer, true));
    EXPECT_EQ(events.back()["type"], "response.incomplete");
    EXPECT_EQ(events[events.size() - 2]["item"], whole["output"][0]);
    EXPECT_EQ(Json::parse(said(chat_writer, false))["choices"][0]["finish_reason"], "length");
    EXPECT_EQ(Json::parse(said(message_writer, false))["stop_reason"], "max_tokens");
  }
}

/// What is drawn depends on seed and place alone, so the same seed for equal prompts is the same answer.
TEST(Answering, OnlyANamedSeedIsTheSameForEachPrompt) {
  ByteModelRules rules("");
  const auto seeds = [&](const std::string& more) {
    const auto question =
        read_completion(R"({"prompt": ["p", "p", "p"], "n": 2)" + more + "}", rules.rules());
    EXPECT_TRUE(question);
    std::string out;
    const Answering answering(std::make_shared<ModelInfo>(rules.model()),
                              *question,
                              {.id = "7"},
                              completion_writer,
                              std::make_shared<Kept>(out),
                              0,
                              [](size_t) {});
    std::vector<uint64_t> all;
    for (const engine::Request& r : answering.requests("")) all.push_back(r.options.sampling.seed);
    return all;
  };
  EXPECT_EQ(seeds(""), std::vector<uint64_t>({0, 1, 2, 3, 4, 5}));  // from ReadingRules::seed on
  EXPECT_EQ(seeds(R"(, "seed": null)"), seeds(""));
  EXPECT_EQ(seeds(R"(, "seed": 7)"), std::vector<uint64_t>({7, 8, 7, 8, 7, 8}));
}

}  // namespace
}  // namespace ferry::serve
