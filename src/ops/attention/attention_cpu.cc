// Attention with scores transposed: keys down, query rows across the lanes. So the softmax's maxima
// and sums run down a column and need no sums across lanes, a row's arithmetic is that of its own
// lane alone, and three of the five products of the gradient read what the last step wrote.
#include "ops/attention/attention_blocks.h"
#include "ops/cpu/loops.h"
#include "ops/cpu/tile_product.h"
#include "ops/cpu/transpose.h"

namespace ferry::ops::FERRY_TIER {
namespace {

int64_t vectors_for(int64_t columns) { return (columns + kLanes - 1) / kLanes; }
template <typename T>
int64_t whole_groups(int64_t elements) {
  return (elements + kGroup<T> - 1) / kGroup<T> * kGroup<T>;
}

/// The rows of one block in a tensor [T, H, D].
struct BlockRows {
  int64_t row_begin, count;
  int64_t token_begin, head_begin, group;

  BlockRows(const QueryBlock& b, int64_t row, int64_t row_end, int64_t heads_per_key)
      : row_begin(row),
        count(row_end - row < kBlockRows ? row_end - row : kBlockRows),
        token_begin(b.run.begin),
        head_begin(b.head * heads_per_key),
        group(heads_per_key) {}
  int64_t token(int64_t r) const { return token_begin + (row_begin + r) / group; }
  int64_t head(int64_t r) const { return head_begin + (row_begin + r) % group; }
  int64_t offset(const View& v, int64_t r) const {
    return token(r) * v.stride[0] + head(r) * v.stride[1];
  }
};

template <typename T>
void widen_row(const T* from, int64_t count, float* to) {
  for_lanes(0, count, [&](int64_t d, int n) { store_n(to + d, load_n(from + d, n), n); });
}

/// to[d][i] = row(i)[d] for count <= 64 rows of `depth` elements; to's rows are padded by zeros
/// to 64.
template <typename T, typename F>
void transpose_rows(F&& row, int64_t count, int64_t depth, float* to, int64_t stride) {
  for (int64_t d = 0; d < depth; d += kLanes) {
    const int n = lanes_left(depth - d);
    for (int64_t i = 0; i < kKeyTile; i += kLanes) {
      F32x16 block[kLanes];
      for (int r = 0; r < kLanes; ++r)
        block[r] = i + r < count ? load_n(row(i + r) + d, n) : splat(0);
      transpose(block);
      for (int e = 0; e < n; ++e) store(to + (d + e) * stride + i, block[e]);
    }
  }
}

/// row(i)[d] = from[d][i] * factor for count <= 64 rows and d in [begin, end); from's rows are 64
/// long. A factor of 1 changes no bit.
template <typename T, typename F>
void transpose_back(
    const float* from, int64_t begin, int64_t end, int64_t count, float factor, F&& row) {
  for (int64_t d = begin; d < end; d += kLanes) {
    const int n = lanes_left(end - d);
    for (int64_t i = 0; i < count; i += kLanes) {
      F32x16 block[kLanes];
      for (int e = 0; e < kLanes; ++e)
        block[e] = e < n ? load(from + (d + e) * kBlockRows + i) * splat(factor) : splat(0);
      transpose(block);
      for (int r = 0; r < lanes_left(count - i); ++r) store_n(row(i + r) + d, block[r], n);
    }
  }
}

/// lanes[d][64 rows] of the block's rows; absent rows and, for bf16, an odd last element are zeros.
template <typename T>
void pack_lanes(const View& v, const BlockRows& rows, float* lanes) {
  const int64_t depth = v.shape[2];
  transpose_rows<T>([&](int64_t r) { return v.as<T>() + rows.offset(v, r); },
                    rows.count,
                    depth,
                    lanes,
                    kBlockRows);
  if (whole_groups<T>(depth) > depth)
    std::memset(lanes + depth * kBlockRows, 0, kBlockRows * sizeof(float));
}

/// columns[row][depth up to whole vectors], zeros likewise.
template <typename T>
void pack_columns(const View& v, const BlockRows& rows, float* columns) {
  const int64_t depth = v.shape[2], stride = vectors_for(depth) * kLanes;
  std::memset(
      columns, 0, static_cast<size_t>(whole_groups<T>(rows.count) * stride) * sizeof(float));
  for (int64_t r = 0; r < rows.count; ++r)
    widen_row(v.as<T>() + rows.offset(v, r), depth, columns + r * stride);
}

/// The rows of a tile of keys, as the left side of a product: f32 in one piece as they lie, others
/// put together, bf16 widened and padded.
template <typename T>
struct KeyRows {
  const float* data;
  int64_t stride;

