// Products with weights that are whole numbers. A task is some panels of one matrix for all rows
// that meet it: the panels come from memory once and stay in the cache while strip after strip of
// rows, rounded to int8 beforehand, passes over them.
//
// Stored codes are unsigned, w + offset: sums begin at -offset * Σ code(x), which takes the offset
// out again, exactly, because int32 sums wrap.
#include "ops/cpu/code_product.h"

#include <bit>
#include <cstring>
#include <utility>

#include "device/cpu/cpu_device.h"
#include "ops/cpu/loops.h"
#include "ops/cpu/simd.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr int64_t kVectorBytes = kPanelRows * kQuad;  // a quad of columns of all rows of a panel
constexpr int64_t kGroupQuads = kCodeGroup / kQuad;
constexpr int64_t kTaskBytes = int64_t{384} << 10;  // of panels, which L2 is to hold

static_assert(kPanelRows == kLanes);

/// Rows of activations that a register tile takes together. Their codes lie quad by quad, the rows
/// of a quad side by side, so that a tile reads one stream.
struct CodeStrip {
  int64_t row;     // the first
  int64_t height;  // 1 to strip_rows(bits)
};
/// With two panels these fill the registers: 8 bits keep sums of two kinds in turns, 4 bits at once.
constexpr int64_t strip_rows(int bits) { return bits == 8 ? 12 : 6; }

/// Columns that a sum of products spans: those that share a scale, of activations and of weights.
constexpr int64_t sum_columns(WeightCodes codes) {
  return group_of(codes) == 0 || group_of(codes) > kCodeGroup ? kCodeGroup : group_of(codes);
}
constexpr int64_t sums_of(const CodePanels& l) {
  return (l.columns + sum_columns(l.codes) - 1) / sum_columns(l.codes);
}

struct CodeWorkspace {
  int16_t* codes = nullptr;        // [rows * padded columns]: int8 or int16, as the tier reads them
  int32_t* starts = nullptr;       // [rows * sums]: what a sum begins with
  float* scales = nullptr;         // [rows * column groups]
  float* totals = nullptr;         // [rows * column groups]: of codes, times the scale
  CodeStrip* strips = nullptr;     // of all matrices
  int64_t* first_strip = nullptr;  // [matrices + 1]
  size_t bytes = 0;

  CodeWorkspace(void* memory, const CodePanels& layout, int64_t rows, int64_t matrices) {
    const auto part = [&](auto*& p, int64_t count) {
      if (memory != nullptr) p = reinterpret_cast<decltype(+p)>(static_cast<char*>(memory) + bytes);
      bytes += (static_cast<size_t>(count) * sizeof(*p) + 63) / 64 * 64;
    };
    part(codes, rows * layout.padded_columns());
    part(starts, rows * sums_of(layout));
    part(scales, rows * layout.column_groups());
    if (has_least(layout.codes)) part(totals, rows * layout.column_groups());
    part(strips, rows / strip_rows(layout.bits()) + matrices);
    part(first_strip, matrices + 1);
  }
};

// ---- Rounding activations -----------------------------------------------------------------------

#if defined(FERRY_TIER_avx512)
/// As tiles read a code of products with 8 and 4 bits.
using Code8 = int8_t;
using Code4 = int8_t;

struct Codes16 {
  __m512i v;
};
inline Codes16 nearest(F32x16 x) { return {_mm512_cvtps_epi32(x.v)}; }
inline int32_t sum_of(Codes16 c) { return _mm512_reduce_add_epi32(c.v); }
inline void add_to(Codes16& sum, Codes16 c) { sum.v = _mm512_add_epi32(sum.v, c.v); }
inline Codes16 no_codes() { return {_mm512_setzero_si512()}; }
/// Four quads, `stride` bytes apart.
inline void store_quads(int8_t* out, int64_t stride, Codes16 c) {
  const __m128i bytes = _mm512_cvtepi32_epi8(c.v);
  const int32_t quads[4] = {_mm_cvtsi128_si32(bytes),
                            _mm_extract_epi32(bytes, 1),
                            _mm_extract_epi32(bytes, 2),
                            _mm_extract_epi32(bytes, 3)};
  for (int i = 0; i < 4; ++i) std::memcpy(out + i * stride, &quads[i], 4);
}
/// The largest |v|; NaN where a number is not finite: as whole numbers, the bits of sizes ascend
/// with them, then come infinity and NaN.
inline float size_of_bits(uint32_t bits) {
  return bits < 0x7F800000 ? std::bit_cast<float>(bits) : __builtin_nanf("");
}
inline float largest_size(F32x16 a, F32x16 b) {
  const __m512i sizes = _mm512_set1_epi32(0x7FFFFFFF);
  return size_of_bits(
      _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a.v), sizes),
                                               _mm512_and_si512(_mm512_castps_si512(b.v), sizes))));
}
#elif defined(FERRY_TIER_avx2)
// vpmaddubsw would saturate with an unsigned byte beside an int8: products of 8 bits widen to 16.
using Code8 = int16_t;
using Code4 = int8_t;

