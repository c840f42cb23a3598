#include "exec/matrix_unit.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "exec/fast.h"
#include "exec/numbers.h"

namespace nvidia_sim {
namespace {

constexpr int kRows = 16, kColumns = 8, kDepth = 16;
constexpr int kLeastExponent = -126;
constexpr int kProductBits = 14;  // of a product of two significands, behind its point
constexpr int kBits = 23;         // of f32's fraction

float wide(uint16_t bf16) { return std::bit_cast<float>(static_cast<uint32_t>(bf16) << 16); }

/// Numbers as significands (128 is 1) and exponents.
template <int rows, int columns>
struct Parts {
  int32_t significand[rows][columns];
  int32_t exponent[rows][columns];

  explicit Parts(const uint16_t (&x)[rows][columns]) {
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; ++c) {
        const int32_t biased = x[r][c] >> 7 & 255, fraction = x[r][c] & 127;
        const int32_t magnitude = biased > 0 ? 128 | fraction : fraction;
        significand[r][c] = (x[r][c] & 0x8000) != 0 ? -magnitude : magnitude;
        exponent[r][c] = std::max(biased - 127, kLeastExponent);
      }
  }
};

/// The number of f32 that `magnitude` times 2^exponent is, of its sign, cut or rounded.
uint32_t packed(bool negative, uint64_t magnitude, int exponent, bool rounds) {
  const uint32_t sign = negative ? 0x80000000u : 0;
  if (magnitude == 0) return 0;
  const int top = 63 - std::countl_zero(magnitude);
  // What is left of the last bit that is kept: subnormal numbers end at 2^-149.
  const int cut = std::max(top - kBits, kLeastExponent - kBits - exponent);
  uint64_t kept = cut > 63 ? 0 : cut > 0 ? magnitude >> cut : magnitude << -cut;
  if (rounds && cut > 0 && cut <= 63) {
    const uint64_t rest = magnitude - (kept << cut), half = uint64_t{1} << (cut - 1);
    kept += rest > half || (rest == half && (kept & 1) != 0);
  }
  const int its = exponent + cut;                                     // of the last kept bit
  if (kept >> kBits == 0) return sign | static_cast<uint32_t>(kept);  // subnormal
  const int carried = static_cast<int>(kept >> (kBits + 1));
  const int biased = its + carried + kBits + 127;
  if (biased >= 255) return sign | kInfinity32;
  return sign | static_cast<uint32_t>(biased) << kBits |
         (static_cast<uint32_t>(kept >> carried) & 0x7FFFFF);
}

/// `count` products from `first` on, and c, for a row of c.
NVIDIA_SIM_FAST void add_row(const MatrixUnit& unit,
                             const int32_t* a_significand,
                             const int32_t* a_exponent,
                             const Parts<kDepth, kColumns>& b,
                             int first,
                             int count,
                             uint32_t* c) {
  int32_t largest[kColumns], sums[kColumns] = {};
  for (int n = 0; n < kColumns; ++n)
    largest[n] = std::max(static_cast<int32_t>(c[n] >> kBits & 255) - 127, kLeastExponent);
  for (int k = first; k < first + count; ++k)
    for (int n = 0; n < kColumns; ++n) {
      const int32_t e = a_exponent[k] + b.exponent[k][n];
      const bool counts = (a_significand[k] != 0) & (b.significand[k][n] != 0);
      largest[n] = std::max(largest[n], counts ? e : kLeastExponent);
    }
  const int left = unit.fraction_bits - kProductBits;  // may be negative, for a defect
  for (int k = first; k < first + count; ++k)
    for (int n = 0; n < kColumns; ++n) {
      const int32_t p = a_significand[k] * b.significand[k][n];
      const int32_t apart = largest[n] - a_exponent[k] - b.exponent[k][n];
      const int32_t magnitude = p < 0 ? -p : p;
      const int32_t cut = left >= 0 ? (magnitude << left) >> std::clamp(apart, 0, 31)
                                    : magnitude >> std::clamp(apart - left, 0, 31);
      sums[n] += p < 0 ? -cut : cut;
    }
  for (int n = 0; n < kColumns; ++n) {
    const int biased = static_cast<int>(c[n] >> kBits & 255);
    const int64_t fraction = c[n] & 0x7FFFFF, its = biased > 0 ? fraction | 0x800000 : fraction;
    const int apart = largest[n] - std::max(biased - 127, kLeastExponent);
    const int right = apart + kBits - unit.fraction_bits;
    const int64_t cut = right > 62 ? 0 : right >= 0 ? its >> right : its << -right;
    const int64_t sum = sums[n] + ((c[n] & 0x80000000u) != 0 ? -cut : cut);
    c[n] = packed(sum < 0,
                  static_cast<uint64_t>(sum < 0 ? -sum : sum),
                  largest[n] - unit.fraction_bits,
                  unit.rounds);
  }
}

bool special(uint32_t f32) { return (f32 & kInfinity32) == kInfinity32; }

/// Whether an infinity or a NaN is among what is multiplied, and among what that is added to.
bool special_factors(const MatrixOperands& m) {
  bool any = false;
  for (int r = 0; r < kRows; ++r)
    for (int k = 0; k < kDepth; ++k) any |= (m.a[r][k] & 0x7F80) == 0x7F80;
  for (int k = 0; k < kDepth; ++k)
    for (int n = 0; n < kColumns; ++n) any |= (m.b[k][n] & 0x7F80) == 0x7F80;
  return any;
}
bool special_sums(const MatrixOperands& m) {
  bool any = false;
  for (int r = 0; r < kRows; ++r)
    for (int n = 0; n < kColumns; ++n) any |= special(m.c[r][n]);
  return any;
}

/// Where a sum of `count` products from `first` on and of what was there before is infinite or no number, that is
/// what it is: as the sum in f64 would be, which holds whatever is finite.
void put_specials(const uint32_t (&before)[kRows][kColumns],
                  int first,
                  int count,
                  MatrixOperands& m) {
  for (int r = 0; r < kRows; ++r)
    for (int n = 0; n < kColumns; ++n) {
      double sum = static_cast<double>(std::bit_cast<float>(before[r][n]));
      for (int k = first; k < first + count; ++k)
        sum += static_cast<double>(wide(m.a[r][k])) * static_cast<double>(wide(m.b[k][n]));
      if (sum != sum)
        m.c[r][n] = kNan32;
      else if (std::isinf(sum))
        m.c[r][n] = kInfinity32 | (sum < 0 ? 0x80000000u : 0);
    }
}

}  // namespace

MatrixUnit matrix_unit_of(int architecture) {
  if (architecture >= 90) return {.products = 16, .fraction_bits = 25};
  return {.products = 8, .fraction_bits = 24};
}

void multiply_add(const MatrixUnit& unit, MatrixOperands& m) {
  const Parts a(m.a);
  const Parts b(m.b);
  const bool factors = special_factors(m);
  for (int k = 0; k < unit.products_used; k += unit.products) {
    const int count = std::min(unit.products, unit.products_used - k);
    // What one addition made infinite is what the next one begins with.
    const bool specials = factors || special_sums(m);
    uint32_t before[kRows][kColumns];
    if (specials) std::memcpy(before, m.c, sizeof before);
    for (int r = 0; r < kRows; ++r)
      add_row(unit, a.significand[r], a.exponent[r], b, k, count, m.c[r]);
    if (specials) put_specials(before, k, count, m);
  }
}

}  // namespace nvidia_sim
