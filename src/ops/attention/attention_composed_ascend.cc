// attention composed of products, maxima and exponentials, in float32 whatever the inputs' type.
// Each run of queries is cut into blocks; for a block, keys come in tiles of fixed size, counted
// from their document's first key and padded by zeros. So the sizes that the order of a sum could
// depend on are the same whoever shares the batch. A tile that a query does not see adds zeros to
// its sums: rows of k and v that others of its block see must therefore be finite.
#include <algorithm>
#include <cmath>

#include "ops/ascend/scratch.h"
#include "ops/attention/attention_ascend.h"

namespace ferry::ops::ascend {
namespace {

constexpr int64_t kTile = 256;                       // keys
constexpr int64_t kScoresBytes = int64_t{16} << 20;  // of one tile for a block of queries

/// [tokens, heads, d] as [key heads, tokens, heads of a key head, d].
Operand heads_first(const Operand& x, int64_t key_heads) {
  return x.split(1, key_heads).transpose(0, 1);
}

/// Rows of a block: tokens times the heads that share a key head.
Operand as_rows(const Operand& x) { return x.reshape({x.dim(0), x.dim(1) * x.dim(2), x.dim(3)}); }

Operand as_tokens(const Operand& rows, int64_t group) {
  return rows.reshape({rows.dim(0), rows.dim(1) / group, group, rows.dim(2)});
}

void add(Stream& stream, const Operand& to, const Operand& what) {
  aclnn::InplaceAdd(stream, to, what, Scalar(1.0f));
}

/// from -= what, which may be one column for all.
void subtract(Stream& stream, const Operand& from, const Operand& what) {
  aclnn::Sub(stream, from, what, Scalar(1.0f), from);
}

/// Consecutive queries of a run.
struct Block {
  int64_t begin, end;        // tokens
  int64_t least_keys, keys;  // that each of them sees, that any of them sees
};

/// What both directions share.
class Composed {
 public:
  template <class Args>
  Composed(const Args& a, const HostSegments& segments, Stream& stream)
      : stream_(stream),
        segments_(segments),
        k_(a.k),
        v_(a.v),
        position_(a.position),
        key_heads_(a.k.shape[1]),
        group_(a.q.shape[1] / a.k.shape[1]),
        scale_(a.scale) {}

 protected:
  std::vector<Block> blocks(const QueryRun& r) const {
    const int64_t step = std::max<int64_t>(1, kScoresBytes / (4 * kTile * key_heads_ * group_));
    std::vector<Block> all;
    for (int64_t begin = r.begin; begin < r.end; begin += step) {
      const int64_t end = std::min<int64_t>(r.end, begin + step);
      const auto at = segments_.position.begin();
      const auto [least, most] = std::minmax_element(at + begin, at + end);
      all.push_back({begin, end, *least + 1, *most + 1});
    }
    return all;
  }

  /// Tokens [begin, end) of [tokens, heads, d] as rows [key heads, rows, d] f32.
  Operand load_rows(Scratch& scratch, const Operand& x, int64_t begin, int64_t end) const {
    const Operand from = heads_first(x.slice(0, begin, end), key_heads_);
    const Operand to = scratch.like(from, acl::kFloat);
    aclnn::InplaceCopy(stream_, to, from);
    return as_rows(to);
  }

  /// The reverse, rounding to x's type.
  void store_rows(const Operand& x, int64_t begin, int64_t end, const Operand& rows) const {
    aclnn::InplaceCopy(
        stream_, heads_first(x.slice(0, begin, end), key_heads_), as_tokens(rows, group_));
  }

  /// Keys [first, first + kTile) of a run as [key heads, kTile, d] f32, zeros from `keys` on; `tail`,
  /// if it is given, has their last columns.
  Operand load_tile(Scratch& scratch,
                    const Operand& x,
                    const View& tail,
                    const QueryRun& r,
                    int64_t first,
                    int64_t keys) const {
    const int64_t rows = std::min(kTile, keys - first), own = x.dim(2),
                  width = own + (tail.given() ? tail.shape[2] : 0);
    const Operand tile = scratch.take(acl::kFloat, {key_heads_, kTile, width});
    if (rows < kTile) aclnn::InplaceZero(stream_, tile);
    const auto load = [&](const Operand& part, int64_t column) {
      const Operand to = tile.slice(2, column, column + part.dim(2));
      for_stretches(segments_, r.key_begin + first, rows, [&](int64_t at, int64_t from, int64_t n) {
        aclnn::InplaceCopy(
            stream_, to.slice(1, at, at + n), part.slice(0, from, from + n).transpose(0, 1));
      });
    };
    load(x, 0);
    if (tail.given()) load(tail, own);
    return tile;
  }

