// A regular expression that somebody else wrote, on text that somebody else wrote: matching that
// would take long, or much memory, ends.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry::text {

/// PCRE2's syntax, with its Unicode classes. Immutable; any number of threads.
class LimitedRegex {
 public:
  /// Errors: kInvalidInput, naming the offset.
  static Result<LimitedRegex> compile(const std::string& pattern);

  /// Whether the pattern matches all of the text; ill-formed UTF-8 in it counts as U+FFFD.
  /// Errors: kExhausted if that cannot be told within the limits.
  Result<bool> matches_all(std::string_view text) const;
  /// How many matches there are, one after the other; empty ones are not counted. Errors: the same.
  Result<int64_t> count(std::string_view text) const;

 private:
  /// The end of the match from `from` on, and its begin; begin > end: there is none.
  struct Found {
    size_t begin = 1, end = 0;
  };
  struct Matching;  // what a match needs of memory, for one after the other
  Result<Found> find(std::string_view text, size_t from, bool all, const Matching& matching) const;
  std::shared_ptr<void> code_;
};

}  // namespace ferry::text
