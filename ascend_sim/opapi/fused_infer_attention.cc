// Attention for inference: FusedInferAttentionScoreV2 and V3, which adds MLA's rope parts. float16
// and bfloat16 alone, as documented. Not offered: pse, quantisation, padding on the left, shared
// prefixes, lists of several tensors, NZ caches.
#include <cmath>

#include "opapi/attention_call.h"

using namespace ascend_sim;

namespace {

/// Arguments of both versions.
struct Fused {
  const char* op;
  const aclTensor* query;
  const aclTensorList *key, *value;
  const aclTensor* atten_mask;
  const aclIntArray *q_lengths, *k_lengths;
  const aclTensor* block_table;
  const aclTensor *query_rope, *key_rope;
  std::vector<const void*> unused;
  int64_t heads;
  double scale;
  int64_t before, after;
  const char* layout;
  int64_t key_heads, sparse_mode, inner_precise, block_size;
  bool lse_flag;
  const aclTensor *attention_out, *softmax_lse;
};

/// The layout of queries and keys, and that of the output.
struct Layouts {
  std::string in, out;
  bool packed() const { return in == "TND" || in == "NTD"; }
};

Layouts layouts_of(const Plan& op, const std::string& name) {
  for (const char* plain : {"BSH", "BSND", "BNSD", "TND"})
    if (name == plain) return {name, name};
  for (const char* both : {"BNSD_BSND", "BSH_NBSD", "BSND_NBSD", "BNSD_NBSD", "TND_NTD", "NTD_TND"})
    if (name == both) return {name.substr(0, name.find('_')), name.substr(name.find('_') + 1)};
  op.refuse("inputLayout \"" + name + "\" is not supported");
}

/// Lengths for each batch: none, one for all, or one each.
std::vector<int64_t> lengths_of(const Plan& op,
                                const char* name,
                                const std::optional<std::vector<int64_t>>& given,
                                int64_t batches,
                                int64_t longest) {
  std::vector<int64_t> out(static_cast<size_t>(batches), longest);
  if (!given) return out;
  op.require(given->size() == 1 || given->size() >= out.size(),
             std::string(name) + " has neither one entry nor one for each batch");
  for (size_t b = 0; b < out.size(); ++b) {
    out[b] = given->size() == 1 ? given->front() : (*given)[b];
    op.require(out[b] >= 0 && out[b] <= longest, std::string(name) + " is out of range");
  }
  return out;
}

/// A paged cache as [block, head, position, dim]: [blocks, size, H] or [blocks, heads, size, D].
Tensor paged(const Plan& op, const char* name, const Tensor& t, int64_t heads, int64_t block_size) {
  op.require_rank(name, t, 3, 4);
  op.require(t.dim(-2) == block_size, std::string(name) + " has not blocks of blockSize");
  if (t.rank() == 3) {
    op.require(t.dim(2) < 65536, "KV_N * D must be at most 65535 in caches of three dimensions");
    return by_heads(op, name, t, "BSH", heads);
  }
  return by_heads(op, name, t, "BNSD", heads);
}

/// The documented limits of MLA: 512 + 64 absorbed, 128 + 64 expanded.
void require_mla(const Plan& op,
                 const AttentionCall& call,
                 const Layouts& layout,
                 int64_t q_length,
                 bool with_mask,
                 int64_t mode) {
  const int64_t dim = call.q.dim(-1), heads = call.q.dim(1);
  op.require(call.q_rope.has_value() == call.k_rope.has_value(),
             "queryRope and keyRope must both be given, or neither");
  if (dim == 512) op.require(call.q_rope.has_value(), "D 512 needs queryRope and keyRope of 64");
  if (!call.q_rope) return;
  op.require(dim == 512 || dim == 128, "D must be 512 or 128 with queryRope");
  op.require(call.q_rope->dim(-1) == 64 && call.k_rope->dim(-1) == 64, "rope parts must have D 64");
  if (dim == 128) {
    op.require(layout.packed(), "D 128 with queryRope takes TND and NTD_TND alone");
    op.require(!call.blocks, "D 128 with queryRope takes no block table");
    return;
  }
  op.require(call.blocks.has_value(), "D 512 with queryRope needs a block table");
  op.require(layout.in != "NTD", "D 512 does not take NTD_TND");
  op.require(heads >= 1 && heads <= 128 && (heads & (heads - 1)) == 0,
             "the number of heads must be a power of two, at most 128");
  op.require(!layout.packed() || heads >= 32, "TND needs 32, 64 or 128 heads");
  op.require(call.k.dim(1) == 1, "key must have one head");
  op.require(q_length >= 1 && q_length <= 16, "D 512 takes 1 to 16 queries of a sequence");
  op.require(call.block_size == 16 || call.block_size == 128, "blockSize must be 16 or 128");
  op.require(q_length == 1 ? !with_mask && mode == 0 : with_mask && mode == 3,
             "one query takes sparseMode 0 without a mask, several take 3 with one");
}

/// D without rope in TND and NTD, and D in general.
void require_dims(const Plan& op,
                  const AttentionCall& call,
                  const Layouts& layout,
                  aclDataType type) {
  const int64_t q = call.q.dim(-1), k = call.k.dim(-1), v = call.v.dim(-1);
  op.require(q == k, "query and key differ in D");
  op.require(q % 16 == 0 && v % 16 == 0 && q <= 512, "D must be a multiple of 16, at most 512");
  if (layout.packed() && !call.q_rope) {
    const bool wide = q == 192 && (v == 128 || v == 192);
    if (layout.in == "TND")
      op.require((q == v && q <= 256) || wide,
                 "TND takes equal D up to 256, or 192 with 128 or 192");
    else
      op.require((q == 128 || q == 192) && v == 128, "NTD_TND takes D 128 or 192 with 128");
  } else {
    op.require(q == v, "key and value must have one shape");
  }
  op.require(layout.in != "NTD" || type == ACL_BF16, "NTD_TND takes BFLOAT16 alone");
}

/// attenMask as [batch, head, query, key], or 2048 x 2048 for the compressed modes.
Tensor mask_of(const Plan& op,
               Tensor m,
               const MaskRules& rules,
               int64_t batches,
               int64_t queries,
               int64_t keys) {
  op.require_type("attenMask", m, {ACL_BOOL, ACL_INT8, ACL_UINT8});
  if (rules.compressed()) {
    while (m.rank() > 2 && m.dim(0) == 1) m = m.select(0, 0);
    op.require_shape("attenMask", m, {2048, 2048});
    return m;
  }
  const auto insert = [&m](int at) {
    m.shape.insert(m.shape.begin() + at, 1);
    m.strides.insert(m.strides.begin() + at, 0);
  };
  op.require_rank("attenMask", m, 2, 4);
  const bool by_batch = queries == 1 && m.rank() == 2 && m.dim(0) == batches;
  if (m.rank() == 2) insert(by_batch ? 1 : 0);
  if (m.rank() == 3) insert(1);
  op.require((m.dim(0) == 1 || m.dim(0) == batches) && m.dim(1) == 1 && m.dim(2) >= queries &&
                 m.dim(3) >= keys,
             "attenMask " + to_string(m.shape) + " does not fit query and key");
  return m;
}

std::vector<Sequence> sequences_of(const Plan& op,
                                   const Fused& f,
                                   const AttentionCall& call,
                                   const Layouts& layout,
                                   const std::optional<std::vector<int64_t>>& q_given,
                                   const std::optional<std::vector<int64_t>>& k_given) {
  const int64_t queries = call.q.dim(2);
  std::vector<Sequence> out;
  if (layout.packed()) {
    op.require(q_given && k_given, "actualSeqLengths and actualSeqLengthsKv are needed with TND");
    op.require(q_given->size() <= 4096, "more than 4096 sequences");
    if (!call.blocks) return sequences_from_sums(op, *q_given, *k_given, queries, call.k.dim(2));
    // With a block table the keys' lengths are each sequence's own.
    std::vector<int64_t> sums;
    int64_t end = 0;
    for (int64_t n : *k_given) {
      op.require(n >= 0, "actualSeqLengthsKv must not be negative");
      sums.push_back(end += n);
    }
    out = sequences_from_sums(op, *q_given, sums, queries, end);
    for (size_t i = 0; i < out.size(); ++i) out[i].k_first = 0;
    return out;
  }
  const int64_t batches = call.q.dim(0);
  op.require(!call.blocks || k_given, "actualSeqLengthsKv is needed with a block table");
  op.require(!call.q_rope || queries == 1 || !q_given,
             "actualSeqLengths with several queries and queryRope needs TND");
  const auto q_lengths = lengths_of(op, "actualSeqLengths", q_given, batches, queries);
  const int64_t longest = call.blocks ? call.blocks->dim(1) * f.block_size : call.k.dim(2);
  const auto k_lengths = lengths_of(op, "actualSeqLengthsKv", k_given, batches, longest);
  for (int64_t b = 0; b < batches; ++b)
    out.push_back({b, 0, q_lengths[static_cast<size_t>(b)], 0, k_lengths[static_cast<size_t>(b)]});
  return out;
}

/// In TND with a block table each sequence has its own line of the table; its queries lie in batch
/// 0. The call is then run sequence by sequence.
AttentionCall one_sequence(const AttentionCall& all, size_t i) {
  AttentionCall one = all;
  one.sequences = {all.sequences[i]};
  one.blocks = all.blocks->narrow(0, static_cast<int64_t>(i), 1);
  return one;
}

aclnnStatus fused(const Fused& f,
                  uint64_t* workspace_size,
                  aclOpExecutor** executor,
                  AttentionDefects (*planted)(),
                  bool (*stale_row)()) {
  return plan(f.op, workspace_size, executor, [&](Plan& op) {
    op.require(op.chip().family != ChipFamily::k310P, "not supported on " + op.chip().name);
    for (const void* p : f.unused)
      op.require(!p, "pse, quantisation, padding and shared prefixes are not offered here");
    const Tensor q = op.input("query", f.query);
    const std::vector<Tensor> ks = op.inputs("key", f.key), vs = op.inputs("value", f.value);
    op.require(ks.size() == 1 && vs.size() == 1, "lists of several tensors are not offered here");
    const Tensor &k = ks[0], &v = vs[0];
    op.require_type("query", q, {ACL_FLOAT16, ACL_BF16});
    op.require_same_type("query", q, "key", k);
    op.require_same_type("query", q, "value", v);
    for (const Tensor* t : {&q, &k, &v}) {
      op.require(t->format != ACL_FORMAT_FRACTAL_NZ, "NZ caches are not offered here");
      op.require(t->contiguous(), "query, key and value must be contiguous");
    }
    op.require_pointer(f.layout, "inputLayout");
    const Layouts layout = layouts_of(op, f.layout);
    op.require(f.heads > 0 && f.heads <= 256, "numHeads must be 1 to 256");
    const int64_t key_heads = f.key_heads == 0 ? f.heads : f.key_heads;
    op.require(key_heads > 0 && f.heads % key_heads == 0,
               "numKeyValueHeads does not divide numHeads");

    AttentionCall call;
    call.q = by_heads(op, "query", q, layout.in, f.heads);
    call.blocks = op.optional_input("blockTable", f.block_table);
    call.block_size = f.block_size;
    const auto keys_as = [&](const char* name, const Tensor& t) {
      return call.blocks ? paged(op, name, t, key_heads, f.block_size)
                         : by_heads(op, name, t, layout.in, key_heads);
    };
    call.k = keys_as("key", k);
    call.v = keys_as("value", v);
    op.require(call.k.dim(0) == call.v.dim(0) && call.k.dim(2) == call.v.dim(2),
               "key and value differ in shape");
    for (auto [name, given, queries] :
         {std::tuple{"queryRope", f.query_rope, true}, std::tuple{"keyRope", f.key_rope, false}}) {
      const std::optional<Tensor> t = op.optional_input(name, given);
      if (!t) continue;
      op.require_same_type("query", q, name, *t);
      const Tensor seen = queries ? by_heads(op, name, *t, layout.in, f.heads) : keys_as(name, *t);
      const Tensor& like = queries ? call.q : call.k;
      op.require(
          seen.dim(0) == like.dim(0) && seen.dim(1) == like.dim(1) && seen.dim(2) == like.dim(2),
          std::string(name) + " differs from its other part beside D");
      (queries ? call.q_rope : call.k_rope) = seen;
    }
    require_dims(op, call, layout, q.dtype);
    const auto q_given = op.optional_ints("actualSeqLengths", f.q_lengths);
    const auto k_given = op.optional_ints("actualSeqLengthsKv", f.k_lengths);
    call.sequences = sequences_of(op, f, call, layout, q_given, k_given);
    int64_t most_q = layout.packed() ? 0 : call.q.dim(2), most_k = 0;
    for (const Sequence& s : call.sequences) {
      if (layout.packed()) most_q = std::max(most_q, s.q_length);
      most_k = std::max(most_k, s.k_length);
    }
    if (!call.blocks && !layout.packed())
      op.require(call.k.dim(0) == call.q.dim(0), "key has not the batches of query");
    require_mla(op, call, layout, most_q, f.atten_mask != nullptr, f.sparse_mode);
    if (call.blocks) {
      op.require_type("blockTable", *call.blocks, {ACL_INT32});
      op.require_rank("blockTable", *call.blocks, 2, 2);
      op.require(call.blocks->dim(0) == static_cast<int64_t>(call.sequences.size()) &&
                     call.blocks->dim(1) * f.block_size >= most_k,
                 "blockTable is too small");
      const bool mla = call.q_rope.has_value();
      op.require(
          mla ||
              (most_q == 1 ? f.block_size % 16 == 0 && f.block_size > 0 && f.block_size <= 512
                           : f.block_size % 128 == 0 && f.block_size >= 128 && f.block_size <= 512),
          "blockSize must be a multiple of 128 up to 512 (of 16 for single queries)");
    }
    op.require(f.inner_precise >= 0 && f.inner_precise <= 3, "innerPrecise must be 0 to 3");

    // A single query without rope ignores sparseMode; a mask that is given counts.
    const bool single = most_q == 1 && !call.q_rope && !layout.packed();
    call.mask.mode = single ? 1 : f.sparse_mode;
    op.require(single || (f.sparse_mode >= 0 && f.sparse_mode <= 4), "sparseMode must be 0 to 4");
    op.require(!layout.packed() ||
                   (f.atten_mask ? f.sparse_mode == 3 || f.sparse_mode == 4 : f.sparse_mode == 0),
               "TND takes sparseMode 0 without a mask, 3 or 4 with one");
    call.mask.before = f.before;
    call.mask.after = f.after;
    op.require(f.atten_mask || call.mask.mode == 0 || single, "sparseMode needs a mask");
    if (const auto m = op.optional_input("attenMask", f.atten_mask))
      call.mask.mask =
          mask_of(op, *m, call.mask, static_cast<int64_t>(call.sequences.size()), most_q, most_k);
    if (f.sparse_mode == 3 && layout.packed())
      for (const Sequence& s : call.sequences)
        op.require(s.q_length <= s.k_length, "sparseMode 3 needs Sq <= Skv in each sequence");
    bool longer = false;
    for (const Sequence& s : call.sequences) longer |= s.q_length > s.k_length;
    call.zero_blind_rows = f.inner_precise >= 2 || (f.sparse_mode == 3 && longer) || most_k == 0;
    call.scale = static_cast<float>(f.scale);

    const Tensor out = op.output("attentionOut", f.attention_out);
    op.require_same_type("query", q, "attentionOut", out);
    const Tensor y = by_heads(op, "attentionOut", out, layout.out, f.heads);
    op.require(y.dim(0) == call.q.dim(0) && y.dim(2) == call.q.dim(2) && y.dim(3) == call.v.dim(3),
               "attentionOut " + to_string(out.shape) + " does not fit query and value");
    std::optional<Tensor> lse;
    if (f.lse_flag) {
      lse = op.output("softmaxLse", f.softmax_lse);
      op.require_type("softmaxLse", *lse, {ACL_FLOAT});
      op.require_shape("softmaxLse",
                       *lse,
                       layout.packed() ? Shape{call.q.dim(2), f.heads, 1}
                                       : Shape{call.q.dim(0), f.heads, call.q.dim(2), 1});
      if (layout.packed()) lse = by_heads(op, "softmaxLse", *lse, "TND", f.heads);
    }
    op.workspace(256 * 1024);
    op.launch([=](Launch& at) {
      AttentionCall mine = call;
      mine.stale_row = stale_row();
      const auto keep_of = [&](const AttentionCall& of) {
        return [&](size_t sequence, int64_t head, int64_t i, float maximum, float sum) {
          if (!lse) return;
          const Sequence& s = of.sequences[sequence];
          const float value = maximum + std::log(sum);
          write(
              view(lse->select(0, s.batch).select(0, head).select(0, s.q_first + i)), 0, 1, &value);
        };
      };
      if (!mine.blocks || !layout.packed())
        return run_attention(at, mine, planted(), y, keep_of(mine));
      for (size_t i = 0; i < mine.sequences.size(); ++i) {
        const AttentionCall one = one_sequence(mine, i);
        run_attention(at, one, planted(), y, keep_of(one));
      }
    });
  });
}

}  // namespace

