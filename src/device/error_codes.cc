#include "device/error_codes.h"

#include <fmt/core.h>

#include <algorithm>

namespace ferry {

const ErrorMeaning* find_meaning(std::span<const ErrorMeaning> meanings, int64_t code) {
  const auto at = std::find_if(
      meanings.begin(), meanings.end(), [&](const ErrorMeaning& m) { return m.code == code; });
  return at == meanings.end() ? nullptr : &*at;
}

std::string describe_code(std::span<const ErrorMeaning> meanings, int64_t code) {
  const ErrorMeaning* meaning = find_meaning(meanings, code);
  if (meaning == nullptr) return fmt::format("{}, a code that Ferry does not know", code);
  return fmt::format("{} {}: {}", code, meaning->name, meaning->text);
}

}  // namespace ferry
