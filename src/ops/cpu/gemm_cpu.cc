// The blocked matrix product. A task is a block of C; its thread packs the block's part of B, then
// one strip of A after the other, and runs a register tile over strip and panel. No barriers:
// packing B again in each task costs less than waiting, and experts with unequal rows balance by
// themselves.
//
// Packed memory is made of 4-byte units, lanes innermost: f32, or pairs of bf16 (Packing). Where
// vdpbf16ps is fast (the tier avx512_dot) it multiplies pairs. Elsewhere a pair of bf16 becomes two
// f32 units, the odd element first, and the f32 tile does what vdpbf16ps would, in the same order:
// two fma run twice as fast as one vdpbf16ps on Sapphire Rapids (one in two cycles, measured by
// linear_bench). Where a few rows are multiplied, reading B is the cost: weights are then packed
// once, in pairs, which are multiplied as they are or taken apart in registers. Where pairs are what
// tiles take anyhow, these panels serve any number of rows, and nothing of B is packed again. Other
// tiles take such panels too, where a weight is kept in no other order: its pairs are split.
#include "ops/cpu/gemm.h"

#include <bit>
#include <cstring>
#include <utility>

#include "ops/cpu/simd.h"
#include "ops/cpu/transpose.h"

namespace ferry::ops::FERRY_TIER {
namespace {

#if defined(FERRY_TIER_avx512)
constexpr int kStripRows = 14;  // 28 accumulators, 2 registers for B, 1 for A
constexpr int kVectors = 2;
// Which of the packed parts is used again at once, while the other streams from L2: a strip of A or a
// panel of B.
constexpr bool kPanelStays = false;
#elif defined(FERRY_TIER_avx2)
constexpr int kStripRows = 6;  // 12 accumulators, 2 registers for B, 1 for A
constexpr int kVectors = 1;
constexpr bool kPanelStays = true;
#else
constexpr int kStripRows = 4;
constexpr int kVectors = 1;
constexpr bool kPanelStays = true;
#endif
constexpr int kPanel = kVectors * kLanes;   // columns of C in a tile
constexpr int64_t kPrefetch = 16 * kPanel;  // units of B ahead: it streams from L2
constexpr int64_t kPanelPad = 32;           // keeps panels from lying in the same cache sets
constexpr int64_t kStripPad = 48;           // the same; the last unit is written with all lanes

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
constexpr int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

constexpr int64_t kBlockK = 640;  // of f32 units: a strip of A is then 35 KB at most, about an L1
constexpr int64_t kFewRowsK = 1024;

enum class Packing {
  kF32,    // a unit is an element
  kSplit,  // bf16: two units of f32, element k + 1, then element k
  kPairs,  // bf16: a unit is elements k (low half) and k + 1
};

/// Units that k elements take.
constexpr int64_t units(Packing packing, int64_t k) {
  return packing == Packing::kF32     ? k
         : packing == Packing::kSplit ? round_up(k, 2)
                                      : ceil_div(k, 2);
}

// ---- Register tiles -----------------------------------------------------------------------------

struct Tile {
  const float* init;  // accumulators to go on from; null: zeros
  int64_t init_stride;
  void* out;
  int64_t out_stride;
  bool out_bf16;
  int columns;  // of the panel that exist in C
};

/// `count` columns of a tile from `first` on.
inline Tile columns_of(const Tile& t, int first, int count) {
  Tile part = t;
  if (t.init != nullptr) part.init += first;
  part.out = static_cast<char*>(t.out) + first * (t.out_bf16 ? 2 : 4);
  part.columns = count;
  return part;
}

/// Lanes of vector v that exist, 0 to 16.
inline int lanes_of(const Tile& t, int v) {
  const int n = t.columns - v * kLanes;
  return n < 0 ? 0 : n > kLanes ? kLanes : n;
}

template <typename T, int M>
inline void store_tile(const F32x16 (&acc)[M][kVectors], const Tile& t) {
  T* out = static_cast<T*>(t.out);
  if (t.columns == kPanel) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < kVectors; ++v) store(out + i * t.out_stride + v * kLanes, acc[i][v]);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < kVectors; ++v)
        if (const int n = lanes_of(t, v))
          store_n(out + i * t.out_stride + v * kLanes, acc[i][v], n);
  }
}

/// The accumulators to start from.
template <int M>
inline void load_tile(F32x16 (&acc)[M][kVectors], const Tile& t) {
  if (t.init == nullptr) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < kVectors; ++v) acc[i][v] = splat(0);
  } else if (t.columns == kPanel) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < kVectors; ++v) acc[i][v] = load(t.init + i * t.init_stride + v * kLanes);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < kVectors; ++v)
        acc[i][v] = load_n(t.init + i * t.init_stride + v * kLanes, lanes_of(t, v));
  }
}

template <int M>
inline void store_tile(const F32x16 (&acc)[M][kVectors], const Tile& t) {
  if (t.out_bf16)
    store_tile<bf16_t>(acc, t);
  else
    store_tile<float>(acc, t);
}

