// The loss on held-out text, while training.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "data/loader.h"
#include "models/causal_lm.h"

namespace ferry {

struct HeldOutLoss {
  double nats_per_token = 0, bits_per_byte = 0;
};

/// Over the first batches, up to `tokens_max` tokens or a little more. Text is scored as it will be
/// when the model serves: in the absorbed form. go_on(tokens done) is asked before each batch;
/// nothing comes of an evaluation that it ends, or of no text.
std::optional<HeldOutLoss> held_out_loss(models::CausalLm& model,
                                         const data::HeldOut& held_out,
                                         int64_t tokens_max,
                                         const std::function<bool(int64_t)>& go_on);

}  // namespace ferry
