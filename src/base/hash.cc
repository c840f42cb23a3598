#include "base/hash.h"

#include <sodium.h>

#include "base/check.h"

namespace ferry {
namespace {

std::string to_hex(const unsigned char* digest, size_t size) {
  static const char digits[] = "0123456789abcdef";
  std::string hex;
  for (size_t i = 0; i < size; ++i) {
    hex += digits[digest[i] >> 4];
    hex += digits[digest[i] & 15];
  }
  return hex;
}

constexpr size_t kDigestBytes = 32;

}  // namespace

struct Hasher::State {
  crypto_generichash_state hash;
};

Hasher::Hasher() : state_(std::make_unique<State>()) {
  check(sodium_init() >= 0, "hash: libsodium cannot be initialised");
  crypto_generichash_init(&state_->hash, nullptr, 0, kDigestBytes);
}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(const void* data, size_t size) {
  crypto_generichash_update(&state_->hash, static_cast<const unsigned char*>(data), size);
}

std::string Hasher::hex() {
  unsigned char digest[kDigestBytes];
  crypto_generichash_final(&state_->hash, digest, kDigestBytes);
  return to_hex(digest, kDigestBytes);
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
