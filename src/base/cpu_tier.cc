#include "base/cpu_tier.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/check.h"
#include "base/clock.h"

namespace ferry {
namespace {

#if defined(__x86_64__)
constexpr int kRounds = 1000, kChains = 12;  // chains enough to hide the latency of either

/// Seconds that kRounds * kChains multiply-adds of 16 lanes take, or as many vdpbf16ps, which do
/// twice the work. noinline: code for these instructions must not enter a function that all run.
[[gnu::target("avx512f,avx512bf16"), gnu::noinline]] double time_products(bool dot) {
  __m512 chain[kChains];
  for (__m512& c : chain) c = _mm512_setzero_ps();
  const __m512 factor = _mm512_set1_ps(1);
  const __m512bh pairs = _mm512_cvtne2ps_pbh(factor, factor);
  const double begin = system_clock().monotonic_s();
  for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (__m512& c : chain) {
      c = dot ? _mm512_dpbf16_ps(c, pairs, pairs) : _mm512_fmadd_ps(factor, factor, c);
      asm volatile("" : "+v"(c));  // each one is done, in this order
    }
  }
  return system_clock().monotonic_s() - begin;
}
#endif

/// Whether vdpbf16ps beats the two multiply-adds that it stands for. It takes half as long as they
/// or twice as long; the least of some rounds tells these apart on a busy machine too.
bool dot_is_faster() {
#if defined(__x86_64__)
  double dot = 1, fma = 1;
  for (int i = 0; i < 8; ++i) {
    fma = std::min(fma, time_products(false));
    dot = std::min(dot, time_products(true));
  }
  return dot < 1.5 * fma;
#else
  return false;
#endif
}

CpuTier best_tier() {
  if (cpu_has(CpuTier::kAvx512)) return dot_is_faster() ? CpuTier::kAvx512Dot : CpuTier::kAvx512;
  if (cpu_has(CpuTier::kAvx2)) return CpuTier::kAvx2;
  return CpuTier::kPlain;
}

CpuTier tier_from_environment() {
  const char* forced = std::getenv("FERRY_CPU");
  if (forced == nullptr || *forced == '\0') return best_tier();
  for (const CpuTier t : kCpuTiers) {
    if (std::string_view(forced) != to_string(t)) continue;
    if (cpu_has(t)) return t;
    std::fprintf(stderr,
                 "FERRY_CPU=%s: this processor lacks these instructions; unset it, or use %s\n",
                 forced,
                 to_string(best_tier()));
    std::exit(2);
  }
  std::fprintf(stderr, "FERRY_CPU=%s: unknown; use plain, avx2, avx512 or avx512_dot\n", forced);
  std::exit(2);
}

std::atomic<CpuTier>& current() {
  static std::atomic<CpuTier> tier{tier_from_environment()};
  return tier;
}

}  // namespace

CpuTier cpu_tier() { return current().load(std::memory_order_relaxed); }

void set_cpu_tier(CpuTier tier) {
  check(cpu_has(tier), "cpu tier: this processor cannot run {}", to_string(tier));
  current().store(tier, std::memory_order_relaxed);
}

bool cpu_has(CpuTier tier) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (tier) {
    case CpuTier::kPlain: return true;
    case CpuTier::kAvx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case CpuTier::kAvx512:
    case CpuTier::kAvx512Dot:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  }
  return false;
#else
  return tier == CpuTier::kPlain;
#endif
}

const char* to_string(CpuTier tier) {
  switch (tier) {
    case CpuTier::kPlain: return "plain";
    case CpuTier::kAvx2: return "avx2";
    case CpuTier::kAvx512: return "avx512";
    case CpuTier::kAvx512Dot: return "avx512_dot";
  }
  return "?";
}

}  // namespace ferry
