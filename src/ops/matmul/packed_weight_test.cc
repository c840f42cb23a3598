// Weights packed for a few rows: made when they help, dropped when the weight changes, and never a
// different bit from packing anew.
#include "ops/matmul/packed_weight.h"

#include <gtest/gtest.h>

#include "autograd/tape.h"
#include "base/cpu_tier.h"
#include "device/cpu/cpu_device.h"
#include "ops/linear/linear.h"
#include "ops/test_support.h"

namespace ferry::ops {
namespace {

Weight weight_of(Tensor value) {
  Weight w;
  w.name = "w";
  w.global_shape = value.shape();
  w.value = std::move(value);
  return w;
}

TEST(PackedWeight, GivesTheBitsOfManyRowsAndFollowsTheWeight) {
  for (const DType stored : {DType::kF32, DType::kBF16})
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{70, 129}, {32, 2}, {5, 2100}}) {
      Weight w = weight_of(normal({n, k}, stored, 1));
      const Tensor many = normal({45, k}, DType::kBF16, 2);  // more rows than make panels
      for (int change = 0; change < 2; ++change) {
        const std::vector<float> expected = linear(many, w).to_f32();
        for (int64_t rows = 1; rows <= 12; ++rows) {
          const std::vector<float> got = linear(many.slice(0, 0, rows), w).to_f32();
          ASSERT_TRUE(std::equal(got.begin(), got.end(), expected.begin()))
              << n << " x " << k << ", " << rows << " rows, change " << change;
        }
        EXPECT_EQ(w.packed != nullptr, cpu_tier() >= CpuTier::kAvx512);
        EXPECT_EQ(packed_panels(w, 15, DType::kBF16).given(), cpu_tier() == CpuTier::kAvx512Dot);
        EXPECT_EQ(linear(many, w).to_f32(), expected) << n << " x " << k << ", change " << change;
        w.value.assign_f32(normal({n, k}, DType::kF32, 7).to_f32());
        w.changed();
      }
    }
}

TEST(PackedWeight, IsNotMadeWhereItDoesNotHelp) {
  const Weight w = weight_of(normal({64, 64}, DType::kF32, 1));
  EXPECT_FALSE(packed_panels(w, 13, DType::kBF16).given());
  EXPECT_FALSE(packed_panels(w, 1, DType::kF32).given());
  Tape tape(nullptr);
  const Tape::Recording recording(&tape);
  EXPECT_FALSE(packed_panels(w, 1, DType::kBF16).given());
  EXPECT_EQ(w.packed, nullptr);
}

}  // namespace
}  // namespace ferry::ops
