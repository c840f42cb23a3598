#include "text/bpe.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "text/added_tokens.h"
#include "text/byte_alphabet.h"
#include "text/nfc.h"
#include "text/pretokenizer.h"
#include "text/utf8.h"

namespace ferry::text {
namespace {

/// A model over a few letters with random merges, in random order, cyclic spellings and all.
Bpe random_model(uint64_t seed, size_t merges, bool ignore_merges) {
  const Random random(seed, RandomPurpose::kTest, 0);
  Bpe::Parts parts;
  for (int b = 0; b < 256; ++b) {
    parts.byte_tokens[b] = b;
    parts.token_bytes.emplace_back(1, static_cast<char>(b));
  }
  std::vector<int32_t> made = {'a', 'b', 'c'};
  parts.merges = MergeTable(merges);
  parts.ignore_merges = ignore_merges;
  std::vector<std::array<int32_t, 3>> list;
  for (size_t i = 0; i < merges; ++i) {
    const int32_t left = made[random.below(2 * i, made.size())];
    const int32_t right = made[random.below(2 * i + 1, made.size())];
    const std::string bytes = parts.token_bytes[left] + parts.token_bytes[right];
    int32_t token = -1;
    for (const int32_t id : made) {
      if (parts.token_bytes[id] == bytes) token = id;
    }
    if (token < 0) {
      token = static_cast<int32_t>(parts.token_bytes.size());
      parts.token_bytes.push_back(bytes);
      made.push_back(token);
    }
    list.push_back({left, right, token});
  }
  for (size_t i = 0; i < list.size(); ++i) {  // a random order: tokens before the parts they need
    std::swap(list[i], list[random.below(1'000'000 + i, list.size())]);
  }
  uint32_t rank = 0;
  for (const auto& [left, right, token] : list) parts.merges.add(left, right, {rank++, token});
  for (const int32_t id : made) parts.whole_tokens.push_back(id);
  return Bpe(std::move(parts));
}

TEST(Bpe, EqualsItsDefinition) {
  BpeScratch scratch;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const Bpe bpe = random_model(seed, 5 + seed, seed % 3 == 0);
    BpeScratch own;
    const Random random(seed, RandomPurpose::kTest, 1);
    for (uint64_t i = 0; i < 40; ++i) {
      std::string piece;
      const size_t size = 1 + random.below(1000 * i, i < 30 ? 60 : 500);
      for (size_t j = 0; j < size; ++j)
        piece += static_cast<char>('a' + random.below(1000 * i + j + 1, 3));
      for (int twice = 0; twice < 2; ++twice) {  // the second time from the cache
        std::vector<int32_t> ids;
        bpe.encode(piece, own, ids);
        ASSERT_EQ(ids, bpe.encode_by_definition(piece)) << "seed " << seed << " piece " << piece;
      }
    }
  }
}

TEST(Bpe, WindowsEqualTheDefinition) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const Bpe bpe = random_model(seed, 40, false);
    BpeScratch scratch;
    const Random random(seed, RandomPurpose::kTest, 2);
    std::string piece;
    while (piece.size() < 14000) {
      const uint64_t i = piece.size();
      piece.append(1 + random.below(3 * i, seed % 2 == 0 ? 3 : 200),
                   static_cast<char>('a' + random.below(3 * i + 1, 3)));
    }
    std::vector<int32_t> ids;
    bpe.encode(piece, scratch, ids);
    ASSERT_EQ(ids, bpe.encode_by_definition(piece)) << "seed " << seed;
  }
}

TEST(AddedTokenFinder, LeftmostLongest) {
  const AddedTokenFinder finder({"<|a|>", "<|a", "b", "bcd", "cdefg"});
  AddedTokenFinder::Find find{};
  ASSERT_TRUE(finder.next("x<|a|>", 0, find));
  EXPECT_EQ(find.pattern, 0u);
  ASSERT_TRUE(finder.next("x<|a|", 0, find));
  EXPECT_EQ(find.pattern, 1u);
  EXPECT_EQ(find.end, 4u);
  ASSERT_TRUE(finder.next("bcdefg", 0, find));  // the leftmost wins over the longer one after it
  EXPECT_EQ(find.pattern, 3u);
  EXPECT_FALSE(finder.next("bcdefg", 3, find));
  EXPECT_FALSE(AddedTokenFinder().next("abc", 0, find));
}

