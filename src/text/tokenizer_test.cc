#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/random.h"
#include "base/threads.h"
#include "text/answer_text.h"
#include "text/byte_alphabet.h"
#include "text/nfc.h"
#include "text/stream_decoder.h"
#include "text/utf8.h"

namespace ferry::text {
namespace {

using Json = nlohmann::json;
using Specials = Tokenizer::Specials;

std::string data_path(const std::string& name) {
  return std::string(FERRY_SOURCE_DIR) + "/testdata/tokenizer/" + name;
}

Tokenizer load(const std::string& name) {
  Result<Tokenizer> t = Tokenizer::load(data_path(name + ".json"));
  if (!t) throw std::runtime_error(t.error().message);
  return *std::move(t);
}

std::vector<int32_t> encode(const Tokenizer& t,
                            std::string_view text,
                            Specials specials = Specials::kAsText) {
  std::vector<int32_t> ids;
  t.encode(text, specials, ids);
  return ids;
}

/// Bytes of every kind: ASCII, multi-byte characters, parts of them, and noise.
std::string random_bytes(uint64_t seed, size_t size) {
  const Random random(seed, RandomPurpose::kTest, 0);
  static const std::vector<std::string> kParts = {" ",
                                                  "  ",
                                                  "\n",
                                                  "\r\n",
                                                  "\t",
                                                  std::string(1, '\0'),
                                                  "a",
                                                  "the",
                                                  " the",
                                                  "'s",
                                                  "12345",
                                                  "é",
                                                  "中文",
                                                  "한",
                                                  "👩‍👩‍👧",
                                                  "<|bos|>",
                                                  "<|",
                                                  "|>",
                                                  "\xff",
                                                  "\xc3",
                                                  "\xe4\xb8",
                                                  "\xf0\x9f\x91",
                                                  "\xed\xa0\x80",
                                                  "\xc0\xaf",
                                                  "\xf4\x90\x80\x80",
                                                  "e\u0301"};
  std::string out;
  for (uint64_t i = 0; out.size() < size; i += 2) {
    const uint64_t kind = random.below(i, kParts.size() + 4);
    if (kind < kParts.size()) {
      out += kParts[kind];
    } else {
      out += static_cast<char>(random.below(i + 1, 256));
    }
  }
  return out;
}

// --- agreement -----------------------------------------------------------------------------------

class Golden : public ::testing::TestWithParam<const char*> {};

TEST_P(Golden, IdsAreThoseOfHuggingFace) {
  const Result<std::string> text = read_file(data_path("goldens.json"));
  ASSERT_TRUE(text) << text.error().message;
  const Json cases = Json::parse(*text)["files"][GetParam()];
  ASSERT_GT(cases.size(), 40u);
  const Tokenizer t = load(GetParam());
  for (const Json& c : cases) {
    const auto input = c["text"].get<std::string>();
    const auto ids = c["ids"].get<std::vector<int32_t>>();
    const auto parsed = c.contains("parsed") ? c["parsed"].get<std::vector<int32_t>>() : ids;
    EXPECT_EQ(encode(t, input), ids) << input;
    EXPECT_EQ(encode(t, input, Specials::kParse), parsed) << input;
  }
}
INSTANTIATE_TEST_SUITE_P(Kinds,
                         Golden,
                         ::testing::Values("deepseek", "deepseek_v2", "llama3", "qwen2", "gpt2"));

// --- properties ----------------------------------------------------------------------------------

TEST(Tokenizer, EveryByteComesBack) {
  for (const char* name : {"deepseek", "llama3", "gpt2"}) {
    const Tokenizer t = load(name);
    for (uint64_t seed = 0; seed < 200; ++seed) {
      const std::string bytes = random_bytes(seed, 400);
      ASSERT_EQ(t.decode(encode(t, bytes, Specials::kPlain)), bytes) << name << " seed " << seed;
    }
    std::string all;
    for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
    EXPECT_EQ(t.decode(encode(t, all)), all);
  }
  const Tokenizer qwen = load("qwen2");  // NFC changes text once, and keeps ill-formed bytes
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::string bytes = random_bytes(seed, 400);
    ASSERT_EQ(qwen.decode(encode(qwen, bytes, Specials::kPlain)), to_nfc(bytes)) << "seed " << seed;
  }
}

/// DeepSeek-V2's vocabulary has no tokens for the bytes that UTF-8 never uses: text is not lost by
/// it, and of what is no text these bytes become U+FFFD.
TEST(Tokenizer, BytesThatNoTextHasNeedNoTokens) {
  const Tokenizer t = load("deepseek_v2");
  std::string all, expected;
  for (int b = 0; b < 256; ++b) {
    const bool absent = b == 0xC0 || b == 0xC1 || b >= 0xF5;
    all += static_cast<char>(b);
    expected += absent ? "\uFFFD" : std::string(1, static_cast<char>(b));
  }
  EXPECT_EQ(t.decode(encode(t, all)), expected);
  for (const char* text : {"smør \u00FF\u00C0", "中文 \U0010FFFF x", "\u007F\u0080\u07FF"})
    for (const Specials specials : {Specials::kAsText, Specials::kParse, Specials::kPlain})
      EXPECT_EQ(t.decode(encode(t, text, specials)), text);
}

/// SmolLM2's has none for some control characters, nor for the first bytes of empty planes: as with
/// Hugging Face's tokenizers, they are left out after the text was cut into pieces.
TEST(Tokenizer, BytesWithoutTokensAreLeftOut) {
  Json file = Json::parse(*read_file(data_path("gpt2.json")));
  const auto parsed = [&] { return Tokenizer::parse(file.dump(), "tokenizer.json"); };
  const Tokenizer whole = *parsed();
  const auto take = [&](unsigned char byte) {
    const char c = static_cast<char>(byte);
    Json& vocab = file["model"]["vocab"];
    const std::string letter = bytes_to_letters({&c, 1});
    vocab["none for " + std::to_string(byte)] = vocab.at(letter);
    vocab.erase(letter);
  };
  take(0x04);
  take(0xF1);
  const Result<Tokenizer> some = parsed();
  ASSERT_TRUE(some) << some.error().message;
  EXPECT_EQ(encode(*some, "the ferry"), encode(whole, "the ferry"));
  EXPECT_EQ(some->decode(encode(*some,
                                "a\x04"
                                "b\x04")),
            "ab");
  std::vector<int32_t> parts = encode(whole, "a");  // two pieces, and not "ab"
  for (const int32_t id : encode(whole, "b")) parts.push_back(id);
  EXPECT_EQ(encode(*some,
                   "a\x04"
                   "b"),
            parts);
  EXPECT_EQ(encode(*some, "\x04"), std::vector<int32_t>{});
  EXPECT_EQ(some->decode(encode(*some, "\U00050000")), "\x90\x80\x80");
  take('q');
  ASSERT_FALSE(parsed());
  EXPECT_NE(parsed().error().message.find("no token for byte 0x71"), std::string::npos);
}

TEST(Tokenizer, StreamingEqualsWhole) {
  const Tokenizer t = load("deepseek");
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Random random(seed, RandomPurpose::kTest, 1);
    std::vector<int32_t> ids = encode(t, random_bytes(seed, 200), Specials::kParse);
    if (seed % 2 == 0) {  // any ids, as a model may generate them
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(random.below(i, 700));
    }
    for (const bool skip : {false, true}) {
      StreamDecoder stream(t, skip);
      std::string text;
      for (const int32_t id : ids) {
        const std::string part = stream.push(id);
        EXPECT_EQ(well_formed_prefix(part), part.size());
        EXPECT_LE(stream.bytes_held(), 3u);
        text += part;
      }
      text += stream.flush();
      EXPECT_EQ(text, replace_ill_formed(t.decode(ids, skip))) << "seed " << seed;
    }
  }
}

