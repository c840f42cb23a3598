#include "cli/command.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/descriptors.h"
#include "base/json.h"

namespace ferry::cli {
namespace {

bool nobody_reads_output() {
  if (output_is_closed()) return true;
  pollfd output{STDOUT_FILENO, 0, 0};
  return ::poll(&output, 1, 0) > 0 && (output.revents & (POLLERR | POLLHUP)) != 0;
}

bool print_nowhere() { return std::freopen("/dev/null", "w", stdout) != nullptr; }

}  // namespace

void tell(const std::string& line) { std::fputs((line + "\n").c_str(), stderr); }

int report(const Status& status) {
  std::fflush(stdout);
  tell("ferry: " + status.message);
  return exit_status(status.code);
}

int report(const Result<void>& result) { return result ? 0 : report(result.error()); }

Result<void> flush_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    return fail(Code::kExhausted,
                "standard output: {}",
                output_is_closed() ? "is closed, and what was asked for is written there"
                                   : std::strerror(errno));
  return {};
}

void print_besides() {
  if (nobody_reads_output()) static_cast<void>(print_nowhere());  // else printed_besides() tells
}

Result<void> printed_besides(const Result<void>& printed) {
  if (printed || !nobody_reads_output() || !print_nowhere()) return printed;
  return {};
}

Result<void> print_json(const nlohmann::ordered_json& line) {
  std::fputs((json_text(line) + "\n").c_str(), stdout);
  return flush_output();
}

bool ProgressLine::due() {
  const bool rewrites = line_.terminal().rewrites();
  if (!rewrites && lines_every_s_ == 0) return false;
  const double now = system_clock().monotonic_s();
  if (now < next_s_) return false;
  const bool first = next_s_ == 0;
  next_s_ = now + (rewrites ? 0.1 : lines_every_s_);
  return rewrites || !first;  // what ends soon has no need of a line
}

void ProgressLine::put(const std::string& text) {
  if (line_.terminal().rewrites())
    line_.show(text);
  else
    fmt::print(stderr, "{}\n", text);
}

}  // namespace ferry::cli
