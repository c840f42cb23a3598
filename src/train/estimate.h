// What a run will take, said before it starts: and refused if it cannot fit.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "adapter/trained_adapter.h"
#include "base/limits.h"
#include "models/trainable_lm.h"
#include "train/config.h"

namespace ferry {

struct Estimate {
  int64_t parameters_total = 0, parameters_active = 0;
  double flops_step = 0;      // forward and backward, MTP modules not run
  double flops_mtp_step = 0;  // with them
  int64_t steps_left = 0;     // of those that the settings have
  double flops_total = 0;     // of these
  double weight_bytes =
      0;  // the model's, and an adapter's factors with the base's values beside the merged ones
  double memory_bytes = 0;  // weights, optimizer, gradients, activations: of the device
  double host_bytes = 0;    // beside a device with memory of its own: the CPU's copy of the model
  double memory_bytes_there = 0, host_bytes_there = 0;  // of these, what has its memory already
  double disk_bytes = 0;        // all checkpoints that are kept, and one being written
  double peak_flops_per_s = 0;  // of a large matrix product, measured now
  double seconds = 0;           // at the efficiency assumed
};

constexpr double kEfficiencyAssumed =
    0.45;  // of the measured matrix-product rate; told with the time

/// Of a run that has made so many steps. optimizer_bytes: of its state; checkpoint_bytes: of one checkpoint.
Estimate estimate(const models::TrainableLm& model,
                  const Settings& settings,
                  int64_t steps_done,
                  const TrainedAdapter* adapter,
                  uint64_t optimizer_bytes,
                  uint64_t checkpoint_bytes,
                  double peak_flops_per_s);

/// Adds passes without gradient over so many tokens, before the first step.
void add_scoring(Estimate& e,
                 const models::TrainableLm& model,
                 const Settings& settings,
                 int64_t tokens);

/// Rate of a large matrix product in the compute type on the model's device, operations per second:
/// the best of a few runs that together take about half a second.
double measure_peak(Device& device, DType compute);

/// memory: the device's, host: the machine's. Errors: kExhausted if memory or disk is too small, with
/// both numbers and what to change.
Result<void> check_fits(const Estimate& e,
                        const Settings& settings,
                        const MemoryAvailable& memory,
                        const MemoryAvailable& host,
                        uint64_t disk_free);

/// Errors: kExhausted if a checkpoint's largest file is above what this process may write.
Result<void> check_file_limit(uint64_t largest_file, uint64_t limit, const Settings& settings);

/// Of a checkpoint.
struct CheckpointSize {
  uint64_t model_bytes = 0, state_bytes = 0;
};
/// Once program, weights and the optimizer's state have their memory: whether what is still to come of the estimate
/// fits, for each of so many ranks on this machine, beside the checkpoints that are there. Errors: of the two above,
/// and of list_checkpoints and free_disk_bytes.
Result<void> check_still_fits(const Estimate& e,
                              const Settings& settings,
                              Device& device,
                              const CheckpointSize& checkpoint,
                              int ranks);

/// Of a worker that follows another one of its run: a disk that has no room now is told, and no reason to end what had
/// begun. Whatever else does not fit is.
Result<void> outlive_full_disk(Result<void> fits,
                               bool follows,
                               const std::function<void(const std::string&)>& say);

/// The estimate in words, several lines: of a run that goes on, what is left of it.
std::string describe(const Estimate& e, const Settings& settings);

}  // namespace ferry
