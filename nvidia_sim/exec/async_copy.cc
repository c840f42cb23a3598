// cp.async: copies from global to shared memory that go on beside their thread. They land as late as they may, when
// their thread waits for them; until then nobody may use the place, and after it others need a barrier, as for whatever
// the thread has written.
#include <algorithm>

#include "driver/result.h"
#include "exec/access.h"
#include "exec/async_copy.h"
#include "exec/counters.h"
#include "exec/decoder.h"

namespace nvidia_sim {
namespace {

/// a[0] where to, a[1] where from, a[2] how many bytes there are to read (if count is 2), offset: how many are written.
void begin_copy(Warp& w, const Instruction& i, uint32_t lanes) {
  const auto bytes = static_cast<uint32_t>(i.offset);
  const bool wide = (i.mode & kWideAddress) != 0;
  const uint64_t* const from = w.lanes<uint64_t>(i.a[1]);
  uint32_t to[kWarpSize] = {};
  uint32_t read_by = 0;
  for (int l = 0; l < kWarpSize; ++l) {
    if ((lanes >> l & 1) == 0) continue;
    to[l] =
        wide ? static_cast<uint32_t>(w.lanes<uint64_t>(i.a[0])[l]) : w.lanes<uint32_t>(i.a[0])[l];
    const uint32_t read = i.count == 2 ? w.lanes<uint32_t>(i.a[2])[l] : bytes;
    if (read > bytes)
      throw Violation(result::kLaunchFailed,
                      "reads " + std::to_string(read) + " bytes to write " + std::to_string(bytes),
                      l);
    if (to[l] % bytes != 0) misaligned(to[l], bytes, l);
    if (from[l] % bytes != 0) misaligned(from[l], bytes, l);
    if (read > 0) {
      const Allocation& a = allocation_of(w, i, from[l], read, Access::kRead, l);
      require_written(w, a, from[l] - a.address, read, l);
      read_by |= 1u << l;
    }
    const uint32_t thread = w.number * kWarpSize + static_cast<uint32_t>(l);
    of_lane(l, [&] { w.block->shared.begin_copy(thread, to[l], bytes); });
    w.copies.push_back({.lane = l,
                        .group = w.copy_groups[l],
                        .to = to[l],
                        .bytes = bytes,
                        .from = from[l],
                        .read = read});
  }
  count_shared(w, to, lanes, bytes);
  count_global(w, from, read_by, bytes, false);
}

void commit(Warp& w, const Instruction&, uint32_t lanes) {
  for (int l = 0; l < kWarpSize; ++l)
    if (lanes >> l & 1) ++w.copy_groups[l];
}

void land(Warp& w, const AsyncCopy& copy) {
  const uint32_t thread = w.number * kWarpSize + static_cast<uint32_t>(copy.lane);
  uint8_t* const place = w.block->shared.land_copy(thread, copy.to, copy.bytes);
  std::memset(place, 0, copy.bytes);
  if (copy.read == 0) return;
  const Allocation& a = of_lane(copy.lane, [&]() -> const Allocation& {
    return w.block->launch->memory->around(copy.from, copy.read, Access::kRead);
  });
  std::memcpy(place, a.data.data() + (copy.from - a.address), copy.read);
}

bool decode_copy(Decoder& d) {
  const bool whole_lines = d.take("cg");
  if (!whole_lines && !d.take("ca")) return false;
  if (!d.take("shared") && !d.take("shared::cta")) d.refuse();
  if (!d.take("global")) d.refuse();
  Instruction& out = d.out();
  d.complete(d.statement().operands.size() == 4 ? 4 : 3);
  d.shared_address(0);
  if (out.offset != 0) d.refuse("an address in a register alone is expected");
  const int mode = out.mode == 8 ? kWideAddress : 0;
  const uint32_t to = out.a[0];
  d.global_address(1);
  if (out.offset != 0) d.refuse("an address in a register alone is expected");
  out.a[1] = out.a[0];
  out.a[0] = to;
  out.mode = mode;
  const Operand& bytes = d.operand(2);
  if (bytes.kind != Operand::Kind::kInteger ||
      (bytes.value != 16 && (whole_lines || (bytes.value != 4 && bytes.value != 8))))
    d.refuse(whole_lines ? "copies 16 bytes" : "copies 4, 8 or 16 bytes");
  out.offset = bytes.value;
  if (d.statement().operands.size() == 4) {
    out.count = 2;
    out.a[2] = d.source(3, 4);
  }
  out.run = begin_copy;
  return true;
}

}  // namespace

void wait_for_copies(Warp& w, uint32_t lanes, uint64_t groups_on_their_way) {
  const auto landed = [&](const AsyncCopy& copy) {
    if ((lanes >> copy.lane & 1) == 0) return false;
    // Those of a group that was not committed are waited for by wait_all alone.
    if (copy.group + groups_on_their_way >= w.copy_groups[copy.lane] &&
        groups_on_their_way != kNone)
      return false;
    land(w, copy);
    return true;
  };
  w.copies.erase(std::remove_if(w.copies.begin(), w.copies.end(), landed), w.copies.end());
}

bool decode_async_copy(Decoder& d) {
  if (d.base() != "cp") return false;
  if (!d.take("async")) d.refuse();
  Instruction& out = d.out();
  if (d.take("commit_group")) {
    d.complete(0);
    out.run = commit;
  } else if (d.take("wait_group")) {
    d.complete(1);
    const Operand& groups = d.operand(0);
    if (groups.kind != Operand::Kind::kInteger || groups.value < 0)
      d.refuse("a number is expected");
    out.offset = groups.value;
    out.run = [](Warp& w, const Instruction& i, uint32_t lanes) {
      wait_for_copies(w, lanes, static_cast<uint64_t>(i.offset));
    };
  } else if (d.take("wait_all")) {
    d.complete(0);
    out.run = [](Warp& w, const Instruction&, uint32_t lanes) { wait_for_copies(w, lanes, kNone); };
  } else if (!decode_copy(d)) {
    d.refuse();
  }
  return true;
}

}  // namespace nvidia_sim