struct Codes16 {
  __m256i lo, hi;
};
inline Codes16 nearest(F32x16 x) { return {_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi)}; }
inline int32_t sum_of(Codes16 c) {
  const __m256i eight = _mm256_add_epi32(c.lo, c.hi);
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
}
inline void add_to(Codes16& sum, Codes16 c) {
  sum.lo = _mm256_add_epi32(sum.lo, c.lo);
  sum.hi = _mm256_add_epi32(sum.hi, c.hi);
}
inline Codes16 no_codes() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline __m256i halves_of(Codes16 c) {  // sixteen int16 in order
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(c.lo, c.hi), 0xD8);
}
inline void store_quads(int16_t* out, int64_t stride, Codes16 c) {
  alignas(32) int16_t all[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(all), halves_of(c));
  for (int i = 0; i < 4; ++i) std::memcpy(out + i * stride, all + 4 * i, 8);
}
inline void store_quads(int8_t* out, int64_t stride, Codes16 c) {
  const __m256i halves = halves_of(c);
  alignas(16) int8_t all[16];
  _mm_store_si128(
      reinterpret_cast<__m128i*>(all),
      _mm_packs_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
  for (int i = 0; i < 4; ++i) std::memcpy(out + i * stride, all + 4 * i, 4);
}
inline float size_of_bits(uint32_t bits) {
  return bits < 0x7F800000 ? std::bit_cast<float>(bits) : __builtin_nanf("");
}
inline float largest_size(F32x16 a, F32x16 b) {
  const __m256i sizes = _mm256_set1_epi32(0x7FFFFFFF);
  const auto bits = [&](__m256 v) { return _mm256_and_si256(_mm256_castps_si256(v), sizes); };
  const __m256i eight = _mm256_max_epu32(_mm256_max_epu32(bits(a.lo), bits(a.hi)),
                                         _mm256_max_epu32(bits(b.lo), bits(b.hi)));
  __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4E));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xB1));
  return size_of_bits(static_cast<uint32_t>(_mm_cvtsi128_si32(four)));
}
#else
using Code8 = int8_t;
using Code4 = int8_t;

inline float largest_size(const F32x16& a, const F32x16& b) {
  uint32_t largest = 0;
  for (int i = 0; i < 16; ++i)
    for (const float v : {a.v[i], b.v[i]}) {
      const uint32_t bits = std::bit_cast<uint32_t>(v) & 0x7FFFFFFF;
      largest = bits > largest ? bits : largest;
    }
  return largest < 0x7F800000 ? std::bit_cast<float>(largest) : __builtin_nanf("");
}

struct Codes16 {
  int32_t v[16];
};
inline Codes16 nearest(F32x16 x) {
  const F32x16 whole = round_even(x);
  Codes16 c;
  for (int i = 0; i < 16; ++i) c.v[i] = static_cast<int32_t>(whole.v[i]);
  return c;
}
inline int32_t sum_of(const Codes16& c) {
  int32_t sum = 0;
  for (const int32_t v : c.v) sum += v;
  return sum;
}
inline void add_to(Codes16& sum, const Codes16& c) {
  for (int i = 0; i < 16; ++i) sum.v[i] += c.v[i];
}
inline Codes16 no_codes() { return {}; }
inline void store_quads(int8_t* out, int64_t stride, const Codes16& c) {
  for (int i = 0; i < 16; ++i) out[i / 4 * stride + i % 4] = static_cast<int8_t>(c.v[i]);
}
#endif

