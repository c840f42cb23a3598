#include "text/bpe_trainer.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace ferry::text {
namespace {

BpeTrainer make(BpeTrainerOptions options) {
  Result<BpeTrainer> t = BpeTrainer::create(std::move(options));
  if (!t) throw std::runtime_error(t.error().message);
  return *std::move(t);
}

std::string sample_text(uint64_t seed, size_t words) {
  const Random random(seed, RandomPurpose::kTest, 0);
  const std::vector<std::string> stems = {
      "low", "lower", "newest", "widest", "tokens", "aaaa", "abab", "中文", "é"};
  std::string text;
  for (size_t i = 0; i < words; ++i) {
    text += stems[random.below(2 * i, stems.size())];
    text += random.below(2 * i + 1, 4) == 0 ? "\n" : " ";
  }
  return text;
}

TEST(BpeTrainer, LearnsTheMostFrequentPairFirst) {
  BpeTrainer trainer =
      make({.vocab_size = 262, .specials = {"<|bos|>"}, .split = SplitStyle::kGpt2});
  trainer.feed(
      "hug hug hug pug pug pun bun bun");  // " hug" twice; "ug" 5, "un" 3 (GPT-2 keeps the space)
  const auto trained = trainer.train();
  EXPECT_EQ(trained.vocab_size, 262);
  const auto merges = nlohmann::json::parse(trained.json)["model"]["merges"];
  ASSERT_EQ(merges.size(), 5u);
  EXPECT_EQ(merges[0], (nlohmann::json{"u", "g"}));  // 5
  EXPECT_EQ(merges[1],
            (nlohmann::json{"h", "ug"}));  // 3, as "u n" and "Ġ p": the smallest left id wins
}

/// The algorithm without its bookkeeping: counts everything anew for every merge.
std::vector<std::pair<std::string, std::string>> train_naively(
    const std::map<std::vector<std::string>, int>& start, size_t merges) {
  auto words = start;
  std::vector<std::pair<std::string, std::string>> out;
  std::map<std::string, int> ids;
  for (const auto& [word, count] : start) {
    for (const std::string& s : word) ids.emplace(s, static_cast<unsigned char>(s[0]));
  }
  int next_id = 1000;
  while (out.size() < merges) {
    std::map<std::pair<int, int>, int> counts;
    std::map<int, std::string> names;
    for (const auto& [name, id] : ids) names[id] = name;
    for (const auto& [word, count] : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i)
        counts[{ids[word[i]], ids[word[i + 1]]}] += count;
    }
    std::pair<int, int> best{-1, -1};
    int most = 1;
    for (const auto& [pair, count] : counts) {
      if (count > most) {
        most = count;
        best = pair;
      }
    }
    if (best.first < 0) break;
    const std::string left = names[best.first], right = names[best.second];
    out.emplace_back(left, right);
    if (!ids.contains(left + right)) ids[left + right] = next_id++;
    std::map<std::vector<std::string>, int> next;
    for (const auto& [word, count] : words) {
      std::vector<std::string> merged;
      for (size_t i = 0; i < word.size(); ++i) {
        if (i + 1 < word.size() && word[i] == left && word[i + 1] == right) {
          merged.push_back(left + right);
          ++i;
        } else {
          merged.push_back(word[i]);
        }
      }
      next[merged] += count;
    }
    words = next;
  }
  return out;
}

TEST(BpeTrainer, EqualsTheNaiveAlgorithm) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Random random(seed, RandomPurpose::kTest, 1);
    std::map<std::vector<std::string>, int> words;
    std::string text;
    for (uint64_t i = 0; i < 300; ++i) {
      std::vector<std::string> word;
      const size_t size = 1 + random.below(100 * i, 9);
      for (size_t j = 0; j < size; ++j) {
        word.emplace_back(1, static_cast<char>('a' + random.below(100 * i + j + 1, 3)));
        text += word.back();
      }
      ++words[word];
      text += '\n';  // a word of its own under every pattern, and too short to merge
    }
    BpeTrainer trainer =
        make({.vocab_size = 256 + 40, .specials = {}, .split = SplitStyle::kLlama3});
    trainer.feed(text);
    const auto merges = nlohmann::json::parse(trainer.train().json)["model"]["merges"];
    const auto expected = train_naively(words, merges.size());
    ASSERT_EQ(merges.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(merges[i], (nlohmann::json{expected[i].first, expected[i].second}))
          << "seed " << seed << " merge " << i;
    }
  }
}

