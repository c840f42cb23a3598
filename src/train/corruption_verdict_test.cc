// Who is convicted by the hashes that ranks have told each other: who is spoiled and nobody else; where nobody can
// know, all who may be.
#include "train/corruption_verdict.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/random.h"
#include "train/recovery_plan.h"

namespace ferry::corruption {
namespace {

using What = Finding::What;

/// Of a step in which nothing is wrong: weight i belongs to rank i % ranks, the last one to nobody. Each rank's share
/// was computed by the next rank as well.
struct Step {
  explicit Step(int r, size_t weights = 7) : ranks(r) {
    for (size_t i = 0; i + 1 < weights; ++i)
      owners.push_back(static_cast<int>(i % static_cast<size_t>(ranks)));
    owners.push_back(-1);
    for (int rank = 0; rank < ranks; ++rank) {
      Word& w = words.emplace_back(nothing_said(weights, ranks));
      for (size_t i = 0; i < weights; ++i) {
        w.weights[i] = 100 + i;
        if (owners[i] < 0 || !holds_of(rank, owners[i], ranks)) continue;
        w.state[i] = 200 + i;
        w.sums[i] = 300 + i;
      }
      look_at(w, rank);
      look_at(w, (rank + ranks - 1) % ranks);
    }
  }
  static void look_at(Word& w, int rank) {
    w.shares[static_cast<size_t>(rank)] = 400 + static_cast<uint64_t>(rank);
  }
  Word& of(int rank) { return words[static_cast<size_t>(rank)]; }
  Verdict judged(std::span<const Word> before = {}) const { return judge(owners, words, before); }
  /// The second try: of these everybody has computed the shares.
  Step second(const std::vector<bool>& disputed) const {
    Step again(ranks, owners.size());
    for (Word& w : again.words)
      for (int r = 0; r < ranks; ++r)
        if (disputed[static_cast<size_t>(r)]) look_at(w, r);
    return again;
  }

