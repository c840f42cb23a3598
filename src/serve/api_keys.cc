#include "serve/api_keys.h"

#include <algorithm>
#include <sstream>

#include "base/input_file.h"

namespace ferry::serve {
namespace {

constexpr uint64_t kFileBytesMax = uint64_t{1} << 20;
constexpr std::string_view kScheme = "bearer ";

Digest hash_of(std::string_view key) {
  Hasher hasher;
  hasher.update(key.data(), key.size());
  return hasher.digest();
}

std::string_view presented(const HttpRequest& request) {
  const std::string_view given = request.header("authorization");
  const bool bearer = given.size() > kScheme.size() &&
                      std::equal(kScheme.begin(), kScheme.end(), given.begin(), [](char a, char b) {
                        return a == b || (b >= 'A' && b <= 'Z' && a == b + 32);
                      });
  return bearer ? given.substr(kScheme.size()) : request.header("x-api-key");
}

/// Whatever differs, and wherever: it takes the same time.
bool equal(const Digest& a, const Digest& b) {
  unsigned different = 0;
  for (size_t i = 0; i < a.size(); ++i) different |= static_cast<unsigned>(a[i] ^ b[i]);
  return different == 0;
}

}  // namespace

Result<std::vector<std::string>> read_key_file(const std::string& path) {
  TRY_ASSIGN(const std::string text, read_input(path, kFileBytesMax));
  std::vector<std::string> keys;
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (line.empty() || line.front() == '#') continue;
    if (std::any_of(line.begin(), line.end(), [](char c) { return c <= ' ' || c > '~'; }))
      return fail(Code::kInvalidInput,
                  "{}:{}: a key must be of printable ASCII characters without blanks",
                  path,
                  number);
    keys.push_back(line);
  }
  if (keys.empty())
    return fail(Code::kInvalidInput, "{}: has no key; write one a line into it", path);
  return keys;
}

Result<ApiKeys> ApiKeys::read(const std::string& path) {
  TRY_ASSIGN(const std::vector<std::string> all, read_key_file(path));
  ApiKeys keys;
  for (const std::string& key : all) keys.keys_.push_back(hash_of(key));
  return keys;
}

bool ApiKeys::admit(const HttpRequest& request) const {
  if (keys_.empty()) return true;
  const Digest given = hash_of(presented(request));
  bool any = false;
  for (const Digest& key : keys_) any |= equal(key, given);
  return any;
}

std::string ApiKeys::salt_of(const HttpRequest& request) const {
  return keys_.empty() ? "" : to_hex(hash_of(presented(request)));
}

}  // namespace ferry::serve
