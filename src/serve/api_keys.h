// The keys that may ask, from a file. Kept as hashes; compared in a time that says nothing of them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "serve/http_message.h"

namespace ferry::serve {

/// The keys in a file, one a line; empty lines and those that begin with # are passed over. Errors: of
/// read_file; kInvalidInput: it has none, or one that no header can carry.
Result<std::vector<std::string>> read_key_file(const std::string& path);

class ApiKeys {
 public:
  /// None: everybody may ask.
  ApiKeys() = default;
  /// Those of a file. Errors: read_key_file's.
  static Result<ApiKeys> read(const std::string& path);

  bool empty() const { return keys_.empty(); }
  /// Whether a request shows one of them ("Authorization: Bearer KEY" or "X-Api-Key: KEY").
  bool admit(const HttpRequest& request) const;
  /// What its cache is kept apart by: of each key another.
  std::string salt_of(const HttpRequest& request) const;

 private:
  std::vector<Digest> keys_;
};

}  // namespace ferry::serve
