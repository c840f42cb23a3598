// Who holds, or has computed, something else than he should: rules over hashes that all ranks of a run have told each
// other. Pure: every rank works it out for itself, and all come to the same.
//
// What is compared before a step is committed, and by what somebody is convicted:
//
//     weights, optimizer's state   by whoever holds them, if they are not what they were when they were last written,
//                                  though nobody has written since: by that alone
//     a weight                     its owner and its replica update it, each for itself: where these agree, whoever
//                                  has another one; where they do not, the owner, if somebody has the replica's (the
//                                  owner sent it to him, and has another one now)
//     a weight without an owner    every rank computes it itself: whoever has not what more than half have
//     what a rank has computed of  another one has computed it again. Where the two differ, all compute it again
//     a step (its share)           before anything is decided: more than half of them are right, and whoever
//                                  has found something else, then or before, is not
//     a sum of gradients           the owner has one, and the replica: where they differ, the step is computed again,
//                                  and who had another one the first time than both have the second time is convicted
//
// What is not decided by that is said of all who may be to blame: one of them is.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace ferry::corruption {

/// What one rank says: hashes, 0 for what it has nothing to say of.
struct Word {
  std::vector<uint64_t> weights;  // of each
  std::vector<uint64_t> state;    // of each weight: the optimizer's, of what it is held of here
  std::vector<uint64_t>
      sums;  // of each weight: of its gradients over the step, where they are held
  std::vector<uint64_t>
      shares;  // of each rank: what it has computed of the step, as this one finds
  /// That memory has changed though nobody wrote it: of each weight kWeightBit and kStateBit, in the last place
  /// kShareBit.
  std::vector<uint64_t> changed;

  bool operator==(const Word&) const = default;
};
inline constexpr uint64_t kWeightBit = 1, kStateBit = 2, kShareBit = 4;

/// Without anything said.
Word nothing_said(size_t weights, int ranks);
/// As numbers, always as many for as many weights and ranks; and back. check: there are as many.
std::vector<uint64_t> to_numbers(const Word& word);
Word word_of(std::span<const uint64_t> numbers, size_t weights, int ranks);
size_t numbers_of_word(size_t weights, int ranks);

/// What is wrong with whom.
struct Finding {
  enum class What {
    kWeightChanged,
    kStateChanged,
    kShareChanged,
    kWeight,  // it has another one than the others
    kState,
    kSum,
    kShare,  // it computed its own, or another rank's, wrongly
  };
  int rank = 0;
  What what = What::kWeight;
  size_t of = 0;  // a weight; of kShare, a rank
  bool operator==(const Finding&) const = default;
};

struct Verdict {
  std::vector<Finding> spoiled;   // convicted: of each such rank what was found first
  std::vector<Finding> suspects;  // where nobody is: one of these is spoiled
  bool again =
      false;  // where neither: all are to compute the step again, and judge it by both tries
  bool clean() const { return spoiled.empty() && suspects.empty() && !again; }
};

/// owners: of each weight, -1 of one that each rank computes itself. words: of each rank. before: what they said the
/// first time, of a step that is computed a second time; else empty.
Verdict judge(std::span<const int> owners,
              std::span<const Word> words,
              std::span<const Word> before = {});

/// Whose shares are to be computed by everybody, when a step is computed a second time after these words.
std::vector<bool> disputed_shares(std::span<const Word> words);

}  // namespace ferry::corruption
