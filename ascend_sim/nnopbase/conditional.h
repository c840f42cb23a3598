// Defects that show only beyond a size, beside a tile's edge, for some values, or after other calls:
// what tests at a few small shapes do not meet and a long run does. A table; the ops know nothing of
// them.
#pragma once

#include <string>
#include <vector>

#include "nnopbase/tensor.h"

namespace ascend_sim {

/// Carries out those that are planted for this op and whose condition this launch meets; outputs
/// hold what is right. On the stream's thread.
void spoil_conditionally(const std::string& op,
                         const std::vector<Tensor>& inputs,
                         const std::vector<Tensor>& outputs);

}  // namespace ascend_sim
