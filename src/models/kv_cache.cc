#include "models/kv_cache.h"

#include <algorithm>

#include "base/check.h"
#include "ops/dispatch.h"

namespace ferry::models {

KvCache::KvCache(int64_t layers, int64_t width, int64_t pages, DType dtype, Device& device) {
  check(pages > 0 && pages <= INT32_MAX / kPageTokens,
        "cache: {} pages of {} tokens; rows are numbered in 32 bits",
        pages,
        kPageTokens);
  for (int64_t l = 0; l < layers; ++l)
    layers_.push_back(Tensor::empty({pages * kPageTokens, width}, dtype, device));
}

ops::Segments KvCache::begin(std::span<const Part> parts) {
  stretches_.clear();
  std::vector<Stretch> stretches;
  std::vector<int32_t> position, key_begin, table;
  for (const Part& part : parts) {
    const int64_t end = part.length + part.tokens;
    check(part.length >= 0 && part.tokens > 0 && pages_for(end) <= std::ssize(part.pages),
          "cache: {} more tokens for a sequence of {} in {} pages",
          part.tokens,
          part.length,
          part.pages.size());
    const auto own = part.pages.first(static_cast<size_t>(pages_for(end)));
    for (const int32_t page : own)
      check(page >= 0 && page < pages(), "cache: page {} of {}", page, pages());
    const auto first = static_cast<int32_t>(std::ssize(table) * kPageTokens);
    table.insert(table.end(), own.begin(), own.end());
    for (int64_t t = part.length; t < end; ++t) {
      position.push_back(static_cast<int32_t>(t));
      key_begin.push_back(first);
    }
    for (int64_t t = part.length, n = 0; t < end; t += n) {
      n = std::min(kPageTokens - t % kPageTokens, end - t);
      stretches.push_back(
          {own[static_cast<size_t>(t / kPageTokens)] * kPageTokens + t % kPageTokens, n});
    }
  }
  ops::Segments segments = ops::Segments::paged(
      std::move(position), std::move(key_begin), std::move(table), layers_.at(0).device());
  stretches_ = std::move(stretches);
  return segments;
}

Tensor KvCache::append(int64_t layer, const Tensor& keys) {
  Tensor& rows = layers_.at(static_cast<size_t>(layer));
  check(keys.contiguous() && keys.dim(1) == rows.dim(1) && keys.dtype() == rows.dtype(),
        "cache: keys {} for rows {}",
        keys.shape().str(),
        rows.shape().str());
  int64_t from = 0;
  for (const Stretch& s : stretches_) {
    const Tensor source = keys.slice(0, from, from + s.tokens),
                 target = rows.slice(0, s.row, s.row + s.tokens);
    ops::copy(target.view(), source.view(), rows.device());
    from += s.tokens;
  }
  check(from == keys.dim(0), "cache: {} keys for {} announced tokens", keys.dim(0), from);
  return rows;
}

void KvCache::copy_rows(int32_t from, int32_t to, int64_t tokens) {
  check(tokens > 0 && tokens <= kPageTokens && from != to,
        "cache: {} rows of page {} to page {}",
        tokens,
        from,
        to);
  for (const Tensor& rows : layers_) {
    const auto page = [&](int32_t p) {
      return rows.slice(0, p * kPageTokens, p * kPageTokens + tokens).view();
    };
    ops::copy(page(to), page(from), rows.device());
  }
}

}  // namespace ferry::models
