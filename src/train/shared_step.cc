#include "train/shared_step.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/fault.h"
#include "optim/gradient_tree.h"
#include "train/flip_point_in.h"

namespace ferry {
namespace {

using comm::Purpose;

std::span<std::byte> memory_of(const Tensor& t) {
  return {static_cast<std::byte*>(t.data()), t.bytes()};
}

template <typename T>
void put(std::vector<std::byte>& to, std::span<const T> numbers) {
  const auto bytes = std::as_bytes(numbers);
  to.insert(to.end(), bytes.begin(), bytes.end());
}

/// The next so many numbers.
template <typename T>
std::vector<T> take(std::span<const std::byte>& from, size_t count) {
  std::vector<T> numbers(count);
  std::memcpy(numbers.data(), from.data(), count * sizeof(T));
  from = from.subspan(count * sizeof(T));
  return numbers;
}

/// The number of a message on its link. Both ends know it.
uint32_t index_of(size_t weight, size_t parts, size_t part) {
  return static_cast<uint32_t>(weight * parts + part);
}

}  // namespace

std::vector<int> owners_of_weights(const std::vector<Weight*>& trained, int ranks) {
  std::vector<uint64_t> bytes;
  for (const Weight* w : trained) bytes.push_back(w->value.bytes());
  return comm::owners_of(bytes, ranks);
}

Optimizer optimizer_at(const RankPlace& place,
                       const OptimizerSettings& settings,
                       const std::vector<Weight*>& weights) {
  const std::vector<int> owners =
      owners_of_weights(Optimizer::trained(settings, weights), place.ranks);
  return Optimizer(settings, weights, [&](size_t i) {
    return place.rank == 0 || holds_of(place.rank, owners[i], place.ranks);
  });
}

SharedStep::SharedStep(comm::Communicator& ranks,
                       std::vector<Weight*> weights,
                       double patience_s,
                       size_t bytes_at_once)
    : ranks_(ranks),
      weights_(std::move(weights)),
      owners_(owners_of_weights(weights_, ranks.ranks())),
      patience_s_(patience_s),
      bytes_at_once_(bytes_at_once) {
  for (const Weight* w : weights_)
    check(w->value.device().kind() == DeviceKind::kCpu && w->value.contiguous(),
          "shared step: {} is not in the host's memory",
          w->name);
}

const comm::ReducePlan& SharedStep::plan(int64_t micro_batches) {
  if (!plan_ || plan_->micro_batches() != micro_batches)
    plan_.emplace(micro_batches, ranks_.ranks());
  return *plan_;
}

/// What is sent and waited for while it lives is spent on steps.
class SharedStep::Counting {
 public:
  explicit Counting(SharedStep& of)
      : of_(of), bytes_(of.ranks_.bytes_sent()), begin_s_(system_clock().monotonic_s()) {}
  ~Counting() {
    of_.spent_.bytes += of_.ranks_.bytes_sent() - bytes_;
    of_.spent_.seconds += system_clock().monotonic_s() - begin_s_;
  }
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;