  KeyRows(const View& v, const View& tail, int64_t key, int64_t head, int64_t count, float* space) {
    if (sizeof(T) == sizeof(float) && !tail.given()) {
      data = v.as<float>() + key * v.stride[0] + head * v.stride[1];
      stride = v.stride[0];
      return;
    }
    data = space;
    stride = whole_groups<T>(v.shape[2] + (tail.given() ? tail.shape[2] : 0));
    for (int64_t i = 0; i < count; ++i) {
      float* const row = space + i * stride;
      row[stride - 1] = 0;
      widen(v, key + i, head, row);
      if (tail.given()) widen(tail, key + i, head, row + v.shape[2]);
    }
  }

 private:
  static void widen(const View& v, int64_t key, int64_t head, float* to) {
    widen_row(v.as<T>() + key * v.stride[0] + head * v.stride[1], v.shape[2], to);
  }
};

/// columns[d][key] of `count` keys, zeros up to a whole tile. Reads no other key.
template <typename T>
void transpose_keys(
    const View& v, int64_t key, int64_t head, int64_t count, float* columns, int64_t stride) {
  const T* from = v.as<T>() + key * v.stride[0] + head * v.stride[1];
  transpose_rows<T>(
      [&](int64_t i) { return from + i * v.stride[0]; }, count, v.shape[2], columns, stride);
}

template <typename T>
bool all_finite(const View& v, int64_t key, int64_t head, int64_t count) {
  F32x16 sum = splat(0);  // of zeros, or NaN
  for (int64_t i = 0; i < count; ++i) {
    const T* row = v.as<T>() + (key + i) * v.stride[0] + head * v.stride[1];
    for_lanes(
        0, v.shape[2], [&](int64_t d, int n) { sum = fma(load_n(row + d, n), splat(0), sum); });
  }
  return sum_lanes(sum) == 0;
}

/// visible[row]: how many keys it sees; rows past the block's end see `absent`. Returns the most.
int64_t fill_visible(const int32_t* position, const BlockRows& rows, float absent, float* visible) {
  int64_t most = 0;
  for (int64_t r = 0; r < kBlockRows; ++r) {
    const int64_t keys = r < rows.count ? position[rows.token(r)] + 1 : 0;
    visible[r] = r < rows.count ? static_cast<float>(keys) : absent;
    most = keys > most ? keys : most;
  }
  return most;
}

float least(const float* values, int64_t count) {
  float m = values[0];
  for (int64_t i = 1; i < count; ++i) m = values[i] < m ? values[i] : m;
  return m;
}

// ---- Forward ------------------------------------------------------------------------------------

/// One tile's step of the running softmax for `vectors` * 16 rows: scores become p, the rows'
/// largest score and total move on, and `shrink` says by how much the older sums must shrink.
template <int vectors, bool masked, typename T>
void softmax_tile(const ForwardLayout& l,
                  const ForwardLayout::PerBlock& b,
                  int64_t tile,
                  int64_t keys,
                  float scale) {
  F32x16 visible[vectors], top[vectors], total[vectors];
  for (int j = 0; j < vectors; ++j) {
    visible[j] = load(b.visible + j * kLanes);
    top[j] = splat(-__builtin_inff());
    total[j] = splat(0);
  }
  for (int64_t i = 0; i < keys; ++i)
    for (int j = 0; j < vectors; ++j) {
      F32x16 s = load(l.scores + i * kBlockRows + j * kLanes);
      if (masked)
        s = where_less(
            splat(static_cast<float>(tile + i)), visible[j], s, splat(-__builtin_inff()));
      top[j] = max(top[j], s);
    }
  F32x16 shrink[vectors], low[vectors];
  for (int j = 0; j < vectors; ++j) {
    const F32x16 before = load(b.top + j * kLanes);
    top[j] = max(before, top[j] * splat(scale));
    low[j] = splat(0) - top[j];
    shrink[j] = exp(before - top[j]);
    store(b.top + j * kLanes, top[j]);
    store(l.shrink + j * kLanes, shrink[j]);
  }
  for (int64_t i = 0; i < keys; ++i)
    for (int j = 0; j < vectors; ++j) {
      float* const at = l.scores + i * kBlockRows + j * kLanes;
      F32x16 p = exp(fma(load(at), splat(scale), low[j]));
      if (masked) p = where_less(splat(static_cast<float>(tile + i)), visible[j], p, splat(0));
      total[j] = total[j] + p;
      store(at, rounded_to<T>(p));
    }
  if (whole_groups<T>(keys) > keys)
    std::memset(l.scores + keys * kBlockRows, 0, kBlockRows * sizeof(float));
  for (int j = 0; j < vectors; ++j)
    store(b.total + j * kLanes, fma(load(b.total + j * kLanes), shrink[j], total[j]));
}

template <bool masked, typename T>
void softmax_tile(const ForwardLayout& l,
                  const ForwardLayout::PerBlock& b,
                  int64_t vectors,
                  int64_t tile,
                  int64_t keys,
                  float scale) {
  if (vectors == 4) softmax_tile<4, masked, T>(l, b, tile, keys, scale);
  if (vectors == 3) softmax_tile<3, masked, T>(l, b, tile, keys, scale);
  if (vectors == 2) softmax_tile<2, masked, T>(l, b, tile, keys, scale);
  if (vectors == 1) softmax_tile<1, masked, T>(l, b, tile, keys, scale);
}

/// sum = sum * shrink + v p, where v has values that are not finite, so that a masked key's weight
/// of zero does not hide it: rows skip the keys that they do not see. The bits of all others are
/// those of tile_product.
template <typename T>
void weigh_unseen_infinities(const ForwardLayout& l,
                             const ForwardLayout::PerBlock& b,
                             int64_t d_v,
                             int64_t vectors,
                             int64_t tile,
                             int64_t keys) {
  for (int64_t d = 0; d < d_v; ++d)
    for (int64_t j = 0; j < vectors; ++j) {
      float* const at = b.sum + d * kBlockRows + j * kLanes;
      const F32x16 visible = load(b.visible + j * kLanes);
      F32x16 sum = load(at) * load(l.shrink + j * kLanes);
      for (int64_t i = 0; i < keys; i += kGroup<T>)
        for (int64_t e = i + kGroup<T> - 1; e >= i; --e) {
          const F32x16 next = fma(splat(l.v_columns[d * kKeyTile + e]),
                                  load(l.scores + e * kBlockRows + j * kLanes),
                                  sum);
          sum = where_less(splat(static_cast<float>(tile + e)), visible, next, sum);
        }
      store(at, sum);
    }
}

template <typename T>
void begin_block(const AttentionArgs& a, const BlockRows& rows, const ForwardLayout::PerBlock& b) {
  pack_lanes<T>(a.q, rows, b.q);
  for (int64_t r = 0; r < kBlockRows; ++r) {
    b.top[r] = -__builtin_inff();
    b.total[r] = 0;
  }
  std::memset(b.sum, 0, static_cast<size_t>(a.v.shape[2] * kBlockRows) * sizeof(float));
}

/// out = sum / total. Adding +0 makes the sign of a zero independent of how many masked keys, whose
/// products are zeros of either sign, were added after it.
template <typename T>
void end_block(const AttentionArgs& a, const BlockRows& rows, const ForwardLayout::PerBlock& b) {
  const int64_t d_v = a.v.shape[2];
  for (int64_t j = 0; j < vectors_for(rows.count); ++j) {
    const F32x16 total = load(b.total + j * kLanes);
    float lse[kLanes];
    store(lse, load(b.top + j * kLanes) + log(total));
    for (int64_t d = 0; d < d_v; ++d) {
      float* const sum = b.sum + d * kBlockRows + j * kLanes;
      store(sum, load(sum) / total + splat(0));
    }
    for (int64_t r = j * kLanes; r < rows.count && r < (j + 1) * kLanes; ++r)
      a.lse.as<float>()[rows.token(r) * a.lse.shape[1] + rows.head(r)] = lse[r - j * kLanes];
  }
  transpose_back<T>(b.sum, 0, d_v, rows.count, 1, [&](int64_t r) {
    return a.out.as<T>() + rows.offset(a.out, r);
  });
}

/// Where key row `row` lies; rows up to the next multiple of a tile follow it.
int64_t lies_at(const AttentionArgs& a, int64_t row) {
  if (!a.pages.given()) return row;
  return a.pages.as<int32_t>()[row / kPageRows] * kPageRows + row % kPageRows;
}

template <typename T>
void forward_task(const AttentionArgs& a, const QueryBlock& task, const ForwardLayout& l) {
  const int64_t d_qk = a.q.shape[2], d_v = a.v.shape[2], group = a.q.shape[1] / a.k.shape[1];
  const int64_t blocks = (task.row_end - task.row_begin + kBlockRows - 1) / kBlockRows;
  int64_t keys_seen[kTaskRows / kBlockRows];
  for (int64_t i = 0; i < blocks; ++i) {
    const BlockRows rows(task, task.row_begin + i * kBlockRows, task.row_end, group);
    begin_block<T>(a, rows, l.block[i]);
    keys_seen[i] = fill_visible(a.position.as<int32_t>(), rows, 1, l.block[i].visible);
  }
  for (int64_t tile = 0; tile < task.run.keys; tile += kKeyTile) {
    const int64_t keys = task.run.keys - tile < kKeyTile ? task.run.keys - tile : kKeyTile;
    const int64_t first = lies_at(a, task.run.key_begin + tile);
    const KeyRows<T> k_rows(a.k, a.k_tail, first, task.head, keys, l.k_rows);
    transpose_keys<T>(a.v, first, task.head, keys, l.v_columns, kKeyTile);
    for (int64_t i = 0; i < blocks; ++i) {
      if (keys_seen[i] <= tile) continue;
      const ForwardLayout::PerBlock& b = l.block[i];
      const BlockRows rows(task, task.row_begin + i * kBlockRows, task.row_end, group);
      const int64_t n = keys_seen[i] - tile < keys ? keys_seen[i] - tile : keys;
      const int64_t vectors = vectors_for(rows.count);
      tile_product<Start::kZero, T>({k_rows.data,
                                     k_rows.stride,
                                     b.q,
                                     kBlockRows,
                                     whole_groups<T>(d_qk),
                                     l.scores,
                                     kBlockRows},
                                    0,
                                    n,
                                    0,
                                    vectors);
      const bool masked = least(b.visible, rows.count) < static_cast<float>(tile + n);
      if (masked)
        softmax_tile<true, T>(l, b, vectors, tile, n, a.scale);
      else
        softmax_tile<false, T>(l, b, vectors, tile, n, a.scale);
      if ((masked || n < keys) && !all_finite<T>(a.v, first, task.head, keys)) {
        weigh_unseen_infinities<T>(l, b, d_v, vectors, tile, n);
        continue;
      }
      tile_product<Start::kScaleAndAdd, T>({l.v_columns,
                                            kKeyTile,
                                            l.scores,
                                            kBlockRows,
                                            whole_groups<T>(n),
                                            b.sum,
                                            kBlockRows,
                                            l.shrink},
                                           0,
                                           d_v,
                                           0,
                                           vectors);
    }
  }
  for (int64_t i = 0; i < blocks; ++i)
    end_block<T>(
        a, BlockRows(task, task.row_begin + i * kBlockRows, task.row_end, group), l.block[i]);
}

template <typename T>
void forward(const AttentionArgs& a, void* workspace) {
  const int threads = cpu_pool().threads();
  const ForwardLayout shared = forward_layout(a, workspace, 0, threads, nullptr);
  const int64_t tasks = forward_tasks(a, threads, shared.runs, shared.tasks);
  cpu_pool().parallel_for(tasks, [&](int64_t task, int thread) {
    forward_task<T>(a, shared.tasks[task], forward_layout(a, workspace, thread, threads, nullptr));
  });
}

// ---- Backward -----------------------------------------------------------------------------------
//
// With s the scaled scores, P = exp(s - lse) and D = rowsum(d_out * out):
//   d_v = Pᵀ d_out    d_s = P (d_out vᵀ - D)    d_q = scale d_s k    d_k = scale d_sᵀ q

template <typename T>
struct Backward {
  const AttentionBackwardArgs& a;
  const QueryBlock& task;
  const BackwardLayout::PerRun& run;

