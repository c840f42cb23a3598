#include "base/hash.h"

#include <sodium.h>

#include <algorithm>
#include <cstring>

#include "base/alive.h"
#include "base/check.h"

namespace ferry {
namespace {

int nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

std::string to_hex(std::span<const uint8_t> bytes) {
  static const char digits[] = "0123456789abcdef";
  std::string hex;
  for (const uint8_t b : bytes) {
    hex += digits[b >> 4];
    hex += digits[b & 15];
  }
  return hex;
}

std::optional<std::string> from_hex(std::string_view hex, size_t size) {
  if (hex.size() != 2 * size) return std::nullopt;
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    const int high = nibble(hex[i]), low = nibble(hex[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes += static_cast<char>(high << 4 | low);
  }
  return bytes;
}

std::optional<Digest> digest_from_hex(std::string_view hex) {
  Digest digest;
  const auto bytes = from_hex(hex, digest.size());
  if (!bytes) return std::nullopt;
  std::memcpy(digest.data(), bytes->data(), digest.size());
  return digest;
}

Digest new_secret() {
  check(sodium_init() >= 0, "secret: libsodium cannot be initialised");
  Digest secret;
  randombytes_buf(secret.data(), secret.size());
  return secret;
}

bool same_digest(const Digest& a, const Digest& b) {
  return sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

struct Hasher::State {
  crypto_generichash_state hash;
};

Hasher::Hasher() : state_(std::make_unique<State>()) {
  check(sodium_init() >= 0, "hash: libsodium cannot be initialised");
  crypto_generichash_init(&state_->hash, nullptr, 0, Digest{}.size());
}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(const void* data, size_t size) {
  constexpr size_t kBlock = size_t{4} << 20;  // some milliseconds, or a second from a slow disk
  const auto* at = static_cast<const unsigned char*>(data);
  for (size_t n; size > 0; at += n, size -= n) {
    n = std::min(size, kBlock);
    crypto_generichash_update(&state_->hash, at, n);
    still_alive(n);
  }
}

std::string Hasher::hex() { return to_hex(digest()); }

Digest Hasher::digest() {
  Digest digest;
  crypto_generichash_final(&state_->hash, digest.data(), digest.size());
  return digest;
}

std::string blake2b_hex(const void* data, size_t size) {
  Hasher hasher;
  hasher.update(data, size);
  return hasher.hex();
}

std::string blake2b_hex(std::span<const std::byte> bytes) {
  return blake2b_hex(bytes.data(), bytes.size());
}

}  // namespace ferry
