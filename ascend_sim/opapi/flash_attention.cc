// Attention for training: FlashAttentionScore and FlashAttentionVarLenScore with their gradients.
// Not offered: pse, dropout, sparse modes 7 and 8.
#include "opapi/attention_call.h"

using namespace ascend_sim;

namespace {

/// What forward and backward take alike, checked.
AttentionCall take(Plan& op,
                   const Tensor& q,
                   const Tensor& k,
                   const Tensor& v,
                   const aclTensor* pse,
                   const aclTensor* drop_mask,
                   const aclTensor* padding_mask,
                   const aclTensor* atten_mask,
                   const aclIntArray* prefix,
                   const std::optional<std::vector<int64_t>>& q_sums,
                   const std::optional<std::vector<int64_t>>& k_sums,
                   double scale,
                   double keep_prob,
                   int64_t pre_tokens,
                   int64_t next_tokens,
                   int64_t heads,
                   const char* layout,
                   int64_t inner_precise,
                   int64_t sparse_mode,
                   bool packed) {
  op.require(op.chip().training_family(), "not supported on " + op.chip().name);
  op.require_pointer(layout, "inputLayout");
  const std::string named = layout;
  for (const Tensor* t : {&q, &k, &v}) {
    require_float(op, "query, key, value", *t);
    op.require_same_type("query", q, "key, value", *t);
  }
  op.require(!pse && !drop_mask, "pse and dropout are not offered here");
  op.require(!padding_mask, "paddingMask must be null");
  op.require(keep_prob == 1.0, "keepProb must be 1 without a dropout mask");
  op.require(packed == (named == "TND"), "inputLayout \"" + named + "\" does not belong here");
  op.require(
      named == "TND" || named == "BSH" || named == "SBH" || named == "BSND" || named == "BNSD",
      "inputLayout \"" + named + "\" is not supported");
  AttentionCall call;
  call.q = by_heads(op, "query", q, named, heads);
  const int64_t dim = call.q.dim(-1);
  const bool flat = named == "BSH" || named == "SBH";
  // H = N D hides the number of key heads: query's D is key's.
  const int64_t key_heads = flat ? k.dim(2) / std::max<int64_t>(dim, 1)
                                 : k.dim(named == "BNSD" || named == "TND" ? 1 : 2);
  call.k = by_heads(op, "key", k, named, key_heads);
  call.v = by_heads(op, "value", v, named, key_heads);
  op.require(call.k.dim(-1) == dim && call.v.dim(-1) <= dim, "D must satisfy qD == kD >= vD");
  op.require(dim >= 1 && dim <= 768, "D must be 1 to 768");
  op.require(heads <= 256 && key_heads > 0 && heads % key_heads == 0,
             "N must be at most 256 and a multiple of key's");
  op.require(call.k.dim(0) == call.q.dim(0) && call.v.dim(0) == call.q.dim(0) &&
                 call.k.dim(2) == call.v.dim(2),
             "batches or lengths of query, key and value differ");
  const int64_t longest = 1 << 20;
  op.require(call.q.dim(2) <= longest && call.k.dim(2) <= longest, "sequences are longer than 1M");
  if (packed) {
    op.require(q_sums && k_sums, "actualSeqQLen and actualSeqKvLen are needed with TND");
    call.sequences = sequences_from_sums(op, *q_sums, *k_sums, call.q.dim(2), call.k.dim(2));
  } else {
    for (int64_t b = 0; b < call.q.dim(0); ++b)
      call.sequences.push_back({b, 0, call.q.dim(2), 0, call.k.dim(2)});
  }
  call.scale = static_cast<float>(scale);

  op.require(sparse_mode >= 0 && sparse_mode <= (packed ? 8 : 6) && !(packed && sparse_mode == 5),
             "sparseMode is not supported");
  op.require(sparse_mode < 7, "sparseMode 7 and 8 are not offered here");
  call.mask.mode = sparse_mode;
  call.mask.before = pre_tokens;
  call.mask.after = next_tokens;
  call.mask.mask = op.optional_input("attenMaskOptional", atten_mask);
  if (const auto ns = op.optional_ints("prefixOptional", prefix)) call.mask.prefix = *ns;
  op.require((sparse_mode != 5 && sparse_mode != 6) || !call.mask.prefix.empty(),
             "sparseMode 5 and 6 need prefix");
  if (call.mask.mask) {
    Tensor& m = *call.mask.mask;
    op.require_type("attenMaskOptional", m, {ACL_BOOL, ACL_UINT8});
    if (call.mask.compressed()) {
      op.require_shape("attenMaskOptional", m, {sparse_mode == 6 ? 3072 : 2048, 2048});
      if (sparse_mode == 6) m = m.narrow(0, 0, 2048);
    } else {
      int64_t most_q = 0, most_k = 0;
      for (const Sequence& s : call.sequences) {
        most_q = std::max(most_q, s.q_length);
        most_k = std::max(most_k, s.k_length);
      }
      op.require(m.rank() == 2 || m.rank() == 4, "attenMask must have 2 or 4 dimensions");
      if (m.rank() == 2) {
        m.shape.insert(m.shape.begin(), {1, 1});
        m.strides.insert(m.strides.begin(), {0, 0});
      }
      op.require((m.dim(0) == 1 || m.dim(0) == static_cast<int64_t>(call.sequences.size())) &&
                     (m.dim(1) == 1 || m.dim(1) == heads) &&
                     (packed ? m.dim(2) >= most_q && m.dim(3) >= most_k
                             : m.dim(2) == most_q && m.dim(3) == most_k),
                 "attenMask " + to_string(m.shape) + " does not fit query and key");
    }
    if (sparse_mode == 3 && packed)
      for (const Sequence& s : call.sequences)
        op.require(s.q_length <= s.k_length, "sparseMode 3 needs Sq <= Skv in each sequence");
    op.require((sparse_mode != 0 && sparse_mode != 4) || pre_tokens >= -next_tokens,
               "preTokens and nextTokens do not overlap");
  }
  bool longer = false;
  for (const Sequence& s : call.sequences) longer |= s.q_length > s.k_length;
  call.zero_blind_rows = inner_precise == 2 || (sparse_mode == 3 && longer);
  return call;
}

/// softmaxMax and softmaxSum, 8 equal floats for each row: one [batch, head, position, 8] for each
/// sequence. In TND the documents disagree, [T, N, 8] and [N, T, 8]. With the former, programs that
/// read it (MindSpeed's ring attention) find each sequence as [N, its length, 8] behind the one
/// before; so it is written here. With the latter it is what it says. Not seen on a chip.
std::vector<Tensor> statistics(
    const Plan& op, const char* name, const Tensor& t, const AttentionCall& call, bool packed) {
  op.require_type(name, t, {ACL_FLOAT});
  const int64_t heads = call.q.dim(1), length = call.q.dim(2);
  std::vector<Tensor> out;
  if (!packed) {
    op.require_shape(name, t, {call.q.dim(0), heads, length, 8});
    for (int64_t b = 0; b < t.dim(0); ++b) out.push_back(t.select(0, b));
    return out;
  }
  op.require_rank(name, t, 3, 3);
  const bool by_token = t.shape == Shape{length, heads, 8};
  op.require(by_token || t.shape == Shape{heads, length, 8},
             std::string(name) + " " + to_string(t.shape) + " is not [T, N, 8]");
  op.require(t.contiguous(), std::string(name) + " must be contiguous");
  for (const Sequence& s : call.sequences) {
    Tensor one = t;
    one.shape = {heads, s.q_length, 8};
    one.strides = {by_token ? s.q_length * 8 : length * 8, 8, 1};
    one.offset += s.q_first * 8 * (by_token ? heads : 1);
    out.push_back(one);
  }
  return out;
}

void require_like(
    const Plan& op, const char* name, const Tensor& t, const Tensor& like, const Shape& shape) {
  op.require_same_type(name, t, "query", like);
  op.require_shape(name, t, shape);
}

/// query's shape with value's D.
Shape result_shape(const Tensor& q, const AttentionCall& call, const std::string& layout) {
  Shape shape = q.shape;
  const bool flat = layout == "BSH" || layout == "SBH";
  shape.back() = call.v.dim(-1) * (flat ? call.q.dim(1) : 1);
  return shape;
}

/// The outputs of both forward ops, and the launch. softmaxOutOut is reserved: whatever is passed
/// is left alone.
void finish_forward(Plan& op,
                    const AttentionCall& call,
                    const Tensor& q,
                    const std::string& layout,
                    bool packed,
                    const aclTensor* softmax_max,
                    const aclTensor* softmax_sum,
                    const aclTensor* attention_out,
                    AttentionDefects (*planted)()) {
  const Tensor out = op.output("attentionOutOut", attention_out);
  require_like(op, "attentionOutOut", out, q, result_shape(q, call, layout));
  const auto statistic = [&](const char* name, const aclTensor* t) {
    return statistics(op, name, op.output(name, t), call, packed);
  };
  const std::vector<Tensor> maximum = statistic("softmaxMaxOut", softmax_max),
                            sum = statistic("softmaxSumOut", softmax_sum);
  const Tensor y = by_heads(op, "attentionOutOut", out, layout, call.q.dim(1));
  op.workspace(256 * 1024);
  op.launch([=](Launch& at) {
    run_attention(at,
                  call,
                  planted(),
                  y,
                  [&](size_t sequence, int64_t head, int64_t i, float max, float total) {
                    float eight[8];
                    for (auto [to, value] : {std::pair{&maximum, max}, std::pair{&sum, total}}) {
                      std::fill(eight, eight + 8, value);
                      write(view((*to)[sequence].select(0, head).select(0, i)), 0, 8, eight);
                    }
                  });
  });
}

/// The gradients' arguments, from which both backward ops make their call.
struct Backward {
  Tensor dy, y, dq, dk, dv;
  std::vector<Tensor> maximum, sum;
};

Backward take_backward(Plan& op,
                       const AttentionCall& call,
                       const Tensor& q,
                       const Tensor& k,
                       const Tensor& v,
                       const std::string& layout,
                       bool packed,
                       const aclTensor* dy,
                       const aclTensor* softmax_max,
                       const aclTensor* softmax_sum,
                       const aclTensor* softmax_in,
                       const aclTensor* attention_in,
                       const aclTensor* dq_out,
                       const aclTensor* dk_out,
                       const aclTensor* dv_out,
                       const aclTensor* dpse_out) {
  op.require(!softmax_in, "softmaxIn is reserved: null");
  static_cast<void>(dpse_out);  // reserved
  const Shape shape = result_shape(q, call, layout);
  const Tensor grad = op.input("dy", dy), y = op.input("attentionInOptional", attention_in);
  require_like(op, "dy", grad, q, shape);
  require_like(op, "attentionInOptional", y, q, shape);
  const Tensor dq = op.output("dqOut", dq_out), dk = op.output("dkOut", dk_out),
               dv = op.output("dvOut", dv_out);
  require_like(op, "dqOut", dq, q, q.shape);
  require_like(op, "dkOut", dk, q, k.shape);
  require_like(op, "dvOut", dv, q, v.shape);
  const int64_t heads = call.q.dim(1), key_heads = call.k.dim(1);
  const auto first_of_eight = [&](const char* name, const aclTensor* t) {
    std::vector<Tensor> all = statistics(op, name, op.input(name, t), call, packed);
    for (Tensor& one : all) one = one.select(2, 0);
    return all;
  };
  return {by_heads(op, "dy", grad, layout, heads),
          by_heads(op, "attentionInOptional", y, layout, heads),
          by_heads(op, "dqOut", dq, layout, heads),
          by_heads(op, "dkOut", dk, layout, key_heads),
          by_heads(op, "dvOut", dv, layout, key_heads),
          first_of_eight("softmaxMaxOptional", softmax_max),
          first_of_eight("softmaxSumOptional", softmax_sum)};
}

void launch_backward(Plan& op,
                     const AttentionCall& call,
                     const Backward& b,
                     AttentionDefects (*planted)()) {
  op.workspace(256 * 1024);
  op.launch([=](Launch& at) {
    run_attention_gradient(at, {call, b.dy, b.y, b.dq, b.dk, b.dv, b.maximum, b.sum}, planted());
  });
}

}  // namespace

