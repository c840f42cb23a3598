// SlotCache: a fixed number of sequences over pages of their own, for whoever runs a batch that is
// known from the start: probes, verification, tests. A server's pages come and go (engine/engine.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "models/causal_lm.h"
#include "models/kv_cache.h"

namespace ferry::models {

class SlotCache {
 public:
  /// So many sequences ("slots") of at most tokens_per_slot tokens.
  SlotCache(CausalLm& model, int64_t slots, int64_t tokens_per_slot);

  struct Part {
    int64_t slot;
    int64_t tokens;  // new ones, following those that the slot holds
  };
  /// Announces the tokens of the next forward pass, in batch order, and gives their segments. The
  /// slots hold them after commit(): a pass that throws leaves them as they were, and the next
  /// begin() forgets it. Check: a slot that would overflow; callers look at remaining() first.
  ops::Segments begin(std::span<const Part> parts);
  /// The announced pass was done. A chip reports late: commit when something that was computed from
  /// the pass has been read.
  void commit();

  int64_t length(int64_t slot) const { return lengths_[static_cast<size_t>(slot)]; }
  int64_t remaining(int64_t slot) const { return tokens_per_slot_ - length(slot); }
  KvCache* cache() { return cache_.get(); }  // for ForwardOptions

 private:
  int64_t tokens_per_slot_;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::vector<int32_t>> pages_;  // of each slot
  std::vector<int64_t> lengths_;
  std::vector<Part> parts_;  // of the pass under way; empty: none
};

}  // namespace ferry::models
