// What the attention ops have in common: layouts, sequences, masks, and the loop over sequences and
// key heads.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "opapi/attention_math.h"
#include "opapi/op_kit.h"

namespace ascend_sim {

/// A tensor as [batch, head, position, dim], whatever its layout; TND and NTD have one batch.
Tensor by_heads(
    const Plan& op, const char* name, const Tensor& t, const std::string& layout, int64_t heads);

/// One sequence: rows [q_first, q_first + q_length) of batch `batch` of the queries, and its keys.
struct Sequence {
  int64_t batch = 0;
  int64_t q_first = 0, q_length = 0;
  int64_t k_first = 0, k_length = 0;
};

/// Sequences from running sums (TND): refuses sums that fall or do not end within `queries`,
/// `keys`.
std::vector<Sequence> sequences_from_sums(const Plan& op,
                                          const std::vector<int64_t>& q_sums,
                                          const std::vector<int64_t>& k_sums,
                                          int64_t queries,
                                          int64_t keys);

struct MaskRules {
  std::optional<Tensor> mask;     // [batch or 1, head or 1, query, key], or 2048 x 2048: compressed
  int64_t mode = 0;               // sparseMode
  int64_t before = 0, after = 0;  // preTokens, nextTokens
  std::vector<int64_t> prefix;    // of each batch, for modes 5 and 6
  bool compressed() const { return mode == 2 || mode == 3 || mode == 4 || mode == 6; }
};

/// What is planted in an attention op. Each op has its own names for these.
struct AttentionDefects {
  bool causal_off_by_one = false;  // a query sees the key behind its own
  bool across_documents = false;   // a query also sees the document before its own
  bool no_scale = false;
  bool no_rescale = false;
  bool lse_off = false;  // the saved maximum is 2^-3 too high
};

struct AttentionCall {
  Tensor q, k, v;  // by_heads; k and v may lie elsewhere: see keys
  std::optional<Tensor> q_rope, k_rope;
  std::vector<Sequence> sequences;
  MaskRules mask;
  float scale = 1;
  bool zero_blind_rows = false;
  /// With a block table: keys are read from these by block, [blocks, head, position, dim].
  std::optional<Tensor> blocks;  // the table, int32 [batch, blocks of a sequence]
  int64_t block_size = 0;
  bool stale_row = false;  // planted: the newest row is the one before
};

/// Reads the visible keys of one sequence's queries. Built on the stream; one for each launch.
class Masks {
 public:
  Masks(const MaskRules& rules, const AttentionDefects& defects);
  /// For query i of a sequence and head; bytes of hidden keys live in `room` while they are used.
  Visible of(const Sequence& s, int64_t head, int64_t i, std::vector<uint8_t>& room) const;

 private:
  MaskRules rules_;
  AttentionDefects defects_;
  bool lower_triangle_ = true;     // the compressed mask is what it must be
  std::vector<uint8_t> by_delta_;  // if not: hidden, by query - key + 1024
};

/// out; and calls softmax with the number of the sequence, the head, the position in the sequence,
/// and the row's maximum and sum.
using SoftmaxOutput =
    std::function<void(size_t sequence, int64_t head, int64_t i, float maximum, float sum)>;
void run_attention(Launch& at,
                   const AttentionCall& call,
                   const AttentionDefects& defects,
                   const Tensor& out,
                   const SoftmaxOutput& softmax);

struct AttentionGradientCall {
  AttentionCall forward;
  Tensor dy, y, dq, dk, dv;          // by_heads
  std::vector<Tensor> maximum, sum;  // of each sequence, [head, position], floats
};

void run_attention_gradient(Launch& at,
                            const AttentionGradientCall& call,
                            const AttentionDefects& defects);

}  // namespace ascend_sim
