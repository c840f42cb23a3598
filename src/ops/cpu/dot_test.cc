// That vdpbf16ps is the two multiply-adds that the numerics name (docs/numerics.md, "Matrix
// products"), bit by bit: on that the tier avx512_dot rests.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/cpu_tier.h"
#include "base/random.h"
#include "base/threads.h"
#include "tensor/bf16.h"

namespace ferry {
namespace {

#if defined(__x86_64__)

struct Case {
  bf16_t a[2], b[2];
  float c;
};

/// acc + a[1] b[1] + a[0] b[0] of sixteen cases.
[[gnu::target("avx512f,avx512bf16")]] void dot(const Case* cases, float* results) {
  alignas(64) uint32_t a[16], b[16];
  alignas(64) float c[16];
  for (int i = 0; i < 16; ++i) {
    a[i] = cases[i].a[0] | uint32_t{cases[i].a[1]} << 16;
    b[i] = cases[i].b[0] | uint32_t{cases[i].b[1]} << 16;
    c[i] = cases[i].c;
  }
  const __m512 sum = _mm512_dpbf16_ps(_mm512_load_ps(c),
                                      reinterpret_cast<__m512bh>(_mm512_load_si512(a)),
                                      reinterpret_cast<__m512bh>(_mm512_load_si512(b)));
  _mm512_storeu_ps(results, sum);
}

float by_the_rules(const Case& c) {
  const float odd = std::fmaf(bf16_to_f32(c.a[1]), bf16_to_f32(c.b[1]), c.c);
  return std::fmaf(bf16_to_f32(c.a[0]), bf16_to_f32(c.b[0]), odd);
}

/// Equal, or both NaN: payloads of NaN are no part of the numerics.
bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

void compare(const std::vector<Case>& cases) {
  const FlushDenormals flush;
  int different = 0;
  for (size_t i = 0; i + 16 <= cases.size(); i += 16) {
    float results[16];
    dot(&cases[i], results);
    for (size_t j = 0; j < 16; ++j) {
      const Case& c = cases[i + j];
      const float want = by_the_rules(c);
      if (same(results[j], want) || ++different > 5) continue;
      ADD_FAILURE() << fmt::format(
          "a {:04x} {:04x} b {:04x} {:04x} c {:a}: {:a}, by the rules {:a}",
          c.a[0],
          c.a[1],
          c.b[0],
          c.b[1],
          c.c,
          results[j],
          want);
    }
  }
  EXPECT_EQ(different, 0);
}

constexpr bf16_t kSpecial[] = {0x0000, 0x8000, 0x0001, 0x807F, 0x0040, 0x0080, 0x8080, 0x00FF,
                               0x3F80, 0xBF80, 0x3F81, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0,
                               0x7F81, 0x2000, 0xA000, 0x1F80, 0x5F80, 0xDF80};

TEST(Dot, IsTwoMultiplyAddsOfSpecialValues) {
  if (!cpu_has(CpuTier::kAvx512Dot)) GTEST_SKIP() << "this processor has no vdpbf16ps";
  std::vector<Case> cases;
  for (const bf16_t a : kSpecial)
    for (const bf16_t b : kSpecial)
      for (const bf16_t d : kSpecial)
        for (const bf16_t e : {bf16_t{0}, bf16_t{0x3F80}, bf16_t{0x7F80}, bf16_t{0x8080}})
          for (const bf16_t c : kSpecial) {
            cases.push_back({{a, d}, {b, e}, bf16_to_f32(c)});
            cases.push_back({{d, a}, {e, b}, bf16_to_f32(c)});
          }
  compare(cases);
}

/// Sums next to the smallest normal number, where it matters whether they are called tiny before
/// or after rounding, and products that are tiny alone.
TEST(Dot, IsTwoMultiplyAddsWhereResultsBecomeSubnormal) {
  if (!cpu_has(CpuTier::kAvx512Dot)) GTEST_SKIP() << "this processor has no vdpbf16ps";
  std::vector<Case> cases;
  for (int e = 100; e <= 254; ++e)
    for (const int mantissa : {0, 1, 64, 127})
      for (const float c :
           {0x1p-126f, 0x1.000002p-126f, 0x1.fffffep-126f, 0x1p-125f, 0x1.8p-127f, 0.0f})
        for (const int signs : {0, 1, 2, 3}) {
          // a b = 2^-e times (1 + mantissa / 128), on either side of 2^-126
          const float size = std::ldexp(1.0f, -(e / 2)), rest = std::ldexp(1.0f, -(e - e / 2));
          const auto a = static_cast<bf16_t>((f32_to_bf16(size) | mantissa) ^ (signs & 1) << 15);
          const bf16_t b = f32_to_bf16(rest);
          const float sum = signs & 2 ? -c : c;
          cases.push_back({{a, 0}, {b, 0}, sum});
          cases.push_back({{0, a}, {0, b}, sum});
          cases.push_back({{a, a}, {b, static_cast<bf16_t>(b ^ 0x8000)}, sum});
          cases.push_back({{a, f32_to_bf16(0x1p-63f)}, {b, f32_to_bf16(0x1p-63f)}, -sum});
        }
  compare(cases);
}

TEST(Dot, IsTwoMultiplyAddsOfRandomValues) {
  if (!cpu_has(CpuTier::kAvx512Dot)) GTEST_SKIP() << "this processor has no vdpbf16ps";
  const Random random(1, RandomPurpose::kTest, 0);
  std::vector<Case> cases;
  uint64_t draw = 0;
  const auto bits = [&] { return random.bits(draw++); };
  const auto near = [&](int exponent, int spread) {  // a biased exponent and any sign and mantissa
    const int e =
        exponent + static_cast<int>(bits() % static_cast<uint64_t>(2 * spread + 1)) - spread;
    return static_cast<bf16_t>((bits() & 0x807F) | static_cast<uint64_t>(std::clamp(e, 0, 255))
                                                       << 7);
  };
  for (int i = 0; i < 400000; ++i) {
    Case c{};
    if (i % 2 == 0) {  // anything
      const uint64_t all = bits();
      c = {{static_cast<bf16_t>(all), static_cast<bf16_t>(all >> 16)},
           {static_cast<bf16_t>(all >> 32), static_cast<bf16_t>(all >> 48)},
           std::bit_cast<float>(static_cast<uint32_t>(bits()))};
    } else {  // products and sum of like size: roundings, cancellation, both ends of the range
      const int ea = static_cast<int>(bits() % 256), eb = static_cast<int>(bits() % 256);
      for (int j = 0; j < 2; ++j) {
        c.a[j] = near(ea, 8);
        c.b[j] = near(eb, 8);
      }
      c.c = bf16_to_f32(near(ea + eb - 127, 26));
      c.c = std::bit_cast<float>(std::bit_cast<uint32_t>(c.c) |
                                 static_cast<uint32_t>(bits() & 0xFFFF));
    }
    cases.push_back(c);
  }
  compare(cases);
}

#endif

TEST(CpuTier, EveryTierHasANameAndTheBestOneRuns) {
  EXPECT_TRUE(cpu_has(cpu_tier()));
  for (const CpuTier t : kCpuTiers) EXPECT_STRNE(to_string(t), "?");
  EXPECT_EQ(cpu_has(CpuTier::kAvx512), cpu_has(CpuTier::kAvx512Dot));
}

}  // namespace
}  // namespace ferry
