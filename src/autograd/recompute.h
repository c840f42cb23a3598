// Activations that are made again when gradients need them, instead of being kept.
#pragma once

#include <functional>
#include <vector>

#include "tensor/tensor.h"

namespace ferry {

/// Runs `forward` without recording, and again, recording, when its gradient is played back: the
/// activations inside live only then. `forward` must be a function of `inputs` and of weights; a
/// weight may be used by one such region only (a second one would come after its gradient was
/// handed over, which is checked). The recomputed bits are the same. Without a tape: just
/// forward(inputs).
std::vector<Tensor> recompute(
    std::vector<Tensor> inputs,
    std::function<std::vector<Tensor>(const std::vector<Tensor>&)> forward);

/// Whether a forward function runs for the second time, so that counters count each token once.
bool recomputing();

}  // namespace ferry