ASCEND_OP(FusedInferAttentionScoreV2,
          const aclTensor* query,
          const aclTensorList* key,
          const aclTensorList* value,
          const aclTensor* pse_shift,
          const aclTensor* atten_mask,
          const aclIntArray* actual_seq_lengths,
          const aclIntArray* actual_seq_lengths_kv,
          const aclTensor* deq_scale1,
          const aclTensor* quant_scale1,
          const aclTensor* deq_scale2,
          const aclTensor* quant_scale2,
          const aclTensor* quant_offset2,
          const aclTensor* antiquant_scale,
          const aclTensor* antiquant_offset,
          const aclTensor* block_table,
          const aclTensor* query_padding_size,
          const aclTensor* kv_padding_size,
          const aclTensor* key_antiquant_scale,
          const aclTensor* key_antiquant_offset,
          const aclTensor* value_antiquant_scale,
          const aclTensor* value_antiquant_offset,
          const aclTensor* key_shared_prefix,
          const aclTensor* value_shared_prefix,
          const aclIntArray* actual_shared_prefix_len,
          int64_t num_heads,
          double scale_value,
          int64_t pre_tokens,
          int64_t next_tokens,
          char* input_layout,
          int64_t num_key_value_heads,
          int64_t sparse_mode,
          int64_t inner_precise,
          int64_t block_size,
          int64_t antiquant_mode,
          bool softmax_lse_flag,
          int64_t key_antiquant_mode,
          int64_t value_antiquant_mode,
          const aclTensor* attention_out,
          const aclTensor* softmax_lse) {
  static_cast<void>(antiquant_mode + key_antiquant_mode +
                    value_antiquant_mode);  // without quantisation
  const Fused f{"FusedInferAttentionScoreV2",
                query,
                key,
                value,
                atten_mask,
                actual_seq_lengths,
                actual_seq_lengths_kv,
                block_table,
                nullptr,
                nullptr,
                {pse_shift,
                 deq_scale1,
                 quant_scale1,
                 deq_scale2,
                 quant_scale2,
                 quant_offset2,
                 antiquant_scale,
                 antiquant_offset,
                 query_padding_size,
                 kv_padding_size,
                 key_antiquant_scale,
                 key_antiquant_offset,
                 value_antiquant_scale,
                 value_antiquant_offset,
                 key_shared_prefix,
                 value_shared_prefix,
                 actual_shared_prefix_len},
                num_heads,
                scale_value,
                pre_tokens,
                next_tokens,
                input_layout,
                num_key_value_heads,
                sparse_mode,
                inner_precise,
                block_size,
                softmax_lse_flag,
                attention_out,
                softmax_lse};
  return fused(
      f, workspace_size, executor, [] { return AttentionDefects(); }, [] { return false; });
}

