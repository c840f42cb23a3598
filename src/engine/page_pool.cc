#include "engine/page_pool.h"

#include <algorithm>

#include "base/check.h"
#include "models/kv_cache.h"

namespace ferry::engine {

using models::kPageTokens;

PagePool::PagePool(int64_t pages) : state_(static_cast<size_t>(pages)) {
  for (int64_t p = 0; p < pages; ++p) free_.insert({0, static_cast<int32_t>(p)});
}

int32_t PagePool::take() {
  check(!free_.empty(), "pages: none is free");
  const int32_t page = free_.begin()->second;
  free_.erase(free_.begin());
  forget(page);
  state_[static_cast<size_t>(page)].holders = 1;
  return page;
}

void PagePool::hold(int32_t page) {
  State& s = state_.at(static_cast<size_t>(page));
  if (s.holders++ == 0) free_.erase({s.freed, page});
}

void PagePool::release(int32_t page) {
  State& s = state_.at(static_cast<size_t>(page));
  check(s.holders > 0, "pages: page {} is held by nobody", page);
  if (--s.holders > 0) return;
  s.freed = s.after == 0 ? 0 : ++clock_;  // what cannot be found is worth least
  free_.insert({s.freed, page});
}

PagePool::Prefix PagePool::root(const std::string& salt) const {
  const auto it = roots_.find(salt);
  return it == roots_.end() ? 0 : it->second;
}

PagePool::Prefix PagePool::make_root(const std::string& salt) {
  const auto [it, added] = roots_.try_emplace(salt, next_prefix_);
  if (added) {
    salt_of_[next_prefix_] = salt;
    ++next_prefix_;
  }
  return it->second;
}

PagePool::Found PagePool::find(Prefix after, std::span<const int32_t> tokens) const {
  Found best;
  const auto pages = behind_.find(after);
  if (pages == behind_.end()) return best;
  const auto wanted = tokens.first(std::min(tokens.size(), static_cast<size_t>(kPageTokens)));
  for (const int32_t page : pages->second) {
    const State& s = state_[static_cast<size_t>(page)];
    const auto [end, unused] =
        std::mismatch(wanted.begin(), wanted.end(), s.tokens.begin(), s.tokens.end());
    const int64_t common = end - wanted.begin();
    if (common <= best.tokens) continue;
    best = {page, common, common == kPageTokens ? s.prefix : 0};
  }
  return best;
}

PagePool::Prefix PagePool::remember(int32_t page, Prefix after, std::span<const int32_t> tokens) {
  check(!tokens.empty() && std::ssize(tokens) <= kPageTokens,
        "pages: a page of {} tokens",
        tokens.size());
  const bool full = std::ssize(tokens) == kPageTokens;
  const Found known = find(after, tokens);
  if (known.tokens == std::ssize(tokens)) return full ? known.prefix : 0;
  State& s = state_.at(static_cast<size_t>(page));
  check(s.holders > 0 && s.after == 0, "pages: page {} is remembered while nobody wrote it", page);
  s.after = after;
  s.prefix = full ? next_prefix_++ : 0;
  s.tokens.assign(tokens.begin(), tokens.end());
  behind_[after].push_back(page);
  return s.prefix;
}

/// Pages behind it cannot be found any more, and go when their turn comes.
void PagePool::forget(int32_t page) {
  State& s = state_[static_cast<size_t>(page)];
  if (s.after == 0) return;
  const auto pages = behind_.find(s.after);
  std::erase(pages->second, page);
  if (pages->second.empty()) {
    if (const auto salt = salt_of_.find(s.after); salt != salt_of_.end()) {
      roots_.erase(salt->second);
      salt_of_.erase(salt);
    }
    behind_.erase(pages);
  }
  s.after = s.prefix = 0;
  s.tokens.clear();
}

void PagePool::check_consistent() const {
  int64_t remembered = 0, listed = 0;
  for (size_t p = 0; p < state_.size(); ++p) {
    const State& s = state_[p];
    const bool free = free_.contains({s.freed, static_cast<int32_t>(p)});
    check(free == (s.holders == 0), "pages: page {} has {} holders", p, s.holders);
    check((s.after == 0) == s.tokens.empty(), "pages: page {} is remembered by halves", p);
    remembered += s.after != 0;
  }
  for (const auto& [after, pages] : behind_) {
    check(!pages.empty(), "pages: prefix {} with nothing behind it", after);
    listed += std::ssize(pages);
    for (const int32_t p : pages)
      check(state_[static_cast<size_t>(p)].after == after, "pages: page {} is listed wrongly", p);
  }
  check(remembered == listed, "pages: {} remembered, {} listed", remembered, listed);
  check(roots_.size() == salt_of_.size(), "pages: roots do not match their salts");
}

}  // namespace ferry::engine
