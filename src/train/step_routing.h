// The experts that a step is given in place of those that its own weights would choose, and how a checkpoint keeps
// them.
//
// Anticipatory routing, as DeepSeek-V4's report has it (arXiv 2606.19348, 4.2.3): features are computed with the
// weights as they are, the experts that they go to are those that older weights chose. Here the weights of one step
// before: a step chooses the experts of the next one's tokens before it changes anything. How a token's experts are
// weighed is still the weights' own.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "checkpoint/training_state.h"
#include "data/loader.h"
#include "tensor/tensor.h"
#include "train/config.h"
#include "train/spike.h"

namespace ferry {

/// Of each micro-batch, of each MoE layer, the MTP module's last where it is run: i32 [tokens, top_k].
using StepRouting = std::vector<std::vector<Tensor>>;

/// Whether step number `step` (from 1) is given what older weights chose: after the run has gone back from a spike, of
/// train.anticipatory_steps steps. The first one behind it has no step before it that could have chosen.
bool anticipates(const Rewinds& rewinds, int64_t step, const TrainSettings& settings);

/// Whether it is one for these micro-batches, where so many layers choose so many experts: a run that goes on may have
/// steps of another size, or run the MTP module where it did not.
bool fits(const StepRouting& routing,
          std::span<const data::Batch> micro_batches,
          int64_t layers,
          int64_t top_k);

/// For a checkpoint: its tensors, and how many micro-batches and layers they are of.
void put(const StepRouting& routing, std::vector<StatePiece>& pieces);
std::pair<int64_t, int64_t> size_of(const StepRouting& routing);

/// What put() gave. Errors: kCorrupt: not there, of another shape, or of experts that there are not.
Result<StepRouting> read_routing(TrainingStateReader& from,
                                 const std::pair<int64_t, int64_t>& size,
                                 int64_t experts,
                                 Device& device,
                                 const std::string& path);

}  // namespace ferry
