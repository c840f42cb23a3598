// BLAKE2b (libsodium): the one hash of Ferry's formats. Checksums, manifests and the passport use
// it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace ferry {

/// Lower-case hex of the 256-bit BLAKE2b of the bytes.
std::string blake2b_hex(std::span<const std::byte> bytes);
std::string blake2b_hex(const void* data, size_t size);

/// The same over bytes that come in pieces.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  void update(const void* data, size_t size);
  std::string hex();  // ends the hash: call once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ferry
