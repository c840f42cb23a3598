// Cross-entropy fused with the output projection: logits exist for a few tokens at a time only.
#pragma once

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

struct CrossEntropy {
  Tensor loss;          // f32 [1]: scale * Σ weight * token_losses
  Tensor token_losses;  // f32 [tokens]: -log softmax(hidden headᵀ)[label] in nats; 0 where ignored;
                        // no gradient
};

/// The loss of predicting labels with the logits hidden headᵀ, which are never stored whole.
///
/// Shapes    hidden [tokens, inputs], rows may be strided; head [vocab, inputs]; labels i32
///           [tokens], -1: ignored; weights f32 [tokens] of any sign, not defined: each 1.
/// Types     hidden and head f32 or bf16; products in hidden's type, logits, softmax and losses in
///           f32.
/// Gradient  d_hidden, d_head of the loss. They are computed in the forward pass, while a tape
///           records, with d_logits = (softmax - onehot) * (scale * weight) rounded to hidden's type;
///           playback multiplies by d_loss. Of the weights: none.
/// Memory    kLogitsBytes of logits (at least 64 tokens), and the gradients.
/// Order     logits: ops/cpu/gemm.h; of a head that is whole numbers: quantized_linear.h, without
///           gradients. log-sum-exp: the row's maximum m; for each tile of kVocabTile
///           columns 16 lanes of exp(x - m), then the lane tree; tiles ascending. d_head: tokens
///           ascending, whatever the chunks. loss: 16 lanes over tokens (of weight * token loss), then the lane
///           tree.
/// Errors    check: shapes, types. A label that is neither -1 nor in [0, vocab) makes its loss NaN.
CrossEntropy cross_entropy(const Tensor& hidden,
                           const Weight& head,
                           const Tensor& labels,
                           float scale,
                           const Tensor& weights = {});

inline constexpr int64_t kVocabTile = 1024;  // part of the numerics format
inline constexpr int64_t kLogitsBytes = int64_t{8} << 20;

}  // namespace ferry::ops
