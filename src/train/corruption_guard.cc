#include "train/corruption_guard.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/counted.h"
#include "base/fast_hash.h"
#include "train/loop.h"

namespace ferry {
namespace {

using corruption::Finding;
using corruption::Word;
using What = Finding::What;

constexpr size_t kNone = std::numeric_limits<size_t>::max();
constexpr double kForever = std::numeric_limits<double>::infinity();

std::span<const std::byte> memory_of(const Tensor& t) {
  return {static_cast<const std::byte*>(t.data()), t.bytes()};
}

template <typename T>
uint64_t hash_of_numbers(const std::vector<T>& numbers, uint64_t before) {
  return fast_hash(std::as_bytes(std::span(numbers)), before);
}

uint64_t hash_of_doubles(std::vector<double> numbers, uint64_t before) {
  for (double& n : numbers)
    if (std::isnan(n)) n = std::numeric_limits<double>::quiet_NaN();
  return hash_of_numbers(numbers, before);
}

bool is_nan(uint32_t bits) { return (bits & 0x7fffffffU) > 0x7f800000U; }

/// Of float32 numbers, piece by piece: each is looked through while it is in the cache.
uint64_t hash_of_floats(const Tensor& t, uint64_t before) {
  constexpr size_t kPiece = 16384;
  if (t.dtype() != DType::kF32) return fast_hash(memory_of(t), before);
  std::span<const uint32_t> rest(static_cast<const uint32_t*>(t.data()),
                                 t.bytes() / sizeof(uint32_t));
  uint64_t hash = fast_hash({}, before);
  for (; !rest.empty(); rest = rest.subspan(std::min(kPiece, rest.size()))) {
    const std::span<const uint32_t> piece = rest.first(std::min(kPiece, rest.size()));
    uint32_t nans = 0;
    for (const uint32_t bits : piece) nans |= is_nan(bits) ? 1U : 0U;
    if (nans == 0) {
      hash = fast_hash(std::as_bytes(piece), hash);
      continue;
    }
    std::vector<uint32_t> one(piece.begin(), piece.end());
    for (uint32_t& bits : one)
      if (is_nan(bits)) bits = 0x7fc00000U;
    hash = hash_of_numbers(one, hash);
  }
  return hash;
}

/// Adds the seconds that it lives.
class Timing {
 public:
  explicit Timing(double& to) : to_(to), began_s_(system_clock().monotonic_s()) {}
  ~Timing() { to_ += system_clock().monotonic_s() - began_s_; }
  Timing(const Timing&) = delete;
  Timing& operator=(const Timing&) = delete;

