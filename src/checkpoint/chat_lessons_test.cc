#include "checkpoint/chat_lessons.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/chat_test_support.h"
#include "checkpoint/model_chat.h"

namespace ferry {
namespace {

constexpr Moment kNow{1'772'000'000'000};
/// As R1's: thoughts are no part of what was said, and the prompt opens one.
constexpr const char* kThinker =
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[U]' + m.content }}{% else %}"
    "{{ '[A]' + m.content.split('</think>')[-1] + '<|eos|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[A]<think>\n' }}{% endif %}";

/// Each lesson as text, what is learnt in {braces}; or why there is none.
std::vector<std::string> lessons(const std::string& chat_template, std::string_view messages) {
  const ModelTexts texts = chat_texts(chat_template);
  const std::string conversation = messages.starts_with('[')
                                       ? "{\"messages\": " + std::string(messages) + "}"
                                       : std::string(messages);
  const auto all = chat_lessons(texts, conversation, "model", kNow);
  if (!all) return {all.error().message};
  std::vector<std::string> out;
  for (const text::Lesson& lesson : *all) {
    EXPECT_EQ(lesson.ids.size(), lesson.learnt.size());
    out.emplace_back();
    bool open = false;
    for (size_t i = 0; i <= lesson.ids.size(); ++i) {
      const bool learnt = i < lesson.ids.size() && lesson.learnt[i];
      if (learnt != open) out.back() += learnt ? "{" : "}";
      open = learnt;
      if (i < lesson.ids.size()) out.back() += texts.tokenizer->token_bytes(lesson.ids[i]);
    }
  }
  return out;
}

using Texts = std::vector<std::string>;

/// A model that learnt them would write them.
TEST(ChatLessons, NullsThatTablesPadAreNotLearnt) {
  const Texts told = lessons("{{ tools|tojson }}{% for m in messages %}x{% endfor %}", R"({
      "tools": [{"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}],
      "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "",
          "tool_calls": [{"function": {"name": "f", "arguments": {"a": "x", "b": null}}}]}]})");
  EXPECT_NE(told[0].find("calls 'f' with 'b' as null"), std::string::npos) << told[0];
}

TEST(ChatLessons, AreTheAnswersToTheirEndTokens) {
  EXPECT_EQ(lessons(kChatml, R"([{"role": "user", "content": "Hi"},
                                 {"role": "assistant", "content": "Ho"}])"),
            Texts{"<|bos|>user\nHi<|eos|>\n<|bos|>assistant\n{Ho<|eos|>}"});
  // Turns go on with one lesson; fields that are the dataset's own do not matter.
  EXPECT_EQ(lessons(kChatml, R"({"id": 7, "source": "x", "messages": [
                {"role": "system", "content": "S"}, {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
                {"role": "assistant", "content": "d"}]})"),
            Texts{"<|bos|>system\nS<|eos|>\n<|bos|>user\na<|eos|>\n<|bos|>assistant\n{b<|eos|>}\n"
                  "<|bos|>user\nc<|eos|>\n<|bos|>assistant\n{d<|eos|>}"});
  // A message without weight is read.
  EXPECT_EQ(lessons(kChatml, R"([{"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "weight": 0},
                {"role": "user", "content": "c"},
                {"role": "assistant", "content": "d", "weight": 1}])"),
            Texts{"<|bos|>user\na<|eos|>\n<|bos|>assistant\nb<|eos|>\n<|bos|>user\nc<|eos|>\n"
                  "<|bos|>assistant\n{d<|eos|>}"});
}

/// Where a template says itself what is generated, Transformers' mask of the assistant's tokens.
TEST(ChatLessons, AreWhatTransformersMasks) {
  const auto file = read_file(FERRY_SOURCE_DIR "/testdata/chat/masks.json");
  ASSERT_TRUE(file) << file.error().message;
  const auto cases = nlohmann::json::parse(*file);
  ASSERT_EQ(cases.size(), 36u);
  for (const auto& c : cases) {
    ModelTexts texts;
    auto tokenizer = text::Tokenizer::load(FERRY_SOURCE_DIR "/testdata/tokenizer/" +
                                           c["tokenizer"].get<std::string>() + ".json");
    ASSERT_TRUE(tokenizer);
    texts.tokenizer = std::make_shared<text::Tokenizer>(*std::move(tokenizer));
    texts.eos = {c["eos"].get<int32_t>()};
    texts.files["chat_template.jinja"] = c["template"].get<std::string>();
    const auto lessons =
        chat_lessons(texts, json_text(nlohmann::json{{"messages", c["messages"]}}), "model", kNow);
    ASSERT_TRUE(lessons) << lessons.error().message;
    ASSERT_EQ(lessons->size(), 1u);
    // After the last answer the template may go on; nobody is asked for that.
    const auto ids = c["ids"].get<std::vector<int32_t>>();
    const auto mask = c["mask"].get<std::string>();
    const text::Lesson& lesson = lessons->front();
    ASSERT_LE(lesson.ids.size(), ids.size());
    EXPECT_TRUE(std::equal(lesson.ids.begin(), lesson.ids.end(), ids.begin())) << c;
    std::string learnt;
    for (const bool l : lesson.learnt) learnt += l ? '1' : '0';
    learnt.resize(mask.size(), '0');
    EXPECT_EQ(learnt, mask) << c;
  }
}