  int64_t d_qk() const { return a.q.shape[2]; }
  int64_t d_v() const { return a.v.shape[2]; }
  int64_t group() const { return a.q.shape[1] / a.k.shape[1]; }
  int64_t keys_stride() const { return (task.run.keys + kKeyTile - 1) / kKeyTile * kKeyTile; }
  int64_t qk_columns() const { return vectors_for(d_qk()) * kLanes; }
  int64_t v_columns() const { return vectors_for(d_v()) * kLanes; }

  /// Once for each tile of keys, before the first block of rows.
  void begin_tile(int64_t tile) const {
    const int64_t keys = task.run.keys - tile < kKeyTile ? task.run.keys - tile : kKeyTile;
    transpose_keys<T>(
        a.k, task.run.key_begin + tile, task.head, keys, run.k_columns + tile, keys_stride());
    std::memset(
        run.d_k + tile * qk_columns(), 0, static_cast<size_t>(keys * qk_columns()) * sizeof(float));
    std::memset(
        run.d_v + tile * v_columns(), 0, static_cast<size_t>(keys * v_columns()) * sizeof(float));
  }

  static constexpr int64_t kPackings = 4;
  void pack(const BlockRows& rows, int64_t which) const {
    if (which == 0) pack_lanes<T>(a.q, rows, run.q_lanes);
    if (which == 1) pack_columns<T>(a.q, rows, run.q_columns);
    if (which == 2) pack_lanes<T>(a.d_out, rows, run.d_out_lanes);
    if (which == 3) pack_columns<T>(a.d_out, rows, run.d_out_columns);
  }

