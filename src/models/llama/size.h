// What a Llama costs, from its config alone: parameters, operations, memory. For refusing what cannot
// fit, and MFU. Numbers of things are doubles: exact below 2^53, and no product of sizes from a file
// overflows them.
#pragma once

#include "models/llama/config.h"
#include "models/trainable_lm.h"
#include "tensor/dtype.h"

namespace ferry::models::llama {

double parameters_total(const Config& config);
/// Of the matrices that a token meets; of the embedding it reads one row.
double parameters_active(const Config& config);
/// As TrainableLm's functions of these names say.
double flops_per_token(const Config& config, double context);
double activation_bytes_per_token(const Config& config, DType compute, Recompute recompute);

}  // namespace ferry::models::llama
