#include "serve/responses_api.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "serve/request_test_support.h"

namespace ferry::serve {
namespace {

constexpr const char* kTemplate =
    "{% for m in messages %}[{{ m.role }} ({{ m.reasoning_content or '' }}) {{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %} !{{ c.function.name }}{% endfor %}]{% endfor %}"
    "{% for t in tools or [] %}<{{ t.function.name }}>{% endfor %}";

/// What the model is given for this request; where it is refused, the field at fault.
std::string read(const std::string& fields) {
  ByteModelRules model(kTemplate);
  const auto q = read_response_request("{" + fields + "}", model.rules());
  return q ? model.model().texts.tokenizer->decode(q->prompts.front().ids) : q.error().param;
}

TEST(ResponseRequest, ThoughtsStayWhereTheyWere) {
  const auto input = [](const std::string& items) { return read("\"input\": [" + items + "]"); };
  const std::string thought = R"({"type": "reasoning", "content": [{"type": "reasoning_text",
      "text": "T"}], "summary": []})",
                    user = R"({"role": "user", "content": "u"})",
                    said = R"({"role": "assistant", "content": "a"})",
                    call = R"({"type": "function_call", "call_id": "1", "name": "f",
      "arguments": "{}"})",
                    result = R"({"type": "function_call_output", "call_id": "1", "output": "r"})";
  EXPECT_EQ(input(user + "," + thought + "," + said + "," + user),
            "[user () u][assistant (T) a][user () u]");
  EXPECT_EQ(input(user + "," + thought + "," + call + "," + call + "," + result),
            "[user () u][assistant (T)  !f !f][tool () r]");
  EXPECT_EQ(input(user + "," + said + "," + call), "[user () u][assistant () a !f]");
  // An answer of which there is nothing but a thought: it is nobody else's.
  EXPECT_EQ(input(user + "," + thought + "," + user + "," + said),
            "[user () u][assistant (T) ][user () u][assistant () a]");
  EXPECT_EQ(input(user + "," + thought), "[user () u][assistant (T) ]");
  // Nor does a second thought take the place of the first.
  EXPECT_EQ(input(user + "," + thought + "," + said + "," + thought + "," + call),
            "[user () u][assistant (T) a][assistant (T)  !f]");
}

TEST(ResponseRequest, ChoicesOfToolsAreRefusedByName) {
  const auto choice = [](const std::string& json) {
    return read(R"("input": "a", "tools": [{"type": "function", "name": "f"}], "tool_choice": )" +
                json);
  };
  EXPECT_EQ(choice("\"auto\""), "[user () a]<f>");
  EXPECT_EQ(choice(R"({"type": "file_search"})"), "tool_choice.type");
  EXPECT_EQ(choice(R"({"type": "allowed_tools", "mode": "auto", "tools": []})"),
            "tool_choice.type");
  EXPECT_EQ(choice(R"({"type": "function"})"), "tool_choice.name");
  EXPECT_EQ(choice(R"({"type": "function", "name": 5})"), "tool_choice.name");
  EXPECT_EQ(choice(R"({"type": "function", "name": "f", "more": 1})"), "tool_choice.more");
  EXPECT_EQ(choice("5"), "tool_choice");
}

/// Also what is too long to be answered; what would be refused is.
TEST(ResponseRequest, TokensAreCounted) {
  ByteModelRules model(kTemplate);
  const auto counted = [&](const std::string& fields) {
    const auto json = count_response_tokens("{" + fields + "}", model.rules());
    return json ? *json : json.error().param;
  };
  EXPECT_EQ(counted(R"("input": "abc")"),  // [user () abc]
            R"({"object":"response.input_tokens","input_tokens":13})");
  EXPECT_EQ(counted(R"("input": ")" + std::string(5000, 'a') + "\""),
            R"({"object":"response.input_tokens","input_tokens":5010})");
  EXPECT_EQ(counted(R"("input": "a", "max_output_tokens": 0)"), "max_output_tokens");
}

TEST(ResponseRequest, ARefusalIsText) {
  const std::string part = R"("content": [{"type": "refusal", "refusal": "n"}]})";
  EXPECT_EQ(
      read(R"("input": [{"role": "user", "content": "u"}, {"role": "assistant", )" + part + "]"),
      "[user () u][assistant () n]");
  EXPECT_EQ(read(R"("input": [{"role": "user", )" + part + "]"), "input[0].content[0].type");
}