  /// What else a block needs of its rows. Returns the keys that it sees.
  int64_t begin_block(const BlockRows& rows) const {
    for (int64_t r = 0; r < kBlockRows; ++r) {
      run.lse[r] = run.delta[r] = 0;
      if (r >= rows.count) continue;
      run.lse[r] = a.lse.as<float>()[rows.token(r) * a.lse.shape[1] + rows.head(r)];
      const T *out = a.out.as<T>() + rows.offset(a.out, r),
              *d_out = a.d_out.as<T>() + rows.offset(a.d_out, r);
      F32x16 sum = splat(0);
      for_lanes(0, d_v(), [&](int64_t d, int n) {
        sum = fma(load_n(out + d, n), load_n(d_out + d, n), sum);
      });
      run.delta[r] = sum_lanes(sum);
    }
    return fill_visible(a.position.template as<int32_t>(), rows, 0, run.visible);
  }

  /// P and d_s of a tile, rounded to T, from scores and d_p.
  void score_gradients(const BackwardLayout::PerThread& own,
                       float* d_s,
                       int64_t tile,
                       int64_t keys,
                       int64_t vectors) const {
    for (int64_t j = 0; j < vectors; ++j) {
      const F32x16 low = splat(0) - load(run.lse + j * kLanes),
                   delta = load(run.delta + j * kLanes);
      const F32x16 visible = load(run.visible + j * kLanes);
      for (int64_t i = 0; i < keys; ++i) {
        const int64_t at = i * kBlockRows + j * kLanes;
        const F32x16 p = exp(fma(load(own.p + at), splat(a.scale), low));
        const F32x16 gradient = p * (load(own.d_p + at) - delta);
        const F32x16 here = splat(static_cast<float>(tile + i));
        store(own.p + at, where_less(here, visible, rounded_to<T>(p), splat(0)));
        store(d_s + at, where_less(here, visible, rounded_to<T>(gradient), splat(0)));
      }
    }
    if (whole_groups<T>(keys) > keys)
      std::memset(d_s + keys * kBlockRows, 0, kBlockRows * sizeof(float));
  }