TEST(BpeTrainer, WritesAFileThatLoadsAndUsesItsTokens) {
  for (const SplitStyle split :
       {SplitStyle::kDeepseek, SplitStyle::kLlama3, SplitStyle::kQwen2, SplitStyle::kGpt2}) {
    BpeTrainer trainer = make({.vocab_size = 320, .split = split});
    const std::string text = sample_text(1, 2000);
    trainer.feed(text);
    const auto trained = trainer.train();
    const Result<Tokenizer> t = Tokenizer::parse(trained.json, "trained.json");
    ASSERT_TRUE(t) << t.error().message;
    EXPECT_EQ(t->vocab_size(), trained.vocab_size);
    EXPECT_EQ(t->token_id("<|bos|>"), 0);
    EXPECT_EQ(t->token_id("<|eos|>"), 1);
    EXPECT_EQ(t->token_id("<|pad|>"), 2);
    std::vector<int32_t> ids;
    t->encode(text, Tokenizer::Specials::kAsText, ids);
    EXPECT_LT(ids.size(), text.size() / 2);
    EXPECT_EQ(t->decode(ids), text);
  }
}

TEST(BpeTrainer, IsDeterministicAndDoesNotCareAboutOrder) {
  const std::string a = sample_text(1, 500), b = sample_text(2, 500);
  BpeTrainer first = make({.vocab_size = 300}), second = make({.vocab_size = 300});
  first.feed(a);
  first.feed(b);
  second.feed(b);
  second.feed(a);
  EXPECT_EQ(first.train().json, second.train().json);
}

TEST(BpeTrainer, ForgetsRareWordsWhenThereAreTooMany) {
  BpeTrainer trainer = make({.vocab_size = 300, .words_max = 100});
  for (int i = 0; i < 20; ++i) trainer.feed("common common common");
  for (int i = 0; i < 5000; ++i) {
    const auto letter = [](int n) { return static_cast<char>('a' + n % 26); };
    trainer.feed(std::string{'x', letter(i), letter(i / 26), letter(i / 676)});
  }
  trainer.feed("common common");
  const auto trained = trainer.train();
  EXPECT_LE(trained.words, 100u);
  EXPECT_GE(trained.words, 50u);
  EXPECT_EQ(trained.words + trained.forgotten, 5000u + 2);
  EXPECT_NE(trained.json.find("Ġcommon"), std::string::npos);
}

/// Pieces of long words are nearly all different: memory is bounded by their bytes, and there is something left to
/// learn from whenever the text ends.
TEST(BpeTrainer, ForgetsRareWordsWhenTheyAreTooLong) {
  const Random random(7, RandomPurpose::kTest, 0);
  constexpr size_t kPiece = 1024, kPieces = 16;
  for (const size_t pieces : {kPieces, kPieces + 1, 5 * kPieces + 1}) {
    BpeTrainer trainer =
        make({.vocab_size = 300, .split = SplitStyle::kGpt2, .word_bytes_max = kPieces * kPiece});
    std::string word;
    for (size_t i = 0; i < pieces * kPiece; ++i) word += "ACGT"[random.below(i, 4)];
    trainer.feed("ab ab");
    trainer.feed(word);
    const auto trained = trainer.train();
    // "ab" and " ab" take five bytes: one piece less has room beside them.
    EXPECT_GE(trained.words, 2 + kPieces / 2 - 1) << pieces;
    EXPECT_LE(trained.words, 2 + kPieces - 1) << pieces;
    EXPECT_EQ(trained.words + trained.forgotten, 2 + pieces) << pieces;
    EXPECT_EQ(trained.vocab_size, 300) << pieces;
  }
}