 private:
  SharedStep& of_;
  const uint64_t bytes_;
  const double begin_s_;
};

SharedStep::Whole SharedStep::reduce(int64_t step,
                                     int64_t micro_batches,
                                     Share share,
                                     bool at_both) {
  const comm::ReducePlan& shared = plan(micro_batches);
  step_ = step;
  Whole whole;
  static_cast<void>(fault_point("step.numbers"));
  take_numbers(shared, share, exchange_numbers(shared, share), whole);
  static_cast<void>(fault_point("step.gradients"));
  whole.gradients.resize(weights_.size());
  for (const Some& some : at_once())
    sum_gradients(shared, some, exchange_gradients(some, share, at_both), at_both, whole);
  static_cast<void>(fault_point("step.sums"));
  flip_point_in("flip.sums", whole.gradients);
  if (!at_both) copy_sums(whole);
  take_squares(whole);
  return whole;
}

/// Losses, expert counts and presence, of each rank as one message.
std::vector<std::vector<std::byte>> SharedStep::exchange_numbers(const comm::ReducePlan& plan,
                                                                 const Share& share) {
  std::vector<std::byte> mine;
  for (const std::vector<double>& l : share.losses) put(mine, std::span(l));
  for (const std::vector<int32_t>& c : share.expert_counts) put(mine, std::span(c));
  for (const std::vector<Tensor>& node : share.sums)
    for (const Tensor& t : node) mine.push_back(std::byte{t.defined()});
  size_t counts = 0;
  for (const std::vector<int32_t>& c : share.expert_counts) counts += c.size() * sizeof(int32_t);
  std::vector<size_t> sizes;
  for (int r = 0; r < plan.ranks(); ++r)
    sizes.push_back(static_cast<size_t>(plan.share(r).size()) * share.losses.at(0).size() *
                        sizeof(double) +
                    counts + plan.nodes(r).size() * weights_.size());
  const Counting counting(*this);
  return comm::all_gather(ranks_, {Purpose::kNumbers, step_}, mine, sizes, patience_s_);
}

void SharedStep::take_numbers(const comm::ReducePlan& plan,
                              const Share& share,
                              const std::vector<std::vector<std::byte>>& all,
                              Whole& whole) {
  for (const std::vector<int32_t>& c : share.expert_counts)
    whole.expert_counts.emplace_back(c.size(), 0);
  there_.assign(all.size(), {});
  updated_.assign(weights_.size(), 0);
  for (size_t r = 0; r < all.size(); ++r) {
    std::span<const std::byte> rest = all[r];
    for (int64_t m = 0; m < plan.share(static_cast<int>(r)).size(); ++m)
      whole.losses.push_back(take<double>(rest, share.losses[0].size()));
    for (std::vector<int32_t>& counts : whole.expert_counts) {
      const std::vector<int32_t> theirs = take<int32_t>(rest, counts.size());
      for (size_t e = 0; e < counts.size(); ++e) counts[e] += theirs[e];
    }
    for (size_t n = 0; n < plan.nodes(static_cast<int>(r)).size(); ++n) {
      there_[r].push_back(take<uint8_t>(rest, weights_.size()));
      for (size_t i = 0; i < weights_.size(); ++i) updated_[i] |= there_[r][n][i];
    }
  }
}

/// To whoever adds it up beside this rank.
void SharedStep::send_sum(
    size_t weight, size_t node, size_t nodes, const Tensor& sum, bool at_both) {
  const comm::Tag tag{Purpose::kGradients, step_, index_of(weight, nodes, node)};
  if (!owns(weight)) ranks_.send(owner(weight), tag, memory_of(sum));
  const int replica = replica_of(owner(weight), ranks_.ranks());
  if (at_both && replica != ranks_.rank() && replica != owner(weight))
    ranks_.send(replica, tag, memory_of(sum));
}

/// All weights, in parts that every rank finds the same: what is received of one is gone before the next one comes.
std::vector<SharedStep::Some> SharedStep::at_once() const {
  std::vector<Some> parts;
  size_t bytes = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (bytes == 0) parts.push_back({i, i});
    parts.back().end = i + 1;
    bytes += weights_[i]->value.bytes();
    if (bytes >= bytes_at_once_) bytes = 0;
  }
  return parts;
}

/// Every rank's sums over its nodes, of those of the weights whose gradients are added up here. This rank's own are not
/// in `share` any more then.
SharedStep::Sums SharedStep::exchange_gradients(const Some& some, Share& share, bool at_both) {
  const Counting counting(*this);
  const auto me = static_cast<size_t>(ranks_.rank());
  Sums sums;
  for (const std::vector<std::vector<uint8_t>>& nodes : there_)
    sums.emplace_back(nodes.size(), std::vector<Tensor>(weights_.size()));
  for (size_t i = some.begin; i < some.end; ++i) {
    for (size_t n = 0; n < share.sums.size(); ++n) {
      const Tensor& sum = share.sums[n][i];
      if (sum.defined()) send_sum(i, n, share.sums.size(), sum, at_both);
      if (sums_up(i, at_both)) sums[me][n][i] = sum;
    }
    if (!sums_up(i, at_both)) continue;
    for (size_t r = 0; r < there_.size(); ++r)
      for (size_t n = 0; r != me && n < there_[r].size(); ++n) {
        if (there_[r][n][i] == 0) continue;
        const Tensor& value = weights_[i]->value;
        sums[r][n][i] = Tensor::empty(value.shape(), value.dtype(), value.device());
        ranks_.receive(static_cast<int>(r),
                       {Purpose::kGradients, step_, index_of(i, there_[r].size(), n)},
                       memory_of(sums[r][n][i]));
      }
  }
  for (const std::vector<Tensor>& node : share.sums) flip_point_in("flip.sending", node);
  ranks_.finish(patience_s_);
  for (std::vector<Tensor>& node : share.sums)
    for (size_t i = some.begin; i < some.end; ++i) node[i] = {};
  return sums;
}

