// A weight that is stored as pairs gives the bits of the same numbers in rows, for any number of rows, in
// every tier; and whoever asks for its numbers gets them.
#include "ops/pair_linear/pair_linear.h"

#include <gtest/gtest.h>

#include "autograd/tape.h"
#include "base/check.h"
#include "base/cpu_tier.h"
#include "device/cpu/cpu_device.h"
#include "ops/dequantize/dequantize.h"
#include "ops/grouped_linear/grouped_linear.h"
#include "ops/linear/linear.h"
#include "ops/pair_linear/paired_weight.h"
#include "ops/test_support.h"

namespace ferry::ops {
namespace {

Weight in_rows(const Tensor& numbers) {
  return {.name = "w", .global_shape = numbers.shape(), .shard = {}, .value = numbers};
}

/// `test` in every tier of this machine.
template <class Test>
void in_every_tier(Test test) {
  const CpuTier tier = cpu_tier();
  for (const CpuTier t : kCpuTiers) {
    if (!cpu_has(t)) continue;
    set_cpu_tier(t);
    SCOPED_TRACE(to_string(t));
    test();
  }
  set_cpu_tier(tier);
}

TEST(PairLinear, GivesTheBitsOfTheNumbersInRows) {
  in_every_tier([] {
    for (const DType stored : {DType::kF32, DType::kBF16})
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{70, 129}, {32, 2}, {5, 4100}}) {
        const Tensor numbers = normal({n, k}, stored, 1);
        const Weight rows = in_rows(numbers), pairs = paired_weight("w", numbers);
        Tensor rounded = Tensor::empty({n, k}, DType::kBF16, cpu_device());
        rounded.assign_f32(numbers.to_f32());
        for (const DType type : {DType::kF32, DType::kBF16})
          EXPECT_EQ(weight_values(pairs, type).to_f32(), rounded.to_f32());
        for (const int64_t count : {1, 3, 12, 13, 45, 130}) {
          const Tensor x = normal({count, k}, DType::kBF16, 2);
          for (const DType out : {DType::kF32, DType::kBF16})
            EXPECT_EQ(linear(x, pairs, {.out = out}).to_f32(),
                      linear(x, rows, {.out = out}).to_f32())
                << n << " x " << k << ", " << count << " rows";
        }
        if (stored == DType::kF32) continue;
        const Tensor x = normal({4, k}, DType::kF32, 3);  // products in f32 take the numbers
        EXPECT_EQ(linear(x, pairs).to_f32(), linear(x, rows).to_f32());
      }
  });
}

TEST(PairLinear, ExpertsToo) {
  in_every_tier([] {
    for (const std::vector<int32_t>& offsets :
         {std::vector<int32_t>{0, 3, 3, 40, 41}, {0, 1, 1, 4, 134, 134, 135, 135, 135}}) {
      const int64_t experts = std::ssize(offsets) - 1;
      const Tensor numbers = normal({experts, 90, 700}, DType::kBF16, 2),
                   x = normal({offsets.back(), 700}, DType::kBF16, 1),
                   on_device = Tensor::from_i32(offsets, {experts + 1}, cpu_device());
      EXPECT_EQ(grouped_linear(x, paired_weight("w", numbers), on_device).to_f32(),
                grouped_linear(x, in_rows(numbers), on_device).to_f32());
    }
  });
}

TEST(PairLinear, IsNotTrained) {
  const Weight w = paired_weight("w", normal({64, 64}, DType::kBF16, 1));
  const Tensor x = normal({3, 64}, DType::kBF16, 2);
  Tape tape(nullptr);
  const Tape::Recording recording(&tape);
  EXPECT_THROW(linear(x, w), Bug);
}

}  // namespace
}  // namespace ferry::ops