/// Rounds row `i` of a strip into its place, group by group.
template <typename Code, typename T>
void round_row(const T* x,
               const CodePanels& layout,
               int64_t height,
               int64_t i,
               Code* codes,      // of the strip
               int32_t* starts,  // of the strip: [sums, height]
               float* scales,    // of the strip: [column groups, height]
               float* totals) {  // likewise; nullptr: not wanted
  constexpr int64_t kVectors = kCodeGroup / kLanes;
  const bool by_vector = sum_columns(layout.codes) == kLanes;
  const int64_t stride = height * kQuad;
  for (int64_t g = 0; g < layout.column_groups(); ++g) {
    F32x16 v[kVectors];
    for (int64_t part = 0; part < kVectors; ++part) {
      const int64_t k = g * kCodeGroup + part * kLanes, left = layout.columns - k;
      v[part] = left > 0 ? load_n(x + k, lanes_left(left)) : splat(0);
    }
    const float scale = largest_size(v[0], v[1]) / 127.0f;
    const bool ordinary = scale > 0;  // neither zero nor NaN
    const F32x16 inverse = splat(ordinary ? 1.0f / scale : 0.0f);
    Codes16 sum = no_codes();
    for (int64_t part = 0; part < kVectors; ++part) {
      const int64_t k = g * kCodeGroup + part * kLanes;
      const int64_t quads = (layout.padded_columns() - k) / kQuad;
      if (quads <= 0) break;
      const Codes16 c = ordinary ? nearest(v[part] * inverse) : no_codes();
      add_to(sum, c);
      if (by_vector) starts[(g * kVectors + part) * height + i] = -layout.offset() * sum_of(c);
      Code* const out = codes + k / kQuad * stride + i * kQuad;
      if (quads >= kLanes / kQuad) {
        store_quads(out, stride, c);
      } else {  // a row of 8 bits is padded to whole quads, not to whole vectors
        Code last[kLanes];
        store_quads(last, kQuad, c);
        for (int64_t q = 0; q < quads; ++q)
          std::memcpy(out + q * stride, last + q * kQuad, kQuad * sizeof(Code));
      }
    }
    if (!by_vector) starts[g * height + i] = -layout.offset() * sum_of(sum);
    scales[g * height + i] = scale;
    if (totals != nullptr) totals[g * height + i] = static_cast<float>(sum_of(sum)) * scale;
  }
}

// ---- Register tiles -----------------------------------------------------------------------------

/// What a tile reads and writes: rows [first, first + kRows) of a strip, from one panel on.
struct CodeTile {
  const void* codes;      // the strip's, Code
  const int32_t* starts;  // the strip's: [sums, height]
  const float* scales;    // the strip's: [groups, height]
  const float* totals;    // likewise, where weights have a least value
  int64_t height;         // of the strip
  const uint8_t* panel;
  const uint8_t* panel_scales;
  int64_t panel_bytes, panel_scale_bytes, quads, groups;  // of columns
  void* y;  // the first row's element of the panel's first row
  DType y_dtype;
  int64_t y_stride;
  int64_t columns;  // of y that exist, from the panel's first on
};

inline void emit(const CodeTile& t, int row, int panel, F32x16 value) {
  const int64_t at = row * t.y_stride + panel * kPanelRows;
  const int lanes = lanes_left(t.columns - panel * kPanelRows);
  if (t.y_dtype == DType::kBF16)
    store_n(static_cast<bf16_t*>(t.y) + at, value, lanes);
  else
    store_n(static_cast<float*>(t.y) + at, value, lanes);
}

/// Scales and least values of a group, of a panel's rows.
struct Scales16 {
  F32x16 scale, least;
};

/// Of group `g`, or, of kInt8, of the whole rows.
template <WeightCodes kCodes>
[[gnu::always_inline]] inline Scales16 scales_of(const uint8_t* of_panel, int64_t g) {
  if constexpr (kCodes == WeightCodes::kInt8) {
    return {load(reinterpret_cast<const float*>(of_panel)), splat(0)};
  } else {
    constexpr ScaleUnit kUnit = scale_unit(kCodes);
    constexpr int64_t kGroups = kUnit.columns / group_of(kCodes);
    const uint8_t* const at = of_panel + g / kGroups * (kPanelRows * kUnit.row_bytes());
    const auto* const numbers = reinterpret_cast<const uint16_t*>(at);
    const uint8_t* const bytes = at + kPanelRows * kUnit.numbers * kUnit.width;
    const int64_t in_unit = g % kGroups;
    if constexpr (kCodes == WeightCodes::kInt4)
      return {load(numbers), splat(0)};
    else if constexpr (kCodes == WeightCodes::kQ4_1)
      return {load_f16(numbers), load_f16(numbers + kPanelRows)};
    else if constexpr (kCodes == WeightCodes::kQ4_K)
      return {load_f16(numbers) * load_bytes(bytes + in_unit * 2 * kPanelRows),
              splat(0) - load_f16(numbers + kPanelRows) *
                             load_bytes(bytes + (in_unit * 2 + 1) * kPanelRows)};
    else if constexpr (kCodes == WeightCodes::kQ6_K)
      return {load_f16(numbers) *
                  load_bytes(reinterpret_cast<const int8_t*>(bytes + in_unit * kPanelRows)),
              splat(0)};
    else
      return {load_f16(numbers), splat(0)};
  }
}

