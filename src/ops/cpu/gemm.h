// The matrix product that every *_cpu.cc shares: C[m, n] = Σ_k A(m, k) B(n, k), blocked and packed.
//
// Order (docs/numerics.md), whatever the blocking, tier, threads and path: one f32 accumulator for each
// element of C, starting at +0 (or at C's value when accumulating).
//   f32   acc = fma(a[k], b[k], acc), k ascending.
//   bf16  for pairs (k, k+1): acc = fma(a[k+1], b[k+1], acc), then acc = fma(a[k], b[k], acc); an
//         odd k is padded by zeros. That is vdpbf16ps.
// Splitting k at even places and going on from the stored f32 accumulator changes no bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu_tier.h"
#include "device/cpu/cpu_device.h"
#include "tensor/dtype.h"
#include "tensor/pair_panels.h"

namespace ferry::ops {

/// Element (row, k) lies at data[row * row_stride + k * k_stride]; at least one stride is 1.
struct GemmOperand {
  const void* data = nullptr;
  DType dtype = DType::kF32;  // f32 or bf16; converted to the compute type while packing
  int64_t row_stride = 0;
  int64_t k_stride = 0;
};

struct Gemm {
  GemmOperand a, b;             // rows of a: m; rows of b: n
  void* c = nullptr;            // element (m, n) at c[m * c_stride + n]
  DType c_dtype = DType::kF32;  // f32, or bf16: rounded once, from the accumulator
  int64_t c_stride = 0;
  int64_t m = 0, n = 0, k = 0;
  bool bf16 = false;        // the compute type: bf16 products, or f32
  bool accumulate = false;  // go on from C's values; C is f32 then
  // b as PairPanels has it, for products of bf16; used in place of b, which may be without memory.
  const void* panels = nullptr;
  int64_t first_task = 0;  // set by gemm_batch
};

// Sizes of one thread's buffers: strips of A and a block of B, which L2 is to hold.
inline constexpr size_t kGemmStripBytes = size_t{256} << 10;
inline constexpr size_t kGemmBlockBytes = size_t{640} << 10;
inline constexpr size_t kGemmScratchBytes =
    size_t{512} << 10;  // accumulators between blocks of k when C is bf16
inline constexpr size_t kGemmThreadBytes = kGemmStripBytes + kGemmBlockBytes + kGemmScratchBytes;

// Weights packed beforehand, for a few rows of bf16: then reading and packing B is what a product
// costs. Products of many rows save the packing too, where their tiles take pairs; they are not worth
// the memory.
inline constexpr int64_t kGemmPackedRowsMax = 12;  // rows of a, in the mean of a batch's problems

/// Whether panels are worth making for products of `rows` rows, in the tier in use.
inline bool gemm_wants_panels(int64_t rows, bool bf16) {
  return bf16 && rows <= kGemmPackedRowsMax && cpu_tier() >= CpuTier::kAvx512;
}
/// Whether such products are faster from panels that are there.
inline bool gemm_takes_panels(int64_t rows, bool bf16) {
  return gemm_wants_panels(rows, bf16) || (bf16 && cpu_tier() == CpuTier::kAvx512Dot);
}

/// The array of problems, up to the next cache line.
inline size_t gemm_problems_bytes(int64_t count) {
  return (static_cast<size_t>(count) * sizeof(Gemm) + 63) / 64 * 64;
}

/// What gemm_batch needs, after the array of problems if it lies in the workspace too.
inline size_t gemm_workspace_bytes(int64_t count) {
  return gemm_problems_bytes(count) + static_cast<size_t>(cpu_pool().threads()) * kGemmThreadBytes;
}

#if defined(FERRY_TIER)
namespace FERRY_TIER {

/// Computes all problems, which share types and n; m and k may differ (experts). Their C are
/// disjoint. Uses the thread pool. workspace: kGemmThreadBytes for each thread, 64-byte aligned.
void gemm_batch(Gemm* problems, int64_t count, void* workspace);

/// Packs b [n, k] into panels of pairs, for products where gemm_wants_panels or gemm_takes_panels.
/// Uses the thread pool.
void gemm_pack_panels(const GemmOperand& b, int64_t n, int64_t k, void* panels);

inline void gemm(Gemm problem, void* workspace) { gemm_batch(&problem, 1, workspace); }

}  // namespace FERRY_TIER
#endif

}  // namespace ferry::ops