  Operand product(Scratch& scratch, const Operand& a, const Operand& b) const {
    const Operand c = scratch.take(acl::kFloat, {a.dim(0), a.dim(1), b.dim(2)});
    aclnn::BatchMatMul(stream_, a, b, c, kKeepType);
    return c;
  }

  /// scale * q kᵀ, minus infinity where a query does not see the key: [key heads, rows, kTile].
  Operand scores(
      Scratch& scratch, const Operand& q, const Operand& k, const Block& b, int64_t first) const {
    const Operand s = product(scratch, q, k.transpose(1, 2));
    aclnn::InplaceMuls(stream_, s, Scalar(scale_));
    if (b.least_keys >= first + kTile) return s;  // each sees all of the tile
    const int64_t tokens = b.end - b.begin;
    const Operand key = scratch.take(acl::kInt32, {kTile});
    aclnn::Arange(stream_, Scalar(first), Scalar(first + kTile), Scalar(int64_t{1}), key);
    const Operand hidden = scratch.take(acl::kBool, {1, tokens, 1, kTile});
    aclnn::LtTensor(stream_,
                    position_.slice(0, b.begin, b.end).reshape({1, tokens, 1, 1}),
                    key.reshape({1, 1, 1, kTile}),
                    hidden);
    aclnn::InplaceMaskedFillScalar(stream_, as_tokens(s, group_), hidden, Scalar(-INFINITY));
    return s;
  }

  Stream& stream_;
  const HostSegments& segments_;
  Operand k_, v_, position_;
  int64_t key_heads_, group_;
  float scale_;
};

class Forward : Composed {
 public:
  Forward(const AttentionArgs& a, const HostSegments& segments, Stream& stream)
      : Composed(a, segments, stream), a_(a) {}

  void run() const {
    for (const QueryRun& r : find_runs(segments_))
      for (const Block& b : blocks(r)) block(r, b);
  }

 private:
  struct State {    // of a block's rows
    Operand q;      // [key heads, rows, Dqk]
    Operand top;    // [.., 1] the largest score so far
    Operand total;  // [.., 1] the sum of e^(score - top)
    Operand sum;    // [.., Dv] the sum of e^(score - top) v
  };

  void block(const QueryRun& r, const Block& b) const {
    Scratch scratch(stream_);
    const Operand q = load_rows(scratch, a_.q, b.begin, b.end);
    const int64_t rows = q.dim(1);
    const State state{q,
                      scratch.take(acl::kFloat, {key_heads_, rows, 1}),
                      scratch.take(acl::kFloat, {key_heads_, rows, 1}),
                      scratch.take(acl::kFloat, {key_heads_, rows, v_.dim(2)})};
    for (int64_t first = 0; first < b.keys; first += kTile) tile(r, b, first, state);
    const Operand out = scratch.like(state.sum, acl::kFloat);
    aclnn::Div(stream_, state.sum, state.total, out);
    store_rows(a_.out, b.begin, b.end, out);
    const Operand lse = scratch.like(state.total, acl::kFloat);
    aclnn::Log(stream_, state.total, lse);
    add(stream_, lse, state.top);
    store_rows(Operand(a_.lse).unsqueeze(2), b.begin, b.end, lse);
  }

  void tile(const QueryRun& r, const Block& b, int64_t first, const State& state) const {
    Scratch scratch(stream_);
    const Operand p =
        scores(scratch, state.q, load_tile(scratch, k_, a_.k_tail, r, first, b.keys), b, first);
    const Operand v = load_tile(scratch, v_, {}, r, first, b.keys);
    const IntArray columns{2};
    if (first == 0) {
      aclnn::Amax(stream_, p, columns, true, state.top);
      weigh(p, state.top);
      aclnn::ReduceSum(stream_, p, columns, true, acl::kFloat, state.total);
      return aclnn::BatchMatMul(stream_, p, v, state.sum, kKeepType);
    }
    const Operand top = scratch.like(state.top, acl::kFloat),
                  total = scratch.like(top, acl::kFloat), largest = scratch.like(top, acl::kFloat);
    aclnn::Amax(stream_, p, columns, true, largest);
    aclnn::Maximum(stream_, state.top, largest, top);
    weigh(p, top);
    aclnn::ReduceSum(stream_, p, columns, true, acl::kFloat, total);
    const Operand& shrink = state.top;  // becomes e^(old top - new top)
    weigh(shrink, top);
    aclnn::InplaceMul(stream_, state.total, shrink);
    add(stream_, state.total, total);
    aclnn::InplaceMul(stream_, state.sum, shrink);
    add(stream_, state.sum, product(scratch, p, v));
    aclnn::InplaceCopy(stream_, state.top, top);
  }

