#include "models/slot_cache.h"

#include "base/check.h"

namespace ferry::models {

SlotCache::SlotCache(CausalLm& model, int64_t slots, int64_t tokens_per_slot)
    : tokens_per_slot_(tokens_per_slot),
      cache_(model.make_cache(slots * pages_for(tokens_per_slot))),
      lengths_(static_cast<size_t>(slots), 0) {
  int32_t next = 0;
  for (int64_t slot = 0; slot < slots; ++slot) {
    pages_.emplace_back();
    for (int64_t p = 0; p < pages_for(tokens_per_slot); ++p) pages_.back().push_back(next++);
  }
}

ops::Segments SlotCache::begin(std::span<const Part> parts) {
  parts_.clear();
  std::vector<int64_t> lengths = lengths_;
  std::vector<KvCache::Part> paged;
  for (const Part& part : parts) {
    const bool exists = part.slot >= 0 && part.slot < std::ssize(lengths);
    const auto slot = static_cast<size_t>(part.slot);
    const int64_t room = exists ? tokens_per_slot_ - lengths[slot] : 0;
    check(exists && part.tokens > 0 && part.tokens <= room,
          "cache: {} more tokens for slot {} of {}, which has room for {}",
          part.tokens,
          part.slot,
          lengths.size(),
          room);
    paged.push_back({pages_[slot], lengths[slot], part.tokens});
    lengths[slot] += part.tokens;
  }
  ops::Segments segments = cache_->begin(paged);
  parts_.assign(parts.begin(), parts.end());
  return segments;
}

void SlotCache::commit() {
  check(!parts_.empty(), "cache: commit without a pass");
  for (const Part& part : parts_) lengths_[static_cast<size_t>(part.slot)] += part.tokens;
  parts_.clear();
}

}  // namespace ferry::models
