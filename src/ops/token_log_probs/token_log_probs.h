// The log-probabilities of given tokens: what answering reports of what it chose. Training's losses
// are these numbers with the other sign, bit for bit.
#pragma once

#include "tensor/tensor.h"

namespace ferry::ops {

/// y[r, i] = log softmax(logits[r] / temperatures[r])[ids[r, i]], in nats.
///
/// Shapes    logits [rows, vocab], contiguous; ids [rows, k]; temperatures [rows]; returns [rows, k].
/// Types     logits and temperatures f32, ids i32; returns f32.
/// Gradient  none: training takes cross_entropy.
/// Order     quotients rounded once; then that of cross_entropy's token losses: the row's maximum m,
///           for each tile of kVocabTile columns 16 lanes of exp(x - m), the lane tree, tiles
///           ascending; y = -(log(sum) + (m - x)).
/// Errors    check: shapes, types. An id of -1 gives 0; others outside the vocabulary, and
///           temperatures that are not positive, NaN.
Tensor token_log_probs(const Tensor& logits, const Tensor& ids, const Tensor& temperatures);

}  // namespace ferry::ops
