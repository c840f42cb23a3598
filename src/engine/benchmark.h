// How fast a model answers, beside what the machine could give it to read.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "models/causal_lm.h"
#include "ops/cpu/product_peak.h"

namespace ferry::engine {

struct ServingSpeed {
  double prefill_tokens_per_s = 0;
  std::map<int64_t, double> decode_tokens_per_s;  // by requests at once; of all together
  double weight_bytes = 0;  // that one pass reads: all but embeddings that are looked up
  double bytes_per_s = 0;   // that all threads together read of memory
  ops::ProductPeak peak;
};

struct ServingLoad {
  int64_t prompt = 512;   // tokens
  int64_t context = 128;  // tokens before those that are decoded
  int64_t steps = 32;     // decoded, by each request
  std::vector<int64_t> at_once = {1, 8, 16};
  int64_t rounds = 3;  // of each the fastest counts
};

/// Runs the load with random prompts. The engine's own bookkeeping is part of the time, as sampling
/// (greedy) is. Throws what the model's passes throw.
ServingSpeed measure_serving(models::CausalLm& model, const ServingLoad& load);

/// Bytes that all threads of the CPU read together in a second of a memory that is larger than its
/// caches; the best of some passes.
double measure_read_bandwidth();

}  // namespace ferry::engine
