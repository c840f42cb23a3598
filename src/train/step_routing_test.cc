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
  const Rewinds rewinds{.count = 1, .to = 20, .furthest = 20, .there = 1};
  for (int64_t step = 1; step < 40; ++step)
    EXPECT_EQ(anticipates(rewinds, step, t), step >= 22 && step <= 24) << step;
  t.anticipatory_steps = 0;
  EXPECT_FALSE(anticipates(rewinds, 22, t));
}

TEST(StepRouting, FitsMicroBatchesOfItsSizeAndLayersAlone) {
  data::Batch batch;
  batch.tokens.assign(6, 1);
  const Tensor layer = Tensor::zeros({6, 2}, DType::kI32, cpu_device());
  const StepRouting routing = {{layer, layer}, {layer, layer}};
  EXPECT_EQ(size_of(routing), (std::pair<int64_t, int64_t>{2, 2}));
  EXPECT_EQ(size_of(StepRouting()), (std::pair<int64_t, int64_t>{0, 0}));
  const std::vector<data::Batch> two = {batch, batch};
  EXPECT_TRUE(fits(routing, two, 2, 2));
  EXPECT_FALSE(fits(routing, std::vector<data::Batch>{batch}, 2, 2));
  EXPECT_FALSE(fits(routing, two, 3, 2)) << "the MTP module is run, and was not";
  EXPECT_FALSE(fits(routing, two, 1, 2)) << "the MTP module was run, and is not";
  EXPECT_FALSE(fits(routing, two, 2, 3));
  EXPECT_FALSE(fits({{layer, layer}, {layer}}, two, 2, 2)) << "also of the second micro-batch";
  data::Batch longer = batch;
  longer.tokens.push_back(1);
  EXPECT_FALSE(fits(routing, std::vector<data::Batch>{batch, longer}, 2, 2));
}

}  // namespace
}  // namespace ferry
