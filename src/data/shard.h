// A shard: the tokens of some documents, one after the other, and where each ends.
//
// Layout, little endian:
//   header  "FERRYTOK", u32 version, u32 token_bytes (2 or 4), u32 vocab_size, u32 marked (0 or 1)
//   tokens  u16 or u32 each, then zeros up to a multiple of 8
//   table   per document u64 tokens up to its end, u64 bytes of its text
//   footer  u64 tokens, u64 documents, "FERRYEND"
// The last token of each document is the end token. A document never spans two shards. In a marked
// shard tokens are u32, of version 2, and have kNotLearnt set where they are read but not learnt.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "base/result.h"

namespace ferry::data {

inline constexpr const char* kShardMagic = "FERRYTOK";  // how every shard begins

/// What the manifest says of a shard.
struct ShardInfo {
  std::string file;  // name in the dataset's folder
  uint64_t file_bytes = 0;
  std::string blake2b;  // of the whole file
  uint64_t tokens = 0, documents = 0;
  uint64_t bytes = 0;  // of the documents' text
};

constexpr uint32_t kShardVersion = 1, kMarkedShardVersion = 2;
constexpr uint32_t kNotLearnt = uint32_t{1} << 31;

/// Writes one shard. Memory: 64 KiB and 16 bytes a document.
class ShardWriter {
 public:
  static Result<ShardWriter> create(const std::string& path, int32_t vocab_size, bool marked);
  Result<void> append(std::span<const int32_t> tokens);  // of the current document
  /// Of the current document, in a marked shard: `learnt` is as long.
  Result<void> append(std::span<const int32_t> tokens, const std::vector<bool>& learnt);
  void end_document(uint64_t text_bytes);  // at least one token was appended
  uint64_t tokens() const { return tokens_; }
  uint64_t documents() const { return table_.size() / 2; }
  uint64_t token_bytes() const;  // of one
  /// Ends and syncs the file; no call after it. `file` of the result is left empty.
  Result<ShardInfo> finish();

 private:
  ShardWriter(FileWriter file, int32_t vocab_size, bool marked);
  Result<void> append(int32_t token, bool learnt);
  Result<void> flush();
  void put(const void* data, size_t size);

  FileWriter file_;
  Hasher hasher_;
  int32_t vocab_size_;
  bool marked_;
  uint64_t tokens_ = 0, bytes_ = 0;
  std::vector<uint64_t> table_;
  std::string block_;
};

/// A shard opened for reading; the file stays mapped. Immutable: any number of threads.
class Shard {
 public:
  /// Errors: kNotFound; kCorrupt if the file differs from `info` or contradicts itself. The whole
  /// file is hashed and every token checked against the vocabulary only if `verify`.
  static Result<Shard> open(
      const std::string& path, const ShardInfo& info, int32_t vocab_size, bool marked, bool verify);

  int64_t documents() const { return static_cast<int64_t>(table_.size() / 2); }
  int64_t document_begin(int64_t d) const {
    return d == 0 ? 0 : static_cast<int64_t>(table_[2 * d - 2]);
  }
  int64_t document_end(int64_t d) const { return static_cast<int64_t>(table_[2 * d]); }
  int64_t document_bytes(int64_t d) const { return static_cast<int64_t>(table_[2 * d + 1]); }
  int64_t tokens() const { return tokens_; }
  int32_t token(int64_t i) const {
    return wide_ ? static_cast<int32_t>(wide(i) & ~mark_)
                 : static_cast<int32_t>(reinterpret_cast<const uint16_t*>(data_)[i]);
  }
  bool learnt(int64_t i) const { return mark_ == 0 || (wide(i) & mark_) == 0; }

 private:
  explicit Shard(MappedFile file) : file_(std::move(file)) {}
  uint32_t wide(int64_t i) const { return reinterpret_cast<const uint32_t*>(data_)[i]; }
  MappedFile file_;
  bool wide_ = false;
  uint32_t mark_ = 0;  // kNotLearnt in a marked shard
  int64_t tokens_ = 0;
  const std::byte* data_ = nullptr;
  std::span<const uint64_t> table_;
};

}  // namespace ferry::data