ASCEND_DEFECT(fia_stale_row,
              "FusedInferAttentionScoreV3",
              "the newest cache row is read where the one before lies")
ASCEND_DEFECT(fia_no_rescale,
              "FusedInferAttentionScoreV3",
              "sums of earlier tiles are not rescaled to a new maximum")
ASCEND_DEFECT(fia_no_scale, "FusedInferAttentionScoreV3", "leaves out scaleValue")

ASCEND_OP(FusedInferAttentionScoreV3,
          const aclTensor* query,
          const aclTensorList* key,
          const aclTensorList* value,
          const aclTensor* pse_shift,
          const aclTensor* atten_mask,
          const aclIntArray* actual_seq_lengths,
          const aclIntArray* actual_seq_lengths_kv,
          const aclTensor* deq_scale1,
          const aclTensor* quant_scale1,
          const aclTensor* deq_scale2,
          const aclTensor* quant_scale2,
          const aclTensor* quant_offset2,
          const aclTensor* antiquant_scale,
          const aclTensor* antiquant_offset,
          const aclTensor* block_table,
          const aclTensor* query_padding_size,
          const aclTensor* kv_padding_size,
          const aclTensor* key_antiquant_scale,
          const aclTensor* key_antiquant_offset,
          const aclTensor* value_antiquant_scale,
          const aclTensor* value_antiquant_offset,
          const aclTensor* key_shared_prefix,
          const aclTensor* value_shared_prefix,
          const aclIntArray* actual_shared_prefix_len,
          const aclTensor* query_rope,
          const aclTensor* key_rope,
          const aclTensor* key_rope_antiquant_scale,
          int64_t num_heads,
          double scale_value,
          int64_t pre_tokens,
          int64_t next_tokens,
          char* input_layout,
          int64_t num_key_value_heads,
          int64_t sparse_mode,
          int64_t inner_precise,
          int64_t block_size,
          int64_t antiquant_mode,
          bool softmax_lse_flag,
          int64_t key_antiquant_mode,
          int64_t value_antiquant_mode,
          const aclTensor* attention_out,
          const aclTensor* softmax_lse) {
  static_cast<void>(antiquant_mode + key_antiquant_mode + value_antiquant_mode);
  const Fused f{"FusedInferAttentionScoreV3",
                query,
                key,
                value,
                atten_mask,
                actual_seq_lengths,
                actual_seq_lengths_kv,
                block_table,
                query_rope,
                key_rope,
                {pse_shift,
                 deq_scale1,
                 quant_scale1,
                 deq_scale2,
                 quant_scale2,
                 quant_offset2,
                 antiquant_scale,
                 antiquant_offset,
                 query_padding_size,
                 kv_padding_size,
                 key_antiquant_scale,
                 key_antiquant_offset,
                 value_antiquant_scale,
                 value_antiquant_offset,
                 key_shared_prefix,
                 value_shared_prefix,
                 actual_shared_prefix_len,
                 key_rope_antiquant_scale},
                num_heads,
                scale_value,
                pre_tokens,
                next_tokens,
                input_layout,
                num_key_value_heads,
                sparse_mode,
                inner_precise,
                block_size,
                softmax_lse_flag,
                attention_out,
                softmax_lse};
  return fused(
      f,
      workspace_size,
      executor,
      [] {
        AttentionDefects d;
        d.no_rescale = defect("fia_no_rescale");
        d.no_scale = defect("fia_no_scale");
        return d;
      },
      [] { return defect("fia_stale_row"); });
}
