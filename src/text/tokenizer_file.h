// Reads and writes tokenizer.json: what stands in the file, checked, before anything is built of
// it.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "text/added_tokens.h"

namespace ferry::text {

struct TokenizerFile {
  struct Pattern {
    std::string text;
    bool literal = false;
  };
  struct Merge {
    int32_t left, right, token;
  };
  std::vector<std::string> vocab;  // token texts by id, as written in the file
  std::vector<Merge> merges;       // by rank
  std::vector<AddedToken> added;   // by id; those in `vocab` keep their id, the others follow it
  std::vector<Pattern> patterns;   // of the pre-tokenizers, in order
  bool nfc = false;
  bool ignore_merges = false;
  std::string first;  // what the post_processor puts before a text; empty: nothing

  // Follow from the above.
  std::unordered_map<std::string, int32_t> ids;  // vocab and added tokens
  std::array<int32_t, 256> byte_tokens{};        // -1: none
};

/// Accepts a file if Ferry encodes by it exactly as Hugging Face's tokenizers does, and has a token
/// for every byte that text is made of (DeepSeek-V2's lacks C0, C1 and F5 to FF, which UTF-8 never
/// uses; SmolLM2's some control characters and the first bytes of empty planes too). Not looked at:
/// - post_processor, but for the token that it puts first: encode adds none (see tokenizer.h);
/// - truncation and padding, which whoever saved the file last used for a batch: Transformers sets
///   them anew for each;
/// - byte_fallback, unk_token and fuse_unk, which say what becomes of characters without a token:
///   they would leave them out.
///
/// Errors   kCorrupt: not JSON, not the format, or contradicting itself (ids given
///          twice, merges of unknown tokens, given twice or with an empty side). kInvalidInput: a
///          sound file that asks for something Ferry does not do, by name, or whose ids have gaps. Both name
///          path and field.
Result<TokenizerFile> read_tokenizer_file(std::string_view json, const std::string& path);

/// The post_processor that puts this token before a text.
nlohmann::ordered_json puts_first(const std::string& token, int64_t id);

/// The file as JSON; reading it back gives the same. The post_processor puts `bos` before the text
/// (Hugging Face's add_special_tokens); empty: none.
std::string write_tokenizer_file(const TokenizerFile& file, const std::string& bos);

}  // namespace ferry::text
