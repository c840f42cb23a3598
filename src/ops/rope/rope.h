// Rotary position embedding, with YaRN's frequencies.
#pragma once

#include "ops/spec.h"
#include "tensor/tensor.h"

namespace ferry::ops {

struct RopeConfig {
  int64_t dim = 0;              // rotated columns, even
  double theta = 10000;
  bool yarn = false;            // the fields below count only then
  double factor = 1;
  int64_t original_max_position = 4096;
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 1;
  double mscale_all_dim = 0;
};

/// Pairs whose index is below `low` keep their frequency, those from `high` on are slowed by `factor`.
struct YarnRange {
  double low, high;
};
YarnRange yarn_range(const RopeConfig& config);

/// Radians per position of each of the dim / 2 pairs. Plain float64 arithmetic without libm.
std::vector<double> rope_frequencies(const RopeConfig& config);

/// cos and sin of every position, times YaRN's m(mscale) / m(mscale_all_dim).
struct RopeTable {
  Tensor cosine, sine;  // f32 [positions, dim / 2]
};

/// Error of an entry: below 1 ulp of f32. Sine and cosine are computed here, from exactly rounded
/// operations, so that the table's bits do not depend on a C library.
RopeTable make_rope_table(const RopeConfig& config, int64_t positions, Device& device);

/// 1 / sqrt(width) times m(mscale_all_dim)², m(s) = 0.1 s ln(factor) + 1: what MLA's scores are scaled by.
float mla_softmax_scale(int64_t width, const RopeConfig& config);

/// Rotates columns [begin, begin + dim) of every head's row by its token's position; copies the others.
///
/// Shapes    x [tokens, heads, width] or [tokens, width], may be strided; position i32 [tokens];
///           returns x's shape, contiguous. A position outside the table gives NaN.
/// Types     x f32 or bf16; computed in f32, rounded once.
/// Gradient  the inverse rotation of d_y.
/// Errors    check: shapes, types.
/// Source    Su et al. 2021, arXiv 2104.09864; Peng et al. 2023, arXiv 2309.00071 (YaRN).
Tensor rope(const Tensor& x, const RopeTable& table, const Tensor& position, int64_t begin, bool interleaved);

/// This op's rows of the op x device table.
std::vector<KernelRow> rope_kernels();

}  // namespace ferry::ops
