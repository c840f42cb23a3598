// Speed of training steps alone: random tokens, no data, no checkpoints. For comparing with peers.
#pragma once

#include <cstdint>
#include <string>

#include "train/config.h"

namespace ferry {

struct BenchmarkResult {
  std::string config_json;  // of the model
  int64_t parameters = 0;
  int64_t mtp_steps = 0;    // of those measured: train.mtp_every leaves the MTP modules out of some
  double tokens_per_s = 0;  // median step
  double mean_tokens_per_s = 0;
  double best_tokens_per_s = 0;
  double mfu = 0;  // of the median step, of the matrix-product rate measured in the same run
  double peak_gflops = 0;
  double peak_mb = 0;  // most memory resident while training, less what was before the model
  double live_mb = 0;  // the most that tensors held at once
};

/// Trains `warmup` steps that do not count, then `steps`. model.vocab_size must be given.
/// Errors: kInvalidInput.
Result<BenchmarkResult> benchmark_training(const Settings& settings, int64_t steps, int64_t warmup);

}  // namespace ferry