TEST(AddedTokens, WordsAndSpaces) {
  EXPECT_TRUE(ends_with_word("caf\u00e9"));
  EXPECT_TRUE(ends_with_word("a_"));
  EXPECT_TRUE(begins_with_word("中"));
  for (const char* younger : {"\u1c8a", "\u0897", "\U00031350", "\U000113c9"})  // of Unicode 15 to 16
    EXPECT_TRUE(ends_with_word(younger) && begins_with_word(younger)) << younger;
  EXPECT_FALSE(ends_with_word("a "));
  EXPECT_FALSE(ends_with_word("a\xff"));
  EXPECT_FALSE(begins_with_word(""));
  EXPECT_EQ(trailing_space_begin("ab \u3000\u00a0\n"), 2u);
  EXPECT_EQ(leading_space_end(" \u2028x "), 4u);
  EXPECT_EQ(leading_space_end("\u200bx"), 0u);
}

TEST(PreTokenizer, PiecesCoverTheTextWhateverItsBytes) {
  for (const auto& patterns : {kDeepseekPatterns,
                               std::vector<std::string>{kLlama3Pattern},
                               std::vector<std::string>{"b*"},
                               std::vector<std::string>{}}) {
    const Result<PreTokenizer> p = PreTokenizer::compile(patterns);
    ASSERT_TRUE(p) << p.error().message;
    MatchScratch scratch;
    for (uint64_t seed = 0; seed < 100; ++seed) {
      const Random random(seed, RandomPurpose::kTest, 3);
      std::string text;
      for (uint64_t i = 0; i < 200; ++i) {
        if (random.below(2 * i, 3) == 0) {
          append_utf8(text, static_cast<char32_t>(0x80 + random.below(2 * i + 1, 0x3000)));
        } else {
          text += static_cast<char>(random.below(2 * i + 1, 256));
        }
      }
      std::string joined;
      p->split(text, scratch, [&](std::string_view piece) {
        EXPECT_FALSE(piece.empty());
        EXPECT_EQ(piece.data(), text.data() + joined.size());
        joined += piece;
      });
      EXPECT_EQ(joined, text);
    }
  }
}