/// `total` and what a sum of products of whole numbers stands for. kInt8: but for the rows' scales.
template <WeightCodes kCodes>
[[gnu::always_inline]] inline F32x16 with_sum(
    F32x16 total, F32x16 sum, float scale, const Scales16& of, const float* total_of_codes) {
  if constexpr (kCodes == WeightCodes::kInt8) return fma(sum, splat(scale), total);
  total = fma(sum * splat(scale), of.scale, total);
  if constexpr (has_least(kCodes)) total = fma(splat(*total_of_codes), of.least, total);
  return total;
}

#if defined(FERRY_TIER_avx512)

constexpr int kTileRows8 = strip_rows(8), kTileRows4 = strip_rows(4), kTilePanels = 2;

/// A row's quad of codes in every lane.
[[gnu::always_inline]] inline __m512i quad_of(const int8_t* codes) {
  int32_t quad;
  std::memcpy(&quad, codes, sizeof quad);
  return _mm512_set1_epi32(quad);
}
/// sum += the products of four weights of each lane with a quad of codes. Written out, because GCC 12
/// copies sums between two types of registers around the intrinsic, which costs more than the
/// products.
[[gnu::always_inline]] inline void add_products(__m512i& sum, __m512i weights, __m512i codes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(codes));
}
inline F32x16 to_float(__m512i v) { return {_mm512_cvtepi32_ps(v)}; }

/// Adds the products of a quad of columns. Small enough to be inlined: sums are to stay in
/// registers.
template <int kRows, int kPanels>
[[gnu::always_inline]] inline void add_quad(__m512i (&sum)[kRows][kPanels],
                                            const uint8_t* w,
                                            int64_t panel_bytes,
                                            const int8_t* x) {
  __m512i weights[kPanels];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    weights[p] = _mm512_loadu_si512(w + p * panel_bytes);
    __builtin_prefetch(w + 24 * kVectorBytes + p * panel_bytes);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    const __m512i codes = quad_of(x + i * kQuad);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) add_products(sum[i][p], weights[p], codes);
  }
}

/// kRows x kPanels sums of a group, in two chains where one would wait for vpdpbusd; they are added
/// up in f32 group by group.
template <WeightCodes kCodes, int kRows, int kPanels>
void tile8(const CodeTile& t) {
  constexpr bool kTwice = kRows * kPanels < 6;
  constexpr int64_t kSumQuads = sum_columns(kCodes) / kQuad;
  constexpr int64_t kStep = kRows * kQuad;  // a tile takes a whole strip
  F32x16 total[kRows][kPanels];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) total[i][p] = splat(0);
  const int8_t* x = static_cast<const int8_t*>(t.codes);
  const uint8_t* w = t.panel;
  const int64_t panel_bytes = t.panel_bytes;
  const int32_t* starts = t.starts;
  int64_t g = 0;
  for (int64_t left = t.quads; left > 0; left -= kSumQuads, starts += kRows, ++g) {
    const float* const scales = t.scales + g * kSumQuads / kGroupQuads * kRows;
    __m512i sum[kRows][kPanels], second[kRows][kPanels];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        sum[i][p] = _mm512_set1_epi32(starts[i]);
        if constexpr (kTwice) second[i][p] = _mm512_setzero_si512();
      }
    int64_t quads = left < kSumQuads ? left : kSumQuads;
    if constexpr (kTwice)
      for (; quads >= 2; quads -= 2, x += 2 * kStep, w += 2 * kVectorBytes) {
        add_quad(sum, w, panel_bytes, x);
        add_quad(second, w + kVectorBytes, panel_bytes, x + kStep);
      }
    for (; quads > 0; --quads, x += kStep, w += kVectorBytes) add_quad(sum, w, panel_bytes, x);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const Scales16 of = kCodes == WeightCodes::kInt8
                              ? Scales16{}
                              : scales_of<kCodes>(t.panel_scales + p * t.panel_scale_bytes, g);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        if constexpr (kTwice) sum[i][p] = _mm512_add_epi32(sum[i][p], second[i][p]);
        total[i][p] = with_sum<kCodes>(total[i][p], to_float(sum[i][p]), scales[i], of, nullptr);
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const F32x16 of_rows =
        kCodes == WeightCodes::kInt8
            ? scales_of<kCodes>(t.panel_scales + p * t.panel_scale_bytes, 0).scale
            : splat(1);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i)
      emit(t, i, p, kCodes == WeightCodes::kInt8 ? total[i][p] * of_rows : total[i][p]);
  }
}