ASCEND_REDUCES(FlashAttentionScore)

ASCEND_OP(FlashAttentionScore,
          const aclTensor* query,
          const aclTensor* key,
          const aclTensor* value,
          const aclTensor* real_shift,
          const aclTensor* drop_mask,
          const aclTensor* padding_mask,
          const aclTensor* atten_mask,
          const aclIntArray* prefix,
          double scale_value,
          double keep_prob,
          int64_t pre_tokens,
          int64_t next_tokens,
          int64_t head_num,
          char* input_layout,
          int64_t inner_precise,
          int64_t sparse_mode,
          const aclTensor* softmax_max_out,
          const aclTensor* softmax_sum_out,
          const aclTensor* softmax_out_out,
          const aclTensor* attention_out_out) {
  return plan("FlashAttentionScore", workspace_size, executor, [&](Plan& op) {
    const Tensor q = op.input("query", query), k = op.input("key", key),
                 v = op.input("value", value);
    const AttentionCall call = take(op,
                                    q,
                                    k,
                                    v,
                                    real_shift,
                                    drop_mask,
                                    padding_mask,
                                    atten_mask,
                                    prefix,
                                    {},
                                    {},
                                    scale_value,
                                    keep_prob,
                                    pre_tokens,
                                    next_tokens,
                                    head_num,
                                    input_layout,
                                    inner_precise,
                                    sparse_mode,
                                    false);
    static_cast<void>(softmax_out_out);
    finish_forward(
        op, call, q, input_layout, false, softmax_max_out, softmax_sum_out, attention_out_out, [] {
          return AttentionDefects();
        });
  });
}

