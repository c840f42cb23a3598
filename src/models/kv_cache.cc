#include "models/kv_cache.h"

#include <algorithm>

#include "base/check.h"
#include "ops/dispatch.h"

namespace ferry::models {

KvCache::KvCache(
    int64_t layers, const std::vector<int64_t>& widths, int64_t pages, DType dtype, Device& device)
    : layers_(static_cast<size_t>(layers)) {
  check(pages > 0 && pages <= INT32_MAX / kPageTokens,
        "cache: {} pages of {} tokens; rows are numbered in 32 bits",
        pages,
        kPageTokens);
  for (std::vector<Tensor>& parts : layers_)
    for (const int64_t width : widths)
      parts.push_back(Tensor::empty({pages * kPageTokens, width}, dtype, device));
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
      std::move(position), std::move(key_begin), std::move(table), layers_.at(0).at(0).device());
  stretches_ = std::move(stretches);
  return segments;
}

const std::vector<Tensor>& KvCache::append(int64_t layer, const std::vector<Tensor>& parts) {
  const std::vector<Tensor>& all = layers_.at(static_cast<size_t>(layer));
  check(parts.size() == all.size(), "cache: {} parts of {}", parts.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) append(all[i], parts[i]);
  return all;
}

void KvCache::append(const Tensor& rows, const Tensor& part) const {
  check(part.contiguous() && part.dim(1) == rows.dim(1) && part.dtype() == rows.dtype(),
        "cache: keys {} for rows {}",
        part.shape().str(),
        rows.shape().str());
  int64_t from = 0;
  for (const Stretch& s : stretches_) {
    ops::copy(rows.slice(0, s.row, s.row + s.tokens).view(),
              part.slice(0, from, from + s.tokens).view(),
              rows.device());
    if (s.row % kPageTokens == 0) clear_behind(rows, s.row, s.tokens);
    from += s.tokens;
  }
  check(from == part.dim(0), "cache: {} keys for {} announced tokens", part.dim(0), from);
}

// Kernels that take whole pages weigh the rows behind a sequence's last one by zero, and zero times
// what another sequence or nobody left there must not be NaN.
void KvCache::clear_behind(const Tensor& rows, int64_t page_row, int64_t tokens) {
  if (tokens == kPageTokens) return;
  const Tensor rest = rows.slice(0, page_row + tokens, page_row + kPageTokens);
  rest.device().fill_zero(rest.data(), rest.bytes());
}

void KvCache::copy_rows(int32_t from, int32_t to, int64_t tokens) {
  check(tokens > 0 && tokens <= kPageTokens && from != to,
        "cache: {} rows of page {} to page {}",
        tokens,
        from,
        to);
  for (const std::vector<Tensor>& parts : layers_)
    for (const Tensor& rows : parts) {
      const auto page = [&](int32_t p) {
        return rows.slice(0, p * kPageTokens, p * kPageTokens + tokens).view();
      };
      ops::copy(page(to), page(from), rows.device());
      clear_behind(rows, to * kPageTokens, tokens);
    }
}

}  // namespace ferry::models