template <WeightCodes kCodes, int kRows, int kPanels>
void tile4(const CodeTile& t) {
  constexpr int64_t kStep = kRows * kQuad;
  const __m512i low = _mm512_set1_epi8(15);
  F32x16 total[kRows][kPanels];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) total[i][p] = splat(0);
  const int8_t* x = static_cast<const int8_t*>(t.codes);
  const uint8_t* w = t.panel;
  const int64_t panel_bytes = t.panel_bytes;
  const int32_t* starts = t.starts;
  const float *scales = t.scales, *totals = t.totals;
  for (int64_t g = 0; g < t.groups; ++g) {
    __m512i sum[kRows][kPanels];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const __m512i start = _mm512_set1_epi32(starts[i]);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) sum[i][p] = start;
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      __m512i first[kPanels], second[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        const uint8_t* const at = w + v * kVectorBytes + p * panel_bytes;
        __builtin_prefetch(at + 2048);
        const __m512i both = _mm512_loadu_si512(at);
        first[p] = _mm512_and_si512(both, low);
        second[p] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
      }
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const __m512i a = quad_of(x + v * kStep + i * kQuad),
                      b = quad_of(x + (v + 4) * kStep + i * kQuad);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) {
          add_products(sum[i][p], first[p], a);
          add_products(sum[i][p], second[p], b);
        }
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const Scales16 of = scales_of<kCodes>(t.panel_scales + p * t.panel_scale_bytes, g);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i)
        total[i][p] = with_sum<kCodes>(total[i][p],
                                       to_float(sum[i][p]),
                                       scales[i],
                                       of,
                                       has_least(kCodes) ? totals + i : nullptr);
    }
    x += kGroupQuads * kStep;
    w += kFourBitGroupBytes;
    starts += kRows;
    scales += kRows;
    if constexpr (has_least(kCodes)) totals += kRows;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) emit(t, i, p, total[i][p]);
}

#elif defined(FERRY_TIER_avx2)

constexpr int kTileRows8 = 2, kTileRows4 = 2, kTilePanels = 1;

inline F32x16 to_float(__m256i lo, __m256i hi) {
  return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)};
}

/// Each register of sums holds four rows of the panel, two partial sums of each.
template <WeightCodes kCodes, int kRows, int>
void tile8(const CodeTile& t) {
  constexpr int64_t kSumQuads = sum_columns(kCodes) / kQuad;
  F32x16 total[kRows];
  for (int i = 0; i < kRows; ++i) total[i] = splat(0);
  const int16_t* x = static_cast<const int16_t*>(t.codes);
  const uint8_t* w = t.panel;
  const int32_t* starts = t.starts;
  int64_t g = 0;
  for (int64_t left = t.quads; left > 0; left -= kSumQuads, starts += t.height, ++g) {
    const float* const scales = t.scales + g * kSumQuads / kGroupQuads * t.height;
    __m256i sum[kRows][4];
    for (int i = 0; i < kRows; ++i)
      for (int r = 0; r < 4; ++r) sum[i][r] = _mm256_setzero_si256();
    for (int64_t quads = left < kSumQuads ? left : kSumQuads; quads > 0;
         --quads, x += t.height * kQuad, w += kVectorBytes) {
      __builtin_prefetch(w + 16 * kVectorBytes);
      __m256i codes[kRows];
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        int64_t quad;
        std::memcpy(&quad, x + i * kQuad, 8);
        codes[i] = _mm256_set1_epi64x(quad);
      }
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const __m256i weights =
            _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * r)));
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i)
          sum[i][r] = _mm256_add_epi32(sum[i][r], _mm256_madd_epi16(weights, codes[i]));
      }
    }
    const Scales16 of =
        kCodes == WeightCodes::kInt8 ? Scales16{} : scales_of<kCodes>(t.panel_scales, g);
    for (int i = 0; i < kRows; ++i) {
      const __m256i start = _mm256_set1_epi32(starts[i]);
      // hadd works in halves of a register: rows 0 1 4 5 | 2 3 6 7, by pairs.
      const auto rows_of = [&](__m256i a, __m256i b) {
        return _mm256_add_epi32(start, _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xD8));
      };
      total[i] =
          with_sum<kCodes>(total[i],
                           to_float(rows_of(sum[i][0], sum[i][1]), rows_of(sum[i][2], sum[i][3])),
                           scales[i],
                           of,
                           nullptr);
    }
  }
  for (int i = 0; i < kRows; ++i)
    emit(t,
         i,
         0,
         kCodes == WeightCodes::kInt8 ? total[i] * scales_of<kCodes>(t.panel_scales, 0).scale
                                      : total[i]);
}

