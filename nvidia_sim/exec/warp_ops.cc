// What lanes of a warp do together: shuffles, votes, their own barrier. Lanes that the mask names
// and that are not there are a mistake that a card answers with anything, or never.
#include <bit>

#include "driver/result.h"
#include "exec/decoder.h"
#include "exec/lanewise.h"

namespace nvidia_sim {
namespace {

/// Throws Violation unless each lane's mask is the lanes that are here.
void check_mask(Warp& w, const Instruction& i, uint32_t lanes) {
  const uint32_t* mask = w.lanes<uint32_t>(i.a[3]);
  for (int l = 0; l < kWarpSize; ++l)
    if ((lanes >> l & 1) && mask[l] != lanes)
      throw Violation(
          result::kLaunchFailed,
          "the mask names lanes " + std::to_string(mask[l]) + ", here are " + std::to_string(lanes),
          l);
}

enum class Shuffle : int { kUp, kDown, kButterfly, kIndex };

/// d[0] what came, d[1] whether it came from within the segment (if count is 2).
void shuffle(Warp& w, const Instruction& i, uint32_t lanes) {
  check_mask(w, i, lanes);
  const uint32_t *a = w.lanes<uint32_t>(i.a[0]), *b = w.lanes<uint32_t>(i.a[1]),
                 *c = w.lanes<uint32_t>(i.a[2]);
  uint32_t out[kWarpSize] = {};
  uint32_t within = 0;
  for (uint32_t l = 0; l < kWarpSize; ++l) {
    if ((lanes >> l & 1) == 0) continue;
    const uint32_t by = b[l] & 31, clamp = c[l] & 31, segment = c[l] >> 8 & 31;
    const uint32_t last = (l & segment) | (clamp & ~segment), first = l & segment;
    uint32_t from = l;
    bool inside = true;
    switch (static_cast<Shuffle>(i.mode)) {
      case Shuffle::kUp:
        // For this one alone the clamp is the lowest lane.
        inside = l >= last + by;
        from = l - by;
        break;
      case Shuffle::kDown:
        inside = l + by <= last;
        from = l + by;
        break;
      case Shuffle::kButterfly:
        inside = (l ^ by) <= last;
        from = l ^ by;
        break;
      case Shuffle::kIndex:
        from = first | (by & ~segment);
        inside = from <= last;
        break;
    }
    if (!inside) from = l;
    if ((lanes >> from & 1) == 0)
      throw Violation(result::kLaunchFailed,
                      "takes from lane " + std::to_string(from) + ", which is not here",
                      static_cast<int>(l));
    out[l] = a[from];
    within |= static_cast<uint32_t>(inside) << l;
  }
  keep(w.lanes<uint32_t>(i.d[0]), out, lanes);
  if (i.count == 2) {
    uint32_t& p = w.predicates[i.d[1]];
    p = (p & ~lanes) | (within & lanes);
  }
}

bool decode_shuffle(Decoder& d) {
  if (d.base() != "shfl") return false;
  if (!d.take("sync")) d.refuse("without .sync it is gone since Volta");
  Instruction& out = d.out();
  const Shuffle mode = d.take("up")     ? Shuffle::kUp
                       : d.take("down") ? Shuffle::kDown
                       : d.take("bfly") ? Shuffle::kButterfly
                                        : Shuffle::kIndex;
  if (mode == Shuffle::kIndex && !d.take("idx")) d.refuse();
  out.mode = static_cast<int>(mode);
  if (size_of(d.take_type()) != 4) d.refuse("not of this type");
  d.complete(5);
  Operand to = d.operand(0);
  if (!to.second.empty()) {
    Operand within = to;
    within.name = to.second;
    within.second.clear();
    out.d[1] = d.predicate(within);
    out.count = 2;
    to.second.clear();
  }
  out.d[0] = d.destination(to, 4);
  for (size_t n = 0; n < 4; ++n) out.a[n] = d.source(n + 1, 4);
  out.run = shuffle;
  return true;
}

/// mode 0 any, 1 all, 2 ballot; count 2: of the opposite.
void vote(Warp& w, const Instruction& i, uint32_t lanes) {
  check_mask(w, i, lanes);
  const uint32_t p = (i.count == 2 ? ~w.predicates[i.a[0]] : w.predicates[i.a[0]]) & lanes;
  if (i.mode == 2) {
    for (int l = 0; l < kWarpSize; ++l)
      if (lanes >> l & 1) w.lanes<uint32_t>(i.d[0])[l] = p;
    return;
  }
  uint32_t& to = w.predicates[i.d[0]];
  to = (to & ~lanes) | ((i.mode == 0 ? p != 0 : p == lanes) ? lanes : 0);
}

bool decode_vote(Decoder& d) {
  if (d.base() != "vote") return false;
  if (!d.take("sync")) d.refuse("without .sync it is gone since Volta");
  Instruction& out = d.out();
  out.mode = d.take("any") ? 0 : d.take("all") ? 1 : d.take("ballot") ? 2 : 3;
  if (out.mode == 3) d.refuse();
  d.take_type();
  d.complete(3);
  out.d[0] = out.mode == 2 ? d.destination(size_t{0}, 4) : d.predicate(0);
  Operand p = d.operand(1);
  if (p.negated) out.count = 2;
  p.negated = false;
  out.a[0] = d.predicate(p);
  out.a[3] = d.source(2, 4);
  out.run = vote;
  return true;
}

/// bar.warp.sync: orders what the warp's lanes wrote. Lanes that are elsewhere are not ordered.
bool decode_warp_barrier(Decoder& d) {
  const auto& opcode = d.statement().opcode;
  if (d.base() != "bar" || opcode.size() < 2 || opcode[1] != "warp") return false;
  d.take("warp");
  if (!d.take("sync")) d.refuse();
  d.complete(1);
  d.out().a[3] = d.source(size_t{0}, 4);
  d.out().run = [](Warp& w, const Instruction& i, uint32_t lanes) {
    check_mask(w, i, lanes);
    if (lanes == w.alive) w.block->shared.warp_barrier(w.number);
  };
  return true;
}

}  // namespace

bool decode_warp(Decoder& d) {
  return decode_shuffle(d) || decode_vote(d) || decode_warp_barrier(d);
}

}  // namespace nvidia_sim
