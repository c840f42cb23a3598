#include "cli/chat_lines.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "base/terminal.h"

namespace ferry::cli {
namespace {

constexpr std::string_view kSeveral = "\"\"\"";
constexpr size_t kTerminalLineBytes = 4095;  // and the newline (N_TTY_BUF_SIZE, termios(3))

bool blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

}  // namespace

/// Takes what was said on `interrupts`, if anything was.
bool ChatLines::interrupted() {
  uint64_t times = 0;
  return interrupts_ >= 0 && ::read(interrupts_, &times, sizeof times) > 0;
}

ChatLines::Line ChatLines::read(const char* prompt, std::string& line) {
  interrupted();  // what was meant for the answer before
  if (prompts_) {
    std::fputs(prompt, out_);
    std::fflush(out_);
  }
  line.clear();
  for (;;) {
    const size_t end = read_.find('\n');
    if (end != std::string::npos || ended_) {
      line = read_.substr(0, end);
      const bool nothing = end == std::string::npos && read_.empty();
      read_.erase(0, end == std::string::npos ? end : end + 1);
      if (nothing) return Line::kEnd;
      if (!line.empty() && line.back() == '\r') line.pop_back();
      return Line::kRead;
    }
    pollfd both[] = {{in_, POLLIN, 0}, {interrupts_, POLLIN, 0}};
    if (::poll(both, interrupts_ < 0 ? 1 : 2, -1) < 0 && errno != EINTR) return Line::kEnd;
    if (interrupted()) {
      read_.clear();
      return Line::kInterrupted;
    }
    if (both[0].revents == 0) continue;
    char bytes[4096];
    const ssize_t got = ::read(in_, bytes, sizeof bytes);
    if (got > 0)
      read_.append(bytes, static_cast<size_t>(got));
    else if (got == 0 || errno != EINTR)
      ended_ = true;
  }
}

ChatInput ChatLines::next() {
  std::string text, line, cut;
  bool several = false, goes_on = false;
  for (;;) {
    const Line got = read(several || goes_on ? "... " : "> ", line);
    if (got == Line::kInterrupted) return {ChatInput::Kind::kInterrupted, ""};
    if (got == Line::kRead && line.size() >= kTerminalLineBytes && is_terminal(in_))
      cut = line;  // of the whole message nothing is asked: it is read to its end
    const bool ends = got == Line::kEnd;
    if (!cut.empty() && (ends || (several ? line == kSeveral : !line.ends_with('\\'))))
      return {ChatInput::Kind::kCut, cut};
    if (!ends && line == kSeveral && (several || (text.empty() && !goes_on))) {
      if (several && !blank(text)) return {ChatInput::Kind::kMessage, text};
      several = !several;
      text.clear();
      continue;
    }
    if (ends) {
      if (blank(text)) return {ChatInput::Kind::kEnd, ""};
      return {ChatInput::Kind::kMessage, text};  // asked again, the end comes again
    }
    if (!text.empty()) text += '\n';
    text += line;
    if (several) continue;
    goes_on = line.ends_with('\\');
    if (goes_on) {
      text.pop_back();
      continue;
    }
    if (blank(text)) {
      text.clear();
      continue;
    }
    return {text[0] == '/' ? ChatInput::Kind::kCommand : ChatInput::Kind::kMessage, text};
  }
}

}  // namespace ferry::cli
