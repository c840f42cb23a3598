// attention through the vendor's fused ops. FlashAttention keeps the softmax's maximum and sum
// apart; our lse is both in one, and stands in for the maximum, with a sum of 1, in the gradient.
#include <algorithm>

#include "ops/ascend/scratch.h"
#include "ops/attention/attention_ascend.h"

namespace ferry::ops::ascend {
namespace {

constexpr const char* kTokensHeadsDim = "TND";
constexpr int64_t kStatistics = 8;       // equal copies of the maximum and the sum of a row
constexpr int64_t kCausalMask = 2048;    // the compressed mask's rows and columns
constexpr int64_t kCausal = 3;           // sparseMode: the last query sees the last key
constexpr int64_t kNoBand = 2147483647;  // preTokens, nextTokens: not read when causal
constexpr double kKeepAll = 1.0;         // no dropout
constexpr int64_t kHighPrecision = 0;    // innerPrecise

/// Where the documents end, as the running sums that "TND" takes.
std::vector<int64_t> document_ends(const std::vector<int32_t>& position) {
  std::vector<int64_t> ends;
  for (size_t t = 1; t < position.size(); ++t)
    if (position[t] == 0) ends.push_back(static_cast<int64_t>(t));
  ends.push_back(static_cast<int64_t>(position.size()));
  return ends;
}

/// True above the diagonal: what a query does not see.
Operand causal_mask(Scratch& scratch) {
  const Operand all = scratch.take(acl::kBool, {kCausalMask, kCausalMask}),
                mask = scratch.take(acl::kBool, {kCausalMask, kCausalMask});
  aclnn::InplaceFillScalar(scratch.stream(), all, Scalar(1.0f));
  aclnn::Triu(scratch.stream(), all, 1, mask);
  return mask;
}

/// Calls f(statistics, lse) for each document with the same numbers seen in two places: the ops'
/// softmax statistics have the shape [tokens, heads, 8], but documents lie in it one after the
/// other as [heads, document's tokens, 8]. lse [tokens, heads] gives [heads, document's tokens, 1].
template <typename F>
void for_documents(const Operand& statistics,
                   const Operand& lse,
                   const std::vector<int64_t>& ends,
                   F&& f) {
  const int64_t heads = lse.dim(1);
  int64_t begin = 0;
  for (const int64_t end : ends) {
    f(statistics.slice(0, begin, end).reshape({heads, end - begin, statistics.dim(2)}),
      lse.slice(0, begin, end).transpose(0, 1).unsqueeze(2));
    begin = end;
  }
}

/// What FlashAttention is given of packed documents, forward and back.
struct PackedCall {
  PackedCall(const View& q, const HostSegments& segments, Stream& stream)
      : scratch(stream),
        maximum(scratch.take(acl::kFloat, {q.shape[0], q.shape[1], kStatistics})),
        sum(scratch.take(acl::kFloat, {q.shape[0], q.shape[1], kStatistics})),
        ends(document_ends(segments.position)),
        lengths(ends) {}
  Scratch scratch;
  Operand maximum, sum;       // the softmax's statistics
  std::vector<int64_t> ends;  // of the documents
  IntArray lengths;
};

}  // namespace

void attention_fused_packed(const AttentionArgs& a, const HostSegments& segments, Stream& stream) {
  PackedCall call(a.q, segments, stream);
  const auto& [scratch, maximum, sum, ends, lengths] = call;
  const int64_t heads = a.q.shape[1];
  aclnn::FlashAttentionVarLenScore(stream,
                                   Operand(a.q),
                                   Operand(a.k),
                                   Operand(a.v),
                                   nullptr,  // realShift
                                   nullptr,  // dropMask
                                   nullptr,  // paddingMask
                                   causal_mask(call.scratch),
                                   nullptr,  // prefix
                                   lengths,
                                   lengths,
                                   static_cast<double>(a.scale),
                                   kKeepAll,
                                   kNoBand,
                                   kNoBand,
                                   heads,
                                   kTokensHeadsDim,
                                   kHighPrecision,
                                   kCausal,
                                   maximum,
                                   sum,
                                   nullptr,  // softmaxOut: reserved
                                   Operand(a.out));
  aclnn::Log(stream, sum, sum);
  aclnn::InplaceAdd(stream, sum, maximum, Scalar(1.0f));
  for_documents(sum, a.lse, ends, [&](const Operand& statistics, const Operand& lse) {
    aclnn::InplaceCopy(stream, lse, statistics.slice(2, 0, 1));
  });
}

void attention_fused_packed_backward(const AttentionBackwardArgs& a,
                                     const HostSegments& segments,
                                     Stream& stream) {
  PackedCall call(a.q, segments, stream);
  const auto& [scratch, maximum, sum, ends, lengths] = call;
  const int64_t heads = a.q.shape[1];
  for_documents(maximum, a.lse, ends, [&](const Operand& statistics, const Operand& lse) {
    aclnn::InplaceCopy(stream, statistics, lse.expand(2, kStatistics));
  });
  aclnn::InplaceFillScalar(stream, sum, Scalar(1.0f));
  aclnn::FlashAttentionUnpaddingScoreGrad(stream,
                                          Operand(a.q),
                                          Operand(a.k),
                                          Operand(a.v),
                                          Operand(a.d_out),
                                          nullptr,  // pseShift
                                          nullptr,  // dropMask
                                          nullptr,  // paddingMask
                                          causal_mask(call.scratch),
                                          maximum,
                                          sum,
                                          nullptr,  // softmaxIn
                                          Operand(a.out),
                                          nullptr,  // prefix
                                          lengths,
                                          lengths,
                                          static_cast<double>(a.scale),
                                          kKeepAll,
                                          kNoBand,
                                          kNoBand,
                                          heads,
                                          kTokensHeadsDim,
                                          kHighPrecision,
                                          kCausal,
                                          Operand(a.d_q),
                                          Operand(a.d_k),
                                          Operand(a.d_v),
                                          nullptr);  // dpse
}

namespace {

constexpr int64_t kBlockKeys = 128;  // of a block of the op's cache
static_assert(kBlockKeys == kPageRows, "pages of our cache are the op's blocks");

int64_t blocks_of(const QueryRun& run) { return (run.keys + kBlockKeys - 1) / kBlockKeys; }

/// Keys as the op takes them: the latent and the rotary part apart, both in blocks.
struct BlockedKeys {
  Operand latent, rotary;  // [blocks, kBlockKeys, columns]
  Operand table;  // i32 [tokens, most blocks of a run]: those that each query's keys lie in
};

/// `numbers` [n] holds the runs' blocks; those of runs[i] begin at begins[i].
Operand block_table(Scratch& scratch,
                    const std::vector<QueryRun>& runs,
                    const Operand& numbers,
                    const std::vector<int64_t>& begins) {
  int64_t widest = 0;
  for (const QueryRun& run : runs) widest = std::max(widest, blocks_of(run));
  const Operand table = scratch.take(acl::kInt32, {runs.back().end, widest});
  aclnn::InplaceZero(scratch.stream(), table);
  for (size_t i = 0; i < runs.size(); ++i) {
    const QueryRun& run = runs[i];
    const int64_t own = blocks_of(run);
    aclnn::InplaceCopy(
        scratch.stream(),
        table.slice(0, run.begin, run.end).slice(1, 0, own),
        numbers.slice(0, begins[i], begins[i] + own).unsqueeze(0).expand(0, run.end - run.begin));
  }
  return table;
}

/// A cache's own pages.
BlockedKeys cached_keys(Scratch& scratch,
                        const AttentionArgs& a,
                        const std::vector<QueryRun>& runs) {
  const auto blocked = [](const View& x) {
    const int64_t blocks = x.shape[0] / kBlockKeys;
    return Operand(x).slice(0, 0, blocks * kBlockKeys).reshape({blocks, kBlockKeys, x.shape[2]});
  };
  std::vector<int64_t> begins;
  for (const QueryRun& run : runs) begins.push_back(run.key_begin / kBlockKeys);
  return {blocked(a.k), blocked(a.k_tail), block_table(scratch, runs, a.pages, begins)};
}

/// Columns [begin, end) of the runs' keys in blocks, zeros behind each run's last key.
Operand copied_blocks(Scratch& scratch,
                      const Operand& keys,
                      const HostSegments& segments,
                      const std::vector<QueryRun>& runs,
                      int64_t blocks,
                      int64_t begin,
                      int64_t end) {
  Stream& stream = scratch.stream();
  const Operand to = scratch.take(acl::kBf16, {blocks * kBlockKeys, end - begin});
  int64_t row = 0;
  for (const QueryRun& run : runs) {
    const int64_t next = row + blocks_of(run) * kBlockKeys;
    for_stretches(segments, run.key_begin, run.keys, [&](int64_t at, int64_t from, int64_t n) {
      aclnn::InplaceCopy(stream,
                         to.slice(0, row + at, row + at + n),
                         keys.slice(0, from, from + n).slice(1, begin, end));
    });
    if (row + run.keys < next) aclnn::InplaceZero(stream, to.slice(0, row + run.keys, next));
    row = next;
  }
  return to.reshape({blocks, kBlockKeys, end - begin});
}

/// The same of keys in one piece, which only passes without a cache have: no more rows are copied
/// than are computed.
BlockedKeys copied_keys(Scratch& scratch,
                        const AttentionArgs& a,
                        const HostSegments& segments,
                        const std::vector<QueryRun>& runs) {
  std::vector<int64_t> begins;
  int64_t blocks = 0;
  for (const QueryRun& run : runs) {
    begins.push_back(blocks);
    blocks += blocks_of(run);
  }
  const Operand numbers = scratch.take(acl::kInt32, {blocks});
  aclnn::Arange(scratch.stream(), Scalar(int64_t{0}), Scalar(blocks), Scalar(int64_t{1}), numbers);
  const Operand keys = Operand(a.k).squeeze(1);
  const int64_t latent = a.v.shape[2], width = a.k.shape[2];
  return {copied_blocks(scratch, keys, segments, runs, blocks, 0, latent),
          copied_blocks(scratch, keys, segments, runs, blocks, latent, width),
          block_table(scratch, runs, numbers, begins)};
}

}  // namespace

// Every query is a sequence of its own, of one query: what it gets cannot depend on others.
void attention_fused_absorbed(const AttentionArgs& a,
                              const HostSegments& segments,
                              Stream& stream) {
  Scratch scratch(stream);
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1], latent = a.v.shape[2],
                width = a.q.shape[2];
  const std::vector<QueryRun> runs = find_runs(segments);
  const BlockedKeys keys =
      a.k_tail.given() ? cached_keys(scratch, a, runs) : copied_keys(scratch, a, segments, runs);
  const Operand q = Operand(a.q).unsqueeze(1);  // [sequence, 1, heads, width]
  const Operand q_latent = scratch.packed(q.slice(3, 0, latent)),
                q_pe = scratch.packed(q.slice(3, latent, width));
  std::vector<int64_t> lengths(segments.position.begin(), segments.position.end());
  for (int64_t& length : lengths) ++length;
  const Operand out = Operand(a.out).unsqueeze(1),
                lse = Operand(a.lse).reshape({tokens, heads, 1, 1});
  aclnn::FusedInferAttentionScoreV3(stream,
                                    q_latent,
                                    OperandList{keys.latent},
                                    OperandList{keys.latent},
                                    nullptr,  // pseShift
                                    nullptr,  // attenMask
                                    nullptr,  // actualSeqLengths
                                    IntArray(lengths),
                                    nullptr,  // deqScale1
                                    nullptr,  // quantScale1
                                    nullptr,  // deqScale2
                                    nullptr,  // quantScale2
                                    nullptr,  // quantOffset2
                                    nullptr,  // antiquantScale
                                    nullptr,  // antiquantOffset
                                    keys.table,
                                    nullptr,  // queryPaddingSize
                                    nullptr,  // kvPaddingSize
                                    nullptr,  // keyAntiquantScale
                                    nullptr,  // keyAntiquantOffset
                                    nullptr,  // valueAntiquantScale
                                    nullptr,  // valueAntiquantOffset
                                    nullptr,  // keySharedPrefix
                                    nullptr,  // valueSharedPrefix
                                    nullptr,  // actualSharedPrefixLen
                                    q_pe,
                                    keys.rotary,
                                    nullptr,  // keyRopeAntiquantScale
                                    heads,
                                    static_cast<double>(a.scale),
                                    kNoBand,
                                    kNoBand,
                                    "BSND",
                                    1,  // key heads
                                    0,  // sparseMode: no mask
                                    kHighPrecision,
                                    kBlockKeys,
                                    0,  // antiquantMode
                                    true,
                                    0,  // keyAntiquantMode
                                    0,  // valueAntiquantMode
                                    out,
                                    lse);
}

}  // namespace ferry::ops::ascend