#if defined(FERRY_TIER_avx512)
/// sum + the products of a pair of A, broadcast, with the pairs of each lane of B.
inline void add_dot(F32x16& sum, float row, __m512i pairs) {
  const __m512i broadcast = _mm512_set1_epi32(std::bit_cast<int32_t>(row));
  sum.v = _mm512_dpbf16_ps(
      sum.v, reinterpret_cast<__m512bh>(broadcast), reinterpret_cast<__m512bh>(pairs));
}
#endif

/// sum + the product of a unit of A with the unit of each lane of B.
template <Packing kPacking>
inline void add_product(F32x16& sum, float row, F32x16 column) {
#if defined(FERRY_TIER_avx512)
  if constexpr (kPacking == Packing::kPairs)
    return add_dot(sum, row, _mm512_castps_si512(column.v));
#endif
  sum = fma(splat(row), column, sum);
}

/// One tile of C: M rows of a packed strip times one packed panel.
template <Packing kPacking, int M>
void tile_kernel(const float* a, const float* b, int64_t steps, const Tile& t) {
  F32x16 acc[M][kVectors];
  load_tile(acc, t);
  for (int64_t s = 0; s < steps; ++s, a += M, b += kPanel) {
    F32x16 column[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      column[v] = load(b + v * kLanes);
      __builtin_prefetch(b + kPrefetch + v * kLanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i)
      for (int v = 0; v < kVectors; ++v) add_product<kPacking>(acc[i][v], a[i], column[v]);
  }
  store_tile(acc, t);
}

using TileKernel = void (*)(const float*, const float*, int64_t, const Tile&);
struct TileKernels {
  TileKernel rows[kStripRows];
};

template <Packing kPacking, int... kRows>
constexpr TileKernels tile_kernels(std::integer_sequence<int, kRows...>) {
  return {{&tile_kernel<kPacking, kRows + 1>...}};
}
template <Packing kPacking>
constexpr TileKernels kTiles =
    tile_kernels<kPacking>(std::make_integer_sequence<int, kStripRows>{});

const TileKernels& tiles([[maybe_unused]] Packing packing) {
#if defined(FERRY_TIER_avx512)
  if (packing == Packing::kPairs) return kTiles<Packing::kPairs>;
#endif
  return kTiles<Packing::kF32>;
}

// ---- Packing ------------------------------------------------------------------------------------

/// What to pack: `rows` <= 16 rows as lanes [0, lanes) of units `out_stride` apart; lanes past the
/// rows become zero. Lanes up to 16 may be written: units are filled in ascending order.
struct Pack {
  int64_t row_stride;
  int rows, lanes;
  int64_t k;           // elements
  int64_t out_stride;  // units
};

#if defined(FERRY_TIER_avx512)

inline Words no_words() { return _mm512_setzero_si512(); }
inline Words load_words(const uint32_t* p) { return _mm512_loadu_si512(p); }
inline void store_words(float* out, Words v) { _mm512_storeu_si512(out, v); }
inline __mmask32 first32(int64_t n) { return n >= 32 ? 0xFFFFFFFFu : (1u << n) - 1; }
inline int up_to16(int64_t n) { return n < 0 ? 0 : n > 16 ? 16 : static_cast<int>(n); }

/// Sixteen f32, or pairs, of one row from p on, of which n elements exist.
template <typename T, Packing kPacking>
inline Words load_units(const T* p, int64_t n) {
  if constexpr (kPacking == Packing::kF32)
    return _mm512_castps_si512(load_n(p, up_to16(n)).v);
  else if constexpr (sizeof(T) == 2)
    return _mm512_maskz_loadu_epi16(first32(n), p);
  else {
    const __m512bh pairs =
        _mm512_cvtne2ps_pbh(load_n(p + 16, up_to16(n - 16)).v, load_n(p, up_to16(n)).v);
    return reinterpret_cast<__m512i>(pairs);
  }
}

/// The two f32 units of each pair.
inline Words odd_units(Words pairs) {
  return _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000)));
}
inline Words even_units(Words pairs) { return _mm512_slli_epi32(pairs, 16); }

/// Pairs of the lanes of two vectors of bf16 values.
inline Words pairs_of(F32x16 odd, F32x16 even) {
  return _mm512_or_si512(_mm512_castps_si512(odd.v),
                         _mm512_srli_epi32(_mm512_castps_si512(even.v), 16));
}

#elif defined(FERRY_TIER_avx2)

inline Words no_words() { return _mm256_setzero_si256(); }
inline Words load_words(const uint32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void store_words(float* out, Words v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), v);
}
inline int up_to8(int64_t n) { return n < 0 ? 0 : n > 8 ? 8 : static_cast<int>(n); }

