#include "models/kv_cache.h"

#include "base/check.h"
#include "ops/dispatch.h"

namespace ferry::models {

KvCache::KvCache(int64_t layers,
                 int64_t width,
                 int64_t slots,
                 int64_t tokens_per_slot,
                 DType dtype,
                 Device& device)
    : slots_(slots), tokens_per_slot_(tokens_per_slot), lengths_(static_cast<size_t>(slots), 0) {
  check(Shape({slots, tokens_per_slot}).count() <= INT32_MAX,
        "cache: {} slots of {} tokens; rows are numbered in 32 bits",
        slots,
        tokens_per_slot);
  for (int64_t l = 0; l < layers; ++l)
    layers_.push_back(Tensor::empty({slots * tokens_per_slot, width}, dtype, device));
}

ops::Segments KvCache::begin(std::span<const Part> parts) {
  parts_.clear();
  part_begins_.clear();
  std::vector<int64_t> lengths = lengths_;
  std::vector<int32_t> position, key_begin;
  for (const Part& part : parts) {
    const bool exists = part.slot >= 0 && part.slot < slots_;
    const int64_t length = exists ? lengths[static_cast<size_t>(part.slot)] : 0,
                  room = exists ? tokens_per_slot_ - length : 0;
    check(exists && part.tokens > 0 && part.tokens <= room,
          "cache: {} more tokens for slot {} of {}, which has room for {}",
          part.tokens,
          part.slot,
          slots_,
          room);
    part_begins_.push_back(part.slot * tokens_per_slot_ + length);
    for (int64_t i = 0; i < part.tokens; ++i) {
      position.push_back(static_cast<int32_t>(length + i));
      key_begin.push_back(static_cast<int32_t>(part.slot * tokens_per_slot_));
    }
    lengths[static_cast<size_t>(part.slot)] += part.tokens;
  }
  ops::Segments segments =
      ops::Segments::cached(std::move(position), std::move(key_begin), layers_.at(0).device());
  parts_.assign(parts.begin(), parts.end());
  return segments;
}

void KvCache::commit() {
  check(!parts_.empty(), "cache: commit without a pass");
  for (const Part& part : parts_) lengths_[static_cast<size_t>(part.slot)] += part.tokens;
  parts_.clear();
}

Tensor KvCache::append(int64_t layer, const Tensor& keys) {
  Tensor& rows = layers_.at(static_cast<size_t>(layer));
  check(keys.contiguous() && keys.dim(1) == rows.dim(1) && keys.dtype() == rows.dtype(),
        "cache: keys {} for rows {}",
        keys.shape().str(),
        rows.shape().str());
  int64_t from = 0;
  for (size_t p = 0; p < parts_.size(); ++p) {
    const Tensor source = keys.slice(0, from, from + parts_[p].tokens);
    const Tensor target = rows.slice(0, part_begins_[p], part_begins_[p] + parts_[p].tokens);
    ops::copy(target.view(), source.view(), rows.device());
    from += parts_[p].tokens;
  }
  check(from == keys.dim(0), "cache: {} keys for {} announced tokens", keys.dim(0), from);
  return rows;
}

void KvCache::truncate(int64_t slot, int64_t length) {
  int64_t& held = lengths_.at(static_cast<size_t>(slot));
  check(length >= 0 && length <= held, "cache: {} tokens of {} to stay", length, held);
  parts_.clear();
  held = length;
}

}  // namespace ferry::models
