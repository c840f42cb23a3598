// Segments: which tokens belong together. There is no batch dimension anywhere: tensors are
// [tokens, ...] and this says, for each token, its position and where its document's keys begin.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace ferry::ops {

/// The same as Segments on the host, where ops check and plan.
struct HostSegments {
  std::vector<int32_t> position;
  std::vector<int32_t> key_begin;
  int64_t longest = 0;  // the largest position + 1; 0 without tokens
};

/// Query token t attends to the key rows [key_begin[t], key_begin[t] + position[t]], and to no
/// other.
struct Segments {
  Tensor position;   // i32 [tokens]: place in the document, from 0; also RoPE's
  Tensor key_begin;  // i32 [tokens]: row of the document's first key in k and v
  std::shared_ptr<const HostSegments> host;

  int64_t tokens() const { return static_cast<int64_t>(host->position.size()); }

  /// Documents packed one after the other, keys being the tokens themselves (training, scoring).
  /// lengths: tokens of each document; their sum is the number of tokens.
  static Segments packed(std::span<const int32_t> lengths, Device& device);

  /// Rows of a cache: token t has the position and its document's keys begin at the row given.
  static Segments cached(std::vector<int32_t> position,
                         std::vector<int32_t> key_begin,
                         Device& device);
};

}  // namespace ferry::ops
