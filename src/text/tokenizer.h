// Byte-level BPE as Hugging Face's tokenizer.json describes it (DeepSeek V3, Llama 3, Qwen2 kinds).
//
// The ids are those of Hugging Face's tokenizers with add_special_tokens=False: encode never adds a
// BOS, whatever the file's post_processor says; ask first_token for it. Chat templates write their
// own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ferry::text {

/// By which the ids of a tokenizer are known again.
struct VocabularyId {
  int64_t ids = 0;   // so many, from 0 on
  std::string hash;  // of what they mean, and by which rules a text gets them (docs/passport.md)
  bool operator==(const VocabularyId&) const = default;
};

/// Immutable once loaded; encode and decode may be called from several threads at once.
class Tokenizer {
 public:
  /// What the text of a special token in the input becomes.
  enum class Specials {
    kAsText,  // ordinary tokens: the default wherever text comes from outside
    kParse,   // the control token itself
    kPlain,  // ordinary tokens, and so is the text of every other added token. Files of DeepSeek V3
             // do not mark <｜User｜>, <think> and the like as special, so kAsText still parses
             // them, as Hugging Face does: use this for what users write into a chat.
  };

  static Result<Tokenizer> load(const std::string& path);
  static Result<Tokenizer> parse(std::string_view json, const std::string& path_for_messages);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Appends the ids of `bytes` (any bytes; ill-formed UTF-8 round-trips exactly, each such byte
  /// counting as a symbol when text is cut into pieces). Three things are lost, as the file asks:
  /// what its normalizer (NFC) changes, the white space that added tokens with lstrip or rstrip
  /// take, and bytes that the file has no token for: those that no UTF-8 has become U+FFFD, others
  /// are left out once the text is cut into pieces. Time
  /// O(n log n); memory: the ids, and a copy of the text if it is ill-formed or not in NFC.
  void encode(std::string_view bytes, Specials specials, std::vector<int32_t>& ids) const;

  /// The bytes of the ids, exactly as they were encoded. Special tokens give their text, or
  /// nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_specials = false) const;

  /// The bytes of one token; empty for an id that is not in the vocabulary.
  std::string_view token_bytes(int32_t id) const;

  std::optional<int32_t> token_id(std::string_view token_text) const;  // as written in the file
  /// The token that the file puts before a text (its post_processor), if it does.
  std::optional<int32_t> first_token() const;
  bool is_special(int32_t id) const;
  int32_t vocab_size() const;  // largest id + 1, added tokens included

  VocabularyId vocabulary() const;
  /// Whether its first ids are those: then it may stand in the place of the tokenizer whose vocabulary that is. Tokens
  /// that were added behind them are no difference.
  bool holds(const VocabularyId& vocabulary) const;
  /// Why `other` does not hold this one's vocabulary, in words; nothing if it does.
  std::optional<std::string> difference_from(const Tokenizer& other) const;

 private:
  Tokenizer();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ferry::text
