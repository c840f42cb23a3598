#include "base/cpu_tier.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/check.h"

namespace ferry {
namespace {

CpuTier best_tier() {
  if (cpu_has(CpuTier::kAvx512)) return CpuTier::kAvx512;
  if (cpu_has(CpuTier::kAvx2)) return CpuTier::kAvx2;
  return CpuTier::kPlain;
}

CpuTier tier_from_environment() {
  const char* forced = std::getenv("FERRY_CPU");
  if (forced == nullptr || *forced == '\0') return best_tier();
  for (const CpuTier t : {CpuTier::kPlain, CpuTier::kAvx2, CpuTier::kAvx512}) {
    if (std::string_view(forced) != to_string(t)) continue;
    if (cpu_has(t)) return t;
    std::fprintf(stderr,
                 "FERRY_CPU=%s: this processor lacks these instructions; unset it, or use %s\n",
                 forced,
                 to_string(best_tier()));
    std::exit(2);
  }
  std::fprintf(stderr, "FERRY_CPU=%s: unknown; use plain, avx2 or avx512\n", forced);
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
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bf16");
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
  }
  return "?";
}

}  // namespace ferry
