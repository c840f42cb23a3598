// What the files of a directory say about special tokens together, and what is written of it again.
#include "checkpoint/model_texts.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "checkpoint/model_chat.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/test_support.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kChat = R"([{"role": "user", "content": "Hi"}])";
constexpr const char* kEvery =
    "{% for t in [bos_token, eos_token, pad_token, unk_token, image_token, foo_token] %}"
    "{{ t if t is defined else '-' }}|{% endfor %}{{ documents is none }}";

std::string tokenizer_json() {
  return *read_file(FERRY_SOURCE_DIR "/testdata/tokenizer/qwen2.json");
}

/// What a directory with these files says. The tokenizer's <|bos|>, <|eos|>, <|pad|> are 0, 1, 2.
Result<ModelTexts> read_texts(const std::string& config, std::map<std::string, std::string> files) {
  files["config.json"] = config;
  files.try_emplace("tokenizer.json", tokenizer_json());
  ModelContents c;
  c.tensors = {{"model.norm.weight", random_tensor({8}, 1)}};
  c.texts = {files.begin(), files.end()};
  const std::string path = join_path(fresh_folder("texts"), "model");
  const Result<SaveReport> written = write_model_dir(path, c);
  EXPECT_TRUE(written) << written.error().message;
  TRY_ASSIGN(ModelDir dir, ModelDir::open(path));
  return read_model_texts(dir);
}

ModelTexts texts_of(const std::string& config, const std::map<std::string, std::string>& files) {
  Result<ModelTexts> texts = read_texts(config, files);
  EXPECT_TRUE(texts) << texts.error().message;
  return *std::move(texts);
}

/// What a run leaves that began with these, and whose data begin with <|bos|> and end with <|eos|>.
ModelTexts gone_along(const ModelTexts& before) {
  const auto files = model_text_files({.tokenizer_json = tokenizer_json(),
                                       .bos = 0,
                                       .eos = 1,
                                       .bos_text = "<|bos|>",
                                       .eos_text = "<|eos|>",
                                       .positions = 8},
                                      &before);
  return texts_of(R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": 1})", files);
}

std::string written(const ModelTexts& texts) {
  const auto r = render_chat(texts, kChat, "chat.json", "model");
  return r ? r->text : r.error().message;
}

