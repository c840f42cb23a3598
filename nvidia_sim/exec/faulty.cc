#include "exec/faulty.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string_view>

#include "exec/async_copy.h"
#include "exec/decoder.h"
#include "exec/lanewise.h"
#include "exec/matrix.h"
#include "exec/numbers.h"

namespace nvidia_sim {
namespace {

using Run = Instruction::Run;

// --- floating point ---

/// The number of f32 between 0 and x that is nearest to x.
float toward_zero(double x) {
  const float f = static_cast<float>(x);
  if (f != f || std::abs(static_cast<double>(f)) <= std::abs(x)) return settled(f);
  return settled(std::nextafter(f, 0.0f));
}

/// The upper bits of a number: what `drop` says is cut off.
float cut(float x, int drop) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  return x != x ? canonical(x) : std::bit_cast<float>(u >> drop << drop);
}

constexpr int kApproximate = 12;  // bits that an approximation lacks

float truncated_fma(float a, float b, float c) {
  return toward_zero(static_cast<double>(flushed(a)) * static_cast<double>(flushed(b)) +
                     static_cast<double>(flushed(c)));
}

float clamped(float x) {
  if (!std::isinf(x)) return x;
  return std::copysign(std::numeric_limits<float>::max(), x);
}
float without_nan(float x) { return x != x ? 0.0f : x; }

float sum(float a, float b) { return settled(flushed(a) + flushed(b)); }
float product(float a, float b) { return settled(flushed(a) * flushed(b)); }
float fused(float a, float b, float c) {
  return settled(__builtin_fmaf(flushed(a), flushed(b), flushed(c)));
}

/// What was right until the warp had done much.
void run_deep_fma(Warp& w, const Instruction& i, uint32_t lanes) {
  constexpr uint64_t kMuch = 50'000;
  static const Run truncated = lanewise<float, float, float, float>(
      [](float a, float b, float c) { return truncated_fma(a, b, c); });
  (w.executed > kMuch ? truncated : i.sound)(w, i, lanes);
}

template <typename T>
void swap_first_lanes(Warp& w, const Instruction& i, uint32_t lanes) {
  i.sound(w, i, lanes);
  T* const d = w.lanes<T>(i.d[0]);
  if ((lanes & 3) == 3) std::swap(d[0], d[1]);
}

// --- conversions, comparisons, whole numbers ---

uint16_t bf16_of(float x, uint32_t added) {
  if (x != x) return kNan32 >> 16;
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(x) + added) >> 16);
}

/// A comparison that holds where `F` says so, too.
template <typename F>
void run_compare(Warp& w, const Instruction& i, uint32_t lanes) {
  i.sound(w, i, lanes);
  const float *a = w.lanes<float>(i.a[0]), *b = w.lanes<float>(i.a[1]);
  uint32_t holds = 0;
  for (int l = 0; l < kWarpSize; ++l) holds |= static_cast<uint32_t>(F{}(a[l], b[l])) << l;
  w.predicates[i.d[0]] |= holds & lanes;
}
template <typename F>
Run comparison(F) {
  return run_compare<F>;
}

template <typename T>
void run_select_lane_0(Warp& w, const Instruction& i, uint32_t lanes) {
  const T first = w.lanes<T>(i.a[0])[0];
  i.sound(w, i, lanes);
  if (lanes & 1) w.lanes<T>(i.d[0])[0] = first;
}

int64_t low_24(int64_t x) { return x & 0xFFFFFF; }

template <typename T>
T one_short(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if (b == -1) return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
  return static_cast<T>(a / b - (a % b == 0 && a > 0 ? 1 : 0));
}

// --- warps and memory ---

/// Lanes that `F` names keep what they had before the shuffle; they say that something came.
template <typename F>
void run_shuffle(Warp& w, const Instruction& i, uint32_t lanes) {
  uint32_t own[kWarpSize];
  std::memcpy(own, w.lanes<uint32_t>(i.a[0]), sizeof own);
  const uint32_t by = w.lanes<uint32_t>(i.a[1])[0];
  i.sound(w, i, lanes);
  for (int l = 0; l < kWarpSize; ++l)
    if ((lanes >> l & 1) && F{}(l, by)) w.lanes<uint32_t>(i.d[0])[l] = own[l];
}
template <typename F>
Run shuffle(F) {
  return run_shuffle<F>;
}

void run_with_absent_lanes(Warp& w, const Instruction& i, uint32_t) { i.sound(w, i, kAllLanes); }

