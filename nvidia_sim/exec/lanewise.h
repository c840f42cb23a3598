// Instructions that do the same to each lane by itself.
#pragma once

#include <tuple>
#include <utility>

#include "exec/warp.h"

namespace nvidia_sim {

/// Writes what was computed for all lanes to those that take part.
template <typename D>
inline void keep(D* to, const D* from, uint32_t lanes) {
  if (lanes == kAllLanes) {
    std::memcpy(to, from, sizeof(D) * kWarpSize);
    return;
  }
  for (int l = 0; l < kWarpSize; ++l)
    if (lanes >> l & 1) to[l] = from[l];
}

template <typename D, typename F, typename... S, size_t... n>
inline void each_lane(Warp& w, const Instruction& i, uint32_t lanes, std::index_sequence<n...>) {
  const std::tuple<const S*...> s{w.lanes<S>(i.a[n])...};
  D out[kWarpSize];
  for (int l = 0; l < kWarpSize; ++l) out[l] = static_cast<D>(F{}(std::get<n>(s)[l]...));
  keep(w.lanes<D>(i.d[0]), out, lanes);
}

/// An instruction with a result of D and operands of S...: f is asked for every lane, also for
/// those that take no part, so it must be total.
template <typename D, typename... S, typename F>
Instruction::Run lanewise(F) {
  return [](Warp& w, const Instruction& i, uint32_t lanes) {
    each_lane<D, F, S...>(w, i, lanes, std::index_sequence_for<S...>{});
  };
}

}  // namespace nvidia_sim
