// What tests do to a step by FERRY_FAULT (base/fault.h): what a run meets whose data are garbage, or whose chip errs
// where nothing notices. Where such a point "fails", nothing is reported, and the step goes on with what is wrong.
#pragma once

#include "data/loader.h"
#include "models/causal_lm.h"
#include "train/train_step.h"

namespace ferry {

/// spoil.labels: each label is another token than the text's.
void spoil_labels(data::Batch& batch, int32_t vocab_size);

/// spoil.loss: the step's loss is no number.
void spoil_loss(StepGradients& step);

/// spoil.weights: the last norm's are a thousand times what they were, so that all logits are.
/// Whether it did.
bool spoil_weights(models::CausalLm& model);

}  // namespace ferry
