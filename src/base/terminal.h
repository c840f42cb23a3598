// What may be written to where a program's output goes: the one place that knows terminals. A line
// that is written over needs one; so do colours; a file, a pipe and a terminal that calls itself
// "dumb" get plain lines.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "base/patient_output.h"

namespace ferry {

/// Whether a person may sit behind it, however poor a terminal it is.
bool is_terminal(int descriptor);

class Terminal {
 public:
  /// A terminal unless TERM is "dumb" or not set; coloured unless NO_COLOR is set, too
  /// (no-color.org: to anything but nothing).
  static Terminal of(std::FILE* out);
  /// As if `out` were something else; `columns` 0: its own. For tests.
  Terminal(std::FILE* out, bool rewrites, bool colours, int columns = 0)
      : out_(out), rewrites_(rewrites), colours_(colours), columns_(columns) {}

  /// Whether a line can be written over.
  bool rewrites() const { return rewrites_; }
  bool colours() const { return colours_; }
  /// Columns of its window now: asked again for each line, since windows change. 80 where nobody
  /// knows.
  int columns() const;

 private:
  std::FILE* out_;
  bool rewrites_ = false, colours_ = false;
  int columns_ = 0;
};

/// `text` in the colour of an SGR code ("31", "1"), or as it is.
std::string painted(std::string_view text, const char* code, bool colours);

/// Takes the last so many lines off the screen, for others in their place. For terminals that rewrite.
std::string lines_off(size_t lines);

/// Columns that UTF-8 text takes: wide characters two, combining marks and SGR sequences none, a
/// byte that is no UTF-8 one.
int display_width(std::string_view text);

/// The beginning of `text` that fits into `columns`, with an ellipsis if something was cut off.
std::string cut_to_width(std::string_view text, int columns);

/// One line at the bottom that is written over, and lines that stay above it. It never takes more
/// columns than the window has, so that it stays one line. No escape sequence is needed: what was
/// longer is written over by blanks. That a write fails is no failure: nobody is there to read.
class LiveLine {
 public:
  explicit LiveLine(std::FILE* out) : LiveLine(out, Terminal::of(out)) {}
  LiveLine(std::FILE* out, Terminal terminal) : out_(out), terminal_(terminal) {}
  /// Never waits for whoever reads: what he has no room for is left out. `out` outlives this.
  LiveLine(PatientOutput& out, Terminal terminal) : patient_(&out), terminal_(terminal) {}
  ~LiveLine() { clear(); }
  LiveLine(const LiveLine&) = delete;
  LiveLine& operator=(const LiveLine&) = delete;

  const Terminal& terminal() const { return terminal_; }
  /// Columns that a line can have: the last one stays free, where some terminals wrap.
  int room() const { return terminal_.columns() - 1; }
  /// Shows the line, cut to the room; nothing where lines cannot be written over.
  void show(std::string_view line);
  /// Writes a line that stays; the live one, if any, goes on below it.
  void above(std::string_view line);
  /// Takes the live line away.
  void clear();
  /// Lets it stand.
  void keep();

 private:
  bool put(std::string_view text, bool passing = false);  // false: left out
  std::string blanks_after(int width) const;

  std::FILE* out_ = nullptr;
  PatientOutput* patient_ = nullptr;  // or out_
  Terminal terminal_;
  std::string shown_;
  int width_ = 0;  // of what is on the screen
};

}  // namespace ferry
