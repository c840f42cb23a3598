// check(): the tool for bugs. It is on in release builds and throws Bug, which nobody below the top
// of a thread catches. Expected failures (bad files, bad input) use base/result.h instead.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace ferry {

/// A broken invariant inside Ferry: always a defect of the program, never of its input.
class Bug : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void throw_bug(std::string message);

/// Throws Bug with the formatted message unless `ok`. The message starts with who complains:
/// check(k == k_w, "linear: x has {} columns, weight has {}", k, k_w).
template <typename... Args>
void check(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) [[unlikely]]
    throw_bug(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace ferry
