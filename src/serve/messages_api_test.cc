#include "serve/messages_api.h"

#include <gtest/gtest.h>

#include <string>

#include "serve/request_test_support.h"

namespace ferry::serve {
namespace {

/// "" where the request is taken, else the field at fault.
std::string refused(const std::string& fields) {
  ByteModelRules model(
      "{% for m in messages %}{{ m.content }}{% endfor %}{% for t in tools or [] %}<tool_call>{% "
      "endfor %}");
  const auto q = read_message_request(
      R"({"max_tokens": 5, "messages": [{"role": "user", "content": "a"}], )" + fields + "}",
      model.rules());
  if (q) return q->options.constraint == nullptr ? "" : "a form";
  return q.error().param;
}

/// What coding agents send with every request.
TEST(MessageRequest, WhatIsSoAnywayIsTaken) {
  const auto edits = [](const std::string& list) {
    return refused(R"("context_management": {"edits": [)" + list + "]}");
  };
  EXPECT_EQ(edits(""), "");
  EXPECT_EQ(edits(R"({"type": "clear_thinking_20251015", "keep": "all"})"), "");
  EXPECT_EQ(edits(R"({"type": "clear_thinking_20251015"})"), "context_management.edits[0].keep");
  EXPECT_EQ(
      edits(
          R"({"type": "clear_thinking_20251015", "keep": {"type": "thinking_turns", "value": 1}})"),
      "context_management.edits[0].keep");
  EXPECT_EQ(edits(R"({"type": "clear_tool_uses_20250919"})"), "context_management.edits[0].type");
  EXPECT_EQ(refused(R"("context_management": {"more": 1})"), "context_management.more");
  EXPECT_EQ(refused(R"("cache_control": {"type": "ephemeral"})"), "");
  EXPECT_EQ(refused(R"("container": "x")"), "container");
}

/// What the model is given for these messages; where they are refused, the field at fault.
std::string read(const std::string& messages) {
  ByteModelRules model(
      "{% for m in messages %}[{{ m.role }} {{ m.content or '' }}{% for c in m.tool_calls or [] %}"
      " !{{ c.function.name }}{% endfor %}]{% endfor %}");
  const auto q =
      read_message_request("{\"max_tokens\": 5, \"messages\": [" + messages + "]}", model.rules());
  return q ? model.model().texts.tokenizer->decode(q->prompts.front().ids) : q.error().param;
}

/// Instructions that come later stay where they stand.
TEST(MessageRequest, ASystemMessageMayStandAnywhere) {
  const std::string user = R"({"role": "user", "content": "u"})";
  EXPECT_EQ(read(user + R"(, {"role": "system", "content": "s"})"), "[user u][system s]");
  EXPECT_EQ(read(user + R"(, {"role": "system", "content": [{"type": "text", "text": "s",
      "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "t"}]}, )" +
                 user),
            "[user u][system s\nt][user u]");
  EXPECT_EQ(read(user + R"(, {"role": "system", "content": [{"type": "thinking",
      "thinking": "t", "signature": ""}]})"),
            "messages[1].content[0].type");
  EXPECT_EQ(read(R"({"role": "developer", "content": "s"})"), "messages[0].role");
}

/// Who may call a tool, and when it is shown: what this server does anyway is taken, all else is refused.
TEST(MessageRequest, ToolsAreShownAtOnceAndCalledByTheModel) {
  const auto tool = [](const std::string& more) {
    return refused(R"("tools": [{"name": "f", "input_schema": {"type": "object"}, )" + more + "}]");
  };
  EXPECT_EQ(tool(R"("eager_input_streaming": true)"), "");
  EXPECT_EQ(tool(R"("eager_input_streaming": null)"), "");
  EXPECT_EQ(tool(R"("eager_input_streaming": 5)"), "tools[0].eager_input_streaming");
  EXPECT_EQ(tool(R"("defer_loading": false)"), "");
  EXPECT_EQ(tool(R"("defer_loading": true)"), "tools[0].defer_loading");
  EXPECT_EQ(tool(R"("allowed_callers": ["direct"])"), "");
  EXPECT_EQ(tool(R"("allowed_callers": ["direct", "code_execution_20250825"])"),
            "tools[0].allowed_callers");
  EXPECT_EQ(tool(R"("allowed_callers": "direct")"), "tools[0].allowed_callers");
  EXPECT_EQ(tool(R"("input_examples": [])"), "");
  EXPECT_EQ(tool(R"("input_examples": [{"a": 1}])"), "tools[0].input_examples");
  EXPECT_EQ(tool(R"("more": 1)"), "tools[0].more");
}

