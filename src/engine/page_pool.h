// PagePool: which pages of the cache are held by whom, and what can be found in them again: a tree of
// prefixes. Bookkeeping alone: it touches no memory of the cache, and the same calls give the same
// pages.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace ferry::engine {

class PagePool {
 public:
  /// All tokens up to the end of a full page; a root stands for none. Never used twice.
  using Prefix = uint64_t;

  explicit PagePool(int64_t pages);

  int64_t pages() const { return static_cast<int64_t>(state_.size()); }
  int64_t free() const { return static_cast<int64_t>(free_.size()); }  // held by nobody

  /// A page that nobody held; what could be found in it is forgotten, and pages that were let go
  /// first go first. Check: free() > 0.
  int32_t take();
  void hold(int32_t page);  // one more holder
  void release(int32_t page);

  /// Prompts find each other's pages under the same salt only: whether a prompt was there before
  /// can be told by the time that its answer takes. 0: nothing can be found under this one.
  Prefix root(const std::string& salt) const;
  /// The same, made if there is none; remember() a page behind it next.
  Prefix make_root(const std::string& salt);

  struct Found {
    int32_t page = -1;
    int64_t tokens = 0;  // of its first ones, how many are as asked
    Prefix prefix = 0;   // if the page is full and all of it is as asked; else 0
  };
  /// The page behind `after` that begins with most of these tokens (at most kPageTokens are looked
  /// at); tokens = 0: there is none.
  Found find(Prefix after, std::span<const int32_t> tokens) const;

  /// A page that is held was written with these tokens, those of `after` before it, and is not
  /// written again where they lie. The prefix that a full page ends; 0 for others. Where a page can
  /// be found already that is as good, this one is not remembered.
  Prefix remember(int32_t page, Prefix after, std::span<const int32_t> tokens);

  /// Throws Bug if what it keeps contradicts itself. For tests.
  void check_consistent() const;

 private:
  struct State {
    int64_t holders = 0;
    uint64_t freed = 0;  // when, if nobody holds it
    Prefix after = 0;    // 0: cannot be found
    Prefix prefix = 0;   // that it ends
    std::vector<int32_t> tokens;
  };
  void forget(int32_t page);

  std::vector<State> state_;
  std::set<std::pair<uint64_t, int32_t>> free_;  // (freed, page)
  uint64_t clock_ = 0;
  Prefix next_prefix_ = 1;
  std::unordered_map<Prefix, std::vector<int32_t>> behind_;  // the pages that can be found
  std::map<std::string, Prefix> roots_;                      // of salts with pages
  std::unordered_map<Prefix, std::string> salt_of_;
};

}  // namespace ferry::engine
