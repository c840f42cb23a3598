// Turns text files into a dataset: shards of tokens, a held-out part, a manifest.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/manifest.h"
#include "data/text_source.h"
#include "text/lesson.h"

namespace ferry::data {

struct PrepareProgress {
  enum class Phase { kScan, kTokenise } phase;
  uint64_t done = 0, total = 0;  // bytes of the input files, as they lie on disk
  uint64_t text_bytes = 0;       // read in this phase
};

/// How conversations become documents.
struct Conversations {
  std::string template_blake2b;  // of the chat template
  /// What is learnt from a line of JSON: at least one lesson, each of two tokens or more. Any thread.
  std::function<Result<std::vector<text::Lesson>>(std::string_view line)> lessons;
};

struct PrepareOptions {
  std::vector<std::string> inputs;  // read twice, in this order: regular files
  std::string out;                  // the dataset's folder
  std::string tokenizer;            // path of a tokenizer.json
  std::string bos, eos;             // token texts; empty: found by their usual names
  SourceOptions source;
  std::optional<Conversations> conversations;  // the inputs are lines of JSON, each a conversation
  uint64_t held_out_bytes =
      1 << 20;                   // of text to hold out; 0: none. At most a tenth of all is held out
  double near_duplicate = 0.7;   // share of a held-out document's shingles seen in training text
                                 // from which it is left out; above 1: none is
  bool keep_duplicates = false;  // equal documents are otherwise taken once
  uint64_t seed = 0;             // of the choice of held-out documents
  uint64_t shard_bytes = 256 << 20;       // a shard ends with the document that reaches it
  bool force = false;                     // replace the dataset that lies in `out`
  int threads = 0;                        // 0: one per processor. The result does not depend on it
  size_t sort_records = size_t{4} << 20;  // documents whose hashes are sorted in memory
  std::function<void(const PrepareProgress&)> progress;
  std::function<void(const std::string&)> note;  // told what is no error; may be empty
};

constexpr uint64_t kHeldOutBytesMax = uint64_t{1} << 30;  // held in memory

/// Writes the dataset to `out`:
///
///   train-00000.tok ...     documents in the order of the inputs, equal ones once (data/shard.h)
///   held-out-00000.tok ...  documents in the order of a hash: the first of them are a sample
///   held-out.txt            the same as text, one after the other: what xz is compared on
///   tokenizer.json          a copy
///   manifest.json           written last: where it is, the dataset is whole
///
/// Held out are the documents of one piece (kPieceBytes) whose keyed hash is smallest, so the
/// choice depends on the documents alone and not on their order; less those that stand in the
/// training text already (near_duplicates.h). Text is text: what looks like a special token becomes
/// ordinary tokens. Of conversations, which become marked shards, bytes are those of learnt tokens.
/// The output is a pure function of inputs, tokenizer and options, threads excepted.
///
/// Memory does not grow with the text: at most 128 MiB for text, tokens and shingles on the way (40
/// with ordinary text), the readers' (for zstd its window, at most 128 MiB; for JSON lines four times
/// the longest), about eight times held_out_bytes, and for the hashes of the documents 32 bytes each
/// up to 160 MiB. Beyond sort_records documents their hashes lie in files in `out` meanwhile, 16
/// to 48 bytes each.
///
/// Errors   those of the readers; kInvalidInput: `out` is in use, holds another dataset (without
///          force) or files that are no dataset's, no document, too few to hold any out, an input
///          that changes meanwhile; kExhausted: no space. What was written is then removed; a
///          dataset that was to be replaced is gone only if the inputs were read through once. A
///          process that is killed leaves files without a manifest, which the next prepare removes.
Result<Manifest> prepare(const PrepareOptions& options);

}  // namespace ferry::data
