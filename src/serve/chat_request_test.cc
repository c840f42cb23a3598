#include "serve/chat_request.h"

#include <fmt/format.h>
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
      "{{ k }}={{ v }};{% endfor %}.{% endfor %}{{ m.content or '' }}{% endfor %}");
  const auto prompt = [&](const std::string& arguments) {
    const auto q = read_chat(
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": )" +
            arguments + R"(}}]}, {"role": "tool", "tool_call_id": "1", "content": "b"}]})",
        model.rules());
    return q ? model.model().texts.tokenizer->decode(q->prompts.front().ids) : q.error().message;
  };
  EXPECT_EQ(prompt(R"("{\"x\": 1}")"), "ax=1;.b");
  EXPECT_EQ(prompt("\"{}\""), "a.b");
  EXPECT_EQ(prompt("\"\""), "a.b");
  EXPECT_EQ(prompt("\"null\""), "a.b");
  EXPECT_EQ(prompt(R"(" \n")"), "a.b");
  EXPECT_NE(prompt("\"[]\""), "a.b");
}

TEST(ChatRequest, NumbersThatWouldLoseDigitsAreRefusedWhereTheyStand) {
  ByteModelRules model(
      "{{ messages[1].tool_calls[0].function.arguments.x }}{{ messages[2].content }}{{ tools }}");
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
    EXPECT_NE(arguments.find("messages[1].tool_calls[0].function.arguments: the number " +
                             std::string(number)),
              std::string::npos)
        << arguments;
    EXPECT_NE(tools.find(number), std::string::npos) << tools;
    EXPECT_TRUE(arguments.ends_with(" messages[1].tool_calls[0].function.arguments")) << arguments;
    EXPECT_TRUE(tools.ends_with(" tools")) << tools;
  }
}

TEST(ChatRequest, NoWordsBesideACallAreNoContent) {
  ByteModelRules model(
      "{% for m in messages %}{% if m.role == 'assistant' and m.content is none %}"
      "{% for c in m.tool_calls %}[{{ c.function.name }}]{% endfor %}{% else %}{{ m.content }}{% "
      "endif %}{% endfor %}");
  for (const char* content : {"null", R"("")", "[]"}) {
    const auto q = read_chat(
        std::string(
            R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": )") +
            content +
            R"(, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "b"}]})",
        model.rules());
    ASSERT_TRUE(q) << content << ": " << q.error().message;
    EXPECT_EQ(model.model().texts.tokenizer->decode(q->prompts.front().ids), "a[f]b") << content;
  }
}

TEST(ChatRequest, WhereArgumentsAreTextNumbersKeepTheirDigits) {
  ByteModelRules model(
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ '[' + c.function.arguments + ']' "
      "}}{% endfor %}"
      "{{ m.content or '' }}{% endfor %}");
  const auto q = read_chat(
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": [{"id":
          "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 12345678901234567890}"}}]},
          {"role": "tool", "tool_call_id": "1", "content": "b"}]})",
      model.rules());
  ASSERT_TRUE(q) << q.error().message;
  EXPECT_EQ(model.model().texts.tokenizer->decode(q->prompts.front().ids),
            R"(a[{"x": 12345678901234567890}]b)");
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
  EXPECT_EQ(
      prompt(
          "{% for m in messages %}{{ m.role + ':' + m.content }}{% if m.tool_calls %}!{% endif %}"
          "{% endfor %}"),
      "user:aassistant:!tool:b");
  EXPECT_EQ(prompt("{% for m in messages %}{% if m.content is none %}-{% else %}{{ m.content }}{% "
                   "endif %}{% if m.tool_calls %}!{% endif %}{% endfor %}"),
            "a-!b");
  EXPECT_EQ(prompt("{% for m in messages %}{{ '' + m.content }}{% for c in m.tool_calls or [] %}"
                   "{{ c.function.arguments.x }}{% endfor %}{% endfor %}"),
            "a1b");
  EXPECT_EQ(
      prompt("{% for m in messages %}{{ m.role }}:{{ m.content }}{% if m.tool_calls %}!{% endif %};"
             "{% endfor %}"),
      "user:a;assistant:!;tool:b;");
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
      "{% for m in messages %}{{ m.role + ':' + m.content }}{% if m.tool_calls %}!{% endif %}{% "
      "endfor %}{% for t in tools or [] %}"
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