 private:
  double& to_;
  const double began_s_;
};

}  // namespace

std::optional<AuditSettings> audits_of(const TrainSettings& settings) {
  if (settings.corruption_checks == "off") return std::nullopt;
  return AuditSettings{.each_step = settings.corruption_checks == "full",
                       .every = settings.audit_every,
                       .seed = static_cast<uint64_t>(settings.seed)};
}

size_t audit_bytes(const Optimizer& optimizer, int ranks, int64_t micro_batches) {
  const comm::ReducePlan plan(micro_batches, ranks);
  size_t nodes = 0;
  for (int r = 0; r < ranks; ++r) nodes = std::max(nodes, plan.nodes(r).size());
  size_t gradients = 0, largest = 0;
  for (size_t i = 0; i < optimizer.weights().size(); ++i) {
    size_t of_one = optimizer.weights()[i]->value.bytes();
    gradients += of_one;
    for (const Tensor& t : optimizer.state(i)) of_one += t.bytes();
    largest = std::max(largest, of_one);
  }
  return std::max(nodes * gradients, largest);
}

CorruptionGuard::CorruptionGuard(const AuditSettings& settings,
                                 SharedStep& shared,
                                 Optimizer& optimizer,
                                 const std::vector<Weight*>& weights,
                                 std::function<void(const std::string&)> say)
    : settings_(settings),
      shared_(shared),
      optimizer_(optimizer),
      say_(std::move(say)),
      weights_(weights) {
  const std::vector<Weight*>& trained = optimizer_.weights();
  for (Weight* w : trained)
    if (std::find(weights_.begin(), weights_.end(), w) == weights_.end()) weights_.push_back(w);
  for (const Weight* w : weights_) {
    const auto at = std::find(trained.begin(), trained.end(), w);
    trained_.push_back(at == trained.end() ? kNone : static_cast<size_t>(at - trained.begin()));
    owners_.push_back(at == trained.end() ? -1 : shared_.owners()[trained_.back()]);
  }
  const std::vector<uint64_t> none(weights_.size(), 0);
  written_ = {.weights = none, .state = none};
  versions_ = none;
}

bool CorruptionGuard::holds(size_t weight) const {
  return trained_[weight] != kNone && shared_.holds(trained_[weight]);
}

uint64_t CorruptionGuard::hash_of_state(size_t weight) const {
  uint64_t hash = 0;
  for (const Tensor& t : optimizer_.state(trained_[weight])) hash = fast_hash(memory_of(t), hash);
  return hash;
}

void CorruptionGuard::hash_one(size_t weight, Hashes& to) const {
  to.weights[weight] = fast_hash(memory_of(weights_[weight]->value));
  if (holds(weight)) to.state[weight] = hash_of_state(weight);
}

CorruptionGuard::Hashes CorruptionGuard::hashes() const {
  const std::vector<uint64_t> none(weights_.size(), 0);
  Hashes h{.weights = none, .state = none};
  for (size_t i = 0; i < weights_.size(); ++i) hash_one(i, h);
  return h;
}

/// With what everybody is told of it.
uint64_t CorruptionGuard::hash_of_sum(const Tensor& sum, double squares) const {
  if (!sum.defined()) return 0;
  return hash_of_doubles({squares}, hash_of_floats(sum, 0));
}

uint64_t CorruptionGuard::hash_of(const SharedStep::Share& share) {
  uint64_t hash = 0;
  for (const std::vector<double>& l : share.losses) hash = hash_of_doubles(l, hash);
  for (const std::vector<int32_t>& c : share.expert_counts) hash = hash_of_numbers(c, hash);
  for (const std::vector<Tensor>& node : share.sums)
    for (const Tensor& sum : node)
      hash = sum.defined() ? hash_of_floats(sum, hash) : fast_hash({}, hash);
  return hash;
}

std::vector<int> CorruptionGuard::begin(int64_t step) {
  const int ranks = shared_.ranks().ranks();
  const std::vector<int> auditors = auditors_of(step, ranks, settings_);
  const std::vector<bool> disputed = corruption::disputed_shares(before_);
  audited_ = false;
  shares_.assign(static_cast<size_t>(ranks), 0);
  std::vector<int> to_compute;
  for (int r = 0; r < ranks; ++r) {
    const int auditor = auditors[static_cast<size_t>(r)];
    audited_ |= auditor >= 0;
    const bool by_all = second_try() && disputed[static_cast<size_t>(r)];
    if (by_all || auditor == me() || (auditor >= 0 && r == me())) to_compute.push_back(r);
  }
  return to_compute;
}

void CorruptionGuard::computed(int rank, uint64_t share) {
  shares_[static_cast<size_t>(rank)] = share;
}

uint64_t CorruptionGuard::hash_of_own(const SharedStep::Share& share) {
  const Timing timing(spent_.hashing_s);
  return hash_of(share);
}

void CorruptionGuard::look_at_share(const SharedStep::Share& own, uint64_t hash) {
  if (hash_of_own(own) != hash) throw Spoiled(in_words(Finding{me(), What::kShareChanged, 0}));
}

/// What each update gives, whereupon all is again what it was.
CorruptionGuard::Hashes CorruptionGuard::hashes_of_first(const std::vector<Tensor>& gradients,
                                                         const std::function<void(size_t)>& one) {
  const std::vector<uint64_t> none(weights_.size(), 0);
  Hashes first{.weights = none, .state = none};
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (!holds(i) || !gradients[trained_[i]].defined()) continue;
    std::vector<Tensor> changes = optimizer_.state(trained_[i]), was;
    changes.push_back(weights_[i]->value);
    for (const Tensor& t : changes) {
      was.push_back(Tensor::empty(t.shape(), t.dtype(), t.device()));
      t.device().copy(was.back().data(), t.data(), t.bytes());
    }
    one(trained_[i]);
    hash_one(i, first);
    for (size_t n = 0; n < was.size(); ++n)
      was[n].device().copy(changes[n].data(), was[n].data(), was[n].bytes());
  }
  return first;
}

