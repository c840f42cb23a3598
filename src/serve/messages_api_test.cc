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