/// Eight f32, or pairs, of one row from p on, of which n elements exist.
template <typename T, Packing kPacking>
inline Words load_units(const T* p, int64_t n) {
  if constexpr (kPacking == Packing::kF32)
    return _mm256_castps_si256(load8_n(p, up_to8(n)));
  else if constexpr (sizeof(T) == 2)
    return n >= 16
               ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))
               : _mm256_set_m128i(load8_n_bits(p + 8, up_to8(n - 8)), load8_n_bits(p, up_to8(n)));
  else
    return narrow(load8_n(p, up_to8(n)), load8_n(p + 8, up_to8(n - 8)));
}

/// The two f32 units of each pair.
inline Words odd_units(Words pairs) {
  return _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xFFFF0000)));
}
inline Words even_units(Words pairs) { return _mm256_slli_epi32(pairs, 16); }

#endif

#if defined(FERRY_TIER_avx512) || defined(FERRY_TIER_avx2)

template <Packing kPacking>
inline void store_units(float* out, int64_t out_stride, int j, Words v) {
  if constexpr (kPacking == Packing::kSplit) {
    store_words(out + 2 * j * out_stride, odd_units(v));
    store_words(out + (2 * j + 1) * out_stride, even_units(v));
  } else {
    store_words(out + j * out_stride, v);
  }
}

/// Reads a register from each row, transposes them, writes a register for each unit.
template <typename T, Packing kPacking>
void pack_along_k(const T* data, const Pack& p, float* out) {
  constexpr int64_t kStep = kPacking == Packing::kF32 ? kWords : 2 * kWords;
  for (int64_t k = 0; k < p.k; k += kStep) {
    const int64_t n = min(p.k - k, kStep);
    const int count = static_cast<int>(kPacking == Packing::kF32 ? n : ceil_div(n, 2));
    for (int first = 0; first < p.lanes; first += kWords) {
      const T* const from = data + first * p.row_stride + k;
      const int rows = p.rows - first;
      Words r[kWords];
      if (n == kStep && (rows >= kWords || p.lanes == p.rows)) {
        // Lanes past the last of a strip are overwritten: they repeat it rather than branch.
#pragma GCC unroll 16
        for (int i = 0; i < kWords; ++i) {
          const T* const at = from + (i < rows ? i : rows - 1) * p.row_stride;
          r[i] = load_units<T, kPacking>(at, kStep);
          __builtin_prefetch(at + 16 * p.row_stride, 0, 2);  // the rows to be packed next, into L2
        }
      } else {
        for (int i = 0; i < kWords; ++i)
          r[i] = i < rows ? load_units<T, kPacking>(from + i * p.row_stride, n) : no_words();
      }
      transpose(r);
      if (count == kWords) {
#pragma GCC unroll 16
        for (int j = 0; j < kWords; ++j) store_units<kPacking>(out + first, p.out_stride, j, r[j]);
      } else {
        for (int j = 0; j < count; ++j) store_units<kPacking>(out + first, p.out_stride, j, r[j]);
      }
    }
    out += units(kPacking, kStep) * p.out_stride;
  }
}

#else

inline float widen_one(float f) { return f; }
inline float widen_one(bf16_t h) { return bf16_to_f32(h); }

template <Packing kPacking, typename T>
inline float element(T v) {
  if constexpr (kPacking == Packing::kSplit && sizeof(T) == 4)
    return bf16_to_f32(f32_to_bf16(v));
  else
    return widen_one(v);
}

template <typename T, Packing kPacking>
void pack_along_k(const T* data, const Pack& p, float* out) {
  const int64_t count = units(kPacking, p.k);
  for (int64_t u = 0; u < count; ++u, out += p.out_stride) {
    const int64_t k = kPacking == Packing::kSplit ? u ^ 1 : u;
    for (int i = 0; i < p.lanes; ++i)
      out[i] = i < p.rows && k < p.k ? element<kPacking>(data[i * p.row_stride + k]) : 0.0f;
  }
}

#endif

/// Lanes that exist in `row`, as a product takes them.
template <typename T, Packing kPacking>
inline F32x16 load_elements(const T* row, int n) {
  const F32x16 v = load_n(row, n);
  return kPacking != Packing::kF32 && sizeof(T) == 4 ? rounded_to_bf16(v) : v;
}

/// The units of element `row` of up to 16 lanes, and of the element after it if that exists.
template <typename T, Packing kPacking>
inline void pack_unit(const T* row, const T* next, int n, float* out, int64_t out_stride) {
  const F32x16 even = load_elements<T, kPacking>(row, n);
  if constexpr (kPacking == Packing::kF32) return store(out, even);
  const F32x16 odd = next != nullptr ? load_elements<T, kPacking>(next, n) : splat(0);
  if constexpr (kPacking == Packing::kSplit) {
    store(out, odd);
    store(out + out_stride, even);
  }
#if defined(FERRY_TIER_avx512)
  if constexpr (kPacking == Packing::kPairs) store_words(out, pairs_of(odd, even));
#endif
}

