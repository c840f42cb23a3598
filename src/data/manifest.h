// manifest.json: what a dataset consists of. It is written last, so that its presence says that the
// dataset is whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/shard.h"
#include "data/text_stream.h"

namespace ferry::data {

struct InputInfo {
  std::string path;
  uint64_t file_bytes = 0;
  std::string blake2b;
  uint64_t documents = 0;  // before any was left out
  Damage damage = {};      // lines left out, bytes that are no UTF-8
};

/// The training or the held-out documents.
struct Part {
  std::vector<ShardInfo> shards;
  uint64_t tokens() const;  // end tokens included
  uint64_t documents() const;
  uint64_t bytes() const;  // of text
};

struct Manifest {
  int version = 1;
  std::string tokenizer_blake2b;
  int32_t vocab_size = 0;
  int32_t bos = 0, eos = 0;       // ids; equal if the tokenizer has but one such token
  bool token_bytes_exact = true;  // the tokens' bytes are the text's, in every document
  /// Of the template that conversations were written by; empty: the documents are text.
  std::string chat_template_blake2b;
  bool conversations() const { return !chat_template_blake2b.empty(); }
  std::string split, field;
  uint64_t min_document_bytes = 0, held_out_bytes = 0, seed = 0;
  double near_duplicate = 0;
  TextOptions text_options;
  std::vector<InputInfo> inputs;
  uint64_t duplicates = 0, near_duplicates = 0;  // documents left out
  std::string held_out_text_blake2b;             // of held-out.txt
  Part train, held_out;

  std::string to_json() const;
  /// Errors: kCorrupt, naming the path and what is wrong.
  static Result<Manifest> parse(const std::string& json, const std::string& path);

  /// Whether a file of this name is one of Ferry's at all, be it of another version or damaged.
  static bool is_manifest(const std::string& json);

  /// Hash of what a training run reads (tokenizer, tokens, documents), not of where it came from:
  /// equal fingerprints give equal batches.
  std::string fingerprint() const;
};

inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr const char* kTokenizerFile = "tokenizer.json";
inline constexpr const char* kHeldOutTextFile = "held-out.txt";

}  // namespace ferry::data