/// Places are the request's, whatever it was translated into.
TEST(ResponseRequest, RefusalsNameTheItem) {
  const std::string user = R"({"role": "user", "content": "u"})",
                    bad = R"({"role": "user", "content": "<|eos|>"})";
  EXPECT_EQ(read(R"("instructions": "i", "input": [)" + user + "," + bad + "]"),
            "input[1].content");
  EXPECT_EQ(read(R"("instructions": "<|eos|>", "input": [)" + user + "]"), "instructions");
  EXPECT_EQ(read(R"("input": "<|eos|>")"), "input");
  EXPECT_EQ(read(R"("input": ")" + std::string(5000, 'a') + "\""), "input");
  const auto call = [&](const std::string& arguments,
                        const std::string& id,
                        const std::string& output) {
    return read(
        R"("instructions": "i", "input": [{"type": "reasoning", "summary": [], "content": [{"type":
        "reasoning_text", "text": "T"}]}, )" +
        user + R"(, {"role": "assistant", "content": "a"},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": ")" +
        arguments + R"("}, {"type": "function_call_output", "call_id": ")" + id +
        R"(", "output": ")" + output + "\"}]");
  };
  EXPECT_EQ(call("{}", "1", "<|eos|>"), "input[4].output");
  EXPECT_EQ(call("{}", "<|eos|>", "r"), "input[4].call_id");
  EXPECT_EQ(call(R"({\"x\": 9223372036854775808})", "1", "r"), "input[3].arguments");
  EXPECT_EQ(read(R"("input": "a", "tools": [{"type": "function", "name": ")" +
                 std::string(200, 'n') + "\"}]"),
            "tools[0].name");
  EXPECT_EQ(read(R"("input": "a", "tools": [{"type": "function", "name": "f", "parameters": 5}])"),
            "tools[0].parameters");
}

/// What names the client says nothing about the answer.
TEST(ResponseRequest, WhatIsAboutTheClientIsTaken) {
  EXPECT_EQ(read(R"("input": "a", "client_metadata": {"x-codex-installation-id": "b"})"),
            "[user () a]");
  EXPECT_EQ(read(R"("input": "a", "prompt_cache_retention": "24h")"), "[user () a]");
}

/// What a refusal says is why, and what to do.
TEST(ResponseRequest, RefusalsSayWhatToDo) {
  ByteModelRules model(kTemplate);
  const auto said = [&](const std::string& fields) {
    const auto q = read_response_request("{\"input\": \"a\", " + fields + "}", model.rules());
    return q ? "" : q.error().param + "|" + q.error().message;
  };
  const auto expect = [&](const std::string& fields, const std::string& param, const char* says) {
    const std::string got = said(fields);
    EXPECT_TRUE(got.starts_with(param + "|")) << got;
    EXPECT_NE(got.find(says), std::string::npos) << got;
    EXPECT_EQ(says == std::string("stores nothing"), got.find("stores") != std::string::npos)
        << got;
  };
  expect(R"("hiccup": 1)", "hiccup", "is not supported by this server");
  for (const char* name : {"previous_response_id", "conversation", "prompt"})
    expect(fmt::format("\"{}\": \"b\"", name), name, "stores nothing");
  expect(R"("background": true)", "background", "stores nothing");
  expect(R"("tools": [{"type": "web_search"}])", "tools[0].type", "leave it out");
  expect(R"("tool_choice": {"type": "web_search"})", "tool_choice.type", "tools of its own");
}

/// Clients that keep nothing ask for thoughts in secret: here they are shown.
TEST(ResponseRequest, ThoughtsNeedNoSecret) {
  EXPECT_EQ(read(R"("input": "a", "store": false, "include": ["reasoning.encrypted_content"])"),
            "[user () a]");
  EXPECT_EQ(read(R"("input": "a", "include": ["file_search_call.results"])"), "include");
  EXPECT_EQ(read(R"("input": "a", "include": "reasoning.encrypted_content")"), "include");
}

}  // namespace
}  // namespace ferry::serve