/// The same of a strip, whose rows need fewer lanes: n <= kStripLanes.
#if defined(FERRY_TIER_avx2)
constexpr int kStripLanes = 8;
template <typename T, Packing kPacking>
inline void pack_strip_unit(const T* row, const T* next, int n, float* out, int64_t out_stride) {
  const auto elements = [n](const T* p) {
    const __m256 v = load8_n(p, n);
    return kPacking != Packing::kF32 && sizeof(T) == 4 ? _mm256_castsi256_ps(round_words(v)) : v;
  };
  if constexpr (kPacking == Packing::kSplit) {
    _mm256_storeu_ps(out, next != nullptr ? elements(next) : _mm256_setzero_ps());
    out += out_stride;
  }
  _mm256_storeu_ps(out, elements(row));
}
#else
constexpr int kStripLanes = kLanes;
template <typename T, Packing kPacking>
inline void pack_strip_unit(const T* row, const T* next, int n, float* out, int64_t out_stride) {
  pack_unit<T, kPacking>(row, next, n, out, out_stride);
}
#endif
static_assert(kStripRows <= kStripLanes);

constexpr int64_t kRowsAhead = 8;  // each row of k is another page, which no prefetcher foresees

/// Rows that lie side by side in memory: k outermost, so that each line is read once. Lanes from
/// `rows` to `lanes` become zero.
template <typename T, Packing kPacking>
void pack_across_k(const T* data,
                   int64_t k_stride,
                   int64_t rows,
                   int64_t lanes,
                   int64_t k_count,
                   float* out,
                   int64_t out_stride,
                   int64_t panel_stride) {
  constexpr int64_t kStep = kPacking == Packing::kF32 ? 1 : 2;
  for (int64_t k = 0; k < k_count; k += kStep, data += kStep * k_stride) {
    const bool has_next = kStep == 2 && k + 1 < k_count;
    float* const at = out + units(kPacking, k) * out_stride;
    for (int64_t r = 0; r < lanes; r += kLanes) {
      const int n = static_cast<int>(max(0, min(kLanes, rows - r)));
      const T* row = data + (n > 0 ? r : 0);
      __builtin_prefetch(row + kRowsAhead * k_stride);
      pack_unit<T, kPacking>(row,
                             has_next ? row + k_stride : nullptr,
                             n,
                             at + r / kPanel * panel_stride + r % kPanel,
                             out_stride);
    }
  }
}

/// Strips of A that are packed together: their rows share cache lines if A is stored transposed.
constexpr int kStripGroup = 8;
struct Strips {
  int count;
  int64_t a_rows;                // of A in all
  int64_t row[kStripGroup + 1];  // in A; the last: where the group ends
  float* at[kStripGroup];
  int rows(int s) const { return static_cast<int>(row[s + 1] - row[s]); }
};

template <typename T, Packing kPacking>
void pack_strips(const GemmOperand& o, const Strips& strips, int64_t k, int64_t k_count) {
  const T* data = static_cast<const T*>(o.data) + k * o.k_stride;
  if (o.k_stride == 1) {
    for (int s = 0; s < strips.count; ++s) {
      const int rows = strips.rows(s);
      pack_along_k<T, kPacking>(data + strips.row[s] * o.row_stride,
                                {o.row_stride, rows, rows, k_count, rows},
                                strips.at[s]);
    }
    return;
  }
  constexpr int64_t kStep = kPacking == Packing::kF32 ? 1 : 2;
  const T* row[kStripGroup];
  float* at[kStripGroup];
  int rows[kStripGroup], lanes[kStripGroup];
  for (int s = 0; s < strips.count; ++s) {
    row[s] = data + strips.row[s];
    at[s] = strips.at[s];
    rows[s] = strips.rows(s);
    // Whole registers where A has so many rows: the next unit covers the lanes of other strips.
    lanes[s] = strips.row[s] + kStripLanes <= strips.a_rows ? kStripLanes : rows[s];
  }
  for (int64_t i = 0; i < k_count; i += kStep) {
    const bool has_next = kStep == 2 && i + 1 < k_count;
    for (int s = 0; s < strips.count; ++s) {
      if (s % 2 == 0) __builtin_prefetch(row[s] + kRowsAhead * o.k_stride);  // two share a line
      pack_strip_unit<T, kPacking>(
          row[s], has_next ? row[s] + o.k_stride : nullptr, lanes[s], at[s], rows[s]);
      row[s] += kStep * o.k_stride;
      at[s] += units(kPacking, kStep) * rows[s];
    }
  }
}

/// Panels of B for columns [row, row + rows) of C.
template <typename T, Packing kPacking>
void pack_block(const GemmOperand& o,
                int64_t row,
                int64_t rows,
                int64_t k,
                int64_t k_count,
                float* out,
                int64_t panel_stride) {
  const T* data = static_cast<const T*>(o.data) + row * o.row_stride + k * o.k_stride;
  const int64_t lanes = round_up(rows, kPanel);
  if (o.k_stride != 1)
    return pack_across_k<T, kPacking>(
        data, o.k_stride, rows, lanes, k_count, out, kPanel, panel_stride);
  for (int64_t r = 0; r < lanes; r += kLanes) {
    const int n = static_cast<int>(max(0, min(kLanes, rows - r)));
    pack_along_k<T, kPacking>(data + r * o.row_stride,
                              {o.row_stride, n, kLanes, k_count, kPanel},
                              out + r / kPanel * panel_stride + r % kPanel);
  }
}