/// A product of bytes, 15 * 127 at most, is summed in 16 bits over a group: 32 of them fit.
template <WeightCodes kCodes, int kRows, int>
void tile4(const CodeTile& t) {
  const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  F32x16 sum[kRows];
  for (int i = 0; i < kRows; ++i) sum[i] = splat(0);
  const int8_t* x = static_cast<const int8_t*>(t.codes);
  const uint8_t* w = t.panel;
  const int64_t x_step = t.height * kQuad;
  for (int64_t g = 0; g < t.groups; ++g) {
    __m256i group[kRows][2];
    for (int i = 0; i < kRows; ++i) group[i][0] = group[i][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      __builtin_prefetch(w + v * kVectorBytes + 1024);
#pragma GCC unroll 4
      for (int half = 0; half < 2; ++half) {
        const __m256i both =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + v * kVectorBytes + half * 32));
        const __m256i first = _mm256_and_si256(both, low),
                      second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) {
          int32_t a, b;
          std::memcpy(&a, x + v * x_step + i * kQuad, 4);
          std::memcpy(&b, x + (v + 4) * x_step + i * kQuad, 4);
          group[i][half] = _mm256_add_epi16(
              group[i][half],
              _mm256_add_epi16(_mm256_maddubs_epi16(first, _mm256_set1_epi32(a)),
                               _mm256_maddubs_epi16(second, _mm256_set1_epi32(b))));
        }
      }
    }
    const Scales16 of = scales_of<kCodes>(t.panel_scales, g);
    for (int i = 0; i < kRows; ++i) {
      const int64_t at = g * t.height + i;
      const __m256i start = _mm256_set1_epi32(t.starts[at]);
      const auto whole = [&](__m256i pairs) {
        return _mm256_add_epi32(start, _mm256_madd_epi16(pairs, ones));
      };
      sum[i] = with_sum<kCodes>(sum[i],
                                to_float(whole(group[i][0]), whole(group[i][1])),
                                t.scales[at],
                                of,
                                has_least(kCodes) ? t.totals + at : nullptr);
    }
    x += kGroupQuads * x_step;
    w += kFourBitGroupBytes;
  }
  for (int i = 0; i < kRows; ++i) emit(t, i, 0, sum[i]);
}

#else  // plain

constexpr int kTileRows8 = 1, kTileRows4 = 1, kTilePanels = 1;

inline void add_products(uint32_t* sum, const int8_t* x, const uint8_t* w, int shift, int mask) {
  for (int r = 0; r < kPanelRows; ++r)
    for (int j = 0; j < kQuad; ++j)
      sum[r] += static_cast<uint32_t>(((w[r * kQuad + j] >> shift) & mask) * x[j]);
}

inline F32x16 to_float(const uint32_t* sum, int32_t start) {
  return lanewise([&](int r) {
    return static_cast<float>(static_cast<int32_t>(sum[r] + static_cast<uint32_t>(start)));
  });
}

template <WeightCodes kCodes, int, int>
void tile8(const CodeTile& t) {
  constexpr int64_t kSumQuads = sum_columns(kCodes) / kQuad;
  const int8_t* const x = static_cast<const int8_t*>(t.codes);
  F32x16 total = splat(0);
  for (int64_t g = 0; g * kSumQuads < t.quads; ++g) {
    uint32_t sum[kPanelRows] = {};
    for (int64_t q = g * kSumQuads; q < (g + 1) * kSumQuads && q < t.quads; ++q)
      add_products(sum, x + q * t.height * kQuad, t.panel + q * kVectorBytes, 0, 255);
    total = with_sum<kCodes>(total,
                             to_float(sum, t.starts[g * t.height]),
                             t.scales[g * kSumQuads / kGroupQuads * t.height],
                             scales_of<kCodes>(t.panel_scales, g),
                             nullptr);
  }
  emit(t,
       0,
       0,
       kCodes == WeightCodes::kInt8 ? total * scales_of<kCodes>(t.panel_scales, 0).scale : total);
}

template <WeightCodes kCodes, int, int>
void tile4(const CodeTile& t) {
  const int8_t* const x = static_cast<const int8_t*>(t.codes);
  F32x16 all = splat(0);
  for (int64_t g = 0; g < t.groups; ++g) {
    uint32_t sum[kPanelRows] = {};
    for (int64_t q = 0; q < kGroupQuads; ++q)
      add_products(sum,
                   x + (g * kGroupQuads + q) * t.height * kQuad,
                   t.panel + g * kFourBitGroupBytes + q % 4 * kVectorBytes,
                   q < 4 ? 0 : 4,
                   15);
    const int64_t at = g * t.height;
    all = with_sum<kCodes>(all,
                           to_float(sum, t.starts[at]),
                           t.scales[at],
                           scales_of<kCodes>(t.panel_scales, g),
                           has_least(kCodes) ? t.totals + at : nullptr);
  }
  emit(t, 0, 0, all);
}

