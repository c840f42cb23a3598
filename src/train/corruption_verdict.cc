#include "train/corruption_verdict.h"

#include <algorithm>

#include "base/check.h"
#include "train/recovery_plan.h"

namespace ferry::corruption {
namespace {

using What = Finding::What;

/// Of a rank what was found first.
void add(std::vector<Finding>& to, const Finding& finding) {
  const auto same = [&](const Finding& f) { return f.rank == finding.rank; };
  if (std::none_of(to.begin(), to.end(), same)) to.push_back(finding);
}

/// What more than half say; 0: there is no such thing.
uint64_t most_say(const std::vector<uint64_t>& values) {
  for (const uint64_t v : values)
    if (v != 0 && 2 * std::count(values.begin(), values.end(), v) > std::ssize(values)) return v;
  return 0;
}

class Judging {
 public:
  Judging(std::span<const int> owners, std::span<const Word> words, std::span<const Word> before)
      : owners_(owners), words_(words), before_(before), ranks_(static_cast<int>(words.size())) {}

  Verdict verdict() {
    changed();
    if (decided()) return verdict_;
    for (size_t i = 0; i < owners_.size(); ++i) {
      if (owners_[i] >= 0)
        owned(i);
      else
        unowned(i);
    }
    if (decided()) return verdict_;
    for (int r = 0; r < ranks_; ++r) share(r);
    // A rank that computes its share wrongly tells owner and replica the same; what else it may do nobody knows.
    if (decided()) return verdict_;
    for (size_t i = 0; i < owners_.size(); ++i) sum(i);
    return verdict_;
  }

 private:
  const Word& word(int rank) const { return words_[static_cast<size_t>(rank)]; }
  const Word& word_before(int rank) const { return before_[static_cast<size_t>(rank)]; }
  bool decided() {
    if (!verdict_.spoiled.empty()) verdict_.suspects.clear();
    return !verdict_.spoiled.empty() || !verdict_.suspects.empty();
  }
  void convict(int rank, What what, size_t of) { add(verdict_.spoiled, {rank, what, of}); }
  void suspect(int rank, What what, size_t of) { add(verdict_.suspects, {rank, what, of}); }

  void changed() {
    for (int r = 0; r < ranks_; ++r) {
      const std::vector<uint64_t>& bits = word(r).changed;
      for (size_t i = 0; i < bits.size(); ++i) {
        if ((bits[i] & kWeightBit) != 0) convict(r, What::kWeightChanged, i);
        if ((bits[i] & kStateBit) != 0) convict(r, What::kStateChanged, i);
        if ((bits[i] & kShareBit) != 0) convict(r, What::kShareChanged, static_cast<size_t>(r));
      }
    }
  }

  void owned(size_t i) {
    const int owner = owners_[i], replica = replica_of(owner, ranks_);
    const uint64_t theirs = word(owner).weights[i], copy = word(replica).weights[i];
    for (int r = 0; r < ranks_; ++r) {
      const uint64_t has = word(r).weights[i];
      if (has == theirs) continue;
      if (has != copy)
        convict(r, What::kWeight, i);
      else if (r != replica)
        convict(owner, What::kWeight, i);  // who sent what it has no more
    }
    if (theirs != copy) {
      suspect(owner, What::kWeight, i);
      suspect(replica, What::kWeight, i);
    }
    if (word(owner).state[i] != word(replica).state[i]) {
      suspect(owner, What::kState, i);
      suspect(replica, What::kState, i);
    }
  }

  void unowned(size_t i) {
    std::vector<uint64_t> all;
    for (int r = 0; r < ranks_; ++r) all.push_back(word(r).weights[i]);
    if (std::count(all.begin(), all.end(), all[0]) == std::ssize(all)) return;
    const uint64_t right = most_say(all);
    for (int r = 0; r < ranks_; ++r) {
      if (right == 0)
        suspect(r, What::kWeight, i);
      else if (word(r).weights[i] != right)
        convict(r, What::kWeight, i);
    }
  }

  void share(int rank) {
    const auto of = static_cast<size_t>(rank);
    if (before_.empty()) {
      verdict_.again |= disputed_shares(words_)[of];
      return;
    }
    if (!disputed_shares(before_)[of]) return;
    std::vector<uint64_t> all;
    for (int r = 0; r < ranks_; ++r) all.push_back(word(r).shares[of]);
    const uint64_t right = most_say(all);
    for (int r = 0; r < ranks_; ++r) {
      const uint64_t said = word_before(r).shares[of];
      if (right == 0 && said != 0) suspect(r, What::kShare, of);
      if (right != 0 && (word(r).shares[of] != right || (said != 0 && said != right)))
        convict(r, What::kShare, of);
    }
  }

  void sum(size_t i) {
    if (owners_[i] < 0) return;
    const int owner = owners_[i], replica = replica_of(owner, ranks_);
    const auto differ = [&](std::span<const Word> words) {
      return words[static_cast<size_t>(owner)].sums[i] !=
             words[static_cast<size_t>(replica)].sums[i];
    };
    if (before_.empty()) {
      verdict_.again |= differ(words_);
      return;
    }
    if (!differ(before_)) return;
    for (const int r : {owner, replica}) {
      if (differ(words_))
        suspect(r, What::kSum, i);
      else if (word_before(r).sums[i] != word(r).sums[i])
        convict(r, What::kSum, i);
    }
  }

  std::span<const int> owners_;
  std::span<const Word> words_, before_;
  int ranks_;
  Verdict verdict_;
};

}  // namespace

Word nothing_said(size_t weights, int ranks) {
  const std::vector<uint64_t> none(weights, 0);
  return {.weights = none,
          .state = none,
          .sums = none,
          .shares = std::vector<uint64_t>(static_cast<size_t>(ranks), 0),
          .changed = std::vector<uint64_t>(weights + 1, 0)};
}

size_t numbers_of_word(size_t weights, int ranks) {
  return 4 * weights + 1 + static_cast<size_t>(ranks);
}

std::vector<uint64_t> to_numbers(const Word& word) {
  std::vector<uint64_t> numbers;
  for (const std::vector<uint64_t>* part :
       {&word.weights, &word.state, &word.sums, &word.shares, &word.changed})
    numbers.insert(numbers.end(), part->begin(), part->end());
  return numbers;
}

Word word_of(std::span<const uint64_t> numbers, size_t weights, int ranks) {
  check(
      numbers.size() == numbers_of_word(weights, ranks), "corruption: {} numbers", numbers.size());
  Word word = nothing_said(weights, ranks);
  for (std::vector<uint64_t>* part :
       {&word.weights, &word.state, &word.sums, &word.shares, &word.changed}) {
    std::copy_n(numbers.begin(), part->size(), part->begin());
    numbers = numbers.subspan(part->size());
  }
  return word;
}

Verdict judge(std::span<const int> owners,
              std::span<const Word> words,
              std::span<const Word> before) {
  check(before.empty() || before.size() == words.size(), "corruption: {} words", before.size());
  return Judging(owners, words, before).verdict();
}

std::vector<bool> disputed_shares(std::span<const Word> words) {
  std::vector<bool> disputed(words.size(), false);
  for (size_t of = 0; of < words.size(); ++of) {
    const uint64_t own = words[of].shares[of];
    for (const Word& w : words)
      disputed[of] = disputed[of] || (own != 0 && w.shares[of] != 0 && w.shares[of] != own);
  }
  return disputed;
}

}  // namespace ferry::corruption
