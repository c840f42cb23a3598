// How many multiply-adds the processor does at most: what the speed of products is a share of.
#pragma once

#include <cstdint>

#include "ops/kernel_table.h"

namespace ferry::ops {

/// Multiply-adds a second of all threads of the CPU's pool, by the instructions that the tier's
/// products are made of, with all operands in registers. 0: of a tier without vectors.
struct ProductPeak {
  double codes = 0;  // whole numbers of 8 bits, summed in 32 (tensor/code_panels.h)
  double bf16 = 0;   // pairs of bf16, summed in f32
};
ProductPeak measure_product_peak();

/// Does about as many multiply-adds for each round, and returns how many they were.
DECLARE_CPU_FUNCTION(int64_t, multiply_codes, int64_t rounds)
DECLARE_CPU_FUNCTION(int64_t, multiply_bf16, int64_t rounds)

}  // namespace ferry::ops
