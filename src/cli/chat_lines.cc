#include "cli/chat_lines.h"

#include <cerrno>
#include <cstdlib>

namespace ferry::cli {
namespace {

constexpr std::string_view kSeveral = "\"\"\"";

bool blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

}  // namespace

ChatLines::Line ChatLines::read(const char* prompt, std::string& line) {
  if (prompts_) {
    std::fputs(prompt, out_);
    std::fflush(out_);
  }
  line.clear();
  for (;;) {
    errno = 0;
    const int c = std::getc(in_);
    if (c == EOF && errno == EINTR) {
      std::clearerr(in_);
      return Line::kInterrupted;
    }
    if (c == EOF) return line.empty() ? Line::kEnd : Line::kRead;
    if (c == '\n') {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      return Line::kRead;
    }
    line += static_cast<char>(c);
  }
}

ChatInput ChatLines::next() {
  std::string text, line;
  bool several = false, goes_on = false;
  for (;;) {
    const Line got = read(several || goes_on ? "... " : "> ", line);
    if (got == Line::kInterrupted) return {ChatInput::Kind::kInterrupted, ""};
    const bool ends = got == Line::kEnd;
    if (!ends && line == kSeveral) {
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