  /// One tile of keys of a block of rows: d_k and d_v of its keys move on, d_s is left for d_q.
  void tile_step(const BlockRows& rows,
                 int64_t tile,
                 int64_t keys_seen,
                 const BackwardLayout::PerThread& own) const {
    const int64_t keys = keys_seen - tile < kKeyTile ? keys_seen - tile : kKeyTile;
    const int64_t vectors = vectors_for(rows.count), row_terms = whole_groups<T>(rows.count);
    const int64_t key = task.run.key_begin + tile;
    float* const d_s = run.d_s + tile * kBlockRows;
    const KeyRows<T> k_rows(a.k, {}, key, task.head, keys, own.k_rows),
        v_rows(a.v, {}, key, task.head, keys, own.v_rows);
    tile_product<Start::kZero, T>({k_rows.data,
                                   k_rows.stride,
                                   run.q_lanes,
                                   kBlockRows,
                                   whole_groups<T>(d_qk()),
                                   own.p,
                                   kBlockRows},
                                  0,
                                  keys,
                                  0,
                                  vectors);
    tile_product<Start::kZero, T>({v_rows.data,
                                   v_rows.stride,
                                   run.d_out_lanes,
                                   kBlockRows,
                                   whole_groups<T>(d_v()),
                                   own.d_p,
                                   kBlockRows},
                                  0,
                                  keys,
                                  0,
                                  vectors);
    score_gradients(own, d_s, tile, keys, vectors);
    tile_product<Start::kAdd, T>({own.p,
                                  kBlockRows,
                                  run.d_out_columns,
                                  v_columns(),
                                  row_terms,
                                  run.d_v + tile * v_columns(),
                                  v_columns()},
                                 0,
                                 keys,
                                 0,
                                 vectors_for(d_v()));
    tile_product<Start::kAdd, T>({d_s,
                                  kBlockRows,
                                  run.q_columns,
                                  qk_columns(),
                                  row_terms,
                                  run.d_k + tile * qk_columns(),
                                  qk_columns()},
                                 0,
                                 keys,
                                 0,
                                 vectors_for(d_qk()));
  }

