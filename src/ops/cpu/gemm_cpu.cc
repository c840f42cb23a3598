// The blocked matrix product. A task is a block of C; its thread packs the block's part of B, then one
// strip of A after the other, and runs a register tile over strip and panel. No barriers: packing B
// again in each task costs less than waiting, and experts with unequal rows balance by themselves.
//
// Packed memory is made of 4-byte units, lanes innermost. A unit is one f32, or a pair of bf16
// (AVX-512: vdpbf16ps). Tiers without that instruction unpack a pair to two f32 units, the odd
// element first, and use the f32 tile: the same operations in the same order.
#include "ops/cpu/gemm.h"

#include <cstring>
#include <utility>

#include "ops/cpu/simd.h"

namespace ferry::ops::FERRY_TIER {
namespace {

#if defined(FERRY_TIER_avx512)
constexpr int kStripRows = 14;  // 28 accumulators, 2 registers for B, 1 for A
constexpr int kVectors = 2;
constexpr bool kPairs = true;
#elif defined(FERRY_TIER_avx2)
constexpr int kStripRows = 6;
constexpr int kVectors = 1;
constexpr bool kPairs = false;
#else
constexpr int kStripRows = 4;
constexpr int kVectors = 1;
constexpr bool kPairs = false;
#endif
constexpr int kPanel = kVectors * kLanes;  // columns of C in a tile
constexpr int64_t kPanelPad = 32;          // keeps panels from lying in the same cache sets

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
constexpr int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

/// Units that k elements take.
int64_t units(bool bf16, int64_t k) { return bf16 ? (kPairs ? ceil_div(k, 2) : round_up(k, 2)) : k; }

// ---- Register tiles -----------------------------------------------------------------------------

struct Tile {
  const float* init;  // accumulators to go on from; null: zeros
  int64_t init_stride;
  void* out;
  int64_t out_stride;
  bool out_bf16;
  int columns;        // of the panel that exist in C
};

template <bool kDot>
inline F32x16 multiply_add(F32x16 a, F32x16 b, F32x16 c) {
#if defined(FERRY_TIER_avx512)
  if constexpr (kDot)
    return {_mm512_dpbf16_ps(c.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
#endif
  return fma(a, b, c);
}

/// Lanes of vector v that exist, 0 to 16.
inline int lanes_of(const Tile& t, int v) {
  const int n = t.columns - v * kLanes;
  return n < 0 ? 0 : n > kLanes ? kLanes : n;
}

template <typename T, int M>
inline void store_tile(const F32x16 (&acc)[M][kVectors], const Tile& t) {
  T* out = static_cast<T*>(t.out);
  for (int i = 0; i < M; ++i, out += t.out_stride)
    for (int v = 0; v < kVectors; ++v) {
      if (t.columns == kPanel) store(out + v * kLanes, acc[i][v]);
      else if (const int n = lanes_of(t, v)) store_n(out + v * kLanes, acc[i][v], n);
    }
}

/// One tile of C: M rows of a packed strip times one packed panel.
template <int M, bool kDot>
void tile_kernel(const float* a, const float* b, int64_t steps, const Tile& t) {
  F32x16 acc[M][kVectors];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < kVectors; ++v)
      acc[i][v] = t.init == nullptr ? splat(0) : load_n(t.init + i * t.init_stride + v * kLanes, lanes_of(t, v));
  for (int64_t s = 0; s < steps; ++s, a += M, b += kPanel) {
    F32x16 column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const F32x16 row = splat(a[i]);
      for (int v = 0; v < kVectors; ++v) acc[i][v] = multiply_add<kDot>(row, column[v], acc[i][v]);
    }
  }
  if (t.out_bf16) store_tile<bf16_t>(acc, t);
  else store_tile<float>(acc, t);
}

using TileKernel = void (*)(const float*, const float*, int64_t, const Tile&);
struct TileKernels { TileKernel rows[kStripRows]; };

template <bool kDot, int... kRows>
constexpr TileKernels tile_kernels(std::integer_sequence<int, kRows...>) { return {{&tile_kernel<kRows + 1, kDot>...}}; }
constexpr TileKernels kF32Tiles = tile_kernels<false>(std::make_integer_sequence<int, kStripRows>{});
constexpr TileKernels kBf16Tiles = tile_kernels<kPairs>(std::make_integer_sequence<int, kStripRows>{});

// ---- Packing ------------------------------------------------------------------------------------

/// What to pack: `rows` <= 16 rows as lanes [0, lanes) of units `out_stride` apart; lanes past the rows
/// become zero. Lanes up to 16 may be written: units are filled in ascending order.
struct Pack {
  int64_t row_stride;
  int rows, lanes;
  int64_t k;          // elements
  int64_t out_stride; // units
};

#if defined(FERRY_TIER_avx512)

/// out[j] lane i = in[i] lane j.
inline void transpose16(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xDD);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xDD);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xDD);
  }
}