TEST(ChatLessons, AnEndTokenIsAddedWhereTheTemplateWritesNone) {
  EXPECT_EQ(
      lessons("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
              "{% if add_generation_prompt %}[assistant]{% endif %}",
              R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}])"),
      Texts{"[user]Hi[assistant]{Ho<|eos|>}"});
}

TEST(ChatLessons, ThoughtsAreLearntThoughTheTemplateForgetsThem) {
  // Of past turns nothing is kept, so each turn has a lesson of its own.
  EXPECT_EQ(lessons(kThinker, R"([{"role": "user", "content": "a"},
                {"role": "assistant", "reasoning_content": "hm", "content": "b"},
                {"role": "user", "content": "c"},
                {"role": "assistant", "content": "<think>\nwell\n</think>\n\nd"},
                {"role": "user", "content": "e"}, {"role": "assistant", "content": "f"}])"),
            (Texts{"[U]a[A]<think>\n{hm\n</think>\n\nb<|eos|>}",
                   "[U]a[A]b<|eos|>[U]c[A]<think>\n{well\n</think>\n\nd<|eos|>}",
                   "[U]a[A]b<|eos|>[U]c[A]\n\nd<|eos|>[U]e[A]<think>\n{\n</think>\n\nf<|eos|>}"}));
}

/// Nobody says "None". A template that tells such a message by its null is left to it.
TEST(ChatLessons, AbsentContentIsNoWord) {
  const auto learnt = [](const std::string& content, bool missing = false) {
    const std::string call = R"("tool_calls": [{"function": {"name": "f", "arguments": {}}}]})";
    return lessons(
        "{% for m in messages %}[{{ m.role }}]" + content +
            "{% for c in m.tool_calls or [] %}({{ c.function.name }}){% endfor %}{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}",
        R"([{"role": "user", "content": "None"}, {"role": "assistant", )" +
            std::string(missing ? "" : R"("content": null, )") + call + "]");
  };
  const Texts expected = {"[user]None[assistant]{(f)<|eos|>}"};
  EXPECT_EQ(learnt("{{ m.content }}"), expected);
  EXPECT_EQ(learnt("{{ m.content }}", true), expected);
  EXPECT_EQ(learnt("{{ '' + m.content }}"), expected);
  EXPECT_EQ(learnt("{{ '' + m.content }}", true), expected);
  EXPECT_EQ(learnt("{% if m.content is none %}!{% else %}{{ m.content }}{% endif %}"),
            Texts{"[user]None[assistant]{!(f)<|eos|>}"});
}

/// What servers and clients write beside an answer where there is nothing of it, and an answer in parts.
TEST(ChatLessons, EmptyFieldsSayNothingAndPartsAreText) {
  const Texts expected = {"<|bos|>user\nHi<|eos|>\n<|bos|>assistant\n{Ho<|eos|>}"};
  const auto learnt = [](const std::string& fields) {
    return lessons(kChatml,
                   R"([{"role": "user", "content": "Hi"}, {"role": "assistant", )" + fields + "}]");
  };
  EXPECT_EQ(learnt(R"("content": "Ho", "refusal": null, "annotations": [], "audio": {},
                      "function_call": null, "tool_calls": [], "reasoning_content": null)"),
            expected);
  EXPECT_EQ(learnt(R"("content": [{"type": "text", "text": "Ho"}])"), expected);
  // As when it is served (docs/serving.md): parts are lines.
  EXPECT_EQ(learnt(R"("content": [{"type": "text", "text": "H"}, {"type": "text", "text": "o"}])"),
            Texts{"<|bos|>user\nHi<|eos|>\n<|bos|>assistant\n{H\no<|eos|>}"});
  // As Transformers masks it (AreWhatTransformersMasks): an empty text is an answer that ends at once.
  for (const char* empty : {R"("content": "")", R"("content": [{"type": "text", "text": ""}])"})
    EXPECT_EQ(learnt(empty), Texts{"<|bos|>user\nHi<|eos|>\n<|bos|>assistant\n{<|eos|>}"});
}

