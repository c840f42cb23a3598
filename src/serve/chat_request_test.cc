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

TEST(ChatRequest, NumbersThatWouldLoseDigitsAreRefusedWhereTheyStand) {
  ByteModelRules model("{{ messages[1].tool_calls[0].function.arguments.x }}{{ tools }}");
  const auto refused = [&](const std::string& number, const std::string& of_tool) {
    const auto q = read_chat(
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments":
            "{\"x\": )" +
            number + R"(}"}}]}, {"role": "tool", "tool_call_id": "1", "content": "b"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object",
            "properties": {"x": {"maximum": )" +
            of_tool + "}}}}}]}",
        model.rules());
    return q ? "taken" : q.error().message + " " + q.error().param;
  };
  EXPECT_EQ(refused("9223372036854775807", "9"), "taken");
  for (const char* number : {"12345678901234567890", "123456789012345678901"}) {
    const std::string arguments = refused(number, "9"), tools = refused("9", number);
    EXPECT_NE(
        arguments.find("messages[1].tool_calls: arguments: the number " + std::string(number)),
        std::string::npos)
        << arguments;
    EXPECT_NE(tools.find(number), std::string::npos) << tools;
    EXPECT_TRUE(tools.ends_with(number[20] == 0 ? " tools" : " ")) << tools;
  }
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

/// No content at all is what only a call or a thought makes up for.
TEST(ChatRequest, AnEmptyListOfCallsIsNone) {
  ByteModelRules model("{% for m in messages %}{{ m.content }}{% endfor %}");
  const auto refused = [&](const std::string& assistant) {
    const auto q =
        read_chat(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant")" +
                      assistant + R"(}, {"role": "user", "content": "b"}]})",
                  model.rules());
    return q ? "" : q.error().param;
  };
  EXPECT_EQ(refused(R"(, "tool_calls": [])"), "messages[1].content");
  EXPECT_EQ(refused(R"(, "content": null, "tool_calls": [])"), "messages[1].content");
  EXPECT_EQ(refused(R"(, "content": "", "tool_calls": [])"), "");
  EXPECT_EQ(refused(R"(, "reasoning_content": "c", "tool_calls": [])"), "");
}

/// What cannot fit is refused by its bytes, before anything is made tokens; what is only counted is counted.
TEST(ChatRequest, WhatCannotFitIsNotMadeTokens) {
  ByteModelRules model(
      "{% for m in messages %}{{ m.content or '' }}{% endfor %}{% for t in tools or [] %}"
      "<tool_call>{% endfor %}");
  const size_t room = 4096, longest = std::string("<|bos|>").size();
  const auto chat = [&](size_t bytes, bool counts) {
    ReadingRules rules = model.rules();
    rules.counts = counts;
    return read_chat(
        R"({"messages": [{"role": "user", "content": ")" + std::string(bytes, 'a') +
            R"("}, {"role": "assistant", "content": null, "reasoning_content": "b"}]})",
        rules);
  };
  const auto beyond = chat(longest * (room + 1), false), within = chat(longest * room, false);
  ASSERT_FALSE(beyond);
  EXPECT_EQ(beyond.error().code, "context_length_exceeded");
  EXPECT_EQ(beyond.error().param, "messages");
  EXPECT_NE(beyond.error().message.find("28679 bytes, at most 7 to a token"), std::string::npos)
      << beyond.error().message;
  ASSERT_FALSE(within);
  EXPECT_EQ(within.error().code, "context_length_exceeded");
  EXPECT_NE(within.error().message.find("28672 tokens"), std::string::npos)
      << within.error().message;
  const auto counted = chat(longest * (room + 1), true);
  ASSERT_TRUE(counted);
  EXPECT_EQ(counted->prompts.front().ids.size(), longest * (room + 1));

  const auto completion = [&](const std::string& prompt) {
    return read_completion("{\"prompt\": " + prompt + "}", model.rules());
  };
  const std::string large = '"' + std::string(longest * (room + 1), 'a') + '"';
  for (const std::string& prompt : {large, "[\"a\", " + large + "]"}) {
    const auto refused = completion(prompt);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, "context_length_exceeded");
    EXPECT_EQ(refused.error().param, "prompt");
    EXPECT_NE(refused.error().message.find("bytes"), std::string::npos);
  }
}

/// However often a conversation is written before one way is chosen, that one's texts are looked through.
TEST(ChatRequest, TheChosenWayHoldsNoControlTokens) {
  ByteModelRules model(
      "{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}{% for t in tools or [] %}"
      "<tool_call>{{ t.function.description }}{% endfor %}");
  const auto refused = [&](const std::string& said, const std::string& told) {
    const auto q = read_chat(
        R"({"messages": [{"role": "user", "content": ")" + said +
            R"("}, {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type":
            "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}, {"role": "tool",
            "tool_call_id": "1", "content": "b"}], "tools": [{"type": "function", "function":
            {"name": "f", "description": ")" +
            told + R"("}}]})",
        model.rules());
    return q ? "" : q.error().message;
  };
  EXPECT_EQ(refused("a", "b"), "");
  EXPECT_NE(refused("<|eos|>", "b").find("control token"), std::string::npos);
  EXPECT_NE(refused("a", "<|eos|>").find("control token"), std::string::npos);
}

/// Many servers of open models take the schema beside the type.
TEST(ChatRequest, AnObjectMayHaveItsSchemaBesideIt) {
  ByteModelRules model("{% for m in messages %}{{ m.content }}{% endfor %}");
  const auto read = [&](const std::string& format) {
    return read_chat(
        R"({"messages": [{"role": "user", "content": "a"}], "response_format": )" + format + "}",
        model.rules());
  };
  const std::string schema = R"({"type": "object", "required": ["b"], "properties": {"b": {}}})";
  const auto beside = read(R"({"type": "json_object", "schema": )" + schema + "}");
  const auto within = read(R"({"type": "json_schema", "json_schema": {"schema": )" + schema + "}}");
  const auto without = read(R"({"type": "json_object"})");
  ASSERT_TRUE(beside && within && without);
  // What is compiled is kept, and found again.
  EXPECT_EQ(beside->options.constraint->automaton, within->options.constraint->automaton);
  EXPECT_NE(beside->options.constraint->automaton, without->options.constraint->automaton);
  const auto number = read(R"({"type": "json_object", "schema": 123})");
  ASSERT_FALSE(number);
  EXPECT_EQ(number.error().param, "response_format.schema");
  EXPECT_FALSE(read(R"({"type": "json_object", "schema": {"type": "hiccup"}})"));
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