inline __mmask32 first32(int64_t n) { return n >= 32 ? 0xFFFFFFFFu : (1u << n) - 1; }
inline int up_to16(int64_t n) { return n < 0 ? 0 : n > 16 ? 16 : static_cast<int>(n); }

/// Sixteen units of one row from p on, of which n elements exist.
template <typename T, bool kBf16>
inline __m512i load_units(const T* p, int64_t n) {
  if constexpr (!kBf16) return _mm512_castps_si512(load_n(p, up_to16(n)).v);
  else if constexpr (sizeof(T) == 2) return _mm512_maskz_loadu_epi16(first32(n), p);
  else {
    const __m512bh pairs = _mm512_cvtne2ps_pbh(load_n(p + 16, up_to16(n - 16)).v, load_n(p, up_to16(n)).v);
    return reinterpret_cast<__m512i>(pairs);
  }
}

template <typename T, bool kBf16>
void pack_along_k(const T* data, const Pack& p, float* out) {
  constexpr int64_t kStep = kBf16 ? 32 : 16;
  for (int64_t k = 0; k < p.k; k += kStep) {
    __m512i r[16];
    const int64_t n = p.k - k;
    if (p.rows == 16 && n >= kStep) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) r[i] = load_units<T, kBf16>(data + i * p.row_stride + k, kStep);
    } else {
      for (int i = 0; i < 16; ++i)
        r[i] = i < p.rows ? load_units<T, kBf16>(data + i * p.row_stride + k, n) : _mm512_setzero_si512();
    }
    transpose16(r);
    const int count = static_cast<int>(units(kBf16, min(n, kStep)));
    if (count == 16) {
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j) _mm512_storeu_si512(out + j * p.out_stride, r[j]);
    } else {
      for (int j = 0; j < count; ++j) _mm512_storeu_si512(out + j * p.out_stride, r[j]);
    }
    out += 16 * p.out_stride;
  }
}

inline __m512i load_bf16_words(const bf16_t* p, int n) { return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
inline __m512i load_bf16_words(const float* p, int n) {
  return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(load_n(p, n).v)));
}

template <typename T, bool kBf16>
inline void pack_unit(const T* row, const T* next, int n, float* out, int64_t) {
  if constexpr (!kBf16) {
    store(out, load_n(row, n));
  } else {
    __m512i pair = load_bf16_words(row, n);
    if (next != nullptr) pair = _mm512_or_si512(pair, _mm512_slli_epi32(load_bf16_words(next, n), 16));
    _mm512_storeu_si512(out, pair);
  }
}

#else

inline float widen_one(float f) { return f; }
inline float widen_one(bf16_t h) { return bf16_to_f32(h); }

template <typename T, bool kBf16>
inline float element(T v) {
  if constexpr (kBf16 && sizeof(T) == 4) return bf16_to_f32(f32_to_bf16(v));
  else return widen_one(v);
}

template <typename T, bool kBf16>
void pack_along_k(const T* data, const Pack& p, float* out) {
  const int64_t count = units(kBf16, p.k);
  for (int64_t u = 0; u < count; ++u, out += p.out_stride) {
    const int64_t k = kBf16 ? u ^ 1 : u;  // the odd element of a pair first
    for (int i = 0; i < p.lanes; ++i)
      out[i] = i < p.rows && k < p.k ? element<T, kBf16>(data[i * p.row_stride + k]) : 0.0f;
  }
}

template <typename T, bool kBf16>
inline F32x16 load_elements(const T* p, int n) {
  F32x16 v = load_n(p, n);
  if constexpr (kBf16 && sizeof(T) == 4) {
    bf16_t rounded[16];
    store(rounded, v);
    v = load(rounded);
  }
  return v;
}

/// A pair is two units: the odd element's, then the even one's.
template <typename T, bool kBf16>
inline void pack_unit(const T* row, const T* next, int n, float* out, int64_t out_stride) {
  if constexpr (kBf16) {
    store(out, next != nullptr ? load_elements<T, true>(next, n) : splat(0));
    out += out_stride;
  }
  store(out, load_elements<T, kBf16>(row, n));
}