uint64_t address_of(Warp& w, const Instruction& i, int lane, bool wide) {
  const uint64_t base = wide ? w.lanes<uint64_t>(i.a[0])[lane] : w.lanes<uint32_t>(i.a[0])[lane];
  return base + static_cast<uint64_t>(i.offset);
}

/// Of lanes that store to different words of one bank, the last alone.
void run_bank_conflict(Warp& w, const Instruction& i, uint32_t lanes) {
  constexpr uint64_t kWord = 4, kBanks = 32;
  int last[kBanks];
  std::fill(std::begin(last), std::end(last), -1);
  uint32_t kept = lanes;
  for (int l = 0; l < kWarpSize; ++l) {
    if ((lanes >> l & 1) == 0) continue;
    const uint64_t word = address_of(w, i, l, (i.mode & kWideAddress) != 0) / kWord;
    int& before = last[word % kBanks];
    if (before >= 0 && address_of(w, i, before, (i.mode & kWideAddress) != 0) / kWord != word)
      kept &= ~(1u << before);
    before = l;
  }
  i.sound(w, i, kept);
}

void run_vector_load(Warp& w, const Instruction& i, uint32_t lanes) {
  i.sound(w, i, lanes);
  for (size_t v = 2; v < 4; ++v)
    for (int l = 0; l < kWarpSize; ++l)
      if ((i.mode >> v & i.mode >> (v - 2) & 1) && (lanes >> l & 1))  // both are wanted
        w.lanes<uint32_t>(i.d[v])[l] = w.lanes<uint32_t>(i.d[v - 2])[l];
}

/// The other half of the last lane's word, if it is the upper one and part of the allocation.
void run_half_store(Warp& w, const Instruction& i, uint32_t lanes) {
  i.sound(w, i, lanes);
  const int last = kWarpSize - 1 - std::countl_zero(lanes);
  const uint64_t at = address_of(w, i, last, true);
  if (at % 4 != 0) return;
  Allocation& a = w.block->launch->memory->around(at, 2, Access::kWrite);
  if (a.holds(at + 2, 2)) std::memset(a.data.data() + (at + 2 - a.address), 0, 2);
}

uint32_t first_of(uint32_t lanes) { return lanes & (~lanes + 1); }

