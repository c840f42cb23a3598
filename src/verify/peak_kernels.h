// The fastest that a processor can multiply and add: what a matrix product's rate is held against.
#pragma once

#include <cstdint>

namespace ferry::doctor {

/// Floating-point operations of one fma_chains call with `rounds`; of dot_chains twice as many.
double fma_chain_flops(int64_t rounds);

// One thread; independent chains of vector fma that never leave the registers. The result depends
// on every operation, so that none can be left out.
#if defined(__x86_64__)
namespace avx512 {
float fma_chains(int64_t rounds);
/// The same of vdpbf16ps, each of which is two multiply-adds of bf16.
float dot_chains(int64_t rounds);
}  // namespace avx512
namespace avx2 {
float fma_chains(int64_t rounds);
}
#endif
namespace plain {
float fma_chains(int64_t rounds);
}

}  // namespace ferry::doctor