#endif

/// Rows that lie side by side in memory: k outermost, so that each line is read once. Lanes from
/// `rows` to `lanes` become zero.
template <typename T, bool kBf16>
void pack_across_k(const T* data, int64_t k_stride, int64_t rows, int64_t lanes, int64_t k_count, float* out,
                   int64_t out_stride, int64_t panel_stride) {
  constexpr int64_t kStep = kBf16 ? 2 : 1;
  for (int64_t k = 0; k < k_count; k += kStep, data += kStep * k_stride) {
    const bool has_next = kBf16 && k + 1 < k_count;
    float* const at = out + units(kBf16, k) * out_stride;
    for (int64_t r = 0; r < lanes; r += kLanes) {
      const int n = static_cast<int>(max(0, min(kLanes, rows - r)));
      const T* row = data + (n > 0 ? r : 0);
      pack_unit<T, kBf16>(row, has_next ? row + k_stride : nullptr, n, at + r / kPanel * panel_stride + r % kPanel, out_stride);
    }
  }
}

/// A strip of A: `rows` <= kStripRows, units `rows` apart.
template <typename T, bool kBf16>
void pack_strip(const GemmOperand& o, int64_t row, int rows, int64_t k, int64_t k_count, float* out) {
  const T* data = static_cast<const T*>(o.data) + row * o.row_stride + k * o.k_stride;
  if (o.k_stride == 1) {
    pack_along_k<T, kBf16>(data, {o.row_stride, rows, rows, k_count, rows}, out);
  } else {
    pack_across_k<T, kBf16>(data, o.k_stride, rows, rows, k_count, out, rows, 0);
  }
}

/// Panels of B for columns [row, row + rows) of C.
template <typename T, bool kBf16>
void pack_block(const GemmOperand& o, int64_t row, int64_t rows, int64_t k, int64_t k_count, float* out,
                int64_t panel_stride) {
  const T* data = static_cast<const T*>(o.data) + row * o.row_stride + k * o.k_stride;
  const int64_t lanes = round_up(rows, kPanel);
  if (o.k_stride != 1) return pack_across_k<T, kBf16>(data, o.k_stride, rows, lanes, k_count, out, kPanel, panel_stride);
  for (int64_t r = 0; r < lanes; r += kLanes) {
    const int n = static_cast<int>(max(0, min(kLanes, rows - r)));
    pack_along_k<T, kBf16>(data + r * o.row_stride, {o.row_stride, n, kLanes, k_count, kPanel},
                           out + r / kPanel * panel_stride + r % kPanel);
  }
}

using PackStrip = void (*)(const GemmOperand&, int64_t, int, int64_t, int64_t, float*);
using PackBlock = void (*)(const GemmOperand&, int64_t, int64_t, int64_t, int64_t, float*, int64_t);

PackStrip strip_packer(const GemmOperand& o, bool bf16) {
  if (o.dtype == DType::kBF16) return bf16 ? &pack_strip<bf16_t, true> : &pack_strip<bf16_t, false>;
  return bf16 ? &pack_strip<float, true> : &pack_strip<float, false>;
}
PackBlock block_packer(const GemmOperand& o, bool bf16) {
  if (o.dtype == DType::kBF16) return bf16 ? &pack_block<bf16_t, true> : &pack_block<bf16_t, false>;
  return bf16 ? &pack_block<float, true> : &pack_block<float, false>;
}

// ---- Blocking -----------------------------------------------------------------------------------

struct Blocks {
  int64_t m, n, k;  // of a task; k even unless it is the whole
};

