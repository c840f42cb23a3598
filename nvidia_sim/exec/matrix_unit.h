// How a GPU's matrix units add products of bf16 numbers. **From publications, never seen on hardware**: NVIDIA
// documents none of it. MMA-Sim (arXiv 2511.10909) and, by other experiments, arXiv 2512.07004 report models that gave
// the bits of the GPUs that their authors had; Fasi et al. (PeerJ Computer Science 7:e330) found the way of it.
//
// Of so many products at a time (Ampere 8, so that 16 are two additions; Hopper 16), and what they are added to:
// products are exact; every addend is cut toward zero to so many bits behind the point of the one with the largest
// exponent (24; 25), where a product's exponent is the sum of its factors', whatever its significand; the cut numbers
// are added exactly; the sum is cut toward zero to f32. Subnormal numbers are numbers like others, no exponent is below
// -126, a sum of zeros is +0, NaN is 0x7FFFFFFF, and what is too large becomes infinite. Each addition is one of its
// own: what the first eight of Ampere made infinite stays so, or becomes NaN, whatever the other eight are.
#pragma once

#include <cstdint>

namespace nvidia_sim {

struct MatrixUnit {
  int products = 16;       // that are added at once
  int fraction_bits = 25;  // of addends, behind the point of the largest one
  // For defects.
  int products_used = 16;  // of 16
  bool rounds = false;     // sums to f32 to nearest
};

/// Of compute capability 8.0 (80) and newer.
MatrixUnit matrix_unit_of(int architecture);

/// What an mma.m16n8k16 multiplies: a row by row, b column by column; bits of bf16, and of f32.
struct MatrixOperands {
  uint16_t a[16][16];
  uint16_t b[16][8];
  uint32_t c[16][8];
};

/// c = a b + c.
void multiply_add(const MatrixUnit& unit, MatrixOperands& m);

}  // namespace nvidia_sim
