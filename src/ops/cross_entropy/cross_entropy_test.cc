// What the spec cannot say: bad labels, and that the tape changes no bit.
#include "ops/cross_entropy/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/tape.h"
#include "device/cpu/cpu_device.h"
#include "ops/add/add.h"
#include "ops/test_support.h"

namespace ferry::ops {
namespace {

TEST(CrossEntropy, LabelOutsideTheVocabularyIsNotANumber) {
  const Tensor hidden = normal({4, 8}, DType::kF32, 1);
  const Weight head{.name = "head",
                    .global_shape = {20, 8},
                    .shard = {},
                    .value = normal({20, 8}, DType::kF32, 2)};
  const std::vector<int32_t> labels{0, 20, -2, -1};
  const CrossEntropy y =
      cross_entropy(hidden, head, Tensor::from_i32(labels, {4}, cpu_device()), 1);
  const std::vector<float> losses = y.token_losses.to_f32();
  EXPECT_GT(losses[0], 0);
  EXPECT_TRUE(std::isnan(losses[1]));
  EXPECT_TRUE(std::isnan(losses[2]));
  EXPECT_EQ(losses[3], 0);
  EXPECT_TRUE(std::isnan(y.loss.to_f32()[0]));
}

/// A damaged row of the head: what is no number must not come out as one, in every lane.
TEST(CrossEntropy, NaNAmongTheLogitsIsNoLoss) {
  const Tensor hidden = normal({2, 8}, DType::kF32, 1);
  for (const size_t row : {size_t{0}, size_t{5}, size_t{19}}) {
    std::vector<float> values = normal({20, 8}, DType::kF32, 2).to_f32();
    values[row * 8 + 3] = std::nanf("");
    const Weight head{.name = "head",
                      .global_shape = {20, 8},
                      .shard = {},
                      .value = Tensor::from_f32(values, {20, 8}, cpu_device())};
    const CrossEntropy y = cross_entropy(
        hidden, head, Tensor::from_i32(std::vector<int32_t>{1, 7}, {2}, cpu_device()), 1);
    for (const float loss : y.token_losses.to_f32()) EXPECT_TRUE(std::isnan(loss)) << row;
    EXPECT_TRUE(std::isnan(y.loss.to_f32()[0])) << row;
  }
}

TEST(CrossEntropy, RecordingChangesNoBit) {
  Tensor hidden = normal({9, 40}, DType::kF32, 3);
  const Weight head{.name = "head",
                    .global_shape = {77, 40},
                    .shard = {},
                    .value = normal({77, 40}, DType::kF32, 4)};
  const Tensor labels =
      Tensor::from_i32(std::vector<int32_t>{1, 2, 3, -1, 76, 0, 5, 6, 7}, {9}, cpu_device());
  const CrossEntropy alone = cross_entropy(hidden, head, labels, 0.5f);
  hidden.set_needs_grad(true);
  Tape tape(&accumulate);
  const Tape::Recording recording(&tape);
  const CrossEntropy recorded = cross_entropy(hidden, head, labels, 0.5f);
  EXPECT_EQ(alone.loss.to_f32(), recorded.loss.to_f32());
  EXPECT_EQ(alone.token_losses.to_f32(), recorded.token_losses.to_f32());
}

}  // namespace
}  // namespace ferry::ops
