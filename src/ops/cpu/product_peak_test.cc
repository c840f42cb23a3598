// Peaks of each tier that the processor has.
#include "ops/cpu/product_peak.h"

#include <gtest/gtest.h>

#include "base/cpu_tier.h"

namespace ferry::ops {
namespace {

TEST(ProductPeak, IsThereWhereATierHasVectors) {
  const CpuTier before = cpu_tier();
  for (const CpuTier tier : kCpuTiers) {
    if (!cpu_has(tier)) continue;
    set_cpu_tier(tier);
    const ProductPeak peak = measure_product_peak();
    EXPECT_EQ(peak.codes > 0, tier != CpuTier::kPlain) << to_string(tier);
    EXPECT_EQ(peak.bf16 > 0, tier != CpuTier::kPlain) << to_string(tier);
  }
  set_cpu_tier(before);
}

}  // namespace
}  // namespace ferry::ops
