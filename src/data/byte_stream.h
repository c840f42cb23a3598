// A file as a stream of bytes, decompressed on the way if it is gzip (also dictzip, .dz) or zstd.
// What a file is, its first bytes say, not its name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace ferry::data {

/// For one thread at a time. Memory: 256 KiB, plus for zstd its window, at most 128 MiB.
class ByteStream {
 public:
  /// Errors: kNotFound; kInvalidInput if it is not a regular file, or of a kind that holds no plain
  /// text (zip, xz, bzip2, Parquet, PDF); kCorrupt if its name says compressed and it is not.
  static Result<ByteStream> open(const std::string& path);
  ByteStream(ByteStream&&) noexcept;
  ByteStream& operator=(ByteStream&&) noexcept;
  ~ByteStream();

  /// Decompressed bytes, at most `size`; 0 only at the end.
  /// Errors: kCorrupt (cut short, damaged), with the offset in the file.
  Result<size_t> read(char* out, size_t size);

  uint64_t file_bytes_read() const;  // of the file as it lies on disk
  std::string file_hash();           // BLAKE2b of the file; once, after read gave 0

 private:
  struct State;
  explicit ByteStream(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ferry::data
