// What becomes of a step, and of what a rank held, when a rank is gone: rules that follow from where the others
// are. Pure: every rank works it out for itself, and all come to the same.
//
// A step changes nothing of a rank before it has heard from every rank that the step's sums are where they belong,
// each at the owner of its weight and at the owner's replica: that is the step's commit point. So if any rank that
// lives has heard it of all, every sum exists twice, and the step can be finished without whoever is gone. If none
// has, nothing has changed anywhere, and the step is begun again. Either way the bits are the same.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"

namespace ferry {

/// Who holds the optimizer's state of an owner's weights a second time, and updates them as well: the next rank.
inline int replica_of(int owner, int ranks) { return (owner + 1) % ranks; }

/// An owner whose replica is gone like itself, of ranks that hold what is theirs to hold, or do not; none: together
/// they have all there is.
std::optional<int> lost_with_replica(const std::vector<bool>& whole);

/// Whether a rank has the state of what this one owns, as its owner or as the owner's replica.
inline bool holds_of(int rank, int owner, int ranks) {
  return rank == owner || rank == replica_of(owner, ranks);
}

/// Where a rank is.
struct Standing {
  enum class Stage {
    kNothing,  // it takes the place of another, and has not got all that belongs to it yet
    kBetween,  // it has what belongs to it after step `done`, and has begun to change nothing of it
    kPrepared,  // the same, and has told that its sums of the next step are there
    kCommitted,  // it has heard the same of all, and has updated what it holds; others' weights are on their way
  };
  Stage stage = Stage::kNothing;
  int64_t done = 0;  // steps
  bool operator==(const Standing&) const = default;
};

/// What is to be done together.
struct RecoveryPlan {
  int64_t done = 0;  // steps, when it has been carried out
  bool forward =
      false;  // a step is finished by it; where there was one under way and it is not, it is begun again
  int teller = 0;  // the lowest rank that has all that successors need
  int hears =
      0;  // the lowest rank that has heard of all that the step that is finished was prepared
  std::vector<bool> fresh;     // of each rank: it has nothing yet
  std::vector<bool> prepared;  // it needs to hear what `hears` has, and updates then
  std::vector<bool> behind;    // it needs others' weights
  std::vector<int> giver;      // of each owner's weights and state: it, or its replica

  /// Whether the rank is given an owner's weights; and the state of what it holds.
  bool lacks_weights(int rank, int owner) const;
  bool lacks_state(int rank, int owner) const;
};

/// Errors: kUnavailable: an owner and its replica are both gone, or what ranks say of themselves cannot be.
Result<RecoveryPlan> plan_recovery(std::span<const Standing> ranks);

}  // namespace ferry
