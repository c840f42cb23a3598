// Counts in messages: "1 document", "2 documents".
#pragma once

#include <fmt/core.h>

#include <concepts>
#include <string>

namespace ferry {

/// `many`: of more than one, and of none.
template <std::integral Number>
std::string counted(Number n, const char* one, const char* many) {
  return fmt::format("{} {}", n, n == 1 ? one : many);
}
template <std::integral Number>
std::string counted(Number n, const char* one) {
  return fmt::format("{} {}{}", n, one, n == 1 ? "" : "s");
}

}  // namespace ferry