void SharedStep::sum_gradients(
    const comm::ReducePlan& plan, const Some& some, Sums sums, bool at_both, Whole& whole) {
  std::vector<comm::MicroRange> nodes;
  for (int r = 0; r < plan.ranks(); ++r)
    nodes.insert(nodes.end(), plan.nodes(r).begin(), plan.nodes(r).end());
  for (size_t i = some.begin; i < some.end; ++i) {
    if (!sums_up(i, at_both) || updated_[i] == 0) continue;
    std::vector<Tensor> of_weight;
    for (std::vector<std::vector<Tensor>>& rank : sums)
      for (std::vector<Tensor>& node : rank) of_weight.push_back(std::move(node[i]));
    whole.gradients[i] = GradientTree::fold(plan.micro_batches(), nodes, std::move(of_weight));
  }
}

/// A copy of each sum goes to where it is held a second time.
void SharedStep::copy_sums(Whole& whole) {
  const Counting counting(*this);
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (updated_[i] == 0 || !holds(i) || ranks_.ranks() == 1) continue;
    const comm::Tag tag{Purpose::kSums, step_, static_cast<uint32_t>(i)};
    if (owns(i)) {
      ranks_.send(replica_of(owner(i), ranks_.ranks()), tag, memory_of(whole.gradients[i]));
      continue;
    }
    const Tensor& value = weights_[i]->value;
    whole.gradients[i] = Tensor::empty(value.shape(), value.dtype(), value.device());
    ranks_.receive(owner(i), tag, memory_of(whole.gradients[i]));
  }
  ranks_.finish(patience_s_);
  flip_point_in("flip.sums.held", whole.gradients);
}

/// The sum of squares of a gradient depends on it alone, so owners can give each theirs.
void SharedStep::take_squares(const Whole& whole) {
  const Tensor squares = gradient_squares(whole.gradients);
  const std::vector<double> held =
      squares.defined() ? read_together({&squares, 1}).front() : std::vector<double>();
  held_squares_.assign(weights_.size(), 0);
  own_squares_.clear();
  size_t at = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (!whole.gradients[i].defined()) continue;
    held_squares_[i] = held[at++];
    if (owns(i)) own_squares_.push_back(held_squares_[i]);
  }
}

std::vector<double> SharedStep::commit(std::span<const uint64_t> said,
                                       std::vector<std::vector<uint64_t>>* heard) {
  static_cast<void>(fault_point("step.commit"));
  std::vector<size_t> sizes(static_cast<size_t>(ranks_.ranks()), said.size_bytes());
  for (size_t i = 0; i < weights_.size(); ++i)
    if (updated_[i] != 0) sizes[static_cast<size_t>(owner(i))] += sizeof(double);
  std::vector<std::byte> mine;
  put(mine, said);
  put(mine, std::span<const double>(own_squares_));
  const Counting counting(*this);
  const auto all = comm::all_gather(ranks_, {Purpose::kSquares, step_}, mine, sizes, patience_s_);
  std::vector<std::span<const std::byte>> rest(all.begin(), all.end());
  if (heard != nullptr) heard->clear();
  for (std::span<const std::byte>& theirs : rest) {
    std::vector<uint64_t> numbers = take<uint64_t>(theirs, said.size());
    if (heard != nullptr) heard->push_back(std::move(numbers));
  }
  squares_.clear();
  for (size_t i = 0; i < weights_.size(); ++i)
    if (updated_[i] != 0)
      squares_.push_back(take<double>(rest[static_cast<size_t>(owner(i))], 1).front());
  static_cast<void>(fault_point("step.committed"));
  return squares_;
}

void SharedStep::spread() {
  static_cast<void>(fault_point("step.spread"));
  const Counting counting(*this);
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (updated_[i] == 0) continue;
    const comm::Tag tag{Purpose::kWeights, step_, static_cast<uint32_t>(i)};
    if (!holds(i)) ranks_.receive(owner(i), tag, memory_of(weights_[i]->value));
    if (!owns(i)) continue;
    for (int r = 0; r < ranks_.ranks(); ++r)
      if (!holds_of(r, owner(i), ranks_.ranks()))
        ranks_.send(r, tag, memory_of(weights_[i]->value));
  }
  ranks_.finish(patience_s_);
  for (size_t i = 0; i < weights_.size(); ++i)
    if (updated_[i] != 0 && !holds(i)) weights_[i]->changed();
  static_cast<void>(fault_point("step.spread.done"));
}

