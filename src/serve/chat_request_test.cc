#include "serve/chat_request.h"

#include <gtest/gtest.h>

#include <string>

#include "serve/request_test_support.h"

namespace ferry::serve {
namespace {

/// A call without arguments is sent back as the model or another server wrote it.
TEST(ChatRequest, NoArgumentsAreAnEmptyObject) {
  ByteModelRules model(
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{% for k, v in "
      "c.function.arguments|items %}"
      "{{ k }}={{ v }};{% endfor %}.{% endfor %}{% endfor %}");
  const auto prompt = [&](const std::string& arguments) {
    const auto q = read_chat(
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": )" +
            arguments + R"(}}]}, {"role": "tool", "tool_call_id": "1", "content": "b"}]})",
        model.rules());
    return q ? model.model().texts.tokenizer->decode(q->prompts.front().ids) : q.error().message;
  };
  EXPECT_EQ(prompt(R"("{\"x\": 1}")"), "x=1;.");
  EXPECT_EQ(prompt("\"{}\""), ".");
  EXPECT_EQ(prompt("\"\""), ".");
  EXPECT_EQ(prompt("\"null\""), ".");
  EXPECT_EQ(prompt(R"(" \n")"), ".");
  EXPECT_NE(prompt("\"[]\""), ".");
}

/// A message that only calls has no content; a template that knows nothing of that gets an empty one, and none writes
/// the word None.
TEST(ChatRequest, NoContentIsWhatTheTemplateCanTake) {
  const auto prompt = [](const char* chat_template) {
    ByteModelRules model(chat_template);
    const auto q = read_chat(
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments":
            "{\"x\": 1}"}}]}, {"role": "tool", "tool_call_id": "1", "content": "b"}]})",
        model.rules());
    return q ? model.model().texts.tokenizer->decode(q->prompts.front().ids) : q.error().message;
  };
  EXPECT_EQ(prompt("{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}"),
            "user:aassistant:tool:b");
  EXPECT_EQ(prompt("{% for m in messages %}{% if m.content is none %}-{% else %}{{ m.content }}{% "
                   "endif %}{% endfor %}"),
            "a-b");
  EXPECT_EQ(prompt("{% for m in messages %}{{ '' + m.content }}{% for c in m.tool_calls or [] %}"
                   "{{ c.function.arguments.x }}{% endfor %}{% endfor %}"),
            "a1b");
  EXPECT_EQ(prompt("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"),
            "user:a;assistant:;tool:b;");
  EXPECT_EQ(prompt("None{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
                   "{{ c.function.arguments.x }}{% endfor %}{% endfor %}"),
            "Nonea1b");
  // What it refuses is told of the conversation as it was.
  EXPECT_NE(prompt("{{ raise_exception('no ' ~ messages[1].content) }}").find("no None"),
            std::string::npos);
}

/// Tools that the model would never hear of are not taken.
TEST(ChatRequest, ToolsAreShownOrRefused) {
  const auto refused = [](const char* chat_template, const char* choice) {
    ByteModelRules model(chat_template);
    const auto q = read_chat(
        std::string(
            R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function",
            "function": {"name": "f"}}], "tool_choice": ")") +
            choice + "\"}",
        model.rules());
    return q ? "" : q.error().param;
  };
  const char* const without = "{% for m in messages %}{{ m.content }}{% endfor %}";
  EXPECT_EQ(refused(without, "auto"), "tools");
  EXPECT_EQ(refused(without, "none"), "");
  EXPECT_EQ(refused("{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{# <tool_call> #}",
                    "auto"),
            "");
}

}  // namespace
}  // namespace ferry::serve
