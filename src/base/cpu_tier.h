// Which instruction set the CPU kernels use. All tiers give the same bits; the choice is only
// speed.
#pragma once

namespace ferry {

enum class CpuTier { kPlain, kAvx2, kAvx512 };

/// The tier in use: the best that this processor has, or the one that FERRY_CPU names
/// (plain, avx2, avx512). A tier that the processor lacks, or an unknown name, ends the program
/// with exit status 2. Tests switch tiers with set_cpu_tier.
CpuTier cpu_tier();

/// Whether the processor can run the tier. avx512 here means F, BW, VL, DQ and BF16.
bool cpu_has(CpuTier tier);

/// Forces a tier for the rest of the process or until the next call. Not while kernels run.
void set_cpu_tier(CpuTier tier);

const char* to_string(CpuTier tier);

}  // namespace ferry
