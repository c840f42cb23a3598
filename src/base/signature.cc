#include "base/signature.h"

#include <sodium.h>

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/input_file.h"

namespace ferry {
namespace {

// One line a file: what it is, then the key. So a key of one kind is not taken for the other.
constexpr std::string_view kSecretKind = "ferry-secret-key-ed25519 ";
constexpr std::string_view kPublicKind = "ferry-public-key-ed25519 ";
constexpr size_t kKeyBytes = 32;
constexpr uint64_t kFileBytesMax = 4096;

static_assert(kKeyBytes == crypto_sign_SEEDBYTES && kKeyBytes == crypto_sign_PUBLICKEYBYTES);

void start() { check(sodium_init() >= 0, "signature: libsodium cannot be initialised"); }

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

struct Expanded {
  unsigned char public_key[crypto_sign_PUBLICKEYBYTES];
  unsigned char secret_key[crypto_sign_SECRETKEYBYTES];
};

Expanded expand(std::string_view seed) {
  start();
  Expanded e;
  crypto_sign_seed_keypair(e.public_key, e.secret_key, bytes_of(seed));
  return e;
}

Result<std::string> read_key(const std::string& path, std::string_view kind, const char* what) {
  TRY_ASSIGN(std::string text, read_input(path, kFileBytesMax));
  while (text.ends_with('\n')) text.pop_back();
  if (!text.starts_with(kind) || !from_hex(text.substr(kind.size()), kKeyBytes))
    return fail(Code::kInvalidInput,
                "{}: not a {} key; `ferry keygen FILE` makes FILE (secret) and FILE.pub (public)",
                path,
                what);
  return text.substr(kind.size());
}

}  // namespace

KeyPair new_key_pair() {
  start();
  std::string seed(kKeyBytes, '\0');
  randombytes_buf(seed.data(), seed.size());
  const Expanded e = expand(seed);
  return {to_hex(e.public_key), to_hex({bytes_of(seed), seed.size()})};
}

Result<KeyPair> key_pair_of(std::string_view secret_key) {
  const auto seed = from_hex(secret_key, kKeyBytes);
  if (!seed) return fail(Code::kInvalidInput, "a secret key is {} hex digits", 2 * kKeyBytes);
  return KeyPair{to_hex(expand(*seed).public_key), std::string(secret_key)};
}

std::string sign(const KeyPair& key, std::string_view message) {
  const auto seed = from_hex(key.secret_key, kKeyBytes);
  check(seed.has_value(), "signature: not a secret key");
  const Expanded e = expand(*seed);
  unsigned char signature[crypto_sign_BYTES];
  crypto_sign_detached(signature, nullptr, bytes_of(message), message.size(), e.secret_key);
  return to_hex(signature);
}

bool is_signed_by(std::string_view public_key,
                  std::string_view message,
                  std::string_view signature) {
  start();
  const auto key = from_hex(public_key, kKeyBytes);
  const auto bytes = from_hex(signature, crypto_sign_BYTES);
  return key && bytes &&
         crypto_sign_verify_detached(
             bytes_of(*bytes), bytes_of(message), message.size(), bytes_of(*key)) == 0;
}

Result<void> write_key_files(const std::string& path, const KeyPair& key) {
  const std::string public_path = path + ".pub";
  for (const std::string& p : {path, public_path}) {
    TRY_ASSIGN(const bool there, is_there(p));
    if (there)
      return fail(Code::kInvalidInput, "{}: exists; a key is never overwritten: choose a name", p);
  }
  TRY(write_private_file(path, fmt::format("{}{}\n", kSecretKind, key.secret_key)));
  return write_file_atomic(public_path, fmt::format("{}{}\n", kPublicKind, key.public_key));
}

Result<KeyPair> read_secret_key(const std::string& path) {
  TRY_ASSIGN(const std::string seed, read_key(path, kSecretKind, "secret"));
  return key_pair_of(seed);
}

Result<std::string> read_public_key(const std::string& path) {
  return read_key(path, kPublicKind, "public");
}

}  // namespace ferry