ASCEND_DEFECT(fa_varlen_across_documents,
              "FlashAttentionVarLenScore",
              "a query also sees the document before its own")
ASCEND_DEFECT(fa_varlen_no_rescale,
              "FlashAttentionVarLenScore",
              "sums of earlier tiles are not rescaled to a new maximum")
ASCEND_DEFECT(fa_varlen_causal_off_by_one,
              "FlashAttentionVarLenScore",
              "a query sees the key behind its own")
ASCEND_DEFECT(fa_varlen_no_scale, "FlashAttentionVarLenScore", "leaves out scaleValue")

ASCEND_REDUCES(FlashAttentionVarLenScore)

ASCEND_OP(FlashAttentionVarLenScore,
          const aclTensor* query,
          const aclTensor* key,
          const aclTensor* value,
          const aclTensor* real_shift,
          const aclTensor* drop_mask,
          const aclTensor* padding_mask,
          const aclTensor* atten_mask,
          const aclIntArray* prefix,
          const aclIntArray* actual_seq_q_len,
          const aclIntArray* actual_seq_kv_len,
          double scale_value,
          double keep_prob,
          int64_t pre_tokens,
          int64_t next_tokens,
          int64_t head_num,
          char* input_layout,
          int64_t inner_precise,
          int64_t sparse_mode,
          const aclTensor* softmax_max_out,
          const aclTensor* softmax_sum_out,
          const aclTensor* softmax_out_out,
          const aclTensor* attention_out_out) {
  return plan("FlashAttentionVarLenScore", workspace_size, executor, [&](Plan& op) {
    const Tensor q = op.input("query", query), k = op.input("key", key),
                 v = op.input("value", value);
    const AttentionCall call = take(op,
                                    q,
                                    k,
                                    v,
                                    real_shift,
                                    drop_mask,
                                    padding_mask,
                                    atten_mask,
                                    prefix,
                                    op.optional_ints("actualSeqQLen", actual_seq_q_len),
                                    op.optional_ints("actualSeqKvLen", actual_seq_kv_len),
                                    scale_value,
                                    keep_prob,
                                    pre_tokens,
                                    next_tokens,
                                    head_num,
                                    input_layout,
                                    inner_precise,
                                    sparse_mode,
                                    true);
    static_cast<void>(softmax_out_out);
    finish_forward(
        op, call, q, input_layout, true, softmax_max_out, softmax_sum_out, attention_out_out, [] {
          AttentionDefects d;
          d.across_documents = defect("fa_varlen_across_documents");
          d.causal_off_by_one = defect("fa_varlen_causal_off_by_one");
          d.no_rescale = defect("fa_varlen_no_rescale");
          d.no_scale = defect("fa_varlen_no_scale");
          return d;
        });
  });
}

