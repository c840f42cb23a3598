// A row has the bits that linear gives it with its expert's weight, whoever else is routed.
#include "ops/grouped_linear/grouped_linear.h"

#include <gtest/gtest.h>

#include "device/cpu/cpu_device.h"
#include "ops/linear/linear.h"
#include "ops/test_support.h"

namespace ferry::ops {
namespace {

void expect_rows_equal_linear(const std::vector<int32_t>& offsets, int64_t inputs) {
  const int64_t rows = offsets.back(), experts = static_cast<int64_t>(offsets.size()) - 1;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor x = normal({rows, inputs}, dtype, 1);
    const Weight w{.name = "w",
                   .global_shape = {experts, 90, inputs},
                   .shard = {},
                   .value = normal({experts, 90, inputs}, DType::kF32, 2)};
    const Tensor y = grouped_linear(x, w, Tensor::from_i32(offsets, {experts + 1}, cpu_device()));
    for (int64_t e = 0; e < experts; ++e) {
      const int64_t begin = offsets[static_cast<size_t>(e)],
                    end = offsets[static_cast<size_t>(e) + 1];
      if (begin == end) continue;
      const Weight one{.name = "w",
                       .global_shape = {90, inputs},
                       .shard = {},
                       .value = w.value.slice(0, e, e + 1).reshape({90, inputs})};
      EXPECT_EQ(y.slice(0, begin, end).to_f32(), linear(x.slice(0, begin, end), one).to_f32())
          << "expert " << e;
    }
  }
}

TEST(GroupedLinear, RowsEqualLinear) {
  expect_rows_equal_linear({0, 3, 3, 40, 41}, 600);
  // Few rows on average, so that blocks are chosen for few, and one expert with many; several k
  // blocks.
  expect_rows_equal_linear({0, 1, 1, 4, 134, 134, 134, 135, 135, 135, 135, 135, 135}, 2100);
  expect_rows_equal_linear({0, 1, 1, 1, 30, 30, 30, 30, 30, 30, 30, 30, 30}, 1100);
}

}  // namespace
}  // namespace ferry::ops