TEST(MessageRequest, CallsOfBeforeWereTheModels) {
  const auto call = [](const std::string& more) {
    return read(R"({"role": "user", "content": "u"}, {"role": "assistant", "content": [
        {"type": "tool_use", "id": "1", "name": "f", "input": {}, )" +
                more + R"(}]}, {"role": "user", "content": [{"type": "tool_result",
        "tool_use_id": "1", "content": "r"}]})");
  };
  EXPECT_EQ(call(R"("caller": {"type": "direct"})"), "[user u][assistant  !f][tool r]");
  EXPECT_EQ(call(R"("caller": {"type": "code_execution_20250825", "tool_id": "2"})"),
            "messages[1].content[0].caller.type");
  EXPECT_EQ(call(R"("caller": {"type": "direct", "more": 1})"),
            "messages[1].content[0].caller.more");
}

/// Places are the request's, whatever it was translated into.
TEST(MessageRequest, RefusalsNameTheMessage) {
  ByteModelRules model("{% for m in messages %}{{ m.content }}{% endfor %}");
  const auto refused = [&](const std::string& system, const std::string& said) {
    const auto q = read_message_request(
        R"({"max_tokens": 5, "system": ")" + system +
            R"(", "messages": [{"role": "user", "content": "u"}, {"role": "user", "content": ")" +
            said + "\"}]}",
        model.rules());
    return q ? ""
             : q.error().param + "|" +
                   q.error().message.substr(0, q.error().message.find(" holds"));
  };
  EXPECT_EQ(refused("a", "b"), "");
  EXPECT_EQ(refused("a", "<|eos|>"), "messages[1].content|request: messages[1].content:");
  EXPECT_EQ(refused("<|eos|>", "b"), "system|request: system:");
}

/// Also where a part of a message was what a chat has as a message, or a field of another name.
TEST(MessageRequest, RefusalsNameTheBlock) {
  ByteModelRules model(
      "{% for m in messages %}{{ m.role }}{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
      "!{{ c.function.arguments.x }}{% endfor %}{% endfor %}{% for t in tools or [] "
      "%}<tool_call>{% "
      "endfor %}");
  const auto refused =
      [&](const std::string& input, const std::string& id, const std::string& result) {
        const auto q = read_message_request(
            R"({"max_tokens": 5, "system": [{"type": "text", "text": "s"}], "messages": [
            {"role": "user", "content": "u"}, {"role": "assistant", "content": [
            {"type": "text", "text": "t"}, {"type": "tool_use", "id": "1", "name": "f", "input": )" +
                input + R"(}]}, {"role": "user", "content": [{"type": "text", "text": "v"},
            {"type": "tool_result", "tool_use_id": ")" +
                id + R"(", "content": ")" + result + R"("}]}]})",
            model.rules());
        return q ? "" : q.error().param + "|" + q.error().message;
      };
  const auto names = [](const std::string& said, const std::string& place) {
    EXPECT_TRUE(said.starts_with(place + "|request: " + place + ": ") ||
                said.starts_with(place + "|" + place + ": "))
        << said;
  };
  EXPECT_EQ(refused("{}", "1", "r"), "");
  names(refused(R"({"x": 12345678901234567})", "1", "<|eos|>"), "messages[2].content[1].content");
  names(refused("{}", "<|eos|>", "r"), "messages[2].content[1].tool_use_id");
  names(refused(R"({"<|eos|>": 1})", "1", "r"), "messages[1].content");
  names(refused(R"({"x": 9223372036854775808})", "1", "r"), "messages[1].content[1].input");
  const std::string long_name(200, 'n');
  const auto tool = read_message_request(
      R"({"max_tokens": 5, "messages": [{"role": "user", "content": "u"}], "tools": [{"name": ")" +
          long_name + R"(", "input_schema": {"type": "object"}}]})",
      model.rules());
  ASSERT_FALSE(tool);
  EXPECT_EQ(tool.error().param, "tools[0].name");
  EXPECT_TRUE(tool.error().message.starts_with("request: tools[0]: \"name\": "))
      << tool.error().message;
}

TEST(MessageRequest, RefusalsNameTheFieldThatCame) {
  EXPECT_EQ(refused(R"("output_config": {"effort": "high"})"), "output_config.effort");
  EXPECT_EQ(refused(R"("stop_sequences": [""])"), "stop_sequences");
}

TEST(MessageRequest, AFormIsHeldTo) {
  EXPECT_EQ(
      refused(
          R"("output_config": {"format": {"type": "json_schema", "schema": {"type": "integer"}}})"),
      "a form");
  EXPECT_EQ(refused(R"("output_config": {"format": {"type": "xml", "schema": {}}})"),
            "output_config.format.type");
  EXPECT_EQ(refused(R"("output_config": {"format": {"type": "json_schema"}})"),
            "output_config.format.schema");
  const std::string tool = R"("name": "f", "input_schema": {"type": "object", "properties": {}})";
  EXPECT_EQ(refused("\"tools\": [{" + tool + "}]"), "");
  EXPECT_EQ(refused("\"tools\": [{\"strict\": true, " + tool + "}]"), "a form");
}

}  // namespace
}  // namespace ferry::serve