void CorruptionGuard::update(const std::vector<Tensor>& gradients,
                             const std::function<void(size_t)>& one,
                             const std::function<void()>& all) {
  spreading_ = true;
  std::optional<Hashes> first;
  if (audited_) {
    const Timing timing(spent_.auditing_s);
    first = hashes_of_first(gradients, one);
  }
  all();
  const Timing timing(spent_.hashing_s);
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (!holds(i) || !gradients[trained_[i]].defined()) continue;
    hash_one(i, written_);
    versions_[i] = weights_[i]->version;
    if (first && (first->weights[i] != written_.weights[i] || first->state[i] != written_.state[i]))
      throw Spoiled(fmt::format("rank {}'s update of {} gives another result when it is made again",
                                me(),
                                weights_[i]->name));
  }
}

void CorruptionGuard::wrote() {
  const Timing timing(spent_.hashing_s);
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (written_.weights[i] != 0 && versions_[i] == weights_[i]->version) continue;
    hash_one(i, written_);
    versions_[i] = weights_[i]->version;
  }
  spreading_ = false;
  before_.clear();
}

void CorruptionGuard::mark_changed(const Hashes& now, std::vector<uint64_t>& changed) const {
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (written_.weights[i] == 0) continue;
    if (now.weights[i] != written_.weights[i]) changed[i] |= corruption::kWeightBit;
    if (now.state[i] != written_.state[i]) changed[i] |= corruption::kStateBit;
  }
}

/// What this rank holds at this moment.
Word CorruptionGuard::word() {
  Word word = corruption::nothing_said(weights_.size(), shared_.ranks().ranks());
  Hashes now = hashes();
  mark_changed(now, word.changed);
  word.weights = std::move(now.weights);
  word.state = std::move(now.state);
  return word;
}

std::optional<std::vector<double>> CorruptionGuard::commit(int64_t step,
                                                           const std::vector<Tensor>& gradients,
                                                           const SharedStep::Share& own,
                                                           uint64_t hash) {
  std::vector<uint64_t> said;
  {
    const Timing timing(spent_.hashing_s);
    Word mine = word();
    for (size_t i = 0; i < weights_.size(); ++i)
      if (holds(i))
        mine.sums[i] = hash_of_sum(gradients[trained_[i]], shared_.held_squares()[trained_[i]]);
    // What it has told the others since is in memory still.
    if (hash_of(own) != hash)
      mine.changed[static_cast<size_t>(weights_.size())] |= corruption::kShareBit;
    mine.shares = shares_;
    said = corruption::to_numbers(mine);
  }
  std::vector<std::vector<uint64_t>> heard;
  std::vector<double> squares = shared_.commit(said, &heard);
  words_.clear();
  for (const std::vector<uint64_t>& numbers : heard)
    words_.push_back(corruption::word_of(numbers, weights_.size(), shared_.ranks().ranks()));
  const corruption::Verdict verdict = corruption::judge(owners_, words_, before_);
  if (verdict.again) {
    before_ = words_;
    say_(
        fmt::format("corrupted  step {}: what ranks have computed of it differs; all compute it "
                    "again, which shows whose was wrong",
                    step + 1));
    return std::nullopt;
  }
  before_.clear();
  follow(verdict, step + 1);
  return squares;
}

void CorruptionGuard::compare(int64_t step) {
  std::vector<uint64_t> said;
  {
    const Timing timing(spent_.hashing_s);
    said = corruption::to_numbers(word());
  }
  comm::Communicator& ranks = shared_.ranks();
  const std::vector<size_t> sizes(static_cast<size_t>(ranks.ranks()),
                                  said.size() * sizeof(uint64_t));
  words_.clear();
  for (const std::vector<std::byte>& theirs : comm::all_gather(ranks,
                                                               {comm::Purpose::kHashes, step},
                                                               comm::bytes_of(std::as_const(said)),
                                                               sizes,
                                                               kForever)) {
    std::vector<uint64_t> numbers(said.size());
    std::copy_n(theirs.data(), theirs.size(), std::as_writable_bytes(std::span(numbers)).data());
    words_.push_back(corruption::word_of(numbers, weights_.size(), ranks.ranks()));
  }
  follow(corruption::judge(owners_, words_), step);
}

