// One training step, judged call by call: what a pass that only answers never launches.
#pragma once

#include "models/trainable_lm.h"
#include "probe/probe.h"
#include "verify/verify.h"

namespace ferry::verify {

/// The forward and backward pass of the probes' tokens as a micro-batch, keys and values of each
/// head computed as in training. Each call is judged on the CPU with its own inputs as soon as it is
/// launched; what leaves its bounds is added to report.parted, as of the pass "training". The
/// weights have memory and are f32; they stay as they are.
void judge_training(models::TrainableLm& model,
                    const probe::Batch& batch,
                    int blocks,
                    Report& report);

}  // namespace ferry::verify