  /// Columns [begin, end) of the block's d_q, once all its tiles are done.
  void query_gradients(
      const BlockRows& rows, int64_t keys_seen, int64_t begin, int64_t end, float* d_q) const {
    tile_product<Start::kZero, T>({run.k_columns,
                                   keys_stride(),
                                   run.d_s,
                                   kBlockRows,
                                   whole_groups<T>(keys_seen),
                                   d_q,
                                   kBlockRows},
                                  begin,
                                  end,
                                  0,
                                  vectors_for(rows.count));
    transpose_back<T>(d_q, begin, end, rows.count, a.scale, [&](int64_t r) {
      return a.d_q.template as<T>() + rows.offset(a.d_q, r);
    });
  }

  static void write_row(const View& to, int64_t key, int64_t head, const float* sums) {
    T* const row = to.as<T>() + key * to.stride[0] + head * to.stride[1];
    for_lanes(0, to.shape[2], [&](int64_t d, int n) { store_n(row + d, load_n(sums + d, n), n); });
  }

  /// Once for each tile of keys, after the last block of rows.
  void end_tile(int64_t tile) const {
    const int64_t keys = task.run.keys - tile < kKeyTile ? task.run.keys - tile : kKeyTile;
    for (int64_t key = tile; key < tile + keys; ++key) {
      float *const d_k = run.d_k + key * qk_columns(), *const d_value = run.d_v + key * v_columns();
      for (int64_t d = 0; d < qk_columns(); d += kLanes)
        store(d_k + d, load(d_k + d) * splat(a.scale));
      if (a.d_v.given())
        write_row(a.d_v, task.run.key_begin + key, task.head, d_value);
      else
        for (int64_t d = 0; d < d_v(); ++d) d_k[d] = d_k[d] + d_value[d];
      write_row(a.d_k, task.run.key_begin + key, task.head, d_k);
    }
  }

