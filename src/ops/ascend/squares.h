// Sums in float32 by steps of kSquaresStep, as ops that need squares added on a chip do it.
#pragma once

#include "ops/ascend/aclnn.h"

namespace ferry::ops::ascend {

/// The sum of `from` [n] into `to` [1]: in whatever order the chip adds inside a step, a step adds
/// at most kSquaresStep - 1 roundings.
void sum_in_steps(Stream& stream, const Operand& from, const Operand& to);

}  // namespace ferry::ops::ascend