/// The texts are what Transformers 5.24 gives for the same files.
TEST(ModelTexts, TemplatesAreGivenTheTokenizersTokens) {
  constexpr const char* kConfig =
      R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": [1, 2]})";
  const auto said = [&](const Json& tokenizer, const Json& map) {
    std::map<std::string, std::string> files = {{"chat_template.jinja", kEvery}};
    if (!tokenizer.is_null()) files[kTokenizerConfigName] = tokenizer.dump();
    if (!map.is_null()) files[kSpecialTokensName] = map.dump();
    return written(texts_of(kConfig, files));
  };
  const Json usual = {{"bos_token", "<|bos|>"}, {"eos_token", "<|pad|>"}};
  // Llama 3.1's instruct models: the tokenizer's end token is a later one of config.json's.
  EXPECT_EQ(said(usual, nullptr), "<|bos|>|<|pad|>|-|-|-|-|True");
  // Qwen2's: no begin token, whatever config.json says.
  EXPECT_EQ(said({{"bos_token", nullptr}, {"eos_token", nullptr}}, nullptr), "-|-|-|-|-|-|True");
  EXPECT_EQ(said(usual, {{"bos_token", nullptr}, {"eos_token", {{"content", "<|eos|>"}}}}),
            "-|<|eos|>|-|-|-|-|True");
  EXPECT_EQ(said({{"bos_token", nullptr}}, {{"bos_token", "<|pad|>"}, {"eos_token", "<|pad|>"}}),
            "<|pad|>|<|pad|>|-|-|-|-|True");
  Json decoded = usual;
  decoded["added_tokens_decoder"] = Json::object();
  EXPECT_EQ(said(decoded, {{"bos_token", "<|pad|>"}, {"pad_token", "<|pad|>"}}),
            "<|bos|>|<|pad|>|-|-|-|-|True");
  EXPECT_EQ(said({{"pad_token", {{"__type", "AddedToken"}, {"content", "<|pad|>"}}},
                  {"unk_token", nullptr},
                  {"foo_token", "foo"},
                  {"bos_token", ""},
                  {"eos_token", "<|eos|>"},
                  {"extra_special_tokens", {{"image_token", "<|pad|>"}}}},
                 nullptr),
            "|<|eos|>|<|pad|>|-|<|pad|>|foo|True");
  // Silent: nothing. (Of a class that is not known here what the ids say: it may have some of its own.)
  EXPECT_EQ(said(Json::object(), nullptr), "-|-|-|-|-|-|True");
  EXPECT_EQ(
      said({{"eos_token", "<|pad|>"}, {"tokenizer_class", "PreTrainedTokenizerFast"}}, nullptr),
      "-|<|pad|>|-|-|-|-|True");
  EXPECT_EQ(said({{"bos_token", "<|bos|>"}}, {{"eos_token", "<|pad|>"}}),
            "<|bos|>|<|pad|>|-|-|-|-|True");
  for (const char* const cls : {"LlamaTokenizerFast", "LlamaTokenizer", "TokenizersBackend"})
    EXPECT_EQ(said({{"tokenizer_class", cls}}, nullptr), "-|-|-|-|-|-|True") << cls;
  EXPECT_EQ(said({{"tokenizer_class", "CodeLlamaTokenizer"}}, nullptr),
            "<|bos|>|<|eos|>|-|-|-|-|True");
  // No file, or tokens that the tokenizer does not have: the ids that config.json gives.
  EXPECT_EQ(said(nullptr, nullptr), "<|bos|>|<|eos|>|-|-|-|-|True");
  EXPECT_EQ(said({{"bos_token", "<s>"}, {"eos_token", "</s>"}}, {{"pad_token", "<|pad|>"}}),
            "<|bos|>|<|eos|>|<|pad|>|-|-|-|True");
}

/// Where nothing is said, the classes of byte-level tokenizers that have tokens of their own give these, if the
/// tokenizer has them: of qwen2 whatever class is named. Source: Transformers 5.24, by these very files.
TEST(ModelTexts, ASilentClassGivesItsOwnTokens) {
  const auto said = [](const char* type, const Json& tokenizer, bool known = true) {
    Json json = Json::parse(tokenizer_json());
    if (known) {
      std::string text = json.dump();
      for (size_t at; (at = text.find("<|pad|>")) != text.npos;)
        text.replace(at, 7, "<|endoftext|>");
      json = Json::parse(text);
    }
    const std::string config = Json{
        {"model_type", type},
        {"vocab_size", 448},
        {"bos_token_id", 0},
        {"eos_token_id", 1}}.dump();
    return written(texts_of(config,
                            {{"chat_template.jinja", "{{ bos_token }}|{{ eos_token }}"},
                             {kTokenizerName, json.dump()},
                             {kTokenizerConfigName, tokenizer.dump()}}));
  };
  EXPECT_EQ(said("llama", {{"tokenizer_class", "LlamaTokenizerFast"}}), "|");
  EXPECT_EQ(said("deepseek_v3", Json::object()), "|");
  EXPECT_EQ(said("llama", {{"tokenizer_class", "Qwen2TokenizerFast"}}), "|<|endoftext|>");
  EXPECT_EQ(said("llama", {{"tokenizer_class", "GPT2Tokenizer"}}), "<|endoftext|>|<|endoftext|>");
  for (const Json& any : {Json::object(), Json{{"tokenizer_class", "LlamaTokenizerFast"}}})
    EXPECT_EQ(said("qwen2", any), "|<|endoftext|>");
  EXPECT_EQ(said("qwen2", {{"eos_token", nullptr}}), "|");
  EXPECT_EQ(said("qwen2", {{"bos_token", "<|bos|>"}}), "<|bos|>|<|endoftext|>");
  EXPECT_EQ(said("qwen2", Json::object(), false), "|<|eos|>");  // Transformers would add the token
}

