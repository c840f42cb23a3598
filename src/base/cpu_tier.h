// Which instruction set the CPU kernels use. All tiers give the same bits; the choice is only
// speed.
#pragma once

#include <array>

namespace ferry {

/// kAvx512Dot runs the kernels of kAvx512, and products of bf16 by vdpbf16ps: its bits are those of
/// the two multiply-adds that it stands for (docs/numerics.md), and on some processors (Zen 4,
/// Zen 5) it takes half their time, on others (Sapphire Rapids) twice.
enum class CpuTier { kPlain, kAvx2, kAvx512, kAvx512Dot };

inline constexpr std::array kCpuTiers = {
    CpuTier::kPlain, CpuTier::kAvx2, CpuTier::kAvx512, CpuTier::kAvx512Dot};

/// The tier in use: the best that this processor has, or the one that FERRY_CPU names
/// (plain, avx2, avx512, avx512_dot). Between the last two a measurement decides, once, in less
/// than a millisecond. A tier that the processor lacks, or an unknown name, ends the program with
/// exit status 2. Tests switch tiers with set_cpu_tier.
CpuTier cpu_tier();

/// Whether the processor can run the tier. avx512 here means F, BW, VL, DQ, BF16 and
/// VNNI: every processor with BF16 has that too.
bool cpu_has(CpuTier tier);

/// Forces a tier for the rest of the process or until the next call. Not while kernels run.
void set_cpu_tier(CpuTier tier);

const char* to_string(CpuTier tier);

}  // namespace ferry
