#include "verify/server_answer.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace ferry::verify {
namespace {

/// The seeds of this reader's fuzzer are what servers really send.
std::string sent(const std::string& name) {
  return *read_file(std::string(FERRY_SOURCE_DIR) + "/tests/fuzz/server_answer_fuzz_seeds/" + name);
}

TEST(ServerAnswer, FromVllm) {
  const auto a = read_answer(sent("vllm"), "here", false);
  ASSERT_TRUE(a) << a.error().message;
  EXPECT_EQ(a->text, " noon");
  EXPECT_EQ(a->finish, "length");
  EXPECT_EQ(a->prompt_tokens, 2);
  EXPECT_EQ(a->prompt_ids, (std::vector<int32_t>{0, 5}));
  ASSERT_EQ(a->tokens.size(), 1u);
  EXPECT_EQ(a->tokens[0].chosen.id, 260);
  EXPECT_EQ(a->tokens[0].chosen.log_prob, -0.5);
  EXPECT_EQ(a->tokens[0].top.size(), 2u);
  ASSERT_EQ(a->prompt.size(), 2u);
  EXPECT_TRUE(a->prompt[0].top.empty());
  ASSERT_EQ(a->prompt[1].top.size(), 2u);
  EXPECT_EQ(a->prompt[1].top[0].id, 5);
  EXPECT_EQ(a->prompt[1].top[0].log_prob, -2.5);
}

TEST(ServerAnswer, FromLlamaCppPythonWithItsPromptRepeated) {
  const auto a = read_answer(sent("llama_cpp_python_echo"), "here", true);
  ASSERT_TRUE(a) << a.error().message;
  ASSERT_EQ(a->prompt.size(), 2u);
  EXPECT_EQ(a->prompt[1].chosen.text, " ferry");
  EXPECT_EQ(a->prompt[1].chosen.log_prob, -3.5);
  EXPECT_FALSE(a->prompt[0].chosen.log_prob);
  ASSERT_EQ(a->tokens.size(), 1u);
  EXPECT_EQ(a->tokens[0].chosen.text, " goes");
}

TEST(ServerAnswer, FromChat) {
  const auto a = read_answer(sent("chat"), "here", false);
  ASSERT_TRUE(a) << a.error().message;
  EXPECT_EQ(a->reasoning, "so");
  ASSERT_EQ(a->tokens.size(), 2u);
  EXPECT_EQ(a->tokens[0].chosen.id, 3);
  EXPECT_EQ(a->tokens[1].chosen.text, "é");
  EXPECT_EQ(a->tokens[0].top[1].log_prob, -1e4);  // what stands for none
}

TEST(ServerAnswer, WhatItSaysOfItsCache) {
  const auto cached = [](const std::string& usage) {
    const auto a =
        read_answer(R"({"choices":[{"text":"a"}],"usage":)" + usage + "}", "here", false);
    EXPECT_TRUE(a) << a.error().message;
    return a ? a->cached_tokens : std::nullopt;
  };
  EXPECT_EQ(cached(R"({"prompt_tokens_details":{"cached_tokens":48}})"), 48);
  EXPECT_EQ(cached(R"({"prompt_tokens_details":{"cached_tokens":0}})"), 0);
  EXPECT_FALSE(cached(R"({"prompt_tokens_details":{"audio_tokens":1}})"));
  EXPECT_FALSE(cached(R"({"prompt_tokens_details":null})"));
  EXPECT_FALSE(cached("{}"));
}

TEST(ServerAnswer, TokensThatLookAlikeAreOneKey) {
  const auto a = read_answer(sent("repeated_keys"), "here", false);
  ASSERT_TRUE(a) << a.error().message;
  ASSERT_EQ(a->tokens[0].top.size(), 1u);
  EXPECT_EQ(a->tokens[0].top[0].log_prob, -2);
}

/// A vocabulary may have a token that is U+FFFD: a piece of a character must not be taken for it.
TEST(ServerAnswer, PiecesOfCharactersAreNobodysNames) {
  const auto text = read_answer(sent("repeated_keys"), "here", false);
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(text->tokens[0].chosen.text, "");
  EXPECT_EQ(text->tokens[0].top[0].text, "");
  const auto chat = read_answer(
      R"({"choices": [{"message": {"content": "a"}, "logprobs": {"content": [
          {"token": "\ufffd", "bytes": [239, 191, 189], "logprob": -1, "top_logprobs": []},
          {"token": "\ufffd", "bytes": [240, 159], "logprob": -1, "top_logprobs": []}]}}]})",
      "here",
      false);
  ASSERT_TRUE(chat) << chat.error().message;
  EXPECT_EQ(chat->tokens[0].chosen.text, "");  // so ollama has them
  EXPECT_EQ(chat->tokens[1].chosen.text, "\xf0\x9f");
}

TEST(ServerAnswer, WhatIsNoneIsRefusedWithWords) {
  const auto refused = [](const char* body, const char* word) {
    const auto a = read_answer(body, "here", false);
    ASSERT_FALSE(a) << body;
    EXPECT_EQ(a.error().code, Code::kUnavailable);
    EXPECT_NE(a.error().message.find(word), std::string::npos) << a.error().message;
    EXPECT_NE(a.error().message.find("here"), std::string::npos) << a.error().message;
  };
  refused("", "not JSON");
  refused(R"({"error":{"message":"quota exceeded","code":429}})",
          "the server says: 'quota exceeded'");
  refused(R"({"error":"no money"})", "the server says: 'no money'");
  refused(R"({"error":null})", "choices");
  refused("[]", "object");
  refused("{}", "choices");
  refused(R"({"choices":[]})", "empty");
  refused(R"({"choices":[{"text":1}]})", "text");
  refused(R"({"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[0.5]}}]})",
          "no log-probability");
  refused(R"({"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[]}}]})",
          "an entry for each token");
  refused(R"({"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":["-1"]}}]})",
          "number");
  refused(R"({"choices":[{"text":"a","token_ids":[-1]}]})", "token ids");
  refused(R"({"choices":[{"text":"a"}],"usage":{"prompt_tokens":1e40}})", "prompt_tokens");
  const std::string quota = R"({"error":{"message":"quota exceeded"}})";
  for (const Status& error :
       {read_models(quota, "here").error(), read_tokens(quota, "here").error()})
    EXPECT_EQ(error.message, "here: the server says: 'quota exceeded'");
}

}  // namespace
}  // namespace ferry::verify
