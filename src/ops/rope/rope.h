// Rotary position embedding, with YaRN's stretched frequencies.
#pragma once

#include "ops/rope/rope_config.h"
#include "ops/segments.h"
#include "tensor/tensor.h"

namespace ferry::ops {

/// cos and sin of position * frequency, f32 [positions, dim / 2], times YaRN's mscale ratio
/// or attention factor.
struct RopeTable {
  Tensor cos, sin;
};

/// Frequencies theta^(-2 i / dim), angles and their sine and cosine are computed in float64 from
/// exactly rounded operations alone (no libm), so that every machine has the same table; within 1
/// ulp of f32. An element depends on its position and pair alone: a longer table begins with a shorter one.
/// Uses the CPU's thread pool.
/// Errors    check: dim even, theta > 1, YaRN's fields positive and in order.
RopeTable make_rope_table(const RopeConfig& config, int64_t positions, Device& device);

/// Pairs [0, low] keep their frequency, those from high on are divided by factor, a ramp between.
struct YarnRange {
  int64_t low, high;
};
YarnRange yarn_range(const RopeConfig& config);

/// MLA's factor on scores: d_qk^-0.5, times m² under YaRN, m = 0.1 mscale_all_dim ln(factor) + 1.
float mla_softmax_scale(int64_t d_qk, const RopeConfig& config);

/// Rotates columns [begin, begin + dim) of every row by its token's position; copies the others.
/// Pair i is (2i, 2i + 1) if interleaved, else (i, i + dim / 2): (a, b) -> (a cos - b sin, b cos +
/// a sin).
///
/// Shapes    x [T, H, D] or [T, D], may be strided; segments of T tokens; returns x's shape, contiguous.
/// Types     x f32 or bf16; computed in f32, each product and sum rounded; returns x's type.
/// Gradient  d_x, the inverse rotation; keeps nothing but the positions. y is made again
///           for whoever needs it (Tape::makes_again).
/// Errors    check: shapes, types, positions outside the table.
/// Source    Su et al. 2021, arXiv 2104.09864; YaRN: Peng et al. 2023, arXiv 2309.00071.
Tensor rope(const Tensor& x,
            const RopeTable& table,
            const Segments& segments,
            int64_t begin,
            bool interleaved);

}  // namespace ferry::ops
