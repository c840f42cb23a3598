// A step that several ranks make together has, to the bit, the losses, the norm and the weights of the step of one
// process: for any number of ranks that the micro-batches can be shared by, even or not.
#include "train/shared_step.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "optim/gradient_tree.h"
#include "train/ranks_test_support.h"
#include "train/train_step.h"

namespace ferry {
namespace {

/// Of each step the first try is cut short where something is said for that purpose: as by another rank's end.
class CutShort : public comm::Communicator {
 public:
  CutShort(comm::Communicator& of, comm::Purpose at) : of_(of), at_(at) {}
  int rank() const override { return of_.rank(); }
  int ranks() const override { return of_.ranks(); }
  void send(int to, const comm::Tag& tag, std::span<const std::byte> bytes) override {
    look(to, tag);
    of_.send(to, tag, bytes);
  }
  void receive(int from, const comm::Tag& tag, std::span<std::byte> bytes) override {
    look(from, tag);
    of_.receive(from, tag, bytes);
  }
  void finish(double patience_s) override { of_.finish(patience_s); }
  void when_waiting(std::function<void(int)> waiting) override {
    of_.when_waiting(std::move(waiting));
  }
  uint64_t bytes_sent() const override { return of_.bytes_sent(); }

 private:
  void look(int peer, const comm::Tag& tag) {
    if (tag.purpose != at_ || tag.step == cut_) return;
    cut_ = tag.step;
    throw comm::LinkError(rank(), peer, true, "is gone");
  }
  comm::Communicator& of_;
  comm::Purpose at_;
  int64_t cut_ = -1;
};

std::vector<float> drawn(uint64_t stream, size_t count) {
  const Random random(5, RandomPurpose::kTest, stream);
  std::vector<float> v(count);
  for (size_t i = 0; i < count; ++i)
    v[i] = static_cast<float>(random.normal(2 * i) * (1 + 1000 * random.uniform(2 * i + 1)));
  return v;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<Weight> three_weights() {
  const Shape shapes[] = {{5, 3}, {7}, {4, 4}};
  std::vector<Weight> weights(3);
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i].name = std::string(1, static_cast<char>('a' + i));
    weights[i].global_shape = shapes[i];
    weights[i].value = Tensor::zeros(shapes[i], DType::kF32, cpu_device());
  }
  return weights;
}

/// Micro-batch m's gradient of weight w; every weight is without one in some, the second in all of every step.
Tensor gradient_of(int64_t m, size_t w, const Shape& shape) {
  if (w == 1 || (static_cast<size_t>(m) + w) % 3 == 0) return {};
  return Tensor::from_f32(
      drawn(static_cast<uint64_t>(m) * 10 + w, static_cast<size_t>(shape.count())),
      shape,
      cpu_device());
}

TEST(SharedStep, SumsAreThoseOfOneProcess) {
  for (const int64_t m : {int64_t{1}, int64_t{4}, int64_t{7}, int64_t{9}, int64_t{12}}) {
    const std::vector<Weight> leaves = three_weights();
    std::vector<Tensor> expected;
    GradientTree tree;
    for (int64_t i = 0; i < m; ++i)
      for (size_t w = 0; w < leaves.size(); ++w)
        if (Tensor g = gradient_of(i, w, leaves[w].value.shape()); g.defined())
          tree.add(i, leaves[w].value, std::move(g));
    for (const Weight& leaf : leaves) expected.push_back(tree.take(leaf.value, m));
    const std::vector<Tensor> squared = {gradient_squares(expected)};
    const std::vector<double> squares = read_together(squared).front();
    for (int ranks = 1; ranks <= m; ++ranks)
      as_ranks(ranks, [&](comm::Communicator& c) {
        std::vector<Weight> weights = three_weights();
        std::vector<Weight*> list;
        for (Weight& w : weights) list.push_back(&w);
        // All at once, one after the other, two and one.
        SharedStep shared(c, list, kPatienceS, std::array<size_t, 3>{1000, 1, 61}[m % 3]);
        const comm::ReducePlan& plan = shared.plan(m);
        SharedStep::Share share;
        for (int64_t i = plan.share(c.rank()).begin; i < plan.share(c.rank()).end; ++i)
          share.losses.push_back({0.5 + static_cast<double>(i), 100.0 * static_cast<double>(i)});
        share.expert_counts = {{1, c.rank()}, {7, 0}};
        for (const comm::MicroRange& node : plan.nodes(c.rank())) {
          GradientTree of_node;
          for (int64_t i = node.begin; i < node.end; ++i)
            for (size_t w = 0; w < list.size(); ++w)
              if (Tensor g = gradient_of(i, w, list[w]->value.shape()); g.defined())
                of_node.add(i - node.begin, list[w]->value, std::move(g));
          std::vector<Tensor>& sums = share.sums.emplace_back();
          for (const Weight* w : list) sums.push_back(of_node.take(w->value, node.size()));
        }
        const uint64_t before = c.bytes_sent();
        const SharedStep::Whole whole = shared.reduce(3, m, std::move(share));
        EXPECT_GT(c.bytes_sent() + (ranks == 1 ? 1 : 0), before);
        ASSERT_EQ(std::ssize(whole.losses), m);
        for (int64_t i = 0; i < m; ++i)
          EXPECT_EQ(
              whole.losses[static_cast<size_t>(i)],
              (std::vector<double>{0.5 + static_cast<double>(i), 100.0 * static_cast<double>(i)}));
        EXPECT_EQ(
            whole.expert_counts,
            (std::vector<std::vector<int32_t>>{{ranks, ranks * (ranks - 1) / 2}, {7 * ranks, 0}}));
        EXPECT_EQ(shared.commit(), squares);
        const std::vector<int> owners = owners_of_weights(list, ranks);
        for (size_t w = 0; w < list.size(); ++w) {
          const bool here = holds_of(c.rank(), owners[w], ranks) && expected[w].defined();
          ASSERT_EQ(whole.gradients[w].defined(), here) << "weight " << w << " at " << c.rank();
          if (here) {
            EXPECT_TRUE(same_bits(whole.gradients[w].to_f32(), expected[w].to_f32()));
          }
        }
      });
  }
}

// Owner and replica both get every rank's gradients: of as many weights at a time as there is to be room for.
TEST(SharedStep, WhatIsReceivedTakesMemoryForWhatIsAddedUpAtATime) {
  constexpr int kRanks = 2;
  constexpr size_t kWeights = 16, kBytes = size_t{256} << 10;
  const Shape shape = {static_cast<int64_t>(kBytes / sizeof(float))};
  const auto peak = [&](size_t bytes_at_once) {
    const size_t before = cpu_device().memory_use().live_bytes;
    cpu_device().reset_peak();
    as_ranks(kRanks, [&](comm::Communicator& c) {
      std::vector<Weight> weights(kWeights);
      std::vector<Weight*> list;
      SharedStep::Share share{.losses = {{1.0}}, .expert_counts = {}, .sums = {{}}};
      for (Weight& w : weights) {
        w.name = std::to_string(list.size());
        w.value = Tensor::zeros(shape, DType::kF32, cpu_device());
        list.push_back(&w);
        share.sums[0].push_back(Tensor::zeros(shape, DType::kF32, cpu_device()));
      }
      SharedStep shared(c, list, kPatienceS, bytes_at_once);
      const SharedStep::Whole whole = shared.reduce(0, kRanks, std::move(share), true);
      EXPECT_TRUE(whole.gradients.front().defined() && whole.gradients.back().defined());
    });
    return cpu_device().memory_use().peak_bytes - before;
  };
  const size_t one = peak(1), all = peak(kWeights * kBytes);
  EXPECT_GE(all, kRanks * 3 * kWeights * kBytes);  // weights, gradients, what is received
  EXPECT_LE(one, kRanks * (2 * kWeights + 2) * kBytes);
}

/// What a run of some steps comes to: of each, what is reported; then weights, and state.
struct Trained {
  std::vector<double> told;
  std::vector<std::vector<float>> weights;
  std::vector<std::vector<float>> state;
};

/// done: as TrainStep::prepare().
Trained trained(OptimizerSettings::Kind kind,
                int64_t micro_batches,
                comm::Communicator* ranks,
                const std::function<void(int64_t)>& done = {}) {
  auto model = models::make_model(kConfig, "config", cpu_device(), DType::kBF16, DType::kF32);
  EXPECT_TRUE(model) << model.error().message;
  models::initialise(**model, 3);
  const RankPlace place = ranks == nullptr ? RankPlace{} : RankPlace{ranks->rank(), ranks->ranks()};
  Optimizer optimizer = optimizer_at(place, {.kind = kind}, (*model)->weights());
  std::optional<SharedStep> shared;
  if (ranks != nullptr) shared.emplace(*ranks, optimizer.weights(), kPatienceS);
  TrainStep step(**model,
                 optimizer,
                 {.mtp_every = 2, .balance_alpha = 0.01, .bias_update_speed = 0.01, .clip = 0.5},
                 shared ? &*shared : nullptr);
  Trained t;
  for (int64_t s = 1; s <= 4; ++s) {
    const std::vector<data::Batch> batches = batches_of(s, micro_batches);
    const StepGradients g = [&] {
      for (;;) {
        try {
          return step.gradients(s, batches, done);
        } catch (const comm::LinkError&) {
        }
      }
    }();
    t.told.insert(t.told.end(), {g.loss, g.mtp_loss.value_or(-1), g.balance_loss, g.norm});
    EXPECT_TRUE(g.finite);
    if (s != 3) step.update(0.02);  // one is refused
  }
  if (shared) shared->collect_state(4, optimizer);
  for (const Weight* w : (*model)->weights()) t.weights.push_back(w->value.to_f32());
  if (place.rank == 0)
    optimizer.for_each_state(
        [&](const std::string&, const Tensor& state) { t.state.push_back(state.to_f32()); });
  return t;
}

void expect_same(const Trained& a, const Trained& b, const std::string& what) {
  EXPECT_EQ(a.told, b.told) << what;
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (size_t i = 0; i < a.weights.size(); ++i)
    EXPECT_TRUE(same_bits(a.weights[i], b.weights[i])) << what << ": weight " << i;
}

TEST(SharedStep, AnyNumberOfRanksTrainsTheModelOfOneProcess) {
  for (const auto kind : {OptimizerSettings::Kind::kAdamW, OptimizerSettings::Kind::kMuon}) {
    const Trained alone = trained(kind, 9, nullptr);
    ASSERT_GT(alone.state.size(), 10u);
    for (int ranks = 1; ranks <= 9; ++ranks) {
      as_ranks(ranks, [&](comm::Communicator& c) {
        const Trained t = trained(kind, 9, &c);
        const std::string what =
            "rank " + std::to_string(c.rank()) + " of " + std::to_string(ranks);
        expect_same(t, alone, what);
        if (c.rank() != 0) return;
        ASSERT_EQ(t.state.size(), alone.state.size());
        for (size_t i = 0; i < t.state.size(); ++i)
          EXPECT_TRUE(same_bits(t.state[i], alone.state[i])) << what << ": state " << i;
      });
    }
  }
}

// What a rank has computed of a step it has computed once, wherever the step is begun again.
TEST(SharedStep, AStepThatIsBegunAgainHasTheSameBitsAndOnlyTheDeadRanksPartIsMadeAgain) {
  constexpr auto kKind = OptimizerSettings::Kind::kAdamW;
  const Trained alone = trained(kKind, 9, nullptr);
  for (const comm::Purpose at : {comm::Purpose::kNumbers,
                                 comm::Purpose::kGradients,
                                 comm::Purpose::kSums,
                                 comm::Purpose::kSquares}) {
    as_ranks(3, [&](comm::Communicator& c) {
      CutShort cut(c, at);
      int firsts = 0;  // micro-batches of its three
      const Trained t = trained(kKind, 9, &cut, [&](int64_t done) { firsts += done == 1 ? 1 : 0; });
      const std::string what =
          "rank " + std::to_string(c.rank()) + ", " + std::to_string(static_cast<int>(at));
      expect_same(t, alone, what);
      EXPECT_EQ(firsts, 4) << what << ": of four steps";
    });
  }
}

TEST(SharedStep, OptimizersHoldWhatIsTheirs) {
  std::vector<Weight> weights = three_weights();
  std::vector<Weight*> list;
  for (Weight& w : weights) list.push_back(&w);
  const Optimizer all = optimizer_at({}, {}, list), first = optimizer_at({0, 3}, {}, list);
  EXPECT_EQ(first.state_bytes(), all.state_bytes());  // it writes checkpoints
  const std::vector<int> owners = owners_of_weights(list, 3);
  for (int r = 1; r < 3; ++r) {
    Optimizer optimizer = optimizer_at({r, 3}, {}, list);
    EXPECT_LT(optimizer.state_bytes(), all.state_bytes());
    for (size_t i = 0; i < list.size(); ++i)
      EXPECT_EQ(!optimizer.state(i).empty(), owners[i] == r || (owners[i] + 1) % 3 == r);
    EXPECT_EQ(optimizer.weights(), all.weights());
    std::vector<Tensor> gradients;
    for (const Weight* w : list)
      gradients.push_back(Tensor::zeros(w->value.shape(), DType::kF32, cpu_device()));
    EXPECT_ANY_THROW(optimizer.step(gradients, 0.1, 1)) << "updates what is another rank's";
  }
}

}  // namespace
}  // namespace ferry
