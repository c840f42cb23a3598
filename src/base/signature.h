// Signatures (Ed25519, libsodium), and the files that hold keys.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry {

/// Both in hex. The secret one is the seed, 32 bytes.
struct KeyPair {
  std::string public_key;
  std::string secret_key;
};

KeyPair new_key_pair();
/// Nothing but the seed's 64 hex digits makes a pair. Errors: kInvalidInput.
Result<KeyPair> key_pair_of(std::string_view secret_key);

/// The signature of the message, in hex. check: the key is one.
std::string sign(const KeyPair& key, std::string_view message);
/// False also if key or signature are not well-formed.
bool is_signed_by(std::string_view public_key,
                  std::string_view message,
                  std::string_view signature);

/// Writes PATH (secret, readable by its owner alone) and PATH.pub. Errors: kInvalidInput if either
/// exists, kExhausted, kUnavailable.
Result<void> write_key_files(const std::string& path, const KeyPair& key);
/// Errors: kNotFound, kInvalidInput (not a key of this kind).
Result<KeyPair> read_secret_key(const std::string& path);
Result<std::string> read_public_key(const std::string& path);

}  // namespace ferry
