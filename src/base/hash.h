// BLAKE2b (libsodium): the one hash of Ferry's formats. Checksums, manifests and the passport use
// it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace ferry {

using Digest = std::array<uint8_t, 32>;

/// Lower-case hex, and back: nothing unless it is hex of exactly `size` bytes.
std::string to_hex(std::span<const uint8_t> bytes);
std::optional<std::string> from_hex(std::string_view hex, size_t size);
std::optional<Digest> digest_from_hex(std::string_view hex);

/// 32 bytes that nobody can guess: a key, or a number that is never used again.
Digest new_secret();
/// Whether they are equal, in a time that does not tell how much of them is.
bool same_digest(const Digest& a, const Digest& b);

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
  std::string hex();  // ends the hash: call once, or digest()
  Digest digest();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ferry
