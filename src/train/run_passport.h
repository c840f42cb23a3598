// The passport of a run's model: how it was trained, and what the CPU reference answers to probes.
#pragma once

#include <optional>

#include "base/signature.h"
#include "checkpoint/model_dir.h"
#include "models/causal_lm.h"
#include "train/config.h"
#include "train/run_state.h"

namespace ferry {

/// The key that checkpoint.key names, as it was when the settings were read. Errors: kNotFound,
/// kInvalidInput.
Result<std::optional<KeyPair>> signing_key(const CheckpointSettings& settings);

/// Adds the passport to the contents of a model directory; write_model() puts in the files' hashes.
/// The probes are the beginnings of held-out documents, and ids from all of the vocabulary. Asks
/// the CPU, with the weights as they will be stored, whatever device trained them.
/// Errors: kNotFound, kInvalidInput: the key.
Result<void> add_passport(ModelContents& contents,
                          models::CausalLm& model,
                          const TrainedAdapter* adapter,
                          const RunState& state,
                          const RunData& data,
                          const Settings& settings);

}  // namespace ferry
