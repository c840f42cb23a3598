// The probes as a server meets them, and where each probe's tokens lie in the batch of all.
#pragma once

#include <functional>
#include <vector>

#include "models/causal_lm.h"
#include "probe/probe.h"

namespace ferry::verify {

/// Rows of the batch that hold a probe's tokens.
struct Rows {
  int64_t begin, tokens;
};
std::vector<Rows> rows_of(const Probes& probes);

/// All prompts at once into a cache, then each text token by token. The tokens are the reference's,
/// so that one difference does not hide the next. `given`: the experts of each MoE layer for the
/// batch of all probes, to be used instead of a choice; nullptr: the model chooses.
/// before_pass(number of the pass) is called before each forward pass.
probe::Answers serve(models::CausalLm& model,
                     const Probes& probes,
                     const std::vector<std::vector<int32_t>>* given,
                     const std::function<void(int64_t)>& before_pass);

}  // namespace ferry::verify