TEST(BpeTrainer, NeverMakesASpecialToken) {
  BpeTrainer trainer = make({.vocab_size = 300, .specials = {"abc"}});
  for (int i = 0; i < 50; ++i) trainer.feed("abc\nabc\nabcd\n");
  const Result<Tokenizer> t = Tokenizer::parse(trainer.train().json, "trained.json");
  ASSERT_TRUE(t) << t.error().message;
  std::vector<int32_t> ids;
  t->encode("abc abcd", Tokenizer::Specials::kAsText, ids);
  for (const int32_t id : ids) EXPECT_FALSE(t->is_special(id));
}

TEST(BpeTrainer, RunsOutOfPairs) {
  BpeTrainer empty = make({.vocab_size = 1000});
  EXPECT_EQ(empty.train().vocab_size, 259);
  BpeTrainer small = make({.vocab_size = 1000});
  small.feed("ab ab");
  const auto trained = small.train();
  EXPECT_LT(trained.vocab_size, 265);
  EXPECT_TRUE(Tokenizer::parse(trained.json, "trained.json"));
}

std::string repeated(std::string_view text, size_t times) {
  std::string all;
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

TEST(BpeTrainer, LearnsFromWordsOfAnyLength) {
  BpeTrainer trainer = make({.vocab_size = 270, .split = SplitStyle::kGpt2});
  trainer.feed(repeated("ACGTTGCA", 2000));  // one word
  const auto trained = trainer.train();
  EXPECT_EQ(trained.vocab_size, 270);
  const std::string word = "ACGTTGCA";
  const std::vector<std::pair<std::string, std::string>> hugging_faces = {
      {"A", "C"},
      {"C", "A"},
      {"G", "T"},
      {"G", "CA"},
      {"T", "GCA"},
      {"AC", "GT"},
      {"ACGT", "TGCA"},
      {word, word},
      {repeated(word, 2), repeated(word, 2)},
      {repeated(word, 4), repeated(word, 4)},
      {repeated(word, 8), repeated(word, 8)}};
  EXPECT_EQ(nlohmann::json::parse(trained.json)["model"]["merges"], nlohmann::json(hugging_faces));
}

TEST(BpeTrainer, CutsLongWordsBetweenCharacters) {
  BpeTrainer trainer = make({.vocab_size = 400, .split = SplitStyle::kGpt2});
  trainer.feed(repeated("\u4e2d", 5000));
  const auto vocab = nlohmann::json::parse(trainer.train().json)["model"]["vocab"];
  EXPECT_GT(vocab.size(), 259u + 5);
  for (const auto& [token, id] : vocab.items())
    if (const auto letters = utf8_points(token).size(); letters > 3 && id > 2) {
      EXPECT_EQ(letters % 3, 0u) << token;
    }
  BpeTrainer damaged = make({.vocab_size = 400, .split = SplitStyle::kGpt2});
  damaged.feed(repeated("\x80", 5000));  // holds no character to cut at
  EXPECT_GT(damaged.train().vocab_size, 259 + 5);
}

TEST(BpeTrainer, RefusesBadOptions) {
  for (const BpeTrainerOptions& bad : {BpeTrainerOptions{.vocab_size = 258},
                                       BpeTrainerOptions{.vocab_size = -1},
                                       BpeTrainerOptions{.specials = {"a"}},
                                       BpeTrainerOptions{.specials = {""}},
                                       BpeTrainerOptions{.specials = {"<x>", "<x>"}},
                                       BpeTrainerOptions{.specials = {"\xff<"}},
                                       BpeTrainerOptions{.words_max = 0},
                                       BpeTrainerOptions{.word_bytes_max = 2047}}) {
    const Result<BpeTrainer> t = BpeTrainer::create(bad);
    ASSERT_FALSE(t);
    EXPECT_EQ(t.error().code, Code::kInvalidInput);
  }
}

}  // namespace
}  // namespace ferry::text
