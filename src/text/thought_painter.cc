#include "text/thought_painter.h"

#include <algorithm>

#include "base/terminal.h"

namespace ferry::text {
namespace {

constexpr std::string_view kBegin = "<think>", kEnd = "</think>";

/// Bytes at the end of `text` that may be the beginning of the tag.
size_t begun(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n)
    if (text.ends_with(tag.substr(0, n))) return n;
  return 0;
}

}  // namespace

std::string ThoughtPainter::shown(std::string_view text) const {
  if (text.empty()) return "";
  return painted(text, "2", thinking_ && colours_);
}

std::string ThoughtPainter::push(std::string_view piece) {
  held_ += piece;
  std::string out;
  for (;;) {
    const std::string_view tag = thinking_ ? kEnd : kBegin;
    const size_t at = held_.find(tag);
    if (at == std::string::npos) {
      const size_t sure = held_.size() - begun(held_, tag);
      out += shown(std::string_view(held_).substr(0, sure));
      held_.erase(0, sure);
      return out;
    }
    // The tags belong to the thought.
    const size_t end = at + tag.size();
    if (thinking_) {
      out += shown(std::string_view(held_).substr(0, end));
      thinking_ = false;
    } else {
      out += shown(std::string_view(held_).substr(0, at));
      thinking_ = true;
      out += shown(tag);
    }
    held_.erase(0, end);
  }
}

std::string ThoughtPainter::flush() {
  const std::string out = shown(held_);
  held_.clear();
  return out;
}

}  // namespace ferry::text