/// Whoever relied on config.json's id hears that it is not obeyed.
TEST(ModelTexts, ATemplateThatIsGivenNoTokenIsTold) {
  const auto notes = [](const Json& tokenizer, const char* chat_template) {
    return fmt::format("{}",
                       fmt::join(texts_of(R"({"vocab_size": 448, "bos_token_id": 0})",
                                          {{"chat_template.jinja", chat_template},
                                           {kTokenizerConfigName, tokenizer.dump()}})
                                     .notes,
                                 "\n"));
  };
  constexpr const char* kAsks = "{{ bos_token }}{{ messages[0].content }}";
  const char* const told = "names no bos_token, so that the chat template is given none";
  EXPECT_NE(notes(Json::object(), kAsks).find(told), std::string::npos);
  EXPECT_EQ(notes({{"bos_token", nullptr}}, kAsks).find(told), std::string::npos);
  EXPECT_EQ(notes({{"bos_token", "<|bos|>"}}, kAsks).find(told), std::string::npos);
  EXPECT_EQ(notes(Json::object(), "{{ messages[0].content }}").find(told), std::string::npos);
}

/// Transformers reads what JSON cannot say; it is not written again.
TEST(ModelTexts, NumbersThatJsonHasNotDoNotGoAlong) {
  const ModelTexts texts =
      texts_of(R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": 1})",
               {{kTokenizerConfigName, R"({"model_max_length": Infinity, "eos_token": "<|pad|>"})"},
                {kGenerationConfigName, R"({"length_penalty": NaN, "top_k": 3})"}});
  EXPECT_EQ(texts.eos, (std::vector<int32_t>{1, 2}));
  const ModelTexts after = gone_along(texts);
  const Json tokenizer = Json::parse(after.files.at(kTokenizerConfigName)),
             generation = Json::parse(after.files.at(kGenerationConfigName));
  EXPECT_FALSE(tokenizer.contains("model_max_length"));
  EXPECT_FALSE(generation.contains("length_penalty"));
  EXPECT_EQ(generation.at("top_k"), 3);
}

/// What goes along unchanged is its source's bytes; what is written anew lacks such numbers, however deep they stand.
TEST(ModelTexts, NumbersThatJsonHasNotAreLeftAsTheyStand) {
  const std::map<std::string, std::string> files = {
      {kTokenizerConfigName,
       R"({"model_max_length": Infinity,  "chat_template": "x", "eos_token": "<|pad|>",
           "own": {"a": 1e999, "b": [1, {"c": -Infinity, "d": 2}]}, "list": [1, [NaN]]})"},
      {kGenerationConfigName, R"({"length_penalty":NaN, "more": {"deep": [Infinity]}})"},
      {"chat_template.json", R"({"chat_template": "y", "odd": NaN})"},
      {"added_tokens.json", R"({"<|pad|>": NaN})"}};
  const ModelTexts texts =
      texts_of(R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": 1})", files);
  EXPECT_EQ(texts.files, files);
  EXPECT_EQ(templates_by_name(files.at("chat_template.json")).at("default"), "y");
  EXPECT_EQ(texts.eos, (std::vector<int32_t>{1, 2}));

  TextFacts facts{.tokenizer_json = tokenizer_json(), .as_before = true};
  std::map<std::string, std::string> expected = files;
  expected[kTokenizerName] = facts.tokenizer_json;
  EXPECT_EQ(model_text_files(facts, &texts), expected);

  facts.chat_template = "z";
  const auto anew = model_text_files(facts, &texts);
  EXPECT_EQ(anew.at(kGenerationConfigName), files.at(kGenerationConfigName));
  EXPECT_EQ(Json::parse(anew.at(kTokenizerConfigName)),
            Json::parse(R"({"eos_token": "<|pad|>", "own": {"b": [1, {"d": 2}]}})"));
  const auto amended = model_text_files({.tokenizer_json = facts.tokenizer_json,
                                         .bos = 0,
                                         .eos = 1,
                                         .bos_text = "<|bos|>",
                                         .eos_text = "<|eos|>"},
                                        &texts);
  EXPECT_EQ(Json::parse(amended.at(kGenerationConfigName)).at("more"), Json::object());
  EXPECT_EQ(amended.at("added_tokens.json"), files.at("added_tokens.json"));
}