TEST(StreamDecoder, HoldsBackPartsOfCharacters) {
  const Tokenizer t = load("deepseek");
  const auto byte = [&](char b) { return *t.token_id(bytes_to_letters({&b, 1})); };
  StreamDecoder stream(t);
  EXPECT_EQ(stream.push(byte('\xf0')), "");
  EXPECT_EQ(stream.push(byte('\x9f')), "");
  EXPECT_EQ(stream.push(byte('\x91')), "");
  EXPECT_EQ(stream.push(byte('\x8d')), "👍");
  EXPECT_EQ(stream.push(byte('\xe4')), "");
  EXPECT_EQ(stream.push(byte('a')), "\uFFFDa");  // nothing can complete it any more
  EXPECT_EQ(stream.push(byte('\xe4')), "");
  EXPECT_EQ(stream.push(byte('\xb8')), "");
  EXPECT_EQ(stream.flush(), "\uFFFD");
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(stream.push(*t.token_id("<|eos|>")), "<|eos|>");
  EXPECT_EQ(StreamDecoder(t, true).push(*t.token_id("<|eos|>")), "");
}

/// However an answer is cut into ids, its text ends before the first stop string.
TEST(AnswerText, EndsBeforeTheFirstStopString) {
  const Tokenizer t = load("deepseek");
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const Random random(seed, RandomPurpose::kTest, 2);
    std::string text;
    for (uint64_t i = 0; i < 40; ++i) text += "aabc \n"[random.below(i, 6)];
    std::vector<std::string> stop;
    for (uint64_t s = 0; s < random.below(90, 4); ++s)
      stop.push_back(text.substr(random.below(91 + 2 * s, 38), random.below(92 + 2 * s, 4)));
    stop.push_back("aabca");
    size_t end = std::string::npos;
    for (const std::string& s : stop)
      if (!s.empty()) end = std::min(end, text.find(s));
    std::vector<int32_t> ids = encode(t, text, Specials::kAsText);
    if (seed % 2 == 0) {  // byte by byte
      ids.clear();
      for (const char c : text) ids.push_back(*t.token_id(bytes_to_letters({&c, 1})));
    }
    AnswerText answer(t, stop);
    std::string got;
    for (const int32_t id : ids) got += answer.push(id);
    got += answer.flush();
    EXPECT_EQ(got, text.substr(0, end)) << "seed " << seed;
    EXPECT_EQ(answer.stopped(), end != std::string::npos);
  }
}

