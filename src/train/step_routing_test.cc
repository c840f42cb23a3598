// Which steps are given the experts that older weights chose, and that a checkpoint gives them back.
#include "train/step_routing.h"

#include <gtest/gtest.h>

#include "device/cpu/cpu_device.h"

namespace ferry {
namespace {

TEST(StepRouting, IsOfTheStepsBehindTheFirstThatFollowsASpike) {
  TrainSettings t;
  t.anticipatory_steps = 3;
  EXPECT_FALSE(anticipates({}, 5, t));
  const Rewinds rewinds{.count = 1, .to = 20, .there = 1};
  for (int64_t step = 1; step < 40; ++step)
    EXPECT_EQ(anticipates(rewinds, step, t), step >= 22 && step <= 24) << step;
  t.anticipatory_steps = 0;
  EXPECT_FALSE(anticipates(rewinds, 22, t));
}

TEST(StepRouting, FitsMicroBatchesOfItsSizeAlone) {
  data::Batch batch;
  batch.tokens.assign(6, 1);
  const Tensor layer = Tensor::zeros({6, 2}, DType::kI32, cpu_device());
  const StepRouting routing = {{layer, layer}, {layer, layer}};
  EXPECT_EQ(size_of(routing), (std::pair<int64_t, int64_t>{2, 2}));
  EXPECT_EQ(size_of(StepRouting()), (std::pair<int64_t, int64_t>{0, 0}));
  EXPECT_TRUE(fits(routing, std::vector<data::Batch>{batch, batch}));
  EXPECT_FALSE(fits(routing, std::vector<data::Batch>{batch}));
  data::Batch longer = batch;
  longer.tokens.push_back(1);
  EXPECT_FALSE(fits(routing, std::vector<data::Batch>{batch, longer}));
}

}  // namespace
}  // namespace ferry
