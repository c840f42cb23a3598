#include "serve/question_fields.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "serve/request_test_support.h"
#include "serve/token_endpoints.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

/// What runs is what is counted: control tokens where their texts stand, and what texts begin with once.
TEST(TextPrompts, BeginOnceAndHaveControlTokens) {
  ByteModelRules model("");
  const auto& tokenizer = *model.model().texts.tokenizer;
  const int32_t bos = *tokenizer.token_id("<|bos|>"), eos = *tokenizer.token_id("<|eos|>");
  Ids letter;
  tokenizer.encode("a", text::Tokenizer::Specials::kAsText, letter);
  const int32_t a = letter.at(0);
  struct Case {
    const char* text;
    bool begin;
    Ids ids;
  };
  for (const Case& c : std::initializer_list<Case>{{"a", true, {bos, a}},
                                                   {"a", false, {a}},
                                                   {"<|bos|>a", true, {bos, a}},
                                                   {"<|bos|>a", false, {bos, a}},
                                                   {"a<|eos|>a", true, {bos, a, eos, a}},
                                                   {"<|eos|>", false, {eos}},
                                                   {"", true, {bos}}}) {
    const std::string body = Json{{"prompt", c.text}, {"add_special_tokens", c.begin}}.dump();
    const auto question = read_completion(body, model.rules());
    ASSERT_TRUE(question) << question.error().message;
    EXPECT_EQ(question->prompts.front().ids, c.ids) << c.text;
    EXPECT_EQ(question->prompts.front().text, c.text);
    const auto counted = tokenize_request(body, model.rules());
    ASSERT_TRUE(counted) << counted.error().message;
    EXPECT_EQ(Json::parse(*counted)["tokens"].get<Ids>(), c.ids) << c.text;
  }
}

/// What a document holds is bounded by all that it repeats, an event by the one prompt that it repeats.
TEST(TextPrompts, LogProbabilitiesAreBoundedByWhatHoldsThem) {
  ByteModelRules model("");
  const auto param = [&](int choices, int tokens, bool stream) {
    const auto q = read_completion(Json{{"prompt", Ids(static_cast<size_t>(tokens), 7)},
                                        {"n", choices},
                                        {"max_tokens", 1},
                                        {"echo", true},
                                        {"logprobs", 20},
                                        {"stream", stream}}
                                       .dump(),
                                   model.rules());
    return q ? "" : q.error().param;
  };
  EXPECT_EQ(param(5, 700, true), "");
  EXPECT_EQ(param(1, 800, true), "logprobs");
  EXPECT_EQ(param(64, 700, false), "");
  EXPECT_EQ(param(64, 800, false), "logprobs");
}

}  // namespace
}  // namespace ferry::serve