std::optional<std::vector<double>> SharedStep::pass_on(const RecoveryPlan& plan) {
  const auto me = static_cast<size_t>(ranks_.rank());
  const comm::Tag tag{Purpose::kHeard, plan.done};
  // Who is prepared knows how many there are; nobody else looks.
  if (plan.prepared[me])
    squares_.assign(static_cast<size_t>(std::count_if(
                        updated_.begin(), updated_.end(), [](uint8_t u) { return u != 0; })),
                    0);
  if (plan.prepared[me]) ranks_.receive(plan.hears, tag, comm::bytes_of(squares_));
  for (int r = 0; r < ranks_.ranks(); ++r)
    if (plan.hears == ranks_.rank() && plan.prepared[static_cast<size_t>(r)])
      ranks_.send(r, tag, comm::bytes_of(std::as_const(squares_)));
  ranks_.finish(patience_s_);
  if (!plan.prepared[me]) return std::nullopt;
  return squares_;
}

void SharedStep::give(const RecoveryPlan& plan, const Optimizer& optimizer) {
  const int me = ranks_.rank();
  for (size_t i = 0; i < weights_.size(); ++i) {
    const int giver = plan.giver[static_cast<size_t>(owner(i))];
    const std::vector<Tensor> held = optimizer.state(i);
    for (int to = 0; to < ranks_.ranks(); ++to) {
      if ((giver != me && to != me) || !plan.lacks_weights(to, owner(i))) continue;
      const auto move = [&](const comm::Tag& tag, const Tensor& t) {
        if (giver == me)
          ranks_.send(to, tag, memory_of(t));
        else
          ranks_.receive(giver, tag, memory_of(t));
      };
      move({Purpose::kGiven, plan.done, static_cast<uint32_t>(i)}, weights_[i]->value);
      if (!plan.lacks_state(to, owner(i))) continue;
      for (size_t part = 0; part < held.size(); ++part)
        move({Purpose::kGivenState, plan.done, index_of(i, held.size(), part)}, held[part]);
    }
  }
  static_cast<void>(fault_point("step.give"));
  ranks_.finish(patience_s_);
  for (size_t i = 0; i < weights_.size(); ++i)
    if (plan.lacks_weights(me, owner(i))) weights_[i]->changed();
}

void SharedStep::give_untrained(const RecoveryPlan& plan, const std::vector<Weight*>& all) {
  const bool fresh = plan.fresh[static_cast<size_t>(ranks_.rank())];
  const std::set<const Weight*> trained(weights_.begin(), weights_.end());
  std::vector<Weight*> given;
  for (Weight* w : all) {
    if (trained.contains(w)) continue;
    const comm::Tag tag{
        Purpose::kGiven, plan.done, static_cast<uint32_t>(weights_.size() + given.size())};
    given.push_back(w);
    if (fresh) ranks_.receive(plan.teller, tag, memory_of(w->value));
    for (int r = 0; plan.teller == ranks_.rank() && r < ranks_.ranks(); ++r)
      if (plan.fresh[static_cast<size_t>(r)]) ranks_.send(r, tag, memory_of(w->value));
  }
  ranks_.finish(patience_s_);
  if (!fresh) return;
  for (Weight* w : given) w->changed();
}

void SharedStep::collect_state(int64_t step, const Optimizer& optimizer) {
  static_cast<void>(fault_point("step.collect"));
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (holds_of(0, owner(i), ranks_.ranks()) || (!first() && !owns(i))) continue;
    const std::vector<Tensor> held = optimizer.state(i);
    for (size_t part = 0; part < held.size(); ++part) {
      const comm::Tag tag{Purpose::kState, step, index_of(i, held.size(), part)};
      if (first())
        ranks_.receive(owner(i), tag, memory_of(held[part]));
      else
        ranks_.send(0, tag, memory_of(held[part]));
    }
  }
  ranks_.finish(patience_s_);
}

std::optional<HeldOutLoss> SharedStep::held_out(int64_t step,
                                                const std::optional<HeldOutLoss>& mine) {
  static_cast<void>(fault_point("step.held_out"));
  std::vector<double> found(3, 0);
  if (first() && mine) found = {1, mine->nats_per_token, mine->bits_per_byte};
  const comm::Tag tag{Purpose::kHeldOut, step};
  for (int r = 1; first() && r < ranks_.ranks(); ++r)
    ranks_.send(r, tag, comm::bytes_of(std::as_const(found)));
  if (!first()) ranks_.receive(0, tag, comm::bytes_of(found));
  ranks_.finish(patience_s_);
  if (found[0] == 0) return std::nullopt;
  return HeldOutLoss{.nats_per_token = found[1], .bits_per_byte = found[2]};
}

}  // namespace ferry
