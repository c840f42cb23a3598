#include "base/terminal.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace ferry {
namespace {

constexpr int kColumnsUnknown = 80;

struct Range {
  uint32_t first, last;
};

// Unicode 15: East Asian Width W and F, in blocks; and what is drawn over the character before it.
constexpr Range kWide[] = {{0x1100, 0x115F},
                           {0x2E80, 0x303E},
                           {0x3041, 0xA4CF},
                           {0xA960, 0xA97F},
                           {0xAC00, 0xD7A3},
                           {0xF900, 0xFAFF},
                           {0xFE30, 0xFE6F},
                           {0xFF00, 0xFF60},
                           {0xFFE0, 0xFFE6},
                           {0x1F300, 0x1F64F},
                           {0x1F680, 0x1F6FF},
                           {0x1F900, 0x1F9FF},
                           {0x20000, 0x3FFFD}};
constexpr Range kCombining[] = {{0x0300, 0x036F},
                                {0x1AB0, 0x1AFF},
                                {0x1DC0, 0x1DFF},
                                {0x200B, 0x200F},
                                {0x20D0, 0x20FF},
                                {0xFE00, 0xFE0F},
                                {0xFE20, 0xFE2F}};

template <size_t N>
bool among(const Range (&ranges)[N], uint32_t c) {
  return std::any_of(
      std::begin(ranges), std::end(ranges), [c](Range r) { return r.first <= c && c <= r.last; });
}

struct Piece {
  size_t bytes = 1;
  int width = 1;
  bool escape = false;
};

/// The SGR sequence ("ESC [ ... m") or the character that `text` begins with. `text` is not empty.
Piece first_piece(std::string_view text) {
  if (text.starts_with("\x1b[")) {
    const size_t end = text.find_first_not_of("0123456789;", 2);
    if (end != text.npos && text[end] == 'm') return {end + 1, 0, true};
  }
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[i])); };
  const uint32_t lead = byte(0);
  const size_t length = lead < 0x80    ? 1
                        : lead >= 0xF0 ? 4
                        : lead >= 0xE0 ? 3
                        : lead >= 0xC2 ? 2
                                       : 1;
  if (length == 1 || length > text.size()) return {};
  uint32_t c = lead & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    c = c << 6 | (byte(i) & 0x3F);
  }
  return {length, among(kCombining, c) ? 0 : among(kWide, c) ? 2 : 1, false};
}

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

}  // namespace

bool is_terminal(int descriptor) { return ::isatty(descriptor) == 1; }

Terminal Terminal::of(std::FILE* out) {
  const bool rewrites = ::isatty(::fileno(out)) == 1 && is_set("TERM") &&
                        std::string_view(std::getenv("TERM")) != "dumb";
  return {out, rewrites, rewrites && !is_set("NO_COLOR")};
}

int Terminal::columns() const {
  if (columns_ > 0) return columns_;
  struct winsize size {};
  if (::ioctl(::fileno(out_), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return kColumnsUnknown;
}

std::string lines_off(size_t lines) {
  return lines == 0 ? "" : fmt::format("\x1b[{}F\x1b[J", lines);
}

std::string painted(std::string_view text, const char* code, bool colours) {
  return colours ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

int display_width(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    const Piece piece = first_piece(text);
    width += piece.width;
    text.remove_prefix(piece.bytes);
  }
  return width;
}

std::string cut_to_width(std::string_view text, int columns) {
  if (display_width(text) <= columns) return std::string(text);
  constexpr const char* kEllipsis = "…";
  std::string out;
  bool painting = false;
  for (int width = 1; !text.empty();) {  // the ellipsis is one wide
    const Piece piece = first_piece(text);
    if (width + piece.width > columns) break;
    width += piece.width;
    painting |= piece.escape;
    out += text.substr(0, piece.bytes);
    text.remove_prefix(piece.bytes);
  }
  if (columns >= 1) out += kEllipsis;
  return painting ? out + "\x1b[0m" : out;
}

std::string LiveLine::blanks_after(int width) const {
  return std::string(static_cast<size_t>(std::max(0, std::min(width_, room()) - width)), ' ');
}

void LiveLine::show(std::string_view line) {
  if (!terminal_.rewrites()) return;
  std::string one_line(line);
  for (char& c : one_line)
    if (static_cast<uint8_t>(c) < 0x20 && c != '\x1b') c = ' ';  // a name may hold anything
  shown_ = cut_to_width(one_line, room());
  const int width = display_width(shown_);
  // A line that was left out has not replaced the one on the screen.
  if (put(fmt::format("\r{}{}", shown_, blanks_after(width)), true)) width_ = width;
}

void LiveLine::above(std::string_view line) {
  if (shown_.empty())
    put(fmt::format("{}\n", line));
  else
    put(fmt::format("\r{}{}\n{}", line, blanks_after(display_width(line)), shown_));
}

void LiveLine::clear() {
  if (!shown_.empty()) put(fmt::format("\r{}\r", blanks_after(0)));
  shown_.clear();
  width_ = 0;
}

void LiveLine::keep() {
  if (!shown_.empty()) put("\n");
  shown_.clear();
  width_ = 0;
}

bool LiveLine::put(std::string_view text, bool passing) {
  if (patient_ != nullptr) return passing ? patient_->write_passing(text) : patient_->write(text);
  std::fwrite(text.data(), 1, text.size(), out_);
  std::fflush(out_);
  return true;
}

}  // namespace ferry
