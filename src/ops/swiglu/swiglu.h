// The gated activation of DeepSeek's feed-forward blocks.
#pragma once

#include "tensor/tensor.h"

namespace ferry::ops {

/// y = silu(gate) * up, with silu(g) = g / (1 + e^-g).
///
/// Shapes    gate, up and y alike, any rank; gate and up may be strided views.
/// Types     f32 or bf16, both alike; computed in f32, rounded once.
/// Gradient  d_gate, d_up; keeps the inputs only and computes the sigmoid again. y is made again
///           for whoever needs it (Tape::makes_again).
/// Errors    check: shapes, types.
/// Source    Shazeer 2020, arXiv 2002.05202.
Tensor swiglu(const Tensor& gate, const Tensor& up);

}  // namespace ferry::ops