  /// x becomes e^(x - top).
  void weigh(const Operand& x, const Operand& top) const {
    subtract(stream_, x, top);
    aclnn::Exp(stream_, x, x);
  }

  const AttentionArgs& a_;
};

class Backward : Composed {
 public:
  Backward(const AttentionBackwardArgs& a, const HostSegments& segments, Stream& stream)
      : Composed(a, segments, stream), a_(a) {}

  void run() const {
    const std::vector<QueryRun> runs = find_runs(segments_);
    int64_t seen = 0;
    for (const QueryRun& r : runs) seen += r.keys;
    if (seen < k_.dim(0)) {  // rows that no query sees
      aclnn::InplaceZero(stream_, Operand(a_.d_k));
      if (a_.d_v.given()) aclnn::InplaceZero(stream_, Operand(a_.d_v));
    }
    for (const QueryRun& r : runs) document(r);
  }

 private:
  struct Rows {  // [key heads, rows of the document, ...] f32
    Operand q, d_out, lse, delta, d_q;
  };

  void document(const QueryRun& r) const {
    Scratch scratch(stream_);
    const Operand q = load_rows(scratch, a_.q, r.begin, r.end),
                  d_out = load_rows(scratch, a_.d_out, r.begin, r.end),
                  out = load_rows(scratch, a_.out, r.begin, r.end),
                  lse = load_rows(scratch, Operand(a_.lse).unsqueeze(2), r.begin, r.end);
    const Rows rows{q, d_out, lse, scratch.like(lse, acl::kFloat), scratch.like(q, acl::kFloat)};
    aclnn::InplaceMul(stream_, out, d_out);
    aclnn::ReduceSum(stream_, out, IntArray{2}, true, acl::kFloat, rows.delta);
    aclnn::InplaceZero(stream_, rows.d_q);
    const std::vector<Block> all = blocks(r);
    for (int64_t first = 0; first < r.keys; first += kTile) tile(r, all, first, rows);
    store_rows(a_.d_q, r.begin, r.end, rows.d_q);
  }

  void tile(const QueryRun& r,
            const std::vector<Block>& all,
            int64_t first,
            const Rows& rows) const {
    Scratch scratch(stream_);
    const Operand k = load_tile(scratch, k_, {}, r, first, r.keys),
                  v = load_tile(scratch, v_, {}, r, first, r.keys);
    const Operand d_k = scratch.like(k, acl::kFloat), d_v = scratch.like(v, acl::kFloat);
    aclnn::InplaceZero(stream_, d_k);
    aclnn::InplaceZero(stream_, d_v);
    for (const Block& b : all) {
      if (b.keys <= first) continue;
      Scratch inner(stream_);
      const auto of_block = [&](const Operand& x) {
        return x.slice(1, (b.begin - r.begin) * group_, (b.end - r.begin) * group_);
      };
      const Operand q = of_block(rows.q), d_out = of_block(rows.d_out);
      const Operand p = scores(inner, q, k, b, first);
      subtract(stream_, p, of_block(rows.lse));
      aclnn::Exp(stream_, p, p);
      add(stream_, d_v, product(inner, p.transpose(1, 2), d_out));
      const Operand d_s = product(inner, d_out, v.transpose(1, 2));
      subtract(stream_, d_s, of_block(rows.delta));
      aclnn::InplaceMul(stream_, d_s, p);
      aclnn::InplaceMuls(stream_, d_s, Scalar(scale_));
      add(stream_, of_block(rows.d_q), product(inner, d_s, k));
      add(stream_, d_k, product(inner, d_s.transpose(1, 2), q));
    }
    if (a_.d_v.given())
      store_tile(a_.d_v, r, first, d_v);
    else  // v is k's first columns
      add(stream_, d_k.slice(2, 0, d_v.dim(2)), d_v);
    store_tile(a_.d_k, r, first, d_k);
  }

  void store_tile(const Operand& x, const QueryRun& r, int64_t first, const Operand& tile) const {
    const int64_t rows = std::min<int64_t>(kTile, r.keys - first), begin = r.key_begin + first;
    aclnn::InplaceCopy(
        stream_, x.slice(0, begin, begin + rows).transpose(0, 1), tile.slice(1, 0, rows));
  }

  const AttentionBackwardArgs& a_;
};

}  // namespace

void attention_composed(const AttentionArgs& a, const HostSegments& segments, Stream& stream) {
  Forward(a, segments, stream).run();
}

void attention_composed_backward(const AttentionBackwardArgs& a,
                                 const HostSegments& segments,
                                 Stream& stream) {
  Backward(a, segments, stream).run();
}

}  // namespace ferry::ops::ascend
