// A file as a stream of bytes, decompressed on the way if it is gzip (also dictzip, .dz) or zstd, one
// inside the other too. What a file is, its first bytes say, not its name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry::data {

/// How much of the decompressed bytes can be looked at before they are read.
constexpr size_t kHeadBytes = size_t{64} << 10;

/// For one thread at a time. Memory: 256 KiB for each layer of compression and one more; for zstd
/// its window, at most 128 MiB.
class ByteStream {
 public:
  /// A file, or a pipe, of which no more is read than is asked for.
  /// Errors: kNotFound; kInvalidInput if it is a folder or a socket, or is compressed more than
  /// three times over; kCorrupt if its name says compressed and it is not.
  static Result<ByteStream> open(const std::string& path);
  static Result<ByteStream> standard_input();
  /// Of bytes that are in memory. `path` is for messages.
  static Result<ByteStream> of(std::string bytes, const std::string& path);
  ByteStream(ByteStream&&) noexcept;
  ByteStream& operator=(ByteStream&&) noexcept;
  ~ByteStream();

  /// The first kHeadBytes, or all there are: only until read() is called.
  std::string_view head() const;
  /// "", "gzip", "zstd", or "zstd in gzip": what lay around the bytes.
  const std::string& packing() const;

  /// Decompressed bytes, at most `size`; 0 only at the end.
  /// Errors: kCorrupt (cut short, damaged), with the offset in the file; kInvalidInput for a zstd
  /// window above 128 MiB.
  Result<size_t> read(char* out, size_t size);

  const std::string& path() const;
  uint64_t file_bytes_read() const;  // of the file as it lies on disk
  std::string file_hash();           // BLAKE2b of the file; once, after read gave 0

 private:
  struct State;
  explicit ByteStream(std::unique_ptr<State> state);
  static Result<ByteStream> unpack(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ferry::data
