#include "grammar/matcher.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "grammar/grammar_testing.h"
#include "grammar/schema.h"
#include "text/byte_alphabet.h"

namespace ferry::grammar {
namespace {

std::shared_ptr<const Automaton> automaton(const std::string& schema) {
  auto out = schema_automaton(schema, "schema");
  if (!out) ADD_FAILURE() << out.error().message;
  return *out;
}

/// A word for each seed: bytes that JSON has much of.
std::vector<std::string> words(size_t count) {
  const std::string_view letters = "ab \"\\{}[],:1é\n";
  std::vector<std::string> out;
  for (uint64_t i = 0; i < count; ++i) {
    const Random random(i, RandomPurpose::kTest, 5);
    std::string word;
    for (uint64_t n = 0; n < 2 + random.below(0, 6); ++n)
      word += letters[random.below(n + 1, letters.size())];
    out.push_back(word);
  }
  return out;
}

TEST(Matcher, AllowsWhatItTakesAndNothingElse) {
  const auto vocabulary = vocabulary_with(words(400));
  for (
      const char* schema :
      {"{}",
       R"({"type": "string", "maxLength": 3})",
       R"({"type": "string", "pattern": "^(a|é)+b?$"})",
       R"({"type": "object", "properties": {"ab": {"type": "array", "items": {"enum": ["a", 1, 11]}}}})"}) {
    const auto constraint = constraint_of(automaton(schema), vocabulary);
    Matcher matcher(constraint);
    std::string text;
    const Random random(7, RandomPurpose::kTest, 3);
    for (uint64_t n = 0; n < 40; ++n) {
      const std::span<const uint64_t> mask = matcher.allowed();
      const std::vector<uint64_t> allowed(mask.begin(), mask.end());
      std::vector<int32_t> ids;
      for (int32_t id = 0; id < vocabulary->size(); ++id) {
        const bool may = (allowed[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
        if (may) ids.push_back(id);
        EXPECT_EQ(Matcher(constraint).accept(text + vocabulary->bytes(id)), may)
            << schema << " " << text << " " << vocabulary->bytes(id);
      }
      if (ids.empty()) break;
      const int32_t id = ids[random.below(n, ids.size())];
      ASSERT_TRUE(matcher.accept(id));
      text += vocabulary->bytes(id);
    }
    EXPECT_FALSE(matcher.accept(-1));
    EXPECT_FALSE(matcher.accept(vocabulary->size()));
  }
}

/// What is kept beside the place is forgotten now and then: no answer depends on it.
TEST(Matcher, IsAFunctionOfTheAnswer) {
  const auto vocabulary = vocabulary_with(words(300));
  // Each of many alternatives counts differently, so that there are more places than are kept.
  const auto constraint = constraint_of(
      automaton(R"({"type": "array", "items": {"anyOf": [{"type": "string", "maxLength": 700},
                    {"type": "string", "pattern": "^(a|b)*a(a|b){9}$"}, {"type": "array", "items": {"$ref": "#"}}]}})"),
      vocabulary);
  Matcher matcher(constraint);
  size_t bytes = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const Random random(seed, RandomPurpose::kTest, 4);
    std::string text;
    matcher.restart();
    for (uint64_t n = 0; n < 40; ++n) {
      Matcher afresh(constraint);
      ASSERT_TRUE(afresh.accept(text));
      const std::span<const uint64_t> mask = matcher.allowed(), other = afresh.allowed();
      ASSERT_TRUE(std::equal(mask.begin(), mask.end(), other.begin(), other.end())) << text;
      ASSERT_EQ(matcher.may_end(), afresh.may_end());
      std::vector<int32_t> ids;
      for (int32_t id = 0; id < vocabulary->size(); ++id)
        if ((mask[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0) ids.push_back(id);
      if (ids.empty()) break;
      const int32_t id = ids[random.below(n, ids.size())];
      ASSERT_TRUE(matcher.accept(id));
      text += vocabulary->bytes(id);
    }
    bytes += text.size();
  }
  EXPECT_GT(bytes, 300u);
}

TEST(Matcher, AnAutomatonThatIsAllAlternativesStaysBounded) {
  // Four thousand fields, none of which need be there: the first are followed.
  nlohmann::ordered_json schema = {{"type", "object"}, {"additionalProperties", false}};
  for (int i = 0; i < 4000; ++i) schema["properties"][fmt::format("f{}", i)] = {{"type", "null"}};
  Matcher matcher(constraint_of(automaton(schema.dump())));
  EXPECT_TRUE(matcher.accept("{\"f7\": null, \"f90\": null}"));
  EXPECT_TRUE(matcher.may_end());
}

TEST(Vocabulary, SpecialTokensAreNoneOfAnAnswerButMarks) {
  const auto tokenizer =
      text::Tokenizer::load(std::string(FERRY_SOURCE_DIR) + "/testdata/tokenizer/llama3.json")
          .value();
  const int32_t special = tokenizer.token_id("<|sp|>").value();
  EXPECT_EQ(Vocabulary::of(tokenizer).value()->bytes(special), "");
  EXPECT_EQ(Vocabulary::of(tokenizer, {special}).value()->bytes(special), "<|sp|>");
}

/// SmolLM2's lacks some control characters and the first bytes of empty planes, which no document needs.
TEST(Vocabulary, BytesThatNoDocumentNeedsMayBeLacking) {
  const std::string path = std::string(FERRY_SOURCE_DIR) + "/testdata/tokenizer/qwen2.json";
  auto file = nlohmann::ordered_json::parse(read_file(path).value());
  auto& vocab = file["model"]["vocab"];
  for (const char byte : {'\x04', '\x1d', '\xf1', '\xf2'}) {
    const std::string letter = text::bytes_to_letters({&byte, 1});
    const auto id = vocab.at(letter);
    vocab.erase(letter);
    vocab["no such " + std::to_string(static_cast<unsigned char>(byte))] = id;
  }
  const auto tokenizer = text::Tokenizer::parse(file.dump(), "test");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto vocabulary = Vocabulary::of(*tokenizer);
  ASSERT_TRUE(vocabulary) << vocabulary.error().message;
  Matcher matcher(constraint_of(
      automaton(R"({"type": "object", "additionalProperties": {"type": "string"}})"), *vocabulary));
  EXPECT_TRUE(matcher.accept("{\"a\": \"\xf0\x9f\x99\x82\"}"));
  EXPECT_TRUE(matcher.may_end());
}

}  // namespace
}  // namespace ferry::grammar