TEST(Tokenizer, SpecialTextIsOrdinaryUnlessAskedFor) {
  for (const char* name : {"deepseek", "deepseek_v2", "llama3", "qwen2", "gpt2"}) {
    const Tokenizer t = load(name);
    const std::string text = "<|bos|><|eos|> <|pad|><|sp|>a <|both|> b<|bos|>";
    for (const Specials specials : {Specials::kAsText, Specials::kPlain}) {
      const std::vector<int32_t> ids = encode(t, text, specials);
      for (const int32_t id : ids) EXPECT_FALSE(t.is_special(id)) << name << ": " << id;
      EXPECT_EQ(t.decode(ids), text);
      EXPECT_EQ(t.decode(ids, /*skip_specials=*/true), text);
    }
    const std::vector<int32_t> parsed = encode(t, "<|bos|>hi<|eos|>", Specials::kParse);
    EXPECT_EQ(parsed.front(), *t.token_id("<|bos|>"));
    EXPECT_EQ(parsed.back(), *t.token_id("<|eos|>"));
    EXPECT_EQ(t.decode(parsed), "<|bos|>hi<|eos|>");
    EXPECT_EQ(t.decode(parsed, true), "hi");
  }
}

TEST(Tokenizer, PlainLeavesAllAddedTokensOut) {
  const Tokenizer t = load("llama3");
  const int32_t think = *t.token_id("<think>");
  EXPECT_EQ(encode(t, "<think>"), std::vector<int32_t>{think});
  const std::vector<int32_t> plain = encode(t, "<think>", Specials::kPlain);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), think), 0);
  EXPECT_EQ(t.decode(plain), "<think>");
}