void CorruptionGuard::compare_collected(int64_t step) {
  std::string differs;
  for (size_t i = 0; me() == 0 && differs.empty() && i < weights_.size(); ++i)
    if (owners_[i] >= 0 && !holds(i) &&
        hash_of_state(i) != words_[static_cast<size_t>(owners_[i])].state[i])
      differs = fmt::format("the optimizer's state of {} came from rank {}, and is another here",
                            weights_[i]->name,
                            owners_[i]);
  if (!comm::any_of(shared_.ranks(), {comm::Purpose::kHashes, step, 1}, !differs.empty(), kForever))
    return;
  compare(step);
  if (!differs.empty()) throw Spoiled(differs);
  wait_until_gone(0, step);
}

void CorruptionGuard::look_at_own() const {
  std::vector<uint64_t> changed(weights_.size() + 1, 0);
  mark_changed(hashes(), changed);
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (spreading_ && trained_[i] != kNone && !holds(i)) continue;
    if (changed[i] == 0) continue;
    const bool weight = (changed[i] & corruption::kWeightBit) != 0;
    throw Spoiled(in_words({me(), weight ? What::kWeightChanged : What::kStateChanged, i}));
  }
}

/// A rank that is convicted leaves; who is not waits for that, and meets its successor.
void CorruptionGuard::follow(const corruption::Verdict& verdict, int64_t step) {
  if (verdict.clean()) return;
  if (verdict.spoiled.empty())
    throw StateLost(fmt::format("step {}: one of these is spoiled, and nobody can tell which: {}",
                                step,
                                in_words(verdict.suspects)));
  const std::string what = in_words(verdict.spoiled);
  say_(fmt::format(
      "corrupted  step {}: {}; who is spoiled leaves, and has a successor", step, what));
  for (const Finding& f : verdict.spoiled)
    if (f.rank == me()) throw Spoiled(what);
  wait_until_gone(verdict.spoiled.front().rank, step);
}

/// It says nothing more.
void CorruptionGuard::wait_until_gone(int rank, int64_t step) {
  std::vector<uint8_t> nothing(1);
  comm::Communicator& ranks = shared_.ranks();
  ranks.receive(rank, {comm::Purpose::kHashes, step, 2}, comm::bytes_of(nothing));
  ranks.finish(kForever);
  check(false, "corruption: rank {} was to leave", rank);
}

std::string CorruptionGuard::in_words(const Finding& f) const {
  const auto name = [&] { return weights_[f.of]->name; };
  switch (f.what) {
    case What::kWeightChanged:
      return fmt::format(
          "rank {}'s memory of {} has changed, though nobody wrote it", f.rank, name());
    case What::kStateChanged:
      return fmt::format(
          "rank {}'s memory of the optimizer's state of {} has changed, though nobody "
          "wrote it",
          f.rank,
          name());
    case What::kShareChanged:
      return fmt::format("rank {}'s memory of the gradients that it computed has changed", f.rank);
    case What::kWeight: return fmt::format("rank {} has another {} than it should", f.rank, name());
    case What::kState:
      return fmt::format("rank {} has another state of the optimizer for {}", f.rank, name());
    case What::kSum:
      return fmt::format("rank {} had another sum of gradients of {}", f.rank, name());
    case What::kShare:
      return static_cast<size_t>(f.rank) == f.of
                 ? fmt::format("rank {} computed wrong gradients", f.rank)
                 : fmt::format(
                       "rank {} computed wrong gradients, of those of rank {}", f.rank, f.of);
  }
  return {};
}

std::string CorruptionGuard::in_words(const std::vector<Finding>& findings) const {
  std::string text;
  for (const Finding& f : findings) text += (text.empty() ? "" : "; ") + in_words(f);
  return text;
}

}  // namespace ferry