/// As Anthropic's API has it: beside the messages.
TEST(ChatLessons, ASystemPromptMayStandBesideTheMessages) {
  constexpr const char* kRest =
      R"({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})";
  const auto learnt = [&](const std::string& before) {
    return lessons(kChatml, "{" + before + kRest).front();
  };
  const std::string with =
      "<|bos|>system\nS<|eos|>\n<|bos|>user\na<|eos|>\n<|bos|>assistant\n{b<|eos|>}";
  EXPECT_EQ(learnt(R"("system": "S", "messages": [)"), with);
  EXPECT_EQ(learnt(R"("system": [{"type": "text", "text": "S"}], "messages": [)"), with);
  EXPECT_EQ(learnt(R"("system": "S", "messages": [{"role": "system", "content": "S"}, )"), with);
  for (const char* nothing : {"null", R"("")", "[]"})
    EXPECT_EQ(learnt(std::string(R"("system": )") + nothing + R"(, "messages": [)"),
              "<|bos|>user\na<|eos|>\n<|bos|>assistant\n{b<|eos|>}");
  for (const auto& [before, part] :
       {std::pair{R"("system": 3, "messages": [)", "\"system\" must be text"},
        {R"("system": [{"type": "image"}], "messages": [)", "\"system\" must be text"},
        {R"("system": "S", "messages": [{"role": "system", "content": "T"}, )",
         "\"system\" and the first message say different things"},
        {R"("system": "<|bos|>", "messages": [)", "control token"}})
    EXPECT_NE(learnt(before).find(part), std::string::npos) << learnt(before);
  // Messages are counted as they stand in the file.
  EXPECT_NE(lessons(kChatml, R"({"system": "S", "messages": [{"role": "user", "content": "a"},
                                 {"role": "assistant"}]})")
                .front()
                .find("message 2: says nothing"),
            std::string::npos);
}

TEST(ChatLessons, WhatCannotBeLearntIsSaid) {
  const auto refusal = [](std::string_view conversation) {
    return lessons(kChatml, conversation).front();
  };
  const auto expect = [&](std::string_view conversation, const char* part) {
    EXPECT_NE(refusal(conversation).find(part), std::string::npos) << refusal(conversation);
  };
  expect(R"([{"role": "user", "content": "a"}])", "no message of the assistant");
  expect(R"([{"role": "assistant", "content": "a"}])", "message 1: begins the conversation");
  expect(R"({"conversations": [{"from": "human", "value": "a"}]})", "is no conversation");
  expect(R"([{"role": "user", "content": "<|eos|>"}, {"role": "assistant", "content": "b"}])",
         "control token");
  // The template would drop it, and nobody would know.
  expect(R"([{"role": "user", "content": "a"},
             {"role": "assistant", "content": "b", "reasoning_content": "because"}])",
         "message 2: the chat template of model leaves out");
  expect(R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls":
             [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}])",
         "message 2: the chat template of model leaves out");
  for (const char* nothing : {"",
                              R"(, "content": null)",
                              R"(, "content": null, "tool_calls": [])",
                              R"(, "content": [])",
                              R"(, "content": {}, "annotations": [], "audio": {})"})
    expect(
        R"([{"role": "user", "content": "a"}, {"role": "assistant")" + std::string(nothing) + "}]",
        "message 2: says nothing");
  expect("{", "conversation");
  expect(R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "4",
             "reasoning_content": "4"}])",
         "message 2: the chat template of model leaves out");
  expect(R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "calling f now",
             "tool_calls": [{"function": {"name": "f", "arguments": {"x": "y"}}}]}])",
         "leaves out");
  for (const char* fields : {R"("reasoning": "because")",
                             R"("function_call": {"name": "f"})",
                             R"("weight": 0.5)",
                             R"("audio": {"id": "x"})",
                             R"("content": 3)",
                             R"("content": [{"type": "image_url", "text": "b"}])",
                             R"("content": [{"type": "text", "text": 3}])",
                             R"("content": ["b"])"})
    expect(
        R"([{"role": "user", "content": "a"}, {"role": "assistant", )" + std::string(fields) + "}]",
        "message 2: has \"");
  expect(
      R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "it is <|eos|> so"}])",
      "message 2: holds '<|eos|>'");
  // Nulls, as exports have them, are nothing.
  EXPECT_EQ(lessons(kThinker, R"({"tools": null, "chat_template_kwargs": null, "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "tool_calls": null, "name": null}]})"),
            Texts{"[U]a[A]<think>\n{\n</think>\n\nb<|eos|>}"});
  EXPECT_NE(lessons("{% for m in messages %}{{ m.content }}{% endfor %}",
                    R"([{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}])")
                .front()
                .find("empty prompt"),
            std::string::npos);
  // A token that ends answers in the template, and not in the model.
  EXPECT_NE(lessons("{% for m in messages %}{{ m.role + m.content + '<|pad|>\n' }}{% endfor %}"
                    "{% if add_generation_prompt %}assistant{% endif %}",
                    R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])")
                .front()
                .find("ends it with '<|pad|>'"),
            std::string::npos);
  ModelTexts endless = chat_texts(kChatml);
  endless.eos.clear();
  EXPECT_FALSE(chat_lessons(endless,
                            R"({"messages": [{"role": "user", "content": "a"},
                                             {"role": "assistant", "content": "b"}]})",
                            "model",
                            kNow));
}

}  // namespace
}  // namespace ferry