TEST(Tokenizer, LookUps) {
  const Tokenizer t = load("deepseek");
  EXPECT_EQ(t.vocab_size(), 700);
  EXPECT_EQ(t.token_id("<|bos|>"), 0);
  EXPECT_EQ(t.token_id("no such token"), std::nullopt);
  EXPECT_TRUE(t.is_special(0));
  for (const int32_t bad : {-1, 700, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(t.token_bytes(bad), "");
    EXPECT_FALSE(t.is_special(bad));
  }
  EXPECT_EQ(t.decode(std::vector<int32_t>{-5, 100000}), "");
}

TEST(Tokenizer, LongLinesOfEveryKind) {
  const Tokenizer t = load("deepseek");
  constexpr size_t kBytes = 1 << 20;
  std::string words;
  while (words.size() < kBytes) words += "thequickbrownfox";
  std::string noise;
  const Random random(5, RandomPurpose::kTest, 2);
  for (size_t i = 0; i < kBytes; ++i) noise += static_cast<char>(random.below(i, 256));
  for (const std::string& line : {std::string(kBytes, 'a'),
                                  std::string(kBytes, ' '),
                                  std::string(kBytes, '\xff'),
                                  std::string(kBytes, '\0'),
                                  words,
                                  noise}) {
    EXPECT_EQ(t.decode(encode(t, line)), line);
  }
}

TEST(Tokenizer, ThreadsAgree) {
  const Tokenizer t = load("deepseek");
  std::vector<std::vector<int32_t>> results(16);
  ThreadPool pool(4);
  pool.parallel_for(16, [&](int64_t task, int) {
    for (uint64_t seed = 0; seed < 20; ++seed)
      t.encode(random_bytes(seed, 300), Specials::kParse, results[task]);
  });
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

// --- bad files -----------------------------------------------------------------------------------

Json good_file() {
  const Result<std::string> text = read_file(data_path("deepseek.json"));
  if (!text) throw std::runtime_error(text.error().message);
  return Json::parse(*text);
}

struct BadFile {
  const char* name;
  Code code;
  const char* says;  // a part of the message
  std::function<void(Json&)> spoil;
};

class Bad : public ::testing::TestWithParam<BadFile> {};

TEST_P(Bad, IsRefusedByName) {
  Json file = good_file();
  GetParam().spoil(file);
  const Result<Tokenizer> t = Tokenizer::parse(file.dump(), "some/tokenizer.json");
  ASSERT_FALSE(t);
  EXPECT_EQ(t.error().code, GetParam().code) << t.error().message;
  EXPECT_NE(t.error().message.find(GetParam().says), std::string::npos) << t.error().message;
  EXPECT_EQ(t.error().message.rfind("some/tokenizer.json: ", 0), 0u) << t.error().message;
}

Json split_step(const std::string& pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}
Json added(int id, const std::string& content, bool special = true) {
  return {{"id", id},
          {"content", content},
          {"single_word", false},
          {"lstrip", false},
          {"rstrip", false},
          {"normalized", false},
          {"special", special}};
}

INSTANTIATE_TEST_SUITE_P(Files,
                         Bad,
                         ::testing::Values(BadFile{"Lowercase",
                                                   Code::kInvalidInput,
                                                   "Lowercase",
                                                   [](Json& f) {
                                                     f["normalizer"] = {{"type", "Lowercase"}};
                                                   }},
                                           BadFile{"NoPreTokenizer",
                                                   Code::kInvalidInput,
                                                   "pre_tokenizer",
                                                   [](Json& f) { f["pre_tokenizer"] = nullptr; }},
                                           BadFile{"Metaspace",
                                                   Code::kInvalidInput,
                                                   "Metaspace",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"] = {{"type", "Metaspace"}};
                                                   }},
                                           BadFile{"NoByteLevel",
                                                   Code::kInvalidInput,
                                                   "ByteLevel",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"] = split_step("a");
                                                   }},
                                           BadFile{"PrefixSpace",
                                                   Code::kInvalidInput,
                                                   "add_prefix_space",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"]["pretokenizers"][3]
                                                      ["add_prefix_space"] = true;
                                                   }},
                                           BadFile{"Removed",
                                                   Code::kInvalidInput,
                                                   "Removed",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"]["pretokenizers"][0]
                                                      ["behavior"] = "Removed";
                                                   }},
                                           BadFile{"CodesAndCategories",
                                                   Code::kInvalidInput,
                                                   "younger than PCRE2's tables",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"]["pretokenizers"][0] =
                                                         split_step("[\u0800-\u4e00]+|\\p{L}+");
                                                   }},
                                           BadFile{"Script",
                                                   Code::kInvalidInput,
                                                   "general category",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"]["pretokenizers"][0] =
                                                         split_step("\\p{Han}+");
                                                   }},
                                           BadFile{"Intersection",
                                                   Code::kInvalidInput,
                                                   "intersection",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"]["pretokenizers"][0] =
                                                         split_step("[a-z&&b]");
                                                   }},
                                           BadFile{"Nested",
                                                   Code::kInvalidInput,
                                                   "unbounded",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"]["pretokenizers"][0] =
                                                         split_step("(?:a+)+b");
                                                   }},
                                           BadFile{"Backreference",
                                                   Code::kInvalidInput,
                                                   "escape",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"]["pretokenizers"][0] =
                                                         split_step("(a)\\1");
                                                   }},
                                           BadFile{"OpenClass",
                                                   Code::kInvalidInput,
                                                   "class",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"]["pretokenizers"][0] =
                                                         split_step("[ab");
                                                   }},
                                           BadFile{"OpenGroup",
                                                   Code::kInvalidInput,
                                                   "offset",
                                                   [](Json& f) {
                                                     f["pre_tokenizer"]["pretokenizers"][0] =
                                                         split_step("(ab");
                                                   }},
                                           BadFile{"Decoder",
                                                   Code::kInvalidInput,
                                                   "decoder",
                                                   [](Json& f) {
                                                     f["decoder"] = {{"type", "WordPiece"}};
                                                   }},
                                           BadFile{"NoModel",
                                                   Code::kCorrupt,
                                                   "model",
                                                   [](Json& f) { f.erase("model"); }},
                                           BadFile{"Unigram",
                                                   Code::kInvalidInput,
                                                   "Unigram",
                                                   [](Json& f) { f["model"]["type"] = "Unigram"; }},
                                           BadFile{"Dropout",
                                                   Code::kInvalidInput,
                                                   "dropout",
                                                   [](Json& f) { f["model"]["dropout"] = 0.1; }},
                                           BadFile{"Prefix",
                                                   Code::kInvalidInput,
                                                   "continuing_subword_prefix",
                                                   [](Json& f) {
                                                     f["model"]["continuing_subword_prefix"] = "##";
                                                   }},
                                           BadFile{"Suffix",
                                                   Code::kInvalidInput,
                                                   "end_of_word_suffix",
                                                   [](Json& f) {
                                                     f["model"]["end_of_word_suffix"] = "</w>";
                                                   }},
                                           BadFile{"FlagOfWrongType",
                                                   Code::kCorrupt,
                                                   "ignore_merges",
                                                   [](Json& f) {
                                                     f["model"]["ignore_merges"] = "yes";
                                                   }},
                                           BadFile{"VocabArray",
                                                   Code::kCorrupt,
                                                   "model.vocab",
                                                   [](Json& f) {
                                                     f["model"]["vocab"] = Json::array();
                                                   }},
                                           BadFile{"IdGap",
                                                   Code::kInvalidInput,
                                                   "gaps; Ferry reads",
                                                   [](Json& f) {
                                                     f["model"]["vocab"]["<|pad|>"] = 9000;
                                                   }},
                                           BadFile{
                                               "IdTwice",
                                               Code::kCorrupt,
                                               "has already",
                                               [](Json& f) { f["model"]["vocab"]["<|pad|>"] = 5; }},
                                           BadFile{"IdNegative",
                                                   Code::kCorrupt,
                                                   "is not an id",
                                                   [](Json& f) {
                                                     f["model"]["vocab"]["<|pad|>"] = -1;
                                                   }},
                                           BadFile{"IdFraction",
                                                   Code::kCorrupt,
                                                   "is not an id",
                                                   [](Json& f) {
                                                     f["model"]["vocab"]["<|pad|>"] = 1.5;
                                                   }},
                                           BadFile{"EmptyToken",
                                                   Code::kCorrupt,
                                                   "empty token",
                                                   [](Json& f) { f["model"]["vocab"][""] = 700; }},
                                           BadFile{"MissingByte",
                                                   Code::kInvalidInput,
                                                   "byte 0x41",
                                                   [](Json& f) {
                                                     const Json id = f["model"]["vocab"]["A"];
                                                     f["model"]["vocab"].erase("A");
                                                     f["model"]["vocab"]["AAAA"] = id;
                                                   }},
                                           BadFile{"MergesMissing",
                                                   Code::kCorrupt,
                                                   "model.merges",
                                                   [](Json& f) { f["model"].erase("merges"); }},
                                           BadFile{"MergeTwice",
                                                   Code::kCorrupt,
                                                   "as an earlier one does",
                                                   [](Json& f) {
                                                     f["model"]["merges"].push_back(
                                                         f["model"]["merges"][0]);
                                                   }},
                                           BadFile{"MergeOfItself",
                                                   Code::kCorrupt,
                                                   "empty side",
                                                   [](Json& f) {
                                                     f["model"]["merges"].push_back({"a", ""});
                                                   }},
                                           BadFile{"MergeUnknown",
                                                   Code::kCorrupt,
                                                   "lacks",
                                                   [](Json& f) {
                                                     f["model"]["merges"].push_back({"a", "zzzz"});
                                                   }},
                                           BadFile{"MergeProductUnknown",
                                                   Code::kCorrupt,
                                                   "lacks",
                                                   [](Json& f) {
                                                     f["model"]["merges"].push_back("Q Q");
                                                   }},
                                           BadFile{"MergeThree",
                                                   Code::kCorrupt,
                                                   "two tokens",
                                                   [](Json& f) {
                                                     f["model"]["merges"].push_back("a b c");
                                                   }},
                                           BadFile{
                                               "MergeNumber",
                                               Code::kCorrupt,
                                               "neither",
                                               [](Json& f) { f["model"]["merges"].push_back(7); }},
                                           BadFile{"AddedGap",
                                                   Code::kInvalidInput,
                                                   "gaps; Ferry reads",
                                                   [](Json& f) {
                                                     f["added_tokens"].push_back(added(702, "<x>"));
                                                   }},
                                           BadFile{"AddedClash",
                                                   Code::kCorrupt,
                                                   "clash",
                                                   [](Json& f) {
                                                     f["added_tokens"].push_back(added(4, "<x>"));
                                                   }},
                                           BadFile{"AddedTwice",
                                                   Code::kCorrupt,
                                                   "earlier one",
                                                   [](Json& f) {
                                                     f["added_tokens"].push_back(
                                                         f["added_tokens"][0]);
                                                   }},
                                           BadFile{"AddedEmpty",
                                                   Code::kCorrupt,
                                                   "content",
                                                   [](Json& f) {
                                                     f["added_tokens"].push_back(added(700, ""));
                                                   }},
                                           BadFile{"AddedLong",
                                                   Code::kInvalidInput,
                                                   "longer",
                                                   [](Json& f) {
                                                     f["added_tokens"].push_back(
                                                         added(700, std::string(2000, 'x')));
                                                   }},
                                           BadFile{"AddedFlagMissing",
                                                   Code::kCorrupt,
                                                   "lstrip",
                                                   [](Json& f) {
                                                     f["added_tokens"][0].erase("lstrip");
                                                   }},
                                           BadFile{"SpecialIsAByte",
                                                   Code::kInvalidInput,
                                                   "token of a byte",
                                                   [](Json& f) {
                                                     f["added_tokens"].push_back(
                                                         added(f["model"]["vocab"]["A"], "A"));
                                                   }},
                                           BadFile{"SpecialIsMerged",
                                                   Code::kInvalidInput,
                                                   "made by a merge",
                                                   [](Json& f) {
                                                     const auto& m = f["model"]["merges"][0];
                                                     const std::string whole =
                                                         m[0].get<std::string>() +
                                                         m[1].get<std::string>();
                                                     f["added_tokens"].push_back(
                                                         added(f["model"]["vocab"][whole], whole));
                                                   }}),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

