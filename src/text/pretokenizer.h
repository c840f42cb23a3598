// Cuts text into the pieces inside which BPE merges: a chain of Split patterns, each applied to
// every piece that the one before it left, matches and what lies between them alike ("Isolated").
//
// Ill-formed UTF-8: for the patterns each ill-formed byte is U+FFFD, a symbol of category So, which
// is also what it becomes for a reader that replaces errors. The pieces hold the bytes themselves.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/split_regex.h"

namespace ferry::text {

/// The pattern of GPT-2, which a ByteLevel pre-tokenizer with use_regex applies.
extern const char* const kGpt2Pattern;
/// The patterns of Llama 3, Qwen2 and DeepSeek V3 files.
extern const char* const kLlama3Pattern;
extern const char* const kQwen2Pattern;
extern const std::vector<std::string> kDeepseekPatterns;
/// What a Digits pre-tokenizer isolates: each digit by itself, or each run of them. Digits are what
/// Rust's char::is_numeric says they are.
extern const char* const kDigitPattern;
extern const char* const kDigitsPattern;

class PreTokenizer {
 public:
  /// With no patterns the whole text is one piece.
  explicit PreTokenizer(std::vector<SplitRegex> patterns) : patterns_(std::move(patterns)) {}
  static Result<PreTokenizer> compile(const std::vector<std::string>& patterns);

  /// Calls piece(std::string_view) for each piece in order. The pieces are views into `text`, never
  /// empty, and their concatenation is `text`. Extra memory: none for well-formed text; else a copy
  /// in which an ill-formed byte takes three.
  template <typename F>
  void split(std::string_view text, MatchScratch& scratch, F&& piece) const {
    run(
        text,
        scratch,
        [](void* f, std::string_view p) { (*static_cast<std::remove_reference_t<F>*>(f))(p); },
        const_cast<void*>(static_cast<const void*>(&piece)));
  }

 private:
  using Emit = void (*)(void* context, std::string_view piece);
  /// A text as patterns see it that go by categories, and as those do that go by codes: their
  /// characters lie at the same offsets.
  struct Views {
    std::string_view by_category, by_code;
    Views part(size_t begin, size_t end) const {
      return {by_category.substr(begin, end - begin), by_code.substr(begin, end - begin)};
    }
  };
  void run(std::string_view text, MatchScratch& scratch, Emit emit, void* context) const;
  void level(
      size_t depth, const Views& text, MatchScratch& scratch, Emit emit, void* context) const;

  std::vector<SplitRegex> patterns_;
};

}  // namespace ferry::text
