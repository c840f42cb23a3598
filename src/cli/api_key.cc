#include "cli/api_key.h"

#include <algorithm>

#include "base/input_file.h"

namespace ferry::cli {
namespace {

constexpr uint64_t kKeyBytesMax = 4096;

}  // namespace

Result<std::string> read_api_key(const std::string& path) {
  TRY_ASSIGN(std::string key, read_input(path, kKeyBytesMax));
  while (!key.empty() && (key.back() == '\n' || key.back() == '\r')) key.pop_back();
  if (key.empty() ||
      !std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 0x7f; }))
    return fail(
        Code::kInvalidInput, "{}: must hold one key, in one line, of printable characters", path);
  return key;
}

}  // namespace ferry::cli
