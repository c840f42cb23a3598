// ld and st: parameters, global and shared memory, each access checked.
#include <algorithm>
#include <type_traits>

#include "driver/result.h"
#include "exec/access.h"
#include "exec/counters.h"
#include "exec/decoder.h"

namespace nvidia_sim {
namespace {

bool all_written(const uint8_t* marks, uint64_t bytes) {
  constexpr uint32_t kFour = 0x01010101;
  uint64_t at = 0;
  for (uint32_t four = 0; at + sizeof four <= bytes; at += sizeof four) {
    std::memcpy(&four, marks + at, sizeof four);
    if (four != kFour) return false;
  }
  for (; at < bytes; ++at)
    if (marks[at] == 0) return false;
  return true;
}

}  // namespace

void misaligned(uint64_t address, uint64_t bytes, int lane) {
  throw Violation(result::kMisalignedAddress,
                  "an access of " + std::to_string(bytes) + " bytes is misaligned, at " +
                      std::to_string(address % 256) + " modulo 256",
                  lane);
}

Allocation& allocation_of(
    Warp& w, const Instruction& i, uint64_t at, uint64_t bytes, Access access, int lane) {
  const auto n = static_cast<size_t>(&i - w.block->launch->kernel->code.data());
  Allocation*& seen = w.block->seen[n];
  if (seen == nullptr || !seen->holds(at, bytes))
    seen = of_lane(lane, [&] { return &w.block->launch->memory->around(at, bytes, access); });
  return *seen;
}

void require_written(Warp& w, const Allocation& a, uint64_t at, uint64_t bytes, int lane) {
  if (!w.block->launch->checked || all_written(a.written.data() + at, bytes)) return;
  throw Violation(result::kLaunchFailed,
                  "reads " + std::to_string(bytes) + " bytes at byte " + std::to_string(at) +
                      " of an allocation of " + std::to_string(a.bytes) + ", which nobody wrote",
                  lane);
}

namespace {

using Run = Instruction::Run;

/// f(lane, place in `bytes`, of the allocation): for each lane that takes part, checked.
template <typename F>
void for_global(
    Warp& w, const Instruction& i, uint32_t lanes, uint64_t bytes, Access access, F&& f) {
  const uint64_t* address = w.lanes<uint64_t>(i.a[0]);
  uint64_t places[kWarpSize] = {};
  for (int l = 0; l < kWarpSize; ++l) {
    if ((lanes >> l & 1) == 0) continue;
    const uint64_t at = places[l] = address[l] + static_cast<uint64_t>(i.offset);
    if (at % bytes != 0) misaligned(at, bytes, l);
    Allocation& a = allocation_of(w, i, at, bytes, access, l);
    f(l, a, at - a.address);
  }
  count_global(w, places, lanes, static_cast<uint32_t>(bytes), access == Access::kWrite);
}

/// M in memory, R in the register, which may be wider: zeros in front, or the sign.
template <typename M, typename R>
void load_global(Warp& w, const Instruction& i, uint32_t lanes) {
  const uint64_t bytes = sizeof(M) * static_cast<uint64_t>(i.count);
  for_global(w, i, lanes, bytes, Access::kRead, [&](int l, const Allocation& a, uint64_t at) {
    require_written(w, a, at, bytes, l);
    for (size_t v = 0; v < static_cast<size_t>(i.count); ++v) {
      M value;
      std::memcpy(&value, a.data.data() + at + v * sizeof(M), sizeof(M));
      if (i.mode >> v & 1) w.lanes<R>(i.d[v])[l] = static_cast<R>(value);
    }
  });
}

template <typename M, typename R>
void store_global(Warp& w, const Instruction& i, uint32_t lanes) {
  const uint64_t bytes = sizeof(M) * static_cast<uint64_t>(i.count);
  for_global(w, i, lanes, bytes, Access::kWrite, [&](int l, Allocation& a, uint64_t at) {
    for (size_t v = 0; v < static_cast<size_t>(i.count); ++v) {
      const M value = static_cast<M>(w.lanes<R>(i.d[v])[l]);
      std::memcpy(a.data.data() + at + v * sizeof(M), &value, sizeof(M));
    }
    std::memset(a.written.data() + at, 1, bytes);
  });
}

template <typename F>
void for_shared(
    Warp& w, const Instruction& i, uint32_t lanes, uint64_t bytes, Access access, F&& f) {
  const bool wide = (i.mode & kWideAddress) != 0;
  uint32_t places[kWarpSize] = {};
  for (int l = 0; l < kWarpSize; ++l) {
    if ((lanes >> l & 1) == 0) continue;
    const uint32_t base =
        wide ? static_cast<uint32_t>(w.lanes<uint64_t>(i.a[0])[l]) : w.lanes<uint32_t>(i.a[0])[l];
    const uint32_t at = places[l] = base + static_cast<uint32_t>(i.offset);
    if (at % bytes != 0) misaligned(at, bytes, l);
    const uint32_t thread = w.number * kWarpSize + static_cast<uint32_t>(l);
    f(l, of_lane(l, [&] {
        return w.block->shared.access(thread, at, static_cast<uint32_t>(bytes), access);
      }));
  }
  count_shared(w, places, lanes, static_cast<uint32_t>(bytes));
}

template <typename M, typename R>
void load_shared(Warp& w, const Instruction& i, uint32_t lanes) {
  const uint64_t bytes = sizeof(M) * static_cast<uint64_t>(i.count);
  for_shared(w, i, lanes, bytes, Access::kRead, [&](int l, const uint8_t* place) {
    for (size_t v = 0; v < static_cast<size_t>(i.count); ++v) {
      M value;
      std::memcpy(&value, place + v * sizeof(M), sizeof(M));
      if (i.mode >> v & 1) w.lanes<R>(i.d[v])[l] = static_cast<R>(value);
    }
  });
}

template <typename M, typename R>
void store_shared(Warp& w, const Instruction& i, uint32_t lanes) {
  const uint64_t bytes = sizeof(M) * static_cast<uint64_t>(i.count);
  for_shared(w, i, lanes, bytes, Access::kWrite, [&](int l, uint8_t* place) {
    for (size_t v = 0; v < static_cast<size_t>(i.count); ++v) {
      const M value = static_cast<M>(w.lanes<R>(i.d[v])[l]);
      std::memcpy(place + v * sizeof(M), &value, sizeof(M));
    }
  });
}

/// The same for all lanes; or where a register says, which was made of a parameter's address.
template <typename M, typename R>
void load_param(Warp& w, const Instruction& i, uint32_t lanes) {
  const std::vector<uint8_t>& params = w.block->launch->params;
  const uint64_t bytes = sizeof(M) * static_cast<uint64_t>(i.count);
  if ((i.mode & kWideAddress) == 0 && i.count == 1 && lanes == kAllLanes) {  // checked when decoded
    M value;
    std::memcpy(&value, params.data() + i.offset, sizeof(M));
    std::fill_n(w.lanes<R>(i.d[0]), kWarpSize, static_cast<R>(value));
    return;
  }
  for (int l = 0; l < kWarpSize; ++l) {
    if ((lanes >> l & 1) == 0) continue;
    uint64_t at = static_cast<uint64_t>(i.offset);
    if (i.mode & kWideAddress) at += w.lanes<uint64_t>(i.a[0])[l];
    if (at > params.size() || bytes > params.size() - at)
      throw Violation(result::kIllegalAddress, "reads beyond the parameters", l);
    if (at % bytes != 0) misaligned(at, bytes, l);
    for (size_t v = 0; v < static_cast<size_t>(i.count); ++v) {
      M value;
      std::memcpy(&value, params.data() + at + v * sizeof(M), sizeof(M));
      if (i.mode >> v & 1) w.lanes<R>(i.d[v])[l] = static_cast<R>(value);
    }
  }
}

struct Runs {
  Run load_global, store_global, load_shared, store_shared, load_param;
};

template <typename M, typename R>
Runs runs() {
  return {load_global<M, R>,
          store_global<M, R>,
          load_shared<M, R>,
          store_shared<M, R>,
          load_param<M, R>};
}

/// A register as wide as the type or wider takes the number with zeros, or its sign, in front.
template <typename M>
Runs runs_into(Decoder& d, int register_bytes) {
  constexpr bool kSigned = std::is_signed_v<M>;
  if (register_bytes < static_cast<int>(sizeof(M))) d.refuse("a register that is too narrow");
  switch (register_bytes) {
    case 2: return runs<M, std::conditional_t<kSigned, int16_t, uint16_t>>();
    case 4: return runs<M, std::conditional_t<kSigned, int32_t, uint32_t>>();
    default: return runs<M, std::conditional_t<kSigned, int64_t, uint64_t>>();
  }
}

Runs runs_of(Decoder& d, Type type, int register_bytes) {
  switch (type) {
    case Type::kB8:
    case Type::kU8: return runs_into<uint8_t>(d, register_bytes);
    case Type::kS8: return runs_into<int8_t>(d, register_bytes);
    case Type::kB16:
    case Type::kU16: return runs_into<uint16_t>(d, register_bytes);
    case Type::kS16: return runs_into<int16_t>(d, register_bytes);
    case Type::kB32:
    case Type::kU32:
    case Type::kF32: return runs_into<uint32_t>(d, register_bytes);
    case Type::kS32: return runs_into<int32_t>(d, register_bytes);
    case Type::kB64:
    case Type::kU64:
    case Type::kS64:
    case Type::kF64: return runs_into<uint64_t>(d, register_bytes);
    case Type::kPred: break;
  }
  d.refuse("not of this type");
}

}  // namespace

bool decode_memory(Decoder& d) {
  const bool load = d.base() == "ld";
  if (!load && d.base() != "st") return false;
  const bool shared = d.take("shared") || d.take("shared::cta"), param = d.take("param");
  // Without a space the address is generic, and those of global memory are the same there.
  d.take("global");
  for (const char* hint : {"nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "weak", "volatile"})
    d.take(hint);
  Instruction& out = d.out();
  out.count = d.take("v2") ? 2 : d.take("v4") ? 4 : 1;
  const Type type = d.take_type();
  d.complete(2);
  const Operand& values = d.operand(load ? 0 : 1);
  std::vector<Operand> parts = {values};
  if (out.count > 1) {
    if (values.kind != Operand::Kind::kVector ||
        values.parts.size() != static_cast<size_t>(out.count))
      d.refuse("as many registers are expected as the vector has");
    parts = values.parts;
  }
  if (param) {
    if (!load) d.refuse("parameters are read alone");
    d.param_address(1, size_of(type) * out.count);
  } else if (shared) {
    d.shared_address(load ? 1 : 0);
  } else {
    d.global_address(load ? 1 : 0);
  }
  // How wide the address is, then a bit for each number that somebody wants.
  out.mode = out.mode == 8 ? kWideAddress : 0;
  int width = 0;
  for (size_t v = 0; v < parts.size(); ++v) {
    if (load && parts[v].kind == Operand::Kind::kSink) continue;
    const bool is_register = parts[v].kind == Operand::Kind::kRegister;
    const int bytes = is_register ? d.width(parts[v]) : std::max(size_of(type), 2);
    if (width != 0 && bytes != width) d.refuse("registers of different widths");
    width = bytes;
    out.d[v] = load ? d.destination(parts[v], bytes) : d.source(parts[v], bytes);
    out.mode |= 1 << v;
  }
  if (width == 0) d.refuse("a register is expected");
  const Runs runs = runs_of(d, type, width);
  out.run = param    ? runs.load_param
            : shared ? (load ? runs.load_shared : runs.store_shared)
                     : (load ? runs.load_global : runs.store_global);
  return true;
}

}  // namespace nvidia_sim
