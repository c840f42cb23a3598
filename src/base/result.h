// Result<T>: the tool for failures that are expected at an edge (files, requests, configuration).
// The message says what failed, where (path, offset, field) and what to do; the code says which
// kind of answer the caller can give.
#pragma once

#include <fmt/core.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace ferry {

enum class Code {
  kInvalidInput,  // the user's input is wrong: exit status 2
  kNotFound,      // a file or name that is not there: exit status 2
  kCorrupt,       // a file that is damaged, cut short or contradicts itself: exit status 2
  kUnavailable,   // the device or the environment does not have it: exit status 3
  kTimeout,       // no answer in time: exit status 3
  kExhausted,     // no space, no memory, a quota: exit status 3
  kVerdict,       // a check was carried out and failed: exit status 1
};

struct [[nodiscard]] Status {
  Code code;
  std::string message;
};

template <typename T>
using Result = tl::expected<T, Status>;

/// return fail(Code::kCorrupt, "{}: header ends at byte {}, the file at {}", path, a, b);
template <typename... Args>
tl::unexpected<Status> fail(Code code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Status>(Status{code, fmt::format(format, std::forward<Args>(args)...)});
}

/// The process exit status for a failure of this kind: 1 verdict, 2 user input, 3 environment.
int exit_status(Code code);

}  // namespace ferry

#define FERRY_CONCAT_(a, b) a##b
#define FERRY_CONCAT(a, b) FERRY_CONCAT_(a, b)

/// TRY(expr): returns the failure of a Result from the enclosing function; drops its value.
#define TRY(expr)                                                                \
  do {                                                                           \
    auto ferry_result_ = (expr);                                                 \
    if (!ferry_result_) return tl::unexpected(std::move(ferry_result_).error()); \
  } while (false)

/// TRY_ASSIGN(auto x, expr): x becomes the value, or the enclosing function returns the failure.
#define TRY_ASSIGN(target, expr) TRY_ASSIGN_(target, expr, FERRY_CONCAT(ferry_result_, __LINE__))
#define TRY_ASSIGN_(target, expr, name)                      \
  auto name = (expr);                                        \
  if (!name) return tl::unexpected(std::move(name).error()); \
  target = *std::move(name)
