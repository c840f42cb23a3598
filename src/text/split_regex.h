// One regular expression of a Split pre-tokenizer, run by PCRE2. Tokenizer files are written for
// Oniguruma's Ruby syntax: a pattern is accepted only if every construct in it means the same in
// both.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry::text {

/// Memory that matching needs; one per thread.
class MatchScratch {
 public:
  MatchScratch();
  ~MatchScratch();
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;

 private:
  friend class SplitRegex;
  struct State;
  std::unique_ptr<State> state_;
};

/// Immutable; may be used from several threads, each with its own scratch.
class SplitRegex {
 public:
  /// Errors: kInvalidInput, naming the construct and its offset, if it is not one of: literals,
  /// classes without nesting or &&, \p{general category}, \s \d \r \n \t \f \v, groups (plain,
  /// (?:, (?i:, lookaround), alternatives, ^ and $ (of lines), and quantifiers (no unbounded one
  /// after a group, so that matching never recurses with the length of the text).
  static Result<SplitRegex> compile(const std::string& pattern);
  static Result<SplitRegex> compile_literal(const std::string& text);

  struct Match {
    size_t begin, end;
  };
  /// The first match that starts at `from` or later. `text` must be well-formed UTF-8.
  bool find(std::string_view text, size_t from, MatchScratch& scratch, Match& match) const;

  /// It names characters whose category PCRE2 does not know (unicode_tables.h), so it must see them
  /// as they are and not their stand-ins. Such a pattern names no category.
  bool by_code() const { return by_code_; }

 private:
  static Result<SplitRegex> compile_flags(const std::string& pattern, uint32_t flags);
  std::shared_ptr<void> code_;
  bool jit_ = false;
  bool by_code_ = false;
};

}  // namespace ferry::text