/// Where a text is read, what Python takes for a number is none; and a text that reads like one is a text.
TEST(ModelTexts, ANumberThatIsNotFiniteIsNoTokenAndNoTemplate) {
  constexpr const char* kConfig = R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": 1})";
  for (const auto& [file, text] :
       {std::pair(kTokenizerConfigName, R"({"chat_template": NaN})"),
        std::pair(kTokenizerConfigName,
                  R"({"chat_template": [{"name": "default", "template": Infinity}]})"),
        std::pair(kTokenizerConfigName, R"({"bos_token": NaN})"),
        std::pair(kTokenizerConfigName, R"({"eos_token": {"content": -Infinity}})"),
        std::pair(kTokenizerConfigName, R"({"extra_special_tokens": {"image_token": NaN}})"),
        std::pair(kSpecialTokensName, R"({"pad_token": 1e999})")}) {
    const Result<ModelTexts> texts = read_texts(kConfig, {{file, text}});
    ASSERT_FALSE(texts) << text;
    EXPECT_EQ(texts.error().code, Code::kInvalidInput);
    EXPECT_NE(texts.error().message.find(file), std::string::npos) << texts.error().message;
    EXPECT_NE(texts.error().message.find("(not finite)\""), std::string::npos)
        << texts.error().message;
    EXPECT_EQ(texts.error().message.find("u0000"), std::string::npos) << texts.error().message;
  }
  // chat_template.json is asked for by conversations alone.
  constexpr const char* kNone = R"({"chat_template": NaN})";
  const ModelTexts other = texts_of(kConfig, {{"chat_template.json", kNone}});
  EXPECT_NE(written(other).find("NaN (not finite)\" must be text"), std::string::npos)
      << written(other);

  constexpr const char* kSome =
      R"x({"chat_template": "NaN (not finite)", "note": "it is (not finite)", "x": NaN})x";
  const ModelTexts real = texts_of(kConfig, {{kTokenizerConfigName, kSome}});
  EXPECT_EQ(written(real), "NaN (not finite)");
  const Json tokenizer = Json::parse(gone_along(real).files.at(kTokenizerConfigName));
  EXPECT_EQ(tokenizer.at("note"), "it is (not finite)");
  EXPECT_EQ(tokenizer.at("chat_template"), "NaN (not finite)");
  EXPECT_FALSE(tokenizer.contains("x"));
}

TEST(ModelTexts, WhatAConversationSaysOfThemIsObeyed) {
  const ModelTexts texts =
      texts_of(R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": 1})",
               {{"chat_template.jinja", "{{ eos_token }} {{ documents[0].text }}"}});
  const auto r = render_chat(texts,
                             R"({"messages": [{"role": "user"}], "chat_template_kwargs":
                                 {"eos_token": "end", "documents": [{"text": "a"}]}})",
                             "chat.json",
                             "model");
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(r->text, "end a");
}

TEST(ModelTexts, ANoteSaysWhichBeginTokenATemplateIsGiven) {
  const ModelTexts texts =
      texts_of(R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": [1, 2]})",
               {{kTokenizerConfigName, R"({"bos_token": "<|pad|>", "eos_token": "<|pad|>"})"}});
  ASSERT_EQ(texts.notes.size(), 1U);
  EXPECT_NE(texts.notes[0].find("the former is obeyed, but a chat template is given"),
            std::string::npos)
      << texts.notes[0];
  EXPECT_EQ(texts.bos, 0);
  EXPECT_EQ(texts.eos, (std::vector<int32_t>{1, 2}));
}