std::vector<std::string> pieces(const std::vector<std::string>& patterns, std::string_view text) {
  const Result<PreTokenizer> p = PreTokenizer::compile(patterns);
  EXPECT_TRUE(p);
  MatchScratch scratch;
  std::vector<std::string> out;
  p->split(text, scratch, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

TEST(PreTokenizer, IllFormedBytesAreSymbols) {
  using Strings = std::vector<std::string>;
  EXPECT_EQ(pieces({kLlama3Pattern}, "ab \xff\xfe cd"), (Strings{"ab", " \xff\xfe", " cd"}));
  EXPECT_EQ(pieces({kLlama3Pattern}, "ab\xe4\xb8"), (Strings{"ab", "\xe4\xb8"}));
  EXPECT_EQ(pieces({kLlama3Pattern}, "I'LL 1234"), (Strings{"I", "'LL", " ", "123", "4"}));
  EXPECT_EQ(pieces({kLlama3Pattern}, "a\u180e \U00031350"),
            (Strings{"a", "\u180e", " \U00031350"}));
  EXPECT_EQ(pieces({"b*"}, "abbc"), (Strings{"a", "bb", "c"}));
  // Anchors are those of lines, as Oniguruma has them.
  EXPECT_EQ(pieces({"\\s+$"}, "a \n b "), (Strings{"a", " ", "\n b", " "}));
  EXPECT_EQ(pieces({"[ a]+$"}, "a  \n"), (Strings{"a  ", "\n"}));
  EXPECT_EQ(pieces({"^[ ab]+"}, "a \n b "), (Strings{"a ", "\n", " b "}));
  EXPECT_EQ(pieces({"a*$"}, "a \n b "), (Strings{"a ", "\n b "}));
  // Ranges are of characters as they are, categories of their stand-ins.
  EXPECT_EQ(pieces({"[\u0800-\u4e00]+"}, "a\u1c89\u4e00b"), (Strings{"a", "\u1c89\u4e00", "b"}));
  EXPECT_EQ(pieces({"\\p{Lu}"}, "a\u1c89\u4e00b"), (Strings{"a", "\u1c89", "\u4e00b"}));
  EXPECT_EQ(pieces({kDigitPattern}, "a12\U00011de0"), (Strings{"a", "1", "2", "\U00011de0"}));
  EXPECT_EQ(pieces({kDigitsPattern}, "a12\U00011de0b"), (Strings{"a", "12\U00011de0", "b"}));
}

TEST(SplitRegex, RefusesWhatTheEnginesReadDifferently) {
  for (const char* bad :
       {"\\w",     "\\b",         "\\h",    "\\Qa\\E", "\\1",     "\\x41", "\\pL",   "\\p{Han}",
        "\\p{^L}", "[[:alpha:]]", "[a&&b]", "[a[b]]",  "[]a]",    "(?i)a", "(?m:a)", "(?>a)",
        "(?<n>a)", "(*UTF)a",     "(a+)+",  "(a|b)*",  "(a){2,}", "a{,2}", "a{2}+",  "a{1,2}?",
        "a**",     "+a",          "a\\",    "{",       "a{"}) {
    const Result<SplitRegex> r = SplitRegex::compile(bad);
    ASSERT_FALSE(r) << bad;
    EXPECT_EQ(r.error().code, Code::kInvalidInput);
  }
  for (const char* good : {"a|b",
                           "(?i:'s)?",
                           "[^\\s\\p{L}]+",
                           "a{2,5}b",
                           "(?=a)b",
                           "(?<!a)b",
                           "\\.\\*",
                           "[a\\-z\\]]++",
                           "(ab){1,3}"}) {
    EXPECT_TRUE(SplitRegex::compile(good)) << good;
  }
}

TEST(Utf8, MaximalSubpartsAsPythonCountsThem) {
  EXPECT_EQ(replace_ill_formed("a\xff\xfe"), "a\uFFFD\uFFFD");
  EXPECT_EQ(replace_ill_formed("\xe4\xb8"), "\uFFFD");
  EXPECT_EQ(replace_ill_formed("\xe4\xb8x"), "\uFFFDx");
  EXPECT_EQ(replace_ill_formed("\xf0\x9f\x91\xf0\x9f\x91\x8d"), "\uFFFD👍");
  EXPECT_EQ(replace_ill_formed("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(replace_ill_formed("\xc0\xaf"), "\uFFFD\uFFFD");            // overlong
  EXPECT_EQ(replace_ill_formed("\xf4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replace_ill_formed("ok 中文"), "ok 中文");
}

TEST(ByteAlphabet, IsABijection) {
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  EXPECT_EQ(letters_to_bytes(bytes_to_letters(all)), all);
  EXPECT_EQ(bytes_to_letters(" \n\x7f\xad"), "ĠĊġŃ");
  EXPECT_EQ(letters_to_bytes("a b"), std::nullopt);
  EXPECT_EQ(letters_to_bytes("中"), std::nullopt);
}

TEST(Nfc, KnownForms) {
  EXPECT_EQ(to_nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(to_nfc("\u212b\u2126"), "\u00c5\u03a9");
  EXPECT_EQ(to_nfc("a\u0307\u0323"), "\u1ea1\u0307");
  EXPECT_EQ(to_nfc("\u1100\u1161\u11a8"), "\uac01");
  EXPECT_EQ(to_nfc("\uac00\u11a8"), "\uac01");
  EXPECT_EQ(to_nfc("\u0958"), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(to_nfc("\u0344"), "\u0308\u0301");
  EXPECT_EQ(to_nfc("e\xff\u0301"), "e\xff\u0301");
  EXPECT_FALSE(nfc_may_change("plain ASCII, \u00e9 and 中文"));
  EXPECT_TRUE(nfc_may_change("e\u0301"));
}

}  // namespace
}  // namespace ferry::text