/// The same from panels of pairs: each pair becomes its two units (Packing::kSplit).
void split_pairs(const Gemm& g,
                 int64_t row,
                 int64_t rows,
                 int64_t k,
                 int64_t k_count,
                 float* out,
                 int64_t panel_stride) {
  const PairPanels layout{g.n, g.k};
  for (int64_t r = 0; r < rows; r += kPanel, out += panel_stride) {
    const uint32_t* from = static_cast<const uint32_t*>(g.panels) + layout.first_pair(row + r) +
                           k / 2 * kPairPanelRows;
    float* to = out;
    for (int64_t p = 0; p < ceil_div(k_count, 2); ++p, from += kPairPanelRows, to += 2 * kPanel) {
      __builtin_prefetch(from + kPrefetch);
#if defined(FERRY_TIER_avx512) || defined(FERRY_TIER_avx2)
      for (int lane = 0; lane < kPanel; lane += kWords) {
        const Words pairs = load_words(from + lane);
        store_words(to + lane, odd_units(pairs));
        store_words(to + kPanel + lane, even_units(pairs));
      }
#else
      for (int lane = 0; lane < kPanel; ++lane) {
        to[lane] = std::bit_cast<float>(from[lane] & 0xFFFF0000u);
        to[kPanel + lane] = std::bit_cast<float>(from[lane] << 16);
      }
#endif
    }
  }
}

// ---- Tiles on panels of pairs -------------------------------------------------------------------

#if defined(FERRY_TIER_avx512)
static_assert(kPanel == kPairPanelRows);

/// Panels that one tile takes: enough accumulators to hide the latency of fma, and enough streams
/// to keep the memory busy.
constexpr int panels_of(int rows) { return rows <= 4 ? 2 : 1; }

/// Rows of A, kRowStride apart; zeros up to an even number of elements.
constexpr int64_t kRowStride = kFewRowsK + 16;  // not a power of two: other cache sets

/// How panels of pairs are multiplied: taken apart, with rows widened to f32, or by vdpbf16ps, with
/// rows of pairs.
enum class Pairs { kApart, kDot };

template <Pairs pairs>
void prepare_rows(
    const GemmOperand& a, int64_t row, int rows, int64_t k, int64_t count, float* out) {
  for (int i = 0; i < rows; ++i, out += kRowStride) {
    const bf16_t* const from = static_cast<const bf16_t*>(a.data) + (row + i) * a.row_stride + k;
    if constexpr (pairs == Pairs::kDot) {
      out[count / 2] = 0;
      std::memcpy(out, from, static_cast<size_t>(count) * sizeof(bf16_t));
    } else {
      for (int64_t j = 0; j < count; j += kLanes)
        store(out + j, load_n(from + j, static_cast<int>(min(kLanes, count - j))));  // rest zeros
    }
  }
}