/// With tools that need not be called and a format the answer is calls, or has the format.
TEST(ChatRequest, AFormatLeavesToolsToBeCalled) {
  const std::string shows =
      "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}"
      "{{ m.content }}{% endfor %}";
  const auto ask = [](ByteModelRules& model, const std::string& strict, const std::string& rest) {
    return read_chat(
        R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function",
            "function": {"name": "f", "strict": )" +
            strict + R"(, "parameters": {"type": "object", "properties": {"a": {"type": "integer"}},
            "required": ["a"], "additionalProperties": false}}}], )" +
            rest + "}",
        model.rules());
  };
  const std::string format =
      R"("response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object",
         "properties": {"b": {"type": "string"}}, "required": ["b"], "additionalProperties": false}}})";
  ByteModelRules hermes(shows + "{# <tool_call> #}");
  const auto reads = [](const Question& q, const std::string& answer) {
    grammar::Matcher matcher(q.options.constraint);
    return matcher.accept(answer) && matcher.may_end();
  };
  const auto call = [](const std::string& arguments) {
    return "<tool_call>\n{\"name\": \"f\", \"arguments\": " + arguments + "}\n</tool_call>";
  };
  for (const bool strict : {false, true}) {
    const auto q = ask(hermes, strict ? "true" : "false", format);
    ASSERT_TRUE(q) << q.error().message;
    EXPECT_EQ(q->tools, std::vector<std::string>{"f"});
    EXPECT_TRUE(reads(*q, R"({"b": "c"})"));
    EXPECT_FALSE(reads(*q, R"({"b": 1})"));
    EXPECT_FALSE(reads(*q, "so"));
    EXPECT_TRUE(reads(*q, call(R"({"a": 1})")));
    EXPECT_TRUE(reads(*q, call(R"({"a": 1})") + "\n" + call(R"({"a": 2})")));
    EXPECT_EQ(reads(*q, call(R"({"c": 1})")), !strict);
    const auto one =
        ask(hermes, strict ? "true" : "false", R"("parallel_tool_calls": false, )" + format);
    ASSERT_TRUE(one);
    EXPECT_FALSE(reads(*one, call(R"({"a": 1})") + "\n" + call(R"({"a": 2})")));
    const auto none = ask(hermes, strict ? "true" : "false", R"("tool_choice": "none", )" + format);
    ASSERT_TRUE(none);
    EXPECT_FALSE(reads(*none, call(R"({"a": 1})")));
    EXPECT_TRUE(reads(*none, R"({"b": "c"})"));
  }
  const auto param = [](const auto& q) { return q ? "" : q.error().param; };
  EXPECT_EQ(param(ask(hermes, "false", R"("tool_choice": "required", )" + format)),
            "response_format");
  const std::string wrong =
      R"("response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}})";
  EXPECT_EQ(param(ask(hermes, "true", wrong)), "response_format");
  // Where they cannot be told apart, or nobody knows how this model calls, it is said.
  ByteModelRules llama(shows + "{# <|python_tag|> #}"), unknown(shows);
  for (const char* strict : {"false", "true"}) {
    EXPECT_EQ(param(ask(llama, strict, format)), "tools");
    EXPECT_EQ(param(ask(unknown, strict, format)), "tools");
  }
}

/// Whatever the template does about thoughts, the one that is to be gone on with is in the prompt, once.
TEST(ChatRequest, AThoughtToGoOnWithIsInThePrompt) {
  const auto prompt = [](const std::string& end,
                         const std::string& message,
                         const std::string& rest = "") {
    ByteModelRules model("{% for m in messages %}{{ m.content }}|{% endfor %}" + end);
    const auto q = read_chat(
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "prefix": true, )" +
            message + "}]" + rest + "}",
        model.rules());
    if (!q) return q.error().param + ": " + q.error().message;
    const Prompt& p = q->prompts.front();
    EXPECT_EQ(p.thought_begun, p.thinking && message.find("reasoning_content") != message.npos);
    return model.model().texts.tokenizer->decode(p.ids) + (p.thinking ? "..." : "");
  };
  const std::string both = R"("content": "c", "reasoning_content": "t")",
                    only = R"("content": "", "reasoning_content": "t")",
                    content = R"("content": "c")", off = R"(, "thinking": {"type": "disabled"})";
  // R1 opens a thought, Qwen3 leaves that to the model, V3.1 closes it unless it is to think.
  const std::string r1 = "<think>{{ '\\n' }}", qwen = "{# </think> #}",
                    v31 = "{% if thinking %}<think>{% else %}</think>{% endif %}",
                    closed = "</think>", none = "";
  for (const std::string& rest : {std::string(), off}) {
    EXPECT_EQ(prompt(r1, both, rest), "a|<think>\nt\n</think>\n\nc");
    EXPECT_EQ(prompt(qwen, both, rest), "a|<think>\nt\n</think>\n\nc");
    EXPECT_EQ(prompt(v31, both, rest), "a|<think>t\n</think>\n\nc");
    EXPECT_EQ(prompt(v31, content, rest), "a|</think>c");
    EXPECT_EQ(prompt(none, content, rest), "a|c");
  }
  EXPECT_EQ(prompt(r1, only), "a|<think>\nt...");
  EXPECT_EQ(prompt(qwen, only), "a|<think>\nt...");
  EXPECT_EQ(prompt(v31, only), "a|<think>t...");
  EXPECT_EQ(prompt(qwen, only, off), "a|<think>\nt\n</think>\n\n");
  EXPECT_EQ(prompt(r1, content), "a|<think>\n\n</think>\n\nc");
  EXPECT_EQ(prompt(qwen, content), "a|c");
  for (const std::string& end : {closed, none})
    EXPECT_TRUE(prompt(end, both).starts_with("messages[1].reasoning_content: "));
}