#endif

using CodeTileKernel = void (*)(const CodeTile&);

/// Kernels for 1, 2, ... rows; of kTilePanels panels, and of one.
template <int kCount>
struct CodeTiles {
  CodeTileKernel wide[kCount], one[kCount];
};
template <WeightCodes kCodes, int... kRows>
constexpr auto code_tiles(std::integer_sequence<int, kRows...>) {
  constexpr int kCount = sizeof...(kRows);
  if constexpr (bits_of(kCodes) == 8)
    return CodeTiles<kCount>{{&tile8<kCodes, kRows + 1, kTilePanels>...},
                             {&tile8<kCodes, kRows + 1, 1>...}};
  else
    return CodeTiles<kCount>{{&tile4<kCodes, kRows + 1, kTilePanels>...},
                             {&tile4<kCodes, kRows + 1, 1>...}};
}
constexpr int tile_rows(int bits) { return bits == 8 ? kTileRows8 : kTileRows4; }
template <WeightCodes kCodes>
constexpr auto kTiles =
    code_tiles<kCodes>(std::make_integer_sequence<int, tile_rows(bits_of(kCodes))>{});

const CodeTileKernel* kernels_of(WeightCodes codes, bool wide) {
  const auto of = [wide](const auto& tiles) { return wide ? tiles.wide : tiles.one; };
  switch (codes) {
    case WeightCodes::kInt8: return of(kTiles<WeightCodes::kInt8>);
    case WeightCodes::kInt4: return of(kTiles<WeightCodes::kInt4>);
    case WeightCodes::kQ8_0: return of(kTiles<WeightCodes::kQ8_0>);
    case WeightCodes::kQ4_0: return of(kTiles<WeightCodes::kQ4_0>);
    case WeightCodes::kQ4_1: return of(kTiles<WeightCodes::kQ4_1>);
    case WeightCodes::kQ4_K: return of(kTiles<WeightCodes::kQ4_K>);
    case WeightCodes::kQ6_K: return of(kTiles<WeightCodes::kQ6_K>);
  }
  return nullptr;
}

