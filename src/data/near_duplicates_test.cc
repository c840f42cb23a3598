#include "data/near_duplicates.h"

#include <set>

#include "data/data_testing.h"

namespace ferry::data {
namespace {

TEST(HashSet, HoldsWhatWasPutIn) {
  const Random random(5, RandomPurpose::kTest, 0);
  HashSet set;
  std::set<uint64_t> judge;
  for (uint64_t i = 0; i < 20000; ++i) {
    const uint64_t h = random.below(i, 9000) + 2;  // 0 and 1 are one value
    EXPECT_EQ(set.insert(h), judge.insert(h).second);
  }
  for (uint64_t h = 0; h <= 9100; ++h) EXPECT_EQ(set.find(h) >= 0, judge.contains(h)) << h;
  EXPECT_TRUE(HashSet().insert(0));
}

std::vector<uint64_t> shingles(std::string_view text) {
  std::vector<uint64_t> hashes;
  append_shingles(text, hashes);
  return hashes;
}

TEST(Shingles, AreFiveWordsWhateverStandsBetweenThem) {
  EXPECT_EQ(shingles("a b c d e f g").size(), 3u);
  EXPECT_EQ(shingles("The quick, BROWN fox\njumps!"), shingles("the quick brown fox jumps"));
  EXPECT_NE(shingles("the quick brown fox jumps"), shingles("the quick brown jumps fox"));
  EXPECT_EQ(shingles("x a b c d e")[1], shingles("a b c d e")[0]);
  EXPECT_EQ(shingles("two words").size(), 1u);
  EXPECT_EQ(shingles(" ,\n\0").size(), 0u);
  EXPECT_EQ(shingles("一二三四五六七八九十百").size(),
            2u);  // ten characters weigh as much as five words
}

TEST(OverlapIndex, SeesTheShareOfADocumentThatStandsElsewhere) {
  const Random random(6, RandomPurpose::kTest, 0);
  const std::string a = random_words(random, 0, 204), b = random_words(random, 1000, 204);
  const std::vector<std::string_view> held_out = {a, b};
  OverlapIndex index(held_out);
  std::vector<uint64_t> scratch;
  EXPECT_EQ(index.share_seen(a), 0);
  index.see(a.substr(0, a.size() / 2), scratch);
  EXPECT_NEAR(index.share_seen(a), 0.5, 0.05);
  EXPECT_EQ(index.share_seen(b), 0);
  index.see(random_words(random, 5000, 300) + " " + b + " " + random_words(random, 6000, 300),
            scratch);
  EXPECT_EQ(index.share_seen(b), 1);  // although the Jaccard similarity with that text is about 1/4
}

}  // namespace
}  // namespace ferry::data
