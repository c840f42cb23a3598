// The float64 result of sum_squares, and what it says about numbers that are not finite, and of
// none.
#include "ops/sum_squares/sum_squares.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/cpu_tier.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "ops/sum_squares/sum_squares_reference.h"

namespace ferry::ops {
namespace {

SquareSum total(const std::vector<Tensor>& tensors) {
  const Tensor sums = sum_squares(tensors);
  return total_of(read_together({&sums, 1})[0]);
}

TEST(SumSquares, OneBadElementAnywhereIsSeen) {
  for (const float bad : {INFINITY, -INFINITY, NAN})
    for (const size_t place : {size_t{0}, size_t{4095}, size_t{4096}, size_t{9000}}) {
      std::vector<float> values(9001, 1.0f);
      values[place] = bad;
      const std::vector<Tensor> tensors = {
          Tensor::from_f32(std::vector<float>{1, 2}, {2}, cpu_device()),
          Tensor::from_f32(values, {9001}, cpu_device())};
      EXPECT_FALSE(total(tensors).finite) << bad << " at " << place;
    }
}

TEST(SumSquares, IsAccurateInFloat64AndTheSameBitsOnEveryTier) {
  const Random random(5, RandomPurpose::kTest, 0);
  for (const double scale :
       {1.0, 1e-15, 1e30}) {  // the last two leave the range of f32 when squared
    std::vector<float> values(20001);
    RefTensor reference({20001});
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(scale * random.normal(i));
      reference.values[i] = static_cast<double>(values[i]);
    }
    const std::vector<Tensor> tensors = {Tensor::from_f32(values, {20001}, cpu_device())};
    const SquareSum s = total(tensors);
    EXPECT_TRUE(s.finite);
    const double expected = sum_squares_reference({reference});
    EXPECT_NEAR(s.sum, expected, 300 * 0x1p-53 * expected);
    const CpuTier before = cpu_tier();
    for (const CpuTier tier : kCpuTiers) {
      if (!cpu_has(tier)) continue;
      set_cpu_tier(tier);
      EXPECT_EQ(total(tensors).sum, s.sum) << to_string(tier);
    }
    set_cpu_tier(before);
  }
}

TEST(SumSquares, NothingSumsToZero) {
  EXPECT_EQ(total_of({}).sum, 0.0);
  EXPECT_TRUE(total_of({}).finite);
  EXPECT_EQ(total({Tensor::zeros({0, 4}, DType::kF32, cpu_device())}).sum, 0.0);
}

}  // namespace
}  // namespace ferry::ops