TEST(Tokenizer, SettingsThatSayNothingAreAccepted) {
  Json file = good_file();
  const Result<Tokenizer> plain = Tokenizer::parse(file.dump(), "t.json");
  file["truncation"] = {{"max_length", 5}, {"direction", "Right"}};
  file["padding"] = {{"strategy", "BatchLongest"}, {"pad_id", 0}};
  file["model"]["byte_fallback"] = true;  // every byte has a token, so nothing falls back
  file["model"]["unk_token"] = "<unk>";
  file["model"]["fuse_unk"] = true;
  const Result<Tokenizer> t = Tokenizer::parse(file.dump(), "t.json");
  ASSERT_TRUE(t) << t.error().message;
  const std::string text = random_bytes(3, 400);
  EXPECT_EQ(encode(*t, text), encode(*plain, text));
}

TEST(Tokenizer, VocabulariesAreComparedNotTheirSizes) {
  const Json file = good_file();
  const auto parsed = [](const Json& f) {
    Result<Tokenizer> t = Tokenizer::parse(f.dump(), "t.json");
    EXPECT_TRUE(t) << t.error().message;
    return *std::move(t);
  };
  const Tokenizer t = parsed(file);
  EXPECT_EQ(t.difference_from(parsed(file)), std::nullopt);
  EXPECT_EQ(t.vocabulary(), parsed(file).vocabulary());

  Json swapped = file;  // two ids change places: the sizes are equal
  std::swap(swapped["model"]["vocab"]["a"], swapped["model"]["vocab"]["b"]);
  const Tokenizer other = parsed(swapped);
  EXPECT_NE(t.vocabulary(), other.vocabulary());
  ASSERT_TRUE(t.difference_from(other));
  EXPECT_NE(t.difference_from(other)->find("'a' in one and 'b' in the other"), std::string::npos)
      << *t.difference_from(other);

  Json reordered = file;
  auto& merges = reordered["model"]["merges"];
  ASSERT_GE(merges.size(), 2u);
  std::swap(merges[0], merges[1]);
  ASSERT_TRUE(t.difference_from(parsed(reordered)));
  EXPECT_NE(t.difference_from(parsed(reordered))->find("merges"), std::string::npos);

  // The same ids and merges, and yet other ids for the same text.
  Json cut = file, normalized = file, whole = file, flagged = file;
  cut["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Digits"}, {"individual_digits", true}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}}}};
  normalized["normalizer"] = {{"type", "NFC"}};
  whole["model"]["ignore_merges"] = true;
  for (const Json& f : {cut, normalized, whole}) {
    const Tokenizer one = parsed(f);
    ASSERT_TRUE(t.difference_from(one)) << f["pre_tokenizer"];
    EXPECT_NE(t.difference_from(one)->find("how text is cut"), std::string::npos);
    EXPECT_NE(t.vocabulary(), one.vocabulary());
    EXPECT_EQ(one.difference_from(parsed(f)), std::nullopt);
  }
  // What no text is cut by is no difference.
  flagged["truncation"] = {{"max_length", 5}, {"strategy", "LongestFirst"}, {"stride", 0}};
  EXPECT_EQ(t.difference_from(parsed(flagged)), std::nullopt);

  Json more = file;  // chat tokens that were added later
  more["added_tokens"].push_back(added(t.vocab_size(), "<|user|>"));
  const Tokenizer larger = parsed(more);
  EXPECT_EQ(t.difference_from(larger), std::nullopt);
  EXPECT_TRUE(larger.holds(t.vocabulary()));
  ASSERT_TRUE(larger.difference_from(t));
  EXPECT_FALSE(t.holds(larger.vocabulary()));
  EXPECT_NE(t.vocabulary(), larger.vocabulary());
}

