#include "exec/matrix.h"

#include "driver/result.h"
#include "exec/access.h"
#include "exec/counters.h"
#include "exec/decoder.h"

namespace nvidia_sim {
namespace {

constexpr const char* kMma = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32";
constexpr int kMatrix = 8;  // rows and columns of what ldmatrix moves
constexpr uint32_t kMatrixRowBytes = 16;
constexpr int kTransposed = 1;  // of ldmatrix's mode

/// .aligned: whoever is missing makes the result undefined.
void require_whole_warp(uint32_t lanes) {
  if (lanes != kAllLanes)
    throw Violation(result::kLaunchFailed, "not all threads of the warp execute it together");
}

/// Registers of a vector operand, of 4 bytes each.
void registers_of(Decoder& d, size_t operand, size_t count, bool written, uint32_t* places) {
  const Operand& o = d.operand(operand);
  if (o.kind != Operand::Kind::kVector || o.parts.size() != count)
    d.refuse(std::to_string(count) + " registers are expected in an operand");
  for (size_t n = 0; n < count; ++n)
    places[n] = written ? d.destination(o.parts[n], 4) : d.source(o.parts[n], 4);
}

bool decode_mma(Decoder& d) {
  if (d.base() != "mma") return false;
  if (d.statement().name() != kMma)
    d.refuse(std::string("of products of matrices there is ") + kMma);
  for (size_t n = 1; n < d.statement().opcode.size(); ++n) d.take(d.statement().opcode[n].c_str());
  d.complete(4);
  Instruction& out = d.out();
  registers_of(d, 0, 4, true, out.d.data());
  registers_of(d, 1, 4, false, out.a.data());
  registers_of(d, 2, 2, false, out.a.data() + 4);
  registers_of(d, 3, 4, false, out.a.data() + 6);
  out.run = [](Warp& w, const Instruction& i, uint32_t lanes) {
    run_mma(w, i, lanes, matrix_unit_of(w.block->launch->architecture));
  };
  return true;
}

bool decode_ldmatrix(Decoder& d) {
  if (d.base() != "ldmatrix") return false;
  for (const char* part : {"sync", "aligned", "m8n8", "b16"})
    if (!d.take(part)) d.refuse();
  if (!d.take("shared") && !d.take("shared::cta")) d.refuse();
  const size_t count = d.take("x1") ? 1 : d.take("x2") ? 2 : d.take("x4") ? 4 : 0;
  if (count == 0) d.refuse();
  const bool transposed = d.take("trans");
  d.complete(2);
  Instruction& out = d.out();
  d.shared_address(1);
  registers_of(d, 0, count, true, out.d.data());
  out.count = static_cast<int>(count);
  out.mode = (out.mode == 8 ? kWideAddress : 0) | (transposed ? kTransposed : 0);
  out.run = [](Warp& w, const Instruction& i, uint32_t lanes) {
    run_ldmatrix(w, i, lanes, (i.mode & kTransposed) != 0);
  };
  return true;
}

}  // namespace

void run_mma(Warp& w, const Instruction& i, uint32_t lanes, const MatrixUnit& unit) {
  require_whole_warp(lanes);
  const auto low = [](uint32_t two) { return static_cast<uint16_t>(two); };
  const auto high = [](uint32_t two) { return static_cast<uint16_t>(two >> 16); };
  MatrixOperands m;
  for (int l = 0; l < kWarpSize; ++l) {
    const int group = l / 4, pair = l % 4 * 2;
    for (int r = 0; r < 4; ++r) {
      const uint32_t two = w.lanes<uint32_t>(i.a[static_cast<size_t>(r)])[l];
      const int row = group + r % 2 * 8, k = pair + r / 2 * 8;
      m.a[row][k] = low(two);
      m.a[row][k + 1] = high(two);
    }
    for (int r = 0; r < 2; ++r) {
      const uint32_t two = w.lanes<uint32_t>(i.a[static_cast<size_t>(4 + r)])[l];
      m.b[pair + r * 8][group] = low(two);
      m.b[pair + r * 8 + 1][group] = high(two);
    }
    for (int r = 0; r < 4; ++r)
      m.c[group + r / 2 * 8][pair + r % 2] = w.lanes<uint32_t>(i.a[static_cast<size_t>(6 + r)])[l];
  }
  multiply_add(unit, m);
  for (int l = 0; l < kWarpSize; ++l)
    for (int r = 0; r < 4; ++r)
      w.lanes<uint32_t>(i.d[static_cast<size_t>(r)])[l] = m.c[l / 4 + r / 2 * 8][l % 4 * 2 + r % 2];
  if (Counters* const counters = w.block->launch->counters) ++counters->matrix_products;
}

void run_ldmatrix(Warp& w, const Instruction& i, uint32_t lanes, bool transposed) {
  require_whole_warp(lanes);
  const bool wide = (i.mode & kWideAddress) != 0;
  const auto first_thread = w.number * kWarpSize;
  uint32_t out[4][kWarpSize];
  uint32_t addresses[kWarpSize] = {};
  for (int matrix = 0; matrix < i.count; ++matrix)
    for (int row = 0; row < kMatrix; ++row) {
      const int l = matrix * kMatrix + row;  // who says where it lies
      const uint32_t at = (wide ? static_cast<uint32_t>(w.lanes<uint64_t>(i.a[0])[l])
                                : w.lanes<uint32_t>(i.a[0])[l]) +
                          static_cast<uint32_t>(i.offset);
      addresses[l] = at;
      if (at % kMatrixRowBytes != 0) misaligned(at, kMatrixRowBytes, l);
      for (int word = 0; word < 4; ++word) {
        // Whoever gets it reads it; of a transposed word two lanes do, of which the first stands for both.
        const int to = transposed ? word * 2 * 4 + row / 2 : row * 4 + word;
        const uint8_t* const place = of_lane(l, [&] {
          return w.block->shared.access(first_thread + static_cast<uint32_t>(to),
                                        at + static_cast<uint32_t>(word) * 4,
                                        4,
                                        Access::kRead);
        });
        if (!transposed) {
          std::memcpy(&out[matrix][to], place, 4);
          continue;
        }
        for (int half = 0; half < 2; ++half) {
          const int its = to + half * 4;
          std::memcpy(
              reinterpret_cast<uint8_t*>(&out[matrix][its]) + row % 2 * 2, place + half * 2, 2);
        }
      }
    }
  count_shared(w, addresses, kAllLanes >> (kWarpSize - kMatrix * i.count), kMatrixRowBytes);
  for (int matrix = 0; matrix < i.count; ++matrix)
    std::memcpy(
        w.lanes<uint32_t>(i.d[static_cast<size_t>(matrix)]), out[matrix], sizeof out[matrix]);
}

bool decode_matrix(Decoder& d) { return decode_mma(d) || decode_ldmatrix(d); }

}  // namespace nvidia_sim