/// What the model is given for these messages; where they are refused, the field at fault, which the message names.
std::string shown(const char* chat_template,
                  const std::string& messages,
                  const std::string& more = "") {
  ByteModelRules model(chat_template);
  const auto q = read_chat("{\"messages\": [" + messages + "]" + more + "}", model.rules());
  if (q) return model.model().texts.tokenizer->decode(q->prompts.front().ids);
  const bool named = q.error().message.find(q.error().param) != std::string::npos;
  return (named ? "refused: " : "not named: ") + q.error().param;
}

/// What a template leaves out is refused, as tools are.
TEST(ChatRequest, WhatIsNotShownIsRefused) {
  constexpr const char* kUser = R"({"role": "user", "content": "a"})";
  constexpr const char* kCalls =
      R"(, {"role": "assistant", "content": null, "tool_calls": [{"id": "1",
      "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]})";
  constexpr const char* kResult =
      R"(, {"role": "tool", "tool_call_id": "1", "name": "f", "content": "r"})";
  const std::string all = std::string(kUser) + kCalls + kResult, call = std::string(kUser) + kCalls;
  EXPECT_EQ(shown("{% for m in messages %}{{ m.role }}: {{ m.content or '' }};{% endfor %}", all),
            "refused: messages[1].tool_calls");
  EXPECT_EQ(
      shown("{% for m in messages %}{{ m.content or m.tool_calls[0].function.name }}{% endfor %}",
            all),
      "afr");
  EXPECT_EQ(shown("{% for m in messages %}{% if m.role != 'tool' %}{{ m.content or "
                  "m.tool_calls[0].function.name }}{% endif %}{% endfor %}",
                  all),
            "refused: messages[2].role");
  // A result of nothing is shown where others would be.
  EXPECT_EQ(shown("{% for m in messages %}{{ m.content or m.role }};{% endfor %}",
                  std::string(kUser) + R"(, {"role": "tool", "content": ""})"),
            "a;tool;");
  // What a template cannot do without it shows.
  EXPECT_EQ(shown("{% for m in messages %}{% if m.role == 'assistant' and not m.tool_calls %}"
                  "{{ raise_exception('no') }}{% endif %}{{ m.content or '' }}{% endfor %}",
                  call),
            "a");
}

TEST(ChatRequest, NamesAreShownOrRefused) {
  constexpr const char* kPlain = "{% for m in messages %}{{ m.content }}{% endfor %}";
  constexpr const char* kNamed = "{% for m in messages %}{{ m.name }}:{{ m.content }}{% endfor %}";
  const std::string two =
      R"({"role": "system", "content": "s"}, {"role": "user", "name": "b", "content": "a"})";
  EXPECT_EQ(shown(kPlain, two), "refused: messages[1].name");
  EXPECT_EQ(shown(kNamed, two), ":sb:a");
  ByteModelRules plain(kPlain);
  const auto q = read_chat("{\"messages\": [" + two + "]}", plain.rules());
  ASSERT_FALSE(q);
  EXPECT_NE(q.error().message.find("write into the content who speaks"), std::string::npos)
      << q.error().message;
  // A tool's is that of its call.
  EXPECT_EQ(
      shown(kPlain,
            R"({"role": "user", "content": "a"}, {"role": "tool", "name": "f", "content": "r"})"),
      "ar");
  EXPECT_EQ(shown(kNamed, R"({"role": "user", "content": "a"},
                            {"role": "assistant", "name": "c", "content": "b", "prefix": true})"),
            "refused: messages[1].name");
}