/// M prepared rows times kPanels panels of pairs.
template <Pairs pairs, int M, int kPanels>
void pairs_kernel(
    const float* a, const float* b, int64_t panel_stride, int64_t count, const Tile& t) {
  constexpr int64_t kAhead = 16 * kPanel;  // panels come from memory
  F32x16 acc[kPanels][M][kVectors];
  const auto panel = [&t](int p) {
    return columns_of(t, p * kPanel, static_cast<int>(min(kPanel, t.columns - p * kPanel)));
  };
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) load_tile(acc[p], panel(p));
  for (int64_t s = 0; s < count; ++s, a += pairs == Pairs::kDot ? 1 : 2, b += kPanel) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      __m512i pair[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        const float* const at = b + p * panel_stride + v * kLanes;
        pair[v] = _mm512_loadu_si512(at);
        __builtin_prefetch(at + kAhead);
      }
      if constexpr (pairs == Pairs::kDot) {
#pragma GCC unroll 16
        for (int i = 0; i < M; ++i)
          for (int v = 0; v < kVectors; ++v) add_dot(acc[p][i][v], a[i * kRowStride], pair[v]);
      } else {
        F32x16 odd[kVectors], even[kVectors];
        for (int v = 0; v < kVectors; ++v) {
          odd[v] = {_mm512_castsi512_ps(odd_units(pair[v]))};
          even[v] = {_mm512_castsi512_ps(even_units(pair[v]))};
        }
#pragma GCC unroll 16
        for (int i = 0; i < M; ++i) {
          const F32x16 row = splat(a[i * kRowStride + 1]);
          for (int v = 0; v < kVectors; ++v) acc[p][i][v] = fma(row, odd[v], acc[p][i][v]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < M; ++i) {
          const F32x16 row = splat(a[i * kRowStride]);
          for (int v = 0; v < kVectors; ++v) acc[p][i][v] = fma(row, even[v], acc[p][i][v]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) store_tile(acc[p], panel(p));
}

using PairsKernel = void (*)(const float*, const float*, int64_t, int64_t, const Tile&);
struct PairsKernels {
  PairsKernel one[kGemmPackedRowsMax], several[kGemmPackedRowsMax];
};

template <Pairs pairs, int... kRows>
constexpr PairsKernels pairs_kernels(std::integer_sequence<int, kRows...>) {
  return {{&pairs_kernel<pairs, kRows + 1, 1>...},
          {&pairs_kernel<pairs, kRows + 1, panels_of(kRows + 1)>...}};
}
template <Pairs pairs>
constexpr PairsKernels kPairsTiles =
    pairs_kernels<pairs>(std::make_integer_sequence<int, kGemmPackedRowsMax>{});

/// Prepared rows times the panels of t.columns columns.
template <Pairs pairs>
void multiply_pairs(
    const float* a, int rows, const float* b, int64_t panel_stride, int64_t count, const Tile& t) {
  for (int at = 0; at < t.columns;) {
    const int panels = t.columns - at > (panels_of(rows) - 1) * kPanel ? panels_of(rows) : 1;
    const PairsKernels& kernels = kPairsTiles<pairs>;
    const PairsKernel kernel = (panels > 1 ? kernels.several : kernels.one)[rows - 1];
    const int columns = static_cast<int>(min(panels * kPanel, t.columns - at));
    kernel(a, b + at / kPanel * panel_stride, panel_stride, count, columns_of(t, at, columns));
    at += columns;
  }
}
#endif

using PackStrips = void (*)(const GemmOperand&, const Strips&, int64_t, int64_t);
using PackBlock = void (*)(const GemmOperand&, int64_t, int64_t, int64_t, int64_t, float*, int64_t);

struct Packers {
  PackStrips strips;
  PackBlock block;
};

template <typename T>
constexpr Packers packers_of(Packing packing) {
  if (packing == Packing::kF32)
    return {&pack_strips<T, Packing::kF32>, &pack_block<T, Packing::kF32>};
#if defined(FERRY_TIER_avx512)
  if (packing == Packing::kPairs)
    return {&pack_strips<T, Packing::kPairs>, &pack_block<T, Packing::kPairs>};
#endif
  return {&pack_strips<T, Packing::kSplit>, &pack_block<T, Packing::kSplit>};
}

Packers packers(DType dtype, Packing packing) {
  return dtype == DType::kBF16 ? packers_of<bf16_t>(packing) : packers_of<float>(packing);
}

// ---- Blocking -----------------------------------------------------------------------------------

struct Blocks {
  int64_t m, n, k;  // of a task; k even unless it is the whole
  Packing packing;
};

/// Bounds: a strip within kGemmStripBytes, panels within kGemmBlockBytes, bf16 C over several k
/// blocks within kGemmScratchBytes.
Blocks choose_blocks(const Gemm& g, int64_t m_mean, int64_t k_max, int64_t count) {
  const Packing packing = !g.bf16                             ? Packing::kF32
                          : cpu_tier() == CpuTier::kAvx512Dot ? Packing::kPairs
                                                              : Packing::kSplit;
  const bool few_rows = m_mean <= kStripRows;  // one strip: a packed panel of B is read once
  const int64_t k_limit = (few_rows ? kFewRowsK : kBlockK) * (packing == Packing::kPairs ? 2 : 1);
  const int64_t k_blocks = max(1, ceil_div(k_max, k_limit));
  const int64_t k = round_up(ceil_div(max(1, k_max), k_blocks), 2);
  const int64_t column_bytes = 4 * units(packing, k);
  const int64_t n_limit =
      few_rows ? 4 * kPanel
               : max(kPanel, min(512, (int64_t{512} << 10) / column_bytes / kPanel * kPanel));
  int64_t m_limit = 2048;
  if (k_blocks > 1 && g.c_dtype == DType::kBF16)
    m_limit = min(m_limit, static_cast<int64_t>(kGemmScratchBytes) / (4 * n_limit));
  // Packing one row of A costs about as much as 5 of its products, of B about 10 (in columns,
  // rows), from panels of pairs about 3; what is packed already nothing.
  const int64_t pack_b = g.panels == nullptr ? 10 : packing == Packing::kPairs ? 0 : 3;
  const int64_t threads = cpu_pool().threads();
  const int64_t m_least = ceil_div(max(1, m_mean), m_limit), n_least = ceil_div(g.n, n_limit);
  Blocks best{m_limit, n_limit, k, packing};
  double best_cost = 0;
  for (int64_t mb = m_least; mb < m_least + 12 && (mb == m_least || mb * kStripRows <= m_mean);
       ++mb)
    for (int64_t nb = n_least; nb < n_least + 8 && (nb == n_least || (nb - 1) * kPanel < g.n);
         ++nb) {
      const int64_t m = ceil_div(max(1, m_mean), mb), n = round_up(ceil_div(g.n, nb), kPanel);
      const int64_t tasks = count * mb * ceil_div(g.n, n);
      const double work = static_cast<double>(m * n + 5 * m + pack_b * n);
      // A part of a task more for threads that do not end together.
      const double waits = threads > 1 ? 0.1 : 0;
      const double cost = (static_cast<double>(ceil_div(tasks, threads)) + waits) * work;
      if (best_cost == 0 || cost < best_cost) {
        best_cost = cost;
        best = {m, n, k, packing};
      }
    }
  // An expert with more rows than most is cut into tasks that are worth packing B for.
  if (count > 1) best.m = min(m_limit, max(best.m, 8 * kStripRows));
  return best;
}

struct Runner {
  Gemm* problems;
  int64_t count;
  Blocks blocks;
  char* workspace;

  int64_t task_count() {
    int64_t tasks = 0;
    for (int64_t i = 0; i < count; ++i) {
      problems[i].first_task = tasks;
      tasks += ceil_div(problems[i].m, blocks.m) * ceil_div(problems[i].n, blocks.n);
    }
    return tasks;
  }

  const Gemm& problem_of(int64_t task) const {
    int64_t low = 0, high = count;  // the last problem whose first task is not after this one
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (problems[middle].first_task <= task ? low : high) = middle;
    }
    return problems[low];
  }

  void run(int64_t task, int thread) const {
    const Gemm& g = problem_of(task);
    const int64_t m_blocks = ceil_div(g.m, blocks.m);
    const int64_t at = task - g.first_task;
    const int64_t m = at % m_blocks * blocks.m, n = at / m_blocks * blocks.n;
    const int64_t rows = min(blocks.m, g.m - m), columns = min(blocks.n, g.n - n);
    char* const memory = workspace + static_cast<size_t>(thread) * kGemmThreadBytes;
#if defined(FERRY_TIER_avx512)
    if (g.panels != nullptr && rows <= kGemmPackedRowsMax && g.a.dtype == DType::kBF16 &&
        g.a.k_stride == 1)
      return blocks.packing == Packing::kPairs
                 ? block_of_panels<Pairs::kDot>(g, m, rows, n, columns, memory)
                 : block_of_panels<Pairs::kApart>(g, m, rows, n, columns, memory);
#endif
    block(g, m, rows, n, columns, memory);
  }

  /// Columns [n, n + columns) of rows from m + row on, for elements [k, k + k_count) of the sums.
  Tile tile(const Gemm& g,
            int64_t m,
            int64_t row,
            int64_t n,
            int64_t columns,
            int64_t k,
            int64_t k_count,
            char* memory) const {
    float* const partial =
        reinterpret_cast<float*>(memory + kGemmStripBytes + kGemmBlockBytes) + row * blocks.n;
    const int64_t c_at = (m + row) * g.c_stride + n;
    const bool first = k == 0, last = k + k_count >= g.k;
    Tile t{.init = nullptr,
           .init_stride = blocks.n,
           .out = partial,
           .out_stride = blocks.n,
           .out_bf16 = false,
           .columns = static_cast<int>(columns)};
    if (g.c_dtype != DType::kBF16) {
      t.out = static_cast<float*>(g.c) + c_at;
      t.out_stride = t.init_stride = g.c_stride;
      if (!first || g.accumulate) t.init = static_cast<float*>(t.out);
    } else {
      if (!first) t.init = partial;
      if (last) {
        t.out = static_cast<bf16_t*>(g.c) + c_at;
        t.out_stride = g.c_stride;
        t.out_bf16 = true;
      }
    }
    return t;
  }

  void block(
      const Gemm& g, int64_t m, int64_t rows, int64_t n, int64_t columns, char* memory) const {
    float* const strip_memory = reinterpret_cast<float*>(memory);
    float* const block_panels = reinterpret_cast<float*>(memory + kGemmStripBytes);
    const bool from_pairs = g.panels != nullptr,
               packed = from_pairs && blocks.packing == Packing::kPairs;
    const PackStrips pack_a = packers(g.a.dtype, blocks.packing).strips;
    const PackBlock pack_b = packers(g.b.dtype, blocks.packing).block;
    const int64_t strips =
        ceil_div(rows, kStripRows);  // of equal height: tall tiles are the fast ones
    const TileKernels& kernels = tiles(blocks.packing);
    Strips group{};
    group.a_rows = g.m;
    int64_t k = 0;
    do {  // once even without any k: C becomes zero
      const int64_t k_count = min(blocks.k, g.k - k);
      const int64_t steps = units(blocks.packing, k_count);
      const int64_t panel_stride =
          packed ? PairPanels{g.n, g.k}.stride() : steps * kPanel + kPanelPad;
      const float* const panels =
          packed ? static_cast<const float*>(g.panels) + n / kPanel * panel_stride + k / 2 * kPanel
                 : block_panels;
      const int64_t strip_units = steps * kStripRows + kStripPad;
      const int64_t group_max =
          min(kStripGroup, static_cast<int64_t>(kGemmStripBytes / sizeof(float)) / strip_units);
      if (!packed)
        from_pairs ? split_pairs(g, n, columns, k, k_count, block_panels, panel_stride)
                   : pack_b(g.b, n, columns, k, k_count, block_panels, panel_stride);
      for (int64_t s = 0; s < strips; s += group.count) {
        group.count = static_cast<int>(min(group_max, strips - s));
        for (int i = 0; i <= group.count; ++i) group.row[i] = m + rows * (s + i) / strips;
        for (int i = 0; i < group.count; ++i) group.at[i] = strip_memory + i * strip_units;
        pack_a(g.a, group, k, k_count);
        const auto multiply = [&](int strip, int64_t column) {
          const Tile t = tile(g, m, group.row[strip] - m, n, columns, k, k_count, memory);
          kernels.rows[group.rows(strip) - 1](
              group.at[strip],
              panels + column / kPanel * panel_stride,
              steps,
              columns_of(
                  t, static_cast<int>(column), static_cast<int>(min(kPanel, columns - column))));
        };
        if constexpr (kPanelStays) {
          for (int64_t column = 0; column < columns; column += kPanel)
            for (int i = 0; i < group.count; ++i) multiply(i, column);
        } else {
          for (int i = 0; i < group.count; ++i)
            for (int64_t column = 0; column < columns; column += kPanel) multiply(i, column);
        }
      }
      k += k_count;
    } while (k < g.k);
  }

#if defined(FERRY_TIER_avx512)
  /// The same from panels made beforehand.
  template <Pairs pairs>
  void block_of_panels(
      const Gemm& g, int64_t m, int64_t rows, int64_t n, int64_t columns, char* memory) const {
    float* const prepared = reinterpret_cast<float*>(memory);
    const int64_t strips = ceil_div(rows, kGemmPackedRowsMax),
                  stride = PairPanels{g.n, g.k}.stride();
    const float* const panels = static_cast<const float*>(g.panels) + n / kPanel * stride;
    int64_t k = 0;
    do {
      const int64_t k_count = min(blocks.k, g.k - k);
      for (int64_t s = 0; s < strips; ++s) {
        const int64_t row = rows * s / strips;
        const int height = static_cast<int>(rows * (s + 1) / strips - row);
        prepare_rows<pairs>(g.a, m + row, height, k, k_count, prepared);
        multiply_pairs<pairs>(prepared,
                              height,
                              panels + k / 2 * kPanel,
                              stride,
                              units(Packing::kPairs, k_count),
                              tile(g, m, row, n, columns, k, k_count, memory));
      }
      k += k_count;
    } while (k < g.k);
  }
#endif
};

#if !defined(FERRY_TIER_avx512)
/// The panel of pairs that the other tier multiplies: this one only judges what that made.
template <typename T>
void pack_pairs(const GemmOperand& b, int64_t row, int64_t rows, int64_t k_count, uint32_t* out) {
  const T* const data = static_cast<const T*>(b.data) + row * b.row_stride;
  const auto half = [&](int64_t lane, int64_t k) -> uint32_t {
    if (lane >= rows || k >= k_count) return 0;
    const T value = data[lane * b.row_stride + k * b.k_stride];
    if constexpr (sizeof(T) == sizeof(bf16_t))
      return value;
    else
      return f32_to_bf16(value);
  };
  for (int64_t k = 0; k < k_count; k += 2)
    for (int64_t lane = 0; lane < kPairPanelRows; ++lane)
      *out++ = half(lane, k) | half(lane, k + 1) << 16;
}
#endif

}  // namespace