/// Transformers' tokenizers do not read chat_template.json, which its processors wrote.
TEST(ModelTexts, ANoteSaysThatTemplatesDiffer) {
  constexpr const char* kConfig = R"({"vocab_size": 448})";
  const auto notes = [&](const std::map<std::string, std::string>& files) {
    return texts_of(kConfig, files).notes;
  };
  constexpr const char* kOne = R"({"chat_template": "one"})";
  constexpr const char* kTwo = R"({"chat_template": "two"})";
  constexpr const char* kNamed =
      R"({"chat_template": [{"name": "default", "template": "one"}, {"name": "tool_use", "template": "two"}]})";
  for (const auto& files : {std::map<std::string, std::string>{{"chat_template.json", kOne}},
                            {{"chat_template.json", kOne}, {kTokenizerConfigName, kOne}},
                            {{"chat_template.json", kNamed}, {kTokenizerConfigName, kOne}},
                            {{"chat_template.jinja", "one"}, {"chat_template.json", kOne}},
                            {{"chat_template.jinja", "one"}, {kTokenizerConfigName, kNamed}},
                            {{"chat_template.json", kOne}, {kTokenizerConfigName, "{}"}}})
    EXPECT_TRUE(notes(files).empty()) << notes(files)[0];
  const auto expect = [&](const std::map<std::string, std::string>& files, const char* part) {
    const std::vector<std::string> all = notes(files);
    ASSERT_EQ(all.size(), 1U);
    EXPECT_NE(all[0].find(part), std::string::npos) << all[0];
  };
  expect({{"chat_template.jinja", "one"}, {kTokenizerConfigName, kTwo}},
         "chat_template.jinja and the chat_template in tokenizer_config.json differ: the former is "
         "obeyed");
  expect({{"chat_template.jinja", "one"}, {"chat_template.json", kTwo}},
         "chat_template.jinja and the chat_template in chat_template.json differ: the former is "
         "obeyed");
  expect({{"chat_template.json", kOne}, {kTokenizerConfigName, kTwo}},
         "the chat_template in chat_template.json and the chat_template in tokenizer_config.json "
         "differ: the "
         "former is obeyed, "
         "which Transformers' tokenizers do not read");
}

/// Data whose end token is config.json's first one do not change what the template that they were written by is given.
TEST(ModelTexts, ATemplateThatGoesAlongIsGivenWhatItWas) {
  constexpr const char* kConfig =
      R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": [1, 2]})";
  for (const bool uses : {true, false}) {
    const std::string source =
        uses ? "{{ messages[0].content }}{{ eos_token }}" : "{{ bos_token }}";
    for (const bool map : {true, false}) {
      std::map<std::string, std::string> files = {
          {"chat_template.jinja", source},
          {kTokenizerConfigName, R"({"bos_token": "<|bos|>", "eos_token": "<|pad|>"})"}};
      if (map) files[kSpecialTokensName] = R"({"eos_token": {"content": "<|pad|>"}})";
      const ModelTexts before = texts_of(kConfig, files);
      const ModelTexts after = gone_along(before);
      EXPECT_EQ(written(after), written(before));
      EXPECT_EQ(written(before), uses ? "Hi<|pad|>" : "<|bos|>");
      EXPECT_EQ(after.eos, before.eos);
      EXPECT_TRUE(after.notes.empty()) << after.notes[0];
      EXPECT_EQ(after.named_tokens.at("eos_token"), uses ? "<|pad|>" : "<|eos|>");
      EXPECT_EQ(*chat_fingerprint(after, "model"), *chat_fingerprint(before, "model"));
    }
  }
}