ASCEND_REDUCES(FlashAttentionScoreGrad)

ASCEND_OP(FlashAttentionScoreGrad,
          const aclTensor* query,
          const aclTensor* key_in,
          const aclTensor* value,
          const aclTensor* dy,
          const aclTensor* pse_shift,
          const aclTensor* drop_mask,
          const aclTensor* padding_mask,
          const aclTensor* atten_mask,
          const aclTensor* softmax_max,
          const aclTensor* softmax_sum,
          const aclTensor* softmax_in,
          const aclTensor* attention_in,
          const aclIntArray* prefix,
          double scale_value,
          double keep_prob,
          int64_t pre_tokens,
          int64_t next_tokens,
          int64_t head_num,
          char* input_layout,
          int64_t inner_precise,
          int64_t sparse_mode,
          const aclTensor* dq_out,
          const aclTensor* dk_out,
          const aclTensor* dv_out,
          const aclTensor* dpse_out) {
  return plan("FlashAttentionScoreGrad", workspace_size, executor, [&](Plan& op) {
    const Tensor q = op.input("query", query), k = op.input("keyIn", key_in),
                 v = op.input("value", value);
    const AttentionCall call = take(op,
                                    q,
                                    k,
                                    v,
                                    pse_shift,
                                    drop_mask,
                                    padding_mask,
                                    atten_mask,
                                    prefix,
                                    {},
                                    {},
                                    scale_value,
                                    keep_prob,
                                    pre_tokens,
                                    next_tokens,
                                    head_num,
                                    input_layout,
                                    inner_precise,
                                    sparse_mode,
                                    false);
    const Backward b = take_backward(op,
                                     call,
                                     q,
                                     k,
                                     v,
                                     input_layout,
                                     false,
                                     dy,
                                     softmax_max,
                                     softmax_sum,
                                     softmax_in,
                                     attention_in,
                                     dq_out,
                                     dk_out,
                                     dv_out,
                                     dpse_out);
    launch_backward(op, call, b, [] { return AttentionDefects(); });
  });
}