void gemm_pack_panels(const GemmOperand& b, int64_t n, int64_t k, void* panels) {
  const int64_t stride = PairPanels{n, k}.stride();
  cpu_pool().parallel_for(ceil_div(n, kPairPanelRows), [&](int64_t panel, int) {
    const int64_t row = panel * kPairPanelRows, rows = min(kPairPanelRows, n - row);
    float* const out = static_cast<float*>(panels) + panel * stride;
#if defined(FERRY_TIER_avx512)
    packers(b.dtype, Packing::kPairs).block(b, row, rows, 0, k, out, stride);
#else
    auto* const pairs = reinterpret_cast<uint32_t*>(out);
    if (b.dtype == DType::kBF16)
      pack_pairs<bf16_t>(b, row, rows, k, pairs);
    else
      pack_pairs<float>(b, row, rows, k, pairs);
#endif
  });
}

void gemm_batch(Gemm* problems, int64_t count, void* workspace) {
  int64_t rows = 0, k_max = 0;
  for (int64_t i = 0; i < count; ++i) {
    rows += problems[i].m;
    k_max = max(k_max, problems[i].k);
  }
  if (rows == 0 || problems[0].n == 0) return;
  Runner runner{problems,
                count,
                choose_blocks(problems[0], ceil_div(rows, count), k_max, count),
                static_cast<char*>(workspace)};
  cpu_pool().parallel_for(runner.task_count(),
                          [&](int64_t task, int thread) { runner.run(task, thread); });
}

}  // namespace ferry::ops::FERRY_TIER
