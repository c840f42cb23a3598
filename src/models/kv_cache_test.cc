#include "models/kv_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "device/cpu/cpu_device.h"

namespace ferry::models {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

Tensor rows_of(int64_t rows, int64_t width, float value) {
  return Tensor::from_f32(
      std::vector<float>(static_cast<size_t>(rows * width), value), {rows, width}, cpu_device());
}

/// How many of a page's rows have this value in the first column, and that no other has NaN.
int64_t count(const Tensor& rows, int64_t page, float value) {
  const std::vector<float> all = rows.to_f32();
  int64_t found = 0;
  for (int64_t r = 0; r < kPageTokens; ++r) {
    const float x = all[static_cast<size_t>((page * kPageTokens + r) * rows.dim(1))];
    EXPECT_FALSE(std::isnan(x)) << "row " << r;
    found += x == value;
  }
  return found;
}

/// Whatever lay in a page: rows behind a sequence's last are zeros, for kernels that weigh them by
/// zero.
TEST(KvCache, BehindASequenceAreZeros) {
  KvCache cache(1, {3, 2}, 3, DType::kF32, cpu_device());
  const std::vector<int32_t> pages = {2, 0};
  static_cast<void>(cache.begin(std::vector<KvCache::Part>{{pages, 0, 2 * kPageTokens}}));
  cache.append(0, {rows_of(2 * kPageTokens, 3, kNone), rows_of(2 * kPageTokens, 2, kNone)});
  // Another sequence gets the pages: its own rows, then zeros; also where they go on to the second.
  static_cast<void>(cache.begin(std::vector<KvCache::Part>{{pages, 0, 5}}));
  for (const Tensor& part : cache.append(0, {rows_of(5, 3, 7), rows_of(5, 2, 7)})) {
    EXPECT_EQ(count(part, 2, 7), 5);
    EXPECT_EQ(count(part, 2, 0), kPageTokens - 5);
  }
  static_cast<void>(cache.begin(std::vector<KvCache::Part>{{pages, 5, kPageTokens}}));
  const auto& parts = cache.append(0, {rows_of(kPageTokens, 3, 8), rows_of(kPageTokens, 2, 8)});
  for (const Tensor& part : parts) {
    EXPECT_EQ(count(part, 2, 7), 5);
    EXPECT_EQ(count(part, 2, 8), kPageTokens - 5);
    EXPECT_EQ(count(part, 0, 8), 5);
    EXPECT_EQ(count(part, 0, 0), kPageTokens - 5);
  }
  // And where a page's first rows become another's.
  const std::vector<int32_t> third = {1};
  static_cast<void>(cache.begin(std::vector<KvCache::Part>{{third, 0, kPageTokens}}));
  cache.append(0, {rows_of(kPageTokens, 3, kNone), rows_of(kPageTokens, 2, kNone)});
  cache.copy_rows(2, 1, 4);
  for (const Tensor& part : parts) {
    EXPECT_EQ(count(part, 1, 7), 4);
    EXPECT_EQ(count(part, 1, 0), kPageTokens - 4);
  }
}

}  // namespace
}  // namespace ferry::models