/// By each of its marks a text may get other ids.
TEST(Tokenizer, AddedTokensAreComparedWithTheirMarks) {
  Json file = good_file();
  const auto parsed = [](const Json& f) {
    Result<Tokenizer> t = Tokenizer::parse(f.dump(), "t.json");
    EXPECT_TRUE(t) << t.error().message;
    return *std::move(t);
  };
  const int32_t id = parsed(file).vocab_size();
  file["added_tokens"].push_back(added(id, "<|user|>"));
  const Tokenizer t = parsed(file);
  for (const char* mark : {"special", "single_word", "lstrip", "rstrip", "normalized"}) {
    Json marked = file;
    Json& flag = marked["added_tokens"].back()[mark];
    flag = !flag.get<bool>();
    const Tokenizer other = parsed(marked);
    EXPECT_FALSE(other.holds(t.vocabulary())) << mark;
    EXPECT_EQ(t.difference_from(other).value_or("none"),
              fmt::format("id {}, '<|user|>', is {} in one and not in the other", id, mark));
  }
  Json more = file;  // a word that was there, and is now an added token
  const int32_t a = *t.token_id("a");
  more["added_tokens"].push_back(added(a, "a", false));
  EXPECT_EQ(t.difference_from(parsed(more)).value_or("none"),
            fmt::format("id {}, 'a', is an added token in one and not in the other", a));
}

TEST(BadText, IsRefusedWithItsPlace) {
  const std::string good = good_file().dump();
  for (const std::string& text : {std::string(),
                                  std::string("{"),
                                  std::string("[]"),
                                  good.substr(0, good.size() / 2),
                                  std::string(100000, '['),
                                  std::string("\0\0\0", 3),
                                  "\xff\xfe" + good,
                                  std::string("{\"model\": \"\xff\"}"),
                                  good + "x"}) {
    const Result<Tokenizer> t = Tokenizer::parse(text, "f.json");
    ASSERT_FALSE(t);
    EXPECT_EQ(t.error().code, Code::kCorrupt) << t.error().message;
  }
  std::string twice = good;  // a token named twice, with the same id: JSON readers keep the last
  const size_t at = twice.find("\"vocab\":{") + 9;
  twice.insert(at, "\"!\":3,");
  const Result<Tokenizer> t = Tokenizer::parse(twice, "f.json");
  ASSERT_FALSE(t);
  EXPECT_NE(t.error().message.find("different ones"), std::string::npos) << t.error().message;
  EXPECT_EQ(Tokenizer::load("/no/such/tokenizer.json").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace ferry::text