  int ranks;
  std::vector<int> owners;
  std::vector<Word> words;
};

std::vector<int> ranks_of(const std::vector<Finding>& findings) {
  std::vector<int> ranks;
  for (const Finding& f : findings) ranks.push_back(f.rank);
  std::sort(ranks.begin(), ranks.end());
  return ranks;
}

TEST(CorruptionVerdict, WhereAllIsAsItShouldBeNobodyIsConvicted) {
  for (int ranks = 2; ranks <= 9; ++ranks) EXPECT_TRUE(Step(ranks).judged().clean()) << ranks;
}

TEST(CorruptionVerdict, WordsGoThroughNumbers) {
  Step s(3);
  s.of(1).changed[2] = kStateBit;
  const std::vector<uint64_t> numbers = to_numbers(s.of(1));
  EXPECT_EQ(numbers.size(), numbers_of_word(7, 3));
  EXPECT_EQ(word_of(numbers, 7, 3), s.of(1));
  EXPECT_ANY_THROW(word_of(numbers, 7, 4));
}

TEST(CorruptionVerdict, MemoryThatChangedByItselfConvictsItsRankAlone) {
  for (const uint64_t bit : {kWeightBit, kStateBit, kShareBit}) {
    Step s(2);
    const size_t at = bit == kShareBit ? 7 : 3;
    s.of(1).changed[at] = bit;
    s.of(1).weights[3] = s.of(1).sums[3] = s.of(1).state[3] = s.of(1).shares[1] = 5;
    const Verdict v = s.judged();
    ASSERT_EQ(ranks_of(v.spoiled), std::vector<int>{1});
    EXPECT_EQ(v.spoiled[0].what,
              bit == kWeightBit  ? What::kWeightChanged
              : bit == kStateBit ? What::kStateChanged
                                 : What::kShareChanged);
    EXPECT_TRUE(v.suspects.empty());
    EXPECT_FALSE(v.again);
  }
}

// Weight 1 is rank 1's, and its replica is rank 2.
TEST(CorruptionVerdict, WhoHasAnotherWeightThanOwnerAndReplicaIsConvicted) {
  for (const int rank : {0, 3}) {
    Step s(4);
    s.of(rank).weights[1] = 5;
    EXPECT_EQ(s.judged().spoiled, (std::vector<Finding>{{rank, What::kWeight, 1}}));
  }
  Step owner(4);  // sent another one than it has now
  owner.of(1).weights[1] = 5;
  EXPECT_EQ(owner.judged().spoiled, (std::vector<Finding>{{1, What::kWeight, 1}}));
  Step replica(4);  // or the owner sent all what it should not have
  replica.of(2).weights[1] = 5;
  EXPECT_TRUE(replica.judged().spoiled.empty());
  EXPECT_EQ(ranks_of(replica.judged().suspects), (std::vector<int>{1, 2}));
  Step state(4);
  state.of(1).state[1] = 5;
  EXPECT_EQ(state.judged().suspects,
            (std::vector<Finding>{{1, What::kState, 1}, {2, What::kState, 1}}));
}

TEST(CorruptionVerdict, OfWhatEachComputesItselfMostAreRight) {
  Step s(3);
  s.of(0).weights[6] = 5;
  EXPECT_EQ(s.judged().spoiled, (std::vector<Finding>{{0, What::kWeight, 6}}));
  Step two(2);
  two.of(0).weights[6] = 5;
  EXPECT_TRUE(two.judged().spoiled.empty());
  EXPECT_EQ(ranks_of(two.judged().suspects), (std::vector<int>{0, 1}));
}

TEST(CorruptionVerdict, WhoComputedAShareWronglyOnceIsConvictedByTheSecondTry) {
  for (const int ranks : {2, 3, 5})
    for (const int wrong :
         {1, 2 % ranks}) {  // rank 1, whose share it is, and who computed it again
      Step s(ranks);
      s.of(wrong).shares[1] = 5;
      const Verdict first = s.judged();
      EXPECT_TRUE(first.again && first.spoiled.empty() && first.suspects.empty());
      const std::vector<bool> disputed = disputed_shares(s.words);
      EXPECT_EQ(std::count(disputed.begin(), disputed.end(), true), 1);
      EXPECT_TRUE(disputed[1]);
      const Verdict v = s.second(disputed).judged(s.words);
      EXPECT_EQ(v.spoiled, (std::vector<Finding>{{wrong, What::kShare, 1}})) << ranks;
    }
}

TEST(CorruptionVerdict, WhoComputesAShareWronglyAgainIsConvictedByMoreThanHalf) {
  for (const int ranks : {2, 3, 5}) {
    Step s(ranks);
    s.of(1).shares[1] = 5;
    Step again = s.second(disputed_shares(s.words));
    again.of(1).shares[1] = 5;
    const Verdict v = again.judged(s.words);
    if (ranks == 2) {
      EXPECT_TRUE(v.spoiled.empty());
      EXPECT_EQ(ranks_of(v.suspects), (std::vector<int>{0, 1})) << "each says the same again";
    } else {
      EXPECT_EQ(v.spoiled, (std::vector<Finding>{{1, What::kShare, 1}})) << ranks;
    }
  }
}

TEST(CorruptionVerdict, WhoHadAnotherSumIsConvictedByTheSecondTry) {
  for (const int wrong : {1, 2}) {
    Step s(4);
    s.of(wrong).sums[1] = 5;
    EXPECT_TRUE(s.judged().again);
    const std::vector<bool> none(4, false);
    EXPECT_EQ(s.second(none).judged(s.words).spoiled,
              (std::vector<Finding>{{wrong, What::kSum, 1}}));
    Step again = s.second(none);
    again.of(wrong).sums[1] = 5;
    EXPECT_TRUE(again.judged(s.words).spoiled.empty());
    EXPECT_EQ(ranks_of(again.judged(s.words).suspects), (std::vector<int>{1, 2}));
  }
}

// Of one rank that is spoiled once, whatever of it, and however often it says so.
TEST(CorruptionVerdict, WhoIsConvictedIsSpoiledAndWhoIsSpoiledIsFound) {
  int64_t convicted = 0, suspected = 0;
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    const Random random(seed, RandomPurpose::kTest, 0);
    Step s(2 + static_cast<int>(random.below(0, 8)));
    const auto rank = static_cast<int>(random.below(1, static_cast<uint64_t>(s.ranks)));
    Word& word = s.of(rank);
    bool any = false;
    for (size_t n = 0; n < 1 + random.below(2, 3); ++n) {
      std::vector<uint64_t>* const parts[] = {&word.weights, &word.state, &word.sums, &word.shares};
      std::vector<uint64_t>& part = *parts[random.below(10 + 2 * n, 4)];
      uint64_t& value = part[random.below(11 + 2 * n, part.size())];
      if (value != 0) value = 7 + n;
      any |= value == 7 + n;
    }
    Verdict v = s.judged();
    if (v.again) v = s.second(disputed_shares(s.words)).judged(s.words);
    EXPECT_EQ(v.clean(), !any) << seed;
    if (!v.spoiled.empty()) {
      EXPECT_EQ(ranks_of(v.spoiled), std::vector<int>{rank}) << seed;
    } else if (any) {
      const std::vector<int> suspects = ranks_of(v.suspects);
      EXPECT_NE(std::find(suspects.begin(), suspects.end(), rank), suspects.end()) << seed;
    }
    convicted += !v.spoiled.empty();
    suspected += !v.suspects.empty();
  }
  EXPECT_GT(convicted, 8000);
  EXPECT_GT(suspected, 1000);
}

}  // namespace
}  // namespace ferry::corruption