/// Bounds: a strip within kGemmStripBytes, panels within kGemmBlockBytes, bf16 C over several k blocks
/// within kGemmScratchBytes.
Blocks choose_blocks(const Gemm& g, int64_t m_mean, int64_t k_max, int64_t count) {
  const bool pairs = g.bf16 && kPairs;
  const bool few_rows = m_mean <= kStripRows;  // B is read once: keep its packed part in L1
  const int64_t k_limit = few_rows ? 256 : pairs ? 1024 : 512;
  const int64_t k_blocks = max(1, ceil_div(k_max, k_limit));
  const int64_t k = round_up(ceil_div(max(1, k_max), k_blocks), 2);
  const int64_t column_bytes = 4 * units(g.bf16, k);
  const int64_t n_limit = few_rows ? 2 * kPanel
      : max(kPanel, min(512, (int64_t{512} << 10) / column_bytes / kPanel * kPanel));
  int64_t m_limit = 1024;
  if (k_blocks > 1 && g.c_dtype == DType::kBF16)
    m_limit = min(m_limit, static_cast<int64_t>(kGemmScratchBytes) / (4 * n_limit));
  // Packing one row of A costs about as much as 5 of its products, of B about 10 (in columns, rows).
  const int64_t threads = cpu_pool().threads();
  const int64_t m_least = ceil_div(max(1, m_mean), m_limit), n_least = ceil_div(g.n, n_limit);
  Blocks best{m_limit, n_limit, k};
  double best_cost = 0;
  for (int64_t mb = m_least; mb < m_least + 12 && (mb == m_least || mb * kStripRows <= m_mean); ++mb)
    for (int64_t nb = n_least; nb < n_least + 8 && (nb == n_least || (nb - 1) * kPanel < g.n); ++nb) {
      const int64_t m = ceil_div(max(1, m_mean), mb), n = round_up(ceil_div(g.n, nb), kPanel);
      const int64_t tasks = count * mb * ceil_div(g.n, n);
      const double work = static_cast<double>(m * n + 5 * m + 10 * n);
      // A quarter of a task more for threads that do not end together.
      const double cost = (static_cast<double>(ceil_div(tasks, threads)) + 0.25) * work;
      if (best_cost == 0 || cost < best_cost) {
        best_cost = cost;
        best = {m, n, k};
      }
    }
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
    block(g, m, min(blocks.m, g.m - m), n, min(blocks.n, g.n - n), workspace + static_cast<size_t>(thread) * kGemmThreadBytes);
  }

  void block(const Gemm& g, int64_t m, int64_t rows, int64_t n, int64_t columns, char* memory) const {
    float* const strip = reinterpret_cast<float*>(memory);
    float* const panels = reinterpret_cast<float*>(memory + kGemmStripBytes);
    float* const scratch = reinterpret_cast<float*>(memory + kGemmStripBytes + kGemmBlockBytes);
    const PackStrip pack_a = strip_packer(g.a, g.bf16);
    const PackBlock pack_b = block_packer(g.b, g.bf16);
    const TileKernels& tiles = g.bf16 ? kBf16Tiles : kF32Tiles;
    const bool c16 = g.c_dtype == DType::kBF16;
    const int64_t strips = ceil_div(rows, kStripRows);
    int64_t k = 0;
    do {  // once even without any k: C becomes zero
      const int64_t k_count = min(blocks.k, g.k - k);
      const bool first = k == 0, last = k + k_count >= g.k;
      const int64_t steps = units(g.bf16, k_count);
      const int64_t panel_stride = steps * kPanel + kPanelPad;
      pack_b(g.b, n, columns, k, k_count, panels, panel_stride);
      for (int64_t s = 0; s < strips; ++s) {  // strips of equal height: tall tiles are the fast ones
        const int64_t row = rows * s / strips;
        const int height = static_cast<int>(rows * (s + 1) / strips - row);
        pack_a(g.a, m + row, height, k, k_count, strip);
        const TileKernel kernel = tiles.rows[height - 1];
        for (int64_t j = 0; j < columns; j += kPanel) {
          float* const partial = scratch + row * blocks.n + j;
          const int64_t c_at = (m + row) * g.c_stride + n + j;
          Tile t{.init = nullptr, .init_stride = blocks.n, .out = partial, .out_stride = blocks.n, .out_bf16 = false,
                 .columns = static_cast<int>(min(kPanel, columns - j))};
          if (!c16) {
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
          kernel(strip, panels + j / kPanel * panel_stride, steps, t);
        }
      }
      k += k_count;
    } while (k < g.k);
  }
};

}  // namespace

void gemm_batch(Gemm* problems, int64_t count, void* workspace) {
  int64_t rows = 0, k_max = 0;
  for (int64_t i = 0; i < count; ++i) {
    rows += problems[i].m;
    k_max = max(k_max, problems[i].k);
  }
  if (rows == 0) return;
  Runner runner{problems, count, choose_blocks(problems[0], ceil_div(rows, count), k_max, count), static_cast<char*>(workspace)};
  cpu_pool().parallel_for(runner.task_count(), [&](int64_t task, int thread) { runner.run(task, thread); });
}

}  // namespace ferry::ops::FERRY_TIER
