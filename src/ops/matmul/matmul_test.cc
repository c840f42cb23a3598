// The product against its definition, bit for bit: one accumulator for each element, fma in the
// order of ops/cpu/gemm.h, on every tier, for sizes around every block and tile.
#include "ops/matmul/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/cpu_tier.h"
#include "base/random.h"
#include "base/threads.h"
#include "device/cpu/cpu_device.h"
#include "tensor/bf16.h"

namespace ferry::ops {
namespace {

struct Operand {
  std::vector<float> values;  // [rows, k], as the product sees them
  Tensor tensor;
};

/// Values of many sizes, so that any other order of additions shows; some zeros and subnormals.
Operand make_operand(
    int64_t rows, int64_t k, DType stored, DType compute, bool k_first, uint64_t stream) {
  const Random random(2, RandomPurpose::kTest, stream);
  Operand o{std::vector<float>(static_cast<size_t>(rows * k)), {}};
  std::vector<float> layout(o.values.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i) {
      const auto at = static_cast<uint64_t>(r * k + i);
      const double size = random.below(2 * at, 97) == 0
                              ? 0x1p-130
                              : std::exp2(static_cast<double>(random.below(2 * at, 12)) - 6.0);
      float v = static_cast<float>(random.normal(2 * at + 1) * size);
      if (stored == DType::kBF16) v = bf16_to_f32(f32_to_bf16(v));
      layout[static_cast<size_t>(k_first ? i * rows + r : r * k + i)] = v;
      o.values[at] = compute == DType::kBF16 ? bf16_to_f32(f32_to_bf16(v)) : v;
    }
  o.tensor = Tensor::empty(k_first ? Shape{k, rows} : Shape{rows, k}, stored, cpu_device());
  o.tensor.assign_f32(layout);
  return o;
}

float defined_element(const float* a, const float* b, int64_t k, bool bf16) {
  float acc = 0;
  for (int64_t i = 0; i < k; i += bf16 ? 2 : 1) {
    if (bf16) acc = i + 1 < k ? std::fma(a[i + 1], b[i + 1], acc) : std::fma(0.0f, 0.0f, acc);
    acc = std::fma(a[i], b[i], acc);
  }
  return acc;
}

void expect_defined_bits(int64_t m,
                         int64_t n,
                         int64_t k,
                         DType a_type,
                         DType b_type,
                         bool transpose_a,
                         bool transpose_b) {
  const bool bf16 = a_type == DType::kBF16;
  const Operand a = make_operand(m, k, a_type, a_type, transpose_a, 1),
                b = make_operand(n, k, b_type, a_type, !transpose_b, 2);
  std::vector<float> expected(static_cast<size_t>(m * n));
  {
    const FlushDenormals flush;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        expected[static_cast<size_t>(i * n + j)] =
            defined_element(a.values.data() + i * k, b.values.data() + j * k, k, bf16);
  }
  const CpuTier tier = cpu_tier();
  for (const CpuTier t : kCpuTiers) {
    if (!cpu_has(t)) continue;
    set_cpu_tier(t);
    for (const DType out : {DType::kF32, DType::kBF16}) {
      const std::vector<float> got =
          matmul(a.tensor,
                 b.tensor,
                 {.transpose_a = transpose_a, .transpose_b = transpose_b, .out = out})
              .to_f32();
      for (size_t i = 0; i < got.size(); ++i) {
        const float want =
            out == DType::kBF16 ? bf16_to_f32(f32_to_bf16(expected[i])) : expected[i];
        ASSERT_EQ(std::memcmp(&got[i], &want, sizeof want), 0) << fmt::format(
            "{}: [{}, {}, {}] {} x {} -> {}, transposes {} {}, element {}: {:a} for {:a}",
            to_string(t),
            m,
            n,
            k,
            to_string(a_type),
            to_string(b_type),
            to_string(out),
            transpose_a,
            transpose_b,
            i,
            got[i],
            want);
      }
    }
  }
  set_cpu_tier(tier);
}

TEST(Matmul, BitsAreDefinedForEveryLayout) {
  for (const DType a : {DType::kF32, DType::kBF16})
    for (const DType b : {DType::kF32, DType::kBF16})
      for (const int layout : {0, 1, 2, 3}) {
        expect_defined_bits(16, 33, 37, a, b, layout > 1, layout % 2 > 0);
        expect_defined_bits(29, 47, 300, a, b, layout > 1, layout % 2 > 0);
        expect_defined_bits(3, 65, 261, a, b, layout > 1, layout % 2 > 0);
      }
}

TEST(Matmul, BitsAreDefinedAroundTilesAndBlocks) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 28, 29})
      expect_defined_bits(m, 70, 19, t, t, false, true);
    for (const int64_t n : {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129})
      expect_defined_bits(5, n, 18, t, t, false, true);
    for (const int64_t k : {1, 2, 31, 32, 33, 255, 256, 257, 511, 512, 513, 1023, 1025, 2049}) {
      expect_defined_bits(2, 18, k, t, t, false, true);
      expect_defined_bits(17, 18, k, t, DType::kF32, true, false);
    }
  }
}

TEST(Matmul, NothingToSum) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    const Tensor y =
        matmul(Tensor::empty({3, 0}, t, cpu_device()), Tensor::empty({0, 40}, t, cpu_device()));
    EXPECT_EQ(y.to_f32(), std::vector<float>(120, 0.0f));
    EXPECT_EQ(matmul(Tensor::empty({0, 5}, t, cpu_device()), Tensor::zeros({5, 4}, t, cpu_device()))
                  .count(),
              0);
    EXPECT_EQ(matmul(Tensor::zeros({3, 5}, t, cpu_device()), Tensor::empty({5, 0}, t, cpu_device()))
                  .count(),
              0);
  }
}

}  // namespace
}  // namespace ferry::ops
