// KvCache: what a model remembers of the tokens before. Opaque to models: they append and get back
// keys to attend to. (Paged and quantised caches come with the engine; models will not notice.)
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ops/segments.h"
#include "tensor/tensor.h"

namespace ferry::models {

class KvCache {
 public:
  /// So many sequences ("slots") of at most tokens_per_slot tokens; for each layer `width` numbers
  /// a token (MLA: the latent and the rotated shared key).
  KvCache(int64_t layers,
          int64_t width,
          int64_t slots,
          int64_t tokens_per_slot,
          DType dtype,
          Device& device);

  struct Part {
    int64_t slot;
    int64_t tokens;  // new ones, following those that the slot holds
  };
  /// Announces the tokens of the next forward pass, in batch order, and gives their segments. The
  /// slots hold them after commit(): a pass that throws leaves them as they were, and the next
  /// begin() forgets it. Throws Bug when a slot would overflow: callers check remaining() first.
  ops::Segments begin(std::span<const Part> parts);
  /// The announced pass was done. A chip reports late: commit when something that was computed from
  /// the pass has been read.
  void commit();

  /// Stores the announced tokens' keys [tokens, width] of one layer; returns all rows of the layer,
  /// [slots * tokens_per_slot, width], of which the segments of begin() say who sees which.
  Tensor append(int64_t layer, const Tensor& keys);

  /// Forgets the tokens of a slot from `length` on: a draft that was rejected, a prompt that changed.
  void truncate(int64_t slot, int64_t length);

  int64_t length(int64_t slot) const { return lengths_[static_cast<size_t>(slot)]; }
  int64_t remaining(int64_t slot) const { return tokens_per_slot_ - length(slot); }

 private:
  int64_t slots_, tokens_per_slot_;
  std::vector<Tensor> layers_;
  std::vector<int64_t> lengths_;
  std::vector<Part> parts_;           // of the pass under way; empty: none
  std::vector<int64_t> part_begins_;  // first row of each part in the cache
};

}  // namespace ferry::models
