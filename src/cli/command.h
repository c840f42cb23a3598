// What the subcommands share: failures and exit status, the closing line of JSON, a progress line.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"
#include "base/terminal.h"

namespace ferry::cli {

/// Writes a line to standard error. That it cannot be written (a closed pipe, a terminal that went
/// away) is no failure: there is nobody to tell.
void tell(const std::string& line);

/// Tells "ferry: MESSAGE"; the process exit status for it.
int report(const Status& status);

/// 0, or report(the failure).
int report(const Result<void>& result);

/// The line of JSON that ends the output of a command that measures. Errors: as flush_output.
Result<void> print_json(const nlohmann::ordered_json& line);

/// Errors: kExhausted if standard output could not be written (a full disk, a closed pipe, closed by
/// the caller).
Result<void> flush_output();

/// Of commands whose result is not what they print (files, a verdict that is their status), before they print: where
/// nobody reads standard output (a pipe whose reader left, a terminal that was closed, closed itself), what they print
/// goes nowhere from here on.
void print_besides();
/// And behind it: the failure to print, unless whoever read has left meanwhile.
Result<void> printed_besides(const Result<void>& printed);

/// One line on a terminal's standard error, written over at most ten times a second; nothing
/// elsewhere.
class ProgressLine {
 public:
  ProgressLine() = default;
  /// Where lines cannot be written over (a log, a pipe), one of its own at most so often.
  explicit ProgressLine(double lines_every_s) : lines_every_s_(lines_every_s) {}
  /// text() makes the line; it is called only if the line is shown.
  template <typename Text>
  void show(Text&& text) {
    if (due()) put(text());
  }
  void clear() { line_.clear(); }

 private:
  bool due();
  void put(const std::string& text);

  LiveLine line_{stderr};
  double lines_every_s_ = 0, next_s_ = 0;
};

}  // namespace ferry::cli