/// Without files, or where they name what the tokenizer does not have, it was given the tokens of config.json's ids.
TEST(ModelTexts, ATemplateThatGoesAlongIsGivenWhatItWasByIds) {
  for (const char* config : {"", R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}})"})
    for (const char* map : {"", R"({"bos_token": "<|bos|>", "eos_token": "</s>"})"}) {
      std::map<std::string, std::string> files = {
          {"chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}};
      if (*config != 0) files[kTokenizerConfigName] = config;
      if (*map != 0) files[kSpecialTokensName] = map;
      const ModelTexts before =
          texts_of(R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": [2, 1]})", files);
      const ModelTexts after = gone_along(before);
      EXPECT_EQ(written(before), "<|bos|>Hi<|pad|>") << config << map;
      EXPECT_EQ(written(after), written(before)) << config << map;
      EXPECT_EQ(after.eos, (std::vector<int32_t>{1, 2})) << config << map;
    }
  // Silent, the template was given nothing, and goes on so.
  const ModelTexts silent =
      texts_of(R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": [2, 1]})",
               {{"chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"},
                {kTokenizerConfigName, "{}"}});
  EXPECT_EQ(written(silent), "Hi");
  EXPECT_EQ(written(gone_along(silent)), "Hi");
  // Null, the template is given nothing, and null it stays.
  const ModelTexts none = texts_of(R"({"vocab_size": 448, "eos_token_id": 1})",
                                   {{"chat_template.jinja", "{{ eos_token is defined }}"},
                                    {kTokenizerConfigName, R"({"eos_token": null})"}});
  const auto files = model_text_files({.tokenizer_json = tokenizer_json(),
                                       .bos = 1,
                                       .eos = 1,
                                       .bos_text = "<|eos|>",
                                       .eos_text = "<|eos|>",
                                       .positions = 8},
                                      &none);
  EXPECT_EQ(written(none), "False");
  EXPECT_EQ(written(texts_of(R"({"vocab_size": 448, "eos_token_id": 1})", files)), "False");
}

/// Conversations that were written with other tokens are other data.
TEST(ModelTexts, AFingerprintTellsWhatTemplatesAreGiven) {
  const auto of = [](const char* source, const char* tokenizer) {
    return *chat_fingerprint(
        texts_of(R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": 1})",
                 {{"chat_template.jinja", source}, {kTokenizerConfigName, tokenizer}}),
        "model");
  };
  constexpr const char* kUses = "{{ eos_token }}";
  EXPECT_NE(of(kUses, "{}"), of(kUses, R"({"eos_token": "<|eos|>"})"));
  EXPECT_NE(of(kUses, R"({"eos_token": "<|eos|>"})"), of(kUses, R"({"eos_token": "<|pad|>"})"));
  EXPECT_EQ(of(kUses, "{}"), of(kUses, R"({"eos_token": null})"));
  EXPECT_EQ(of("{{ x }}", "{}"), of("{{ x }}", R"({"eos_token": "<|pad|>"})"));
}

/// Of data that was prepared before: which way round. (Fails where a token that is given no more is told as one that is
/// given since.)
TEST(ModelTexts, TokensThatTemplatesAreGivenOtherwiseAreTold) {
  const auto told = [](const char* source, const char* tokenizer) {
    return tokens_given_otherwise(
        texts_of(R"({"vocab_size": 448, "bos_token_id": 0, "eos_token_id": 1})",
                 {{"chat_template.jinja", source}, {kTokenizerConfigName, tokenizer}}),
        source);
  };
  constexpr const char* kUses = "{{ bos_token }}{{ eos_token }}{{ pad_token }}";
  EXPECT_EQ(told(kUses, R"({"bos_token": "<|bos|>", "eos_token": "<|eos|>"})"), "");
  EXPECT_EQ(told(kUses, R"({"eos_token": "<|eos|>"})"), "bos_token '<|bos|>' then, none now");
  EXPECT_EQ(
      told(kUses, R"({"bos_token": "<|bos|>", "eos_token": "<|pad|>", "pad_token": "<|pad|>"})"),
      "eos_token '<|eos|>' then, '<|pad|>' now; pad_token none then, '<|pad|>' now");
  EXPECT_EQ(told("{{ x }}", "{}"), "");
}

}  // namespace
}  // namespace ferry
