// The bits that Muon had when the host computed the factor: they are training's.
#include "ops/unit_norm/unit_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "ops/axpby/axpby.h"
#include "ops/sum_squares/sum_squares.h"

namespace ferry::ops {
namespace {

TEST(UnitNorm, IsTheFactorOfTheSumOfSquares) {
  const Random random(6, RandomPurpose::kTest, 0);
  std::vector<float> values(3 * 50 * 90);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
  values[7] = -0.0f;
  const Tensor x = Tensor::from_f32(values, {3, 50, 90}, cpu_device());
  const Tensor expected = Tensor::empty(x.shape(), DType::kF32, cpu_device());
  for (int64_t i = 0; i < 3; ++i) {
    const Tensor matrix = x.slice(0, i, i + 1);
    const Tensor sums = sum_squares({&matrix, 1});
    const double norm = std::sqrt(total_of(read_together({&sums, 1})[0]).sum);
    axpby(static_cast<float>(1 / (norm + 1e-20)), matrix, 0, expected.slice(0, i, i + 1));
  }
  const std::vector<float> got = unit_norm(x).to_f32(), want = expected.to_f32();
  EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0);
}

TEST(UnitNorm, NeverWaits) {
  const Tensor x = Tensor::zeros({4, 8, 8}, DType::kF32, cpu_device());
  const uint64_t waits = cpu_device().stream().waits();
  unit_norm(x);
  EXPECT_EQ(cpu_device().stream().waits(), waits);
}

TEST(UnitNorm, Refusals) {
  EXPECT_THROW(unit_norm(Tensor::zeros({8}, DType::kF32, cpu_device())), Bug);
  EXPECT_THROW(unit_norm(Tensor::zeros({8, 8}, DType::kBF16, cpu_device())), Bug);
  EXPECT_THROW(unit_norm(Tensor::zeros({8, 8}, DType::kF32, cpu_device()).slice(1, 0, 4)), Bug);
}

}  // namespace
}  // namespace ferry::ops
