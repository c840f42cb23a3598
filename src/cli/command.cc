#include "cli/command.h"

#include <fmt/core.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/clock.h"

namespace ferry::cli {

std::string shell_quoted(const std::string& word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string out = "'";
  for (const char c : word)
    if (c == '\'')
      out += "'\\''";
    else
      out += c;
  return out + "'";
}

void tell(const std::string& line) { std::fputs((line + "\n").c_str(), stderr); }

int report(const Status& status) {
  std::fflush(stdout);
  tell("ferry: " + status.message);
  return exit_status(status.code);
}

int report(const Result<void>& result) { return result ? 0 : report(result.error()); }

Result<void> flush_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    return fail(Code::kExhausted, "standard output: {}", std::strerror(errno));
  return {};
}

Result<void> print_json(const nlohmann::ordered_json& line) {
  // Text from outside may be ill-formed UTF-8: it is shown, not refused.
  fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  return flush_output();
}

bool ProgressLine::due() {
  if (!line_.terminal().rewrites()) return false;
  const double now = system_clock().monotonic_s();
  if (now < next_s_) return false;
  next_s_ = now + 0.1;
  return true;
}

}  // namespace ferry::cli