  int64_t tiles(int64_t keys) const { return (keys + kKeyTile - 1) / kKeyTile; }

  /// All of it. `each(n, f)` calls f(i, own) for i in [0, n), in any order: here or on all threads.
  template <typename Each>
  void whole(Each&& each) const {
    using Own = const BackwardLayout::PerThread&;
    each(tiles(task.run.keys), [&](int64_t i, Own) { begin_tile(i * kKeyTile); });
    for (int64_t row = 0; row < task.row_end; row += kBlockRows) {
      const BlockRows rows(task, row, task.row_end, group());
      const int64_t keys_seen = begin_block(rows);
      each(kPackings, [&](int64_t i, Own) { pack(rows, i); });
      each(tiles(keys_seen),
           [&](int64_t i, Own own) { tile_step(rows, i * kKeyTile, keys_seen, own); });
      constexpr int64_t kColumns = 96;  // of d_q at a time
      each((d_qk() + kColumns - 1) / kColumns, [&](int64_t i, Own own) {
        const int64_t end = (i + 1) * kColumns < d_qk() ? (i + 1) * kColumns : d_qk();
        query_gradients(rows, keys_seen, i * kColumns, end, own.d_q);
      });
    }
    each(tiles(task.run.keys), [&](int64_t i, Own) { end_tile(i * kKeyTile); });
  }
};

void zero(const View& v) {
  cpu_pool().parallel_for(v.shape[0], [&](int64_t row, int) {
    std::memset(v.as<char>() + static_cast<size_t>(row * v.stride[0]) * size_of(v.dtype),
                0,
                static_cast<size_t>(v.stride[0]) * size_of(v.dtype));
  });
}

template <typename T>
void backward(const AttentionBackwardArgs& a, void* workspace) {
  const int threads = cpu_pool().threads();
  zero(a.d_k);
  if (a.d_v.given()) zero(a.d_v);
  const auto layout = [&](int thread) {
    return backward_layout(a, workspace, thread, threads, nullptr);
  };
  const BackwardLayout first = layout(0);
  const int64_t count = backward_tasks(a, first.runs, first.tasks);
  int64_t left = 0;
  for (int64_t i = 0; i < count; ++i) left += cost(first.tasks[i]);
  // Tasks so dear that the others would wait for them (a long document of few key heads) are shared
  // by all threads, tile by tile; then each thread takes whole ones. The sums and their order are
  // the same.
  int64_t done = 0;
  for (; done < count && cost(first.tasks[done]) * threads > left; ++done) {
    left -= cost(first.tasks[done]);
    Backward<T>{a, first.tasks[done], first.run}.whole([&](int64_t n, auto&& f) {
      cpu_pool().parallel_for(n, [&](int64_t i, int thread) { f(i, layout(thread).thread); });
    });
  }
  cpu_pool().parallel_for(count - done, [&](int64_t i, int thread) {
    const BackwardLayout l = layout(thread);
    Backward<T>{a, first.tasks[done + i], l.run}.whole([&](int64_t n, auto&& f) {
      for (int64_t part = 0; part < n; ++part) f(part, l.thread);
    });
  });
}

}  // namespace

void attention_forward(const Plan&, const AttentionArgs& a, void* workspace, Stream&) {
  if (a.q.dtype == DType::kBF16)
    forward<bf16_t>(a, workspace);
  else
    forward<float>(a, workspace);
}

void attention_backward(const Plan&, const AttentionBackwardArgs& a, void* workspace, Stream&) {
  if (a.q.dtype == DType::kBF16)
    backward<bf16_t>(a, workspace);
  else
    backward<float>(a, workspace);
}

}  // namespace ferry::ops::FERRY_TIER