TEST(ChatRequest, RefusalsNameTheMessage) {
  constexpr const char* kPlain = "{% for m in messages %}{{ m.content }}{% endfor %}";
  const std::string user = R"({"role": "user", "content": "a"}, )";
  EXPECT_EQ(shown(kPlain, user + R"({"role": "user", "content": "x<|eos|>"})"),
            "refused: messages[1].content");
  EXPECT_EQ(
      shown(kPlain, user + R"({"role": "user", "content": [{"type": "text", "text": "<|eos|>"}]})"),
      "refused: messages[1].content");
  EXPECT_EQ(shown(kPlain, user + R"({"role": "assistant", "content": "<|eos|>", "prefix": true})"),
            "refused: messages[1].content");
  EXPECT_EQ(shown("{{ a }}{% for m in messages %}{{ m.content }}{% endfor %}",
                  user + R"({"role": "user", "content": "a"})",
                  R"(, "chat_template_kwargs": {"a": "<|eos|>"})"),
            "refused: chat_template_kwargs");
  ByteModelRules model(kPlain);
  const auto said = [&](const std::string& message) {
    const auto q = read_chat("{\"messages\": [" + message + "]}", model.rules());
    return q ? "" : q.error().message;
  };
  EXPECT_EQ(said(R"({"role": "user", "content": null})"),
            "request: messages[0]: \"content\" is null");
  EXPECT_EQ(said(R"({"role": "user"})"), "request: messages[0]: \"content\" is missing");
  EXPECT_EQ(said(R"({"role": "user", "content": "a", "n": 1e400})"),
            "request: the number '1e400' is out of range: beyond 64 bits");
}

/// That an assistant would not answer is what it said.
TEST(ChatRequest, ARefusalIsText) {
  constexpr const char* kPlain = "{% for m in messages %}{{ m.content }};{% endfor %}";
  const std::string user = R"({"role": "user", "content": "a"}, )";
  const std::string part =
      R"("content": [{"type": "text", "text": "b"}, {"type": "refusal", "refusal": "c"}]})";
  EXPECT_EQ(shown(kPlain, user + R"({"role": "assistant", )" + part), "a;b\nc;");
  EXPECT_EQ(shown(kPlain, user + R"({"role": "assistant", "content": null, "refusal": "c"})"),
            "a;c;");
  EXPECT_EQ(shown(kPlain, user + R"({"role": "assistant", "content": "b", "refusal": null})"),
            "a;b;");
  ByteModelRules model(kPlain);
  EXPECT_FALSE(read_chat(R"({"messages": [{"role": "user", )" + part + "]}", model.rules()));
  EXPECT_FALSE(read_chat(
      R"({"messages": [)" + user + R"({"role": "assistant", "content": "b", "refusal": "c"}]})",
      model.rules()));
}

/// Where others wait who want little, what takes long is left off, by what it costs and not by its bytes.
TEST(ChatRequest, WhatTakesLongIsLeftOffInShort) {
  ByteModelRules model("{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %}");
  const auto takes_long = [&](const std::string& body, bool in_short) {
    ReadingRules rules = model.rules();
    rules.in_short = in_short;
    rules.context = 1 << 20;
    const auto question = read_chat(body, rules);
    EXPECT_TRUE(question || question.error().takes_long) << question.error().message;
    return !question;
  };
  const auto turns = [](int count) {
    std::string messages;
    for (int i = 0; i < count; ++i)
      messages += std::string(i > 0 ? "," : "") + R"({"role": "user", "content": "a"})";
    return R"({"messages": [)" + messages + "]}";
  };
  EXPECT_FALSE(takes_long(turns(512), true));
  EXPECT_TRUE(takes_long(turns(513), true));
  EXPECT_FALSE(takes_long(turns(513), false));
  const auto fields = [](int count) {
    std::string properties;
    for (int i = 0; i < count; ++i)
      properties += fmt::format("{}\"p{}\": {{\"type\": \"null\"}}", i > 0 ? "," : "", i);
    return R"({"messages": [{"role": "user", "content": "a"}], "response_format": {"type":
        "json_schema", "json_schema": {"schema": {"properties": {)" +
           properties + "}}}}}";
  };
  EXPECT_FALSE(takes_long(fields(10), true));
  EXPECT_TRUE(takes_long(fields(200), true));
  EXPECT_EQ(model.forms().compiled(), 1);
  EXPECT_FALSE(takes_long(fields(200), false));
  EXPECT_FALSE(takes_long(fields(200), true)) << "it is kept";
}

}  // namespace
}  // namespace ferry::serve