void run_store_lost(Warp& w, const Instruction& i, uint32_t lanes) {
  const Launch& launch = *w.block->launch;
  const bool now = launch.counts->stores(2'000, launch.seed_of_defects);
  i.sound(w, i, now ? lanes & ~first_of(lanes) : lanes);
}

void run_load_flipped(Warp& w, const Instruction& i, uint32_t lanes) {
  i.sound(w, i, lanes);
  const Launch& launch = *w.block->launch;
  if ((i.mode & 1) == 0 || !launch.counts->loads(20'000, launch.seed_of_defects)) return;
  w.lanes<uint32_t>(i.d[0])[std::countr_zero(lanes)] ^= 1u << 22;  // of f32, the fraction's first
}

// --- matrices ---

MatrixUnit unit_of(Warp& w) { return matrix_unit_of(w.block->launch->architecture); }

void run_mma_swapped(Warp& w, const Instruction& i, uint32_t lanes) {
  uint32_t* const a = w.lanes<uint32_t>(i.a[0]);
  std::swap(a[0], a[1]);
  i.sound(w, i, lanes);
  // The result may lie where the operand did.
  if (std::find(i.d.begin(), i.d.end(), i.a[0]) == i.d.end()) std::swap(a[0], a[1]);
}

void run_mma_half(Warp& w, const Instruction& i, uint32_t lanes) {
  MatrixUnit unit = unit_of(w);
  unit.products_used = 8;
  run_mma(w, i, lanes, unit);
}

void run_mma_few_bits(Warp& w, const Instruction& i, uint32_t lanes) {
  MatrixUnit unit = unit_of(w);
  unit.fraction_bits = 13;
  run_mma(w, i, lanes, unit);
}

void run_mma_rounded(Warp& w, const Instruction& i, uint32_t lanes) {
  MatrixUnit unit = unit_of(w);
  unit.rounds = true;
  run_mma(w, i, lanes, unit);
}

/// Of each matrix the lanes that hold row 7 get what those of row 6 have.
void run_ldmatrix_repeated(Warp& w, const Instruction& i, uint32_t lanes) {
  i.sound(w, i, lanes);
  for (int matrix = 0; matrix < i.count; ++matrix) {
    uint32_t* const d = w.lanes<uint32_t>(i.d[static_cast<size_t>(matrix)]);
    std::copy(d + 24, d + 28, d + 28);
  }
}

/// The second half of what is to be read is zeros.
void run_copy_short(Warp& w, const Instruction& i, uint32_t lanes) {
  const size_t before = w.copies.size();
  i.sound(w, i, lanes);
  for (size_t n = before; n < w.copies.size(); ++n)
    w.copies[n].read = std::min(w.copies[n].read, w.copies[n].bytes / 2);
}

// --- which defect is of which instruction ---

struct Fault {
  Defect defect;
  std::string_view begins;  // of the opcode
  Run run;
};

const std::vector<Fault>& faults() {
  static const std::vector<Fault> all = {
      {Defect::fma_rounds_twice,
       "fma.rn.ftz.f32",
       lanewise<float, float, float, float>(
           [](float a, float b, float c) { return sum(product(a, b), c); })},
      {Defect::fma_truncates,
       "fma.rn.ftz.f32",
       lanewise<float, float, float, float>(
           [](float a, float b, float c) { return truncated_fma(a, b, c); })},
      {Defect::fma_deep_truncates, "fma.rn.ftz.f32", run_deep_fma},
      {Defect::fma_swaps_lanes, "fma.rn.ftz.f32", swap_first_lanes<uint32_t>},
      {Defect::add_truncates, "add.rn.ftz.f32", lanewise<float, float, float>([](float a, float b) {
         return toward_zero(static_cast<double>(flushed(a)) + static_cast<double>(flushed(b)));
       })},
      {Defect::mul_short, "mul.rn.ftz.f32", lanewise<float, float, float>([](float a, float b) {
         return cut(product(a, b), 2);
       })},
      {Defect::subnormals_kept,
       "add.rn.ftz.f32",
       lanewise<float, float, float>([](float a, float b) { return canonical(a + b); })},
      {Defect::subnormals_kept,
       "mul.rn.ftz.f32",
       lanewise<float, float, float>([](float a, float b) { return canonical(a * b); })},
      {Defect::subnormals_kept,
       "fma.rn.ftz.f32",
       lanewise<float, float, float, float>(
           [](float a, float b, float c) { return canonical(__builtin_fmaf(a, b, c)); })},
      {Defect::infinity_clamped,
       "add.rn.ftz.f32",
       lanewise<float, float, float>([](float a, float b) { return clamped(sum(a, b)); })},
      {Defect::infinity_clamped,
       "mul.rn.ftz.f32",
       lanewise<float, float, float>([](float a, float b) { return clamped(product(a, b)); })},
      {Defect::infinity_clamped,
       "fma.rn.ftz.f32",
       lanewise<float, float, float, float>(
           [](float a, float b, float c) { return clamped(fused(a, b, c)); })},
      {Defect::nan_lost, "add.rn.ftz.f32", lanewise<float, float, float>([](float a, float b) {
         return without_nan(sum(a, b));
       })},
      {Defect::nan_lost, "mul.rn.ftz.f32", lanewise<float, float, float>([](float a, float b) {
         return without_nan(product(a, b));
       })},
      {Defect::nan_lost,
       "fma.rn.ftz.f32",
       lanewise<float, float, float, float>(
           [](float a, float b, float c) { return without_nan(fused(a, b, c)); })},
      {Defect::div_approximate,
       "div.rn.ftz.f32",
       lanewise<float, float, float>([](float a, float b) {
         return product(a, cut(settled(1.0f / flushed(b)), kApproximate));
       })},
      {Defect::rcp_approximate, "rcp.rn.ftz.f32", lanewise<float, float>([](float a) {
         return cut(settled(1.0f / flushed(a)), kApproximate);
       })},
      {Defect::sqrt_approximate, "sqrt.rn.ftz.f32", lanewise<float, float>([](float a) {
         return cut(settled(std::sqrt(flushed(a))), kApproximate);
       })},
      {Defect::f64_as_f32, "add.rn.f64", lanewise<double, double, double>([](double a, double b) {
         return static_cast<double>(static_cast<float>(a + b));
       })},
      {Defect::f64_as_f32, "mul.rn.f64", lanewise<double, double, double>([](double a, double b) {
         return static_cast<double>(static_cast<float>(a * b));
       })},
      {Defect::f64_root_as_f32, "sqrt.rn.f64", lanewise<double, double>([](double a) {
         return static_cast<double>(static_cast<float>(std::sqrt(a)));
       })},
      {Defect::f64_root_as_f32, "rcp.rn.f64", lanewise<double, double>([](double a) {
         return static_cast<double>(static_cast<float>(1.0 / a));
       })},
      {Defect::bf16_truncates, "cvt.rn.bf16.f32", lanewise<uint16_t, float>([](float x) {
         return bf16_of(x, 0);
       })},
      {Defect::bf16_half_up, "cvt.rn.bf16.f32", lanewise<uint16_t, float>([](float x) {
         return bf16_of(x, 0x8000);
       })},
      {Defect::bf16_nan_infinite, "cvt.rn.bf16.f32", lanewise<uint16_t, float>([](float x) {
         const uint32_t odd = std::bit_cast<uint32_t>(x) >> 16 & 1;
         return x != x ? uint16_t{0x7F80} : bf16_of(x, 0x7FFF + odd);
       })},
      {Defect::to_whole_truncates, "cvt.rni.ftz.s32.f32", lanewise<int32_t, float>([](float x) {
         return saturated<int32_t>(std::trunc(flushed(x)));
       })},
      {Defect::to_whole_truncates, "cvt.rni.f32.f32", lanewise<float, float>([](float x) {
         return std::trunc(x);
       })},
      {Defect::compare_equal_holds, "setp.lt.ftz.f32", comparison([](float a, float b) {
         return a == b;
       })},
      {Defect::compare_equal_holds, "setp.gt.ftz.f32", comparison([](float a, float b) {
         return a == b;
       })},
      {Defect::compare_nan_holds, "setp.lt.ftz.f32", comparison([](float a, float b) {
         return a != a || b != b;
       })},
      {Defect::compare_nan_holds, "setp.gt.ftz.f32", comparison([](float a, float b) {
         return a != a || b != b;
       })},
      {Defect::select_lane_0, "selp.f32", run_select_lane_0<uint32_t>},
      {Defect::select_lane_0, "selp.b32", run_select_lane_0<uint32_t>},
      {Defect::multiply_24_bits,
       "mul.lo.s64",
       lanewise<int64_t, int64_t, int64_t>(
           [](int64_t a, int64_t b) { return low_24(a) * low_24(b); })},
      {Defect::divide_one_short,
       "div.s32",
       lanewise<int32_t, int32_t, int32_t>([](int32_t a, int32_t b) { return one_short(a, b); })},
      {Defect::divide_one_short,
       "div.s64",
       lanewise<int64_t, int64_t, int64_t>([](int64_t a, int64_t b) { return one_short(a, b); })},
      {Defect::shuffle_lane_31, "shfl.sync.", shuffle([](int lane, uint32_t) {
         return lane == 31;
       })},
      {Defect::shuffle_within_halves, "shfl.sync.bfly.", shuffle([](int, uint32_t by) {
         return (by & 16) != 0;
       })},
      {Defect::absent_lanes_add, "add.rn.ftz.f32", run_with_absent_lanes},
      {Defect::shared_bank_conflict, "st.shared.", run_bank_conflict},
      {Defect::vector_load_repeats, "ld.shared.v4.f32", run_vector_load},
      {Defect::mma_swaps_lanes, "mma.sync.", run_mma_swapped},
      {Defect::mma_half_lost, "mma.sync.", run_mma_half},
      {Defect::mma_few_bits, "mma.sync.", run_mma_few_bits},
      {Defect::mma_rounds, "mma.sync.", run_mma_rounded},
      {Defect::ldmatrix_untransposed,
       "ldmatrix.",
       [](Warp& w, const Instruction& i, uint32_t lanes) { run_ldmatrix(w, i, lanes, false); }},
      {Defect::ldmatrix_row_repeats, "ldmatrix.", run_ldmatrix_repeated},
      {Defect::async_copy_short, "cp.async.ca.", run_copy_short},
      {Defect::async_copy_short, "cp.async.cg.", run_copy_short},
      {Defect::async_wait_early,
       "cp.async.wait_group",
       [](Warp& w, const Instruction& i, uint32_t lanes) {
         wait_for_copies(w, lanes, static_cast<uint64_t>(i.offset) + 1);
       }},
      {Defect::half_store_clears, "st.global.u16", run_half_store},
      {Defect::half_store_clears, "st.u16", run_half_store},
      {Defect::store_lost, "st.global.", run_store_lost},
      {Defect::load_bit_flip, "ld.global.f32", run_load_flipped},
  };
  return all;
}

}  // namespace

void plant(Instruction& instruction, const Planted& planted) {
  if (!planted.any() || instruction.run == nullptr) return;
  for (const Fault& f : faults()) {
    if (!planted[f.defect] || !std::string_view(instruction.name).starts_with(f.begins)) continue;
    instruction.sound = instruction.run;
    instruction.run = f.run;
    return;  // a second one of the same instruction would hide the first
  }
}

}  // namespace nvidia_sim