// ---- The product --------------------------------------------------------------------------------

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Runner {
  const CodeProduct& p;
  const CodeWorkspace& memory;
  int64_t task_panels;  // of one task
  int64_t tasks_each;   // tasks of a matrix

  template <typename Code>
  Code* codes_of(const CodeStrip& s) const {
    return reinterpret_cast<Code*>(memory.codes) + s.row * p.layout.padded_columns();
  }
  int32_t* starts_of(const CodeStrip& s) const { return memory.starts + s.row * sums_of(p.layout); }
  float* scales_of(const CodeStrip& s) const {
    return memory.scales + s.row * p.layout.column_groups();
  }
  float* totals_of(const CodeStrip& s) const {
    return memory.totals == nullptr ? nullptr : memory.totals + s.row * p.layout.column_groups();
  }

  template <typename Code, typename T>
  void round(const CodeStrip& s, int64_t i) const {
    round_row<Code>(static_cast<const T*>(p.x) + (s.row + i) * p.x_stride,
                    p.layout,
                    s.height,
                    i,
                    codes_of<Code>(s),
                    starts_of(s),
                    scales_of(s),
                    totals_of(s));
  }
  template <typename Code>
  void round_all(int64_t strips) const {
    const auto row = [&](const CodeStrip& s, int64_t i) {
      p.x_dtype == DType::kBF16 ? round<Code, bf16_t>(s, i) : round<Code, float>(s, i);
    };
    // A few rows are a task each: with one token the pool is not asked.
    if (strips == 1) {
      const CodeStrip s = memory.strips[0];
      cpu_pool().parallel_for(s.height, [&](int64_t i, int) { row(s, i); });
      return;
    }
    cpu_pool().parallel_for(strips, [&](int64_t strip, int) {
      const CodeStrip s = memory.strips[strip];
      for (int64_t i = 0; i < s.height; ++i) row(s, i);
    });
  }

  template <typename Code>
  void multiply(int64_t matrix, int64_t begin, int64_t end) const {
    const CodePanels& l = p.layout;
    const int64_t first = matrix * l.panels();
    const auto y_size = static_cast<int64_t>(size_of(p.y_dtype));
    for (int64_t strip = memory.first_strip[matrix]; strip < memory.first_strip[matrix + 1];
         ++strip) {
      const CodeStrip s = memory.strips[strip];
      for (int64_t panel = begin; panel < end;) {
        const bool wide = end - panel >= kTilePanels;
        const CodeTileKernel* const kernels = kernels_of(l.codes, wide);
        CodeTile t{.codes = nullptr,
                   .starts = nullptr,
                   .scales = nullptr,
                   .totals = nullptr,
                   .height = s.height,
                   .panel = p.panels + (first + panel) * l.panel_bytes(),
                   .panel_scales = static_cast<const uint8_t*>(p.scales) +
                                   (first + panel) * l.panel_scale_bytes(),
                   .panel_bytes = l.panel_bytes(),
                   .panel_scale_bytes = l.panel_scale_bytes(),
                   .quads = l.padded_columns() / kQuad,
                   .groups = l.column_groups(),
                   .y = nullptr,
                   .y_dtype = p.y_dtype,
                   .y_stride = p.y_stride,
                   .columns = l.rows - panel * kPanelRows};
        const int64_t rows = tile_rows(l.bits());
        for (int64_t row = 0; row < s.height; row += rows) {
          const int64_t height = s.height - row < rows ? s.height - row : rows;
          t.codes = codes_of<Code>(s) + row * kQuad;
          t.starts = starts_of(s) + row;
          t.scales = scales_of(s) + row;
          if (memory.totals != nullptr) t.totals = totals_of(s) + row;
          t.y =
              static_cast<char*>(p.y) + ((s.row + row) * p.y_stride + panel * kPanelRows) * y_size;
          kernels[height - 1](t);
        }
        panel += wide ? kTilePanels : 1;
      }
    }
  }

  void run(int64_t task) const {
    const int64_t matrix = task / tasks_each, begin = task % tasks_each * task_panels;
    if (memory.first_strip[matrix] == memory.first_strip[matrix + 1]) return;
    const int64_t end =
        begin + task_panels < p.layout.panels() ? begin + task_panels : p.layout.panels();
    if (p.layout.bits() == 8)
      multiply<Code8>(matrix, begin, end);
    else
      multiply<Code4>(matrix, begin, end);
  }
};

/// Cuts each matrix's rows into strips of nearly equal height. Returns their number.
int64_t cut(const CodeProduct& p, CodeWorkspace& memory, int64_t* busy) {
  int64_t strips = 0;
  *busy = 0;
  for (int64_t m = 0; m < p.matrices; ++m) {
    const int64_t row = p.offsets != nullptr ? p.offsets[m] : 0;
    const int64_t rows = p.offsets != nullptr ? p.offsets[m + 1] - row : p.rows;
    const int64_t count = ceil_div(rows, strip_rows(p.layout.bits()));
    memory.first_strip[m] = strips;
    *busy += rows > 0;
    for (int64_t s = 0; s < count; ++s) {
      const int64_t at = rows * s / count;
      memory.strips[strips++] = {row + at, rows * (s + 1) / count - at};
    }
  }
  memory.first_strip[p.matrices] = strips;
  return strips;
}

}  // namespace

size_t code_product_bytes(const CodePanels& layout, int64_t rows, int64_t matrices) {
  return CodeWorkspace(nullptr, layout, rows, matrices).bytes;
}

void code_product(const CodeProduct& product, void* workspace) {
  const CodePanels& l = product.layout;
  CodeWorkspace memory(workspace, l, product.rows, product.matrices);
  int64_t busy = 0;
  const int64_t strips = cut(product, memory, &busy);
  if (strips == 0 || l.rows == 0) return;
  const int64_t threads = cpu_pool().threads();
  // Tasks of which L2 holds the panels, and enough of them for threads that do not end together.
  int64_t panels = kTaskBytes / (l.panel_bytes() > 0 ? l.panel_bytes() : 1);
  const int64_t share = threads > 1 ? ceil_div(busy * l.panels(), 6 * threads) : l.panels();
  panels = panels < share ? panels : share;
  panels = ceil_div(panels > 0 ? panels : 1, 2) * 2;
  const Runner runner{product, memory, panels, ceil_div(l.panels(), panels)};
  if (l.bits() == 8)
    runner.round_all<Code8>(strips);
  else
    runner.round_all<Code4>(strips);
  cpu_pool().parallel_for(product.matrices * runner.tasks_each,
                          [&](int64_t task, int) { runner.run(task); });
}

}  // namespace ferry::ops::FERRY_TIER
