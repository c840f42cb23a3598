// What keeps a run of several ranks from going on with what a chip, a core or memory has silently made wrong: hashes of
// all that a rank holds, and of what it computed of a step, go to everybody before the step is committed, and who has
// something else than he should leaves (train/corruption_verdict.h has the rules, train/audit_plan.h whose work is
// computed again by another). Nothing has been changed then by the step, so that it is made again by the others and a
// successor, with the bits of a run in which nothing happened.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "optim/optimizer.h"
#include "train/audit_plan.h"
#include "train/config.h"
#include "train/corruption_verdict.h"
#include "train/shared_step.h"

namespace ferry {

/// This rank holds, or has computed, something else than it should: it is to leave.
class Spoiled : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What train.corruption_checks asks for; nothing: there are to be none.
std::optional<AuditSettings> audits_of(const TrainSettings& settings);

/// The most that an audit takes beside what a step of so many micro-batches does: the sums of the share that is looked
/// at, or, later, what was there of one weight before its update, which is made twice. optimizer: rank 0's, which has
/// all state.
size_t audit_bytes(const Optimizer& optimizer, int ranks, int64_t micro_batches);

/// Owner: the loop. One thread. What is called by all ranks throws comm::LinkError; and where something is wrong,
/// Spoiled at the rank that is convicted, comm::LinkError at the others, when that one has left, and StateLost at all
/// where nobody could be convicted.
class CorruptionGuard {
 public:
  /// weights: all of the model. say: a line for the log.
  CorruptionGuard(const AuditSettings& settings,
                  SharedStep& shared,
                  Optimizer& optimizer,
                  const std::vector<Weight*>& weights,
                  std::function<void(const std::string&)> say);

  // A step, by all ranks, in this order.
  /// Whose shares this rank is to compute: perhaps its own among them, whose hash is wanted, too.
  std::vector<int> begin(int64_t step);
  void computed(int rank, uint64_t share);
  /// Of what was computed of a step. NaNs are one to it: which of two operands' bits a NaN has is the
  /// processor's choice, and a step that has one is refused, which is nobody's fault.
  static uint64_t hash_of(const SharedStep::Share& share);
  /// The same, counted as what checks cost.
  uint64_t hash_of_own(const SharedStep::Share& share);
  /// What this rank computed of a step, and is about to tell once more: throws Spoiled if it has not
  /// this hash any more.
  void look_at_share(const SharedStep::Share& own, uint64_t hash);
  /// Whether sums are to be made at owner and replica, each for itself.
  bool sums_at_both() const { return audited_ || second_try(); }
  /// The step's commit point: the squares as of SharedStep::commit(), or nothing: all are to compute the step again,
  /// and nothing of it is to be kept. own: what this rank has told the others of, hash: when it was computed.
  std::optional<std::vector<double>> commit(int64_t step,
                                            const std::vector<Tensor>& gradients,
                                            const SharedStep::Share& own,
                                            uint64_t hash);
  /// The update of what is held here, by `all`. Where the step is audited each weight's is made twice from the same:
  /// first by `one`, for one weight after the other, so that what was there is kept of one at a time. Throws Spoiled if
  /// that does not give the same.
  void update(const std::vector<Tensor>& gradients,
              const std::function<void(size_t)>& one,
              const std::function<void()>& all);
  /// All is what it is to be: after a step, before the first one, and when a successor is in place. What nobody has
  /// written since it was last looked at (Weight::version) is not looked at: it is to be what it was.
  void wrote();

  /// Between two steps, by all ranks: before something is kept for good.
  void compare(int64_t step);
  /// By all ranks: whether what they gave rank 0 for a checkpoint is what they hold, as the last compare()
  /// said. Where it is not they compare once more: a giver's memory may have changed since; if none's has,
  /// rank 0's has.
  void compare_collected(int64_t step);
  /// What this rank has is about to be given to a successor, or was: throws Spoiled if it has changed.
  void look_at_own() const;
  /// What it costs: of this rank, so far.
  struct Spent {
    double hashing_s = 0, auditing_s = 0;
  };
  const Spent& spent() const { return spent_; }
  /// Who computes other ranks' shares measures that itself.
  void audited_for(double seconds) { spent_.auditing_s += seconds; }

 private:
  /// Of each weight; where the state is not held here 0.
  struct Hashes {
    std::vector<uint64_t> weights, state;
  };
  Hashes hashes() const;
  /// Of one weight, and of what is held of its state.
  void hash_one(size_t weight, Hashes& to) const;
  bool holds(size_t weight) const;
  uint64_t hash_of_state(size_t weight) const;
  uint64_t hash_of_sum(const Tensor& sum, double squares) const;
  Hashes hashes_of_first(const std::vector<Tensor>& gradients,
                         const std::function<void(size_t)>& one);
  corruption::Word word();
  void mark_changed(const Hashes& now, std::vector<uint64_t>& changed) const;
  bool second_try() const { return !before_.empty(); }
  void follow(const corruption::Verdict& verdict, int64_t step);
  void wait_until_gone(int rank, int64_t step);
  std::string in_words(const corruption::Finding& finding) const;
  std::string in_words(const std::vector<corruption::Finding>& findings) const;
  int me() const { return shared_.ranks().rank(); }

  AuditSettings settings_;
  SharedStep& shared_;
  Optimizer& optimizer_;
  std::function<void(const std::string&)> say_;
  std::vector<Weight*> weights_;  // of the model, and those that are trained if they are others
  std::vector<size_t>
      trained_;              // of each, its place among those that are trained; kNone: it is not
  std::vector<int> owners_;  // of each; -1: nobody's
  Hashes written_;           // when they were last written; 0: that has not been yet
  std::vector<uint64_t> versions_;  // of each weight, then
  bool spreading_ = false;  // what is held here has been updated, what is not may be half there
  // Of the step under way.
  bool audited_ = false;
  std::vector<uint64_t> shares_;          // of each rank: what was found of it here
  std::vector<corruption::Word> before_;  // what was said at the first try, if this is the second
  std::vector<corruption::Word> words_;   // what was said last
  Spent spent_;
};

}  // namespace ferry
