// The threads beside a stream's own that share a large product's or loop's work. Results never
// depend on how many there are: a part is a fixed piece of the output, not of a sum.
#pragma once

#include <cstdint>
#include <functional>

namespace ascend_sim {

/// Calls part(0) ... part(parts - 1), each once, in any order and on several threads; returns when
/// all have returned. Any number of streams may call it at once. `part` must not throw.
void in_parallel(int64_t parts, const std::function<void(int64_t)>& part);

}  // namespace ascend_sim