ASCEND_DEFECT(fa_varlen_grad_lse_off,
              "FlashAttentionUnpaddingScoreGrad",
              "recomputes probabilities with a maximum that is 1/8 too high")
ASCEND_DEFECT(fa_varlen_grad_no_scale, "FlashAttentionUnpaddingScoreGrad", "leaves out scaleValue")

ASCEND_REDUCES(FlashAttentionUnpaddingScoreGrad)

ASCEND_OP(FlashAttentionUnpaddingScoreGrad,
          const aclTensor* query,
          const aclTensor* key_in,
          const aclTensor* value,
          const aclTensor* dy,
          const aclTensor* pse_shift,
          const aclTensor* drop_mask,
          const aclTensor* padding_mask,
          const aclTensor* atten_mask,
          const aclTensor* softmax_max,
          const aclTensor* softmax_sum,
          const aclTensor* softmax_in,
          const aclTensor* attention_in,
          const aclIntArray* prefix,
          const aclIntArray* actual_seq_q_len,
          const aclIntArray* actual_seq_kv_len,
          double scale_value,
          double keep_prob,
          int64_t pre_tokens,
          int64_t next_tokens,
          int64_t head_num,
          char* input_layout,
          int64_t inner_precise,
          int64_t sparse_mode,
          const aclTensor* dq_out,
          const aclTensor* dk_out,
          const aclTensor* dv_out,
          const aclTensor* dpse_out) {
  return plan("FlashAttentionUnpaddingScoreGrad", workspace_size, executor, [&](Plan& op) {
    const Tensor q = op.input("query", query), k = op.input("keyIn", key_in),
                 v = op.input("value", value);
    const AttentionCall call = take(op,
                                    q,
                                    k,
                                    v,
                                    pse_shift,
                                    drop_mask,
                                    padding_mask,
                                    atten_mask,
                                    prefix,
                                    op.optional_ints("actualSeqQLen", actual_seq_q_len),
                                    op.optional_ints("actualSeqKvLen", actual_seq_kv_len),
                                    scale_value,
                                    keep_prob,
                                    pre_tokens,
                                    next_tokens,
                                    head_num,
                                    input_layout,
                                    inner_precise,
                                    sparse_mode,
                                    true);
    const Backward b = take_backward(op,
                                     call,
                                     q,
                                     k,
                                     v,
                                     input_layout,
                                     true,
                                     dy,
                                     softmax_max,
                                     softmax_sum,
                                     softmax_in,
                                     attention_in,
                                     dq_out,
                                     dk_out,
                                     dv_out,
                                     dpse_out);
    launch_backward(op, call, b, [] {
      AttentionDefects d;
      d.lse_off = defect("fa_varlen_grad_lse_off");
      d.no_scale = defect("fa_varlen_grad_no_scale");
      return d;
    });
  });
}
