#include "text/thought_painter.h"

#include "base/terminal.h"

namespace ferry::text {
namespace {

constexpr std::string_view kOpening = "<think>\n", kClosing = "\n</think>\n\n";

}  // namespace

ThoughtPainter::ThoughtPainter(const AnswerSyntax& syntax, bool thinking, bool colours)
    : parser_({.syntax = syntax, .thinking = thinking}), thinking_(thinking), colours_(colours) {}

std::string ThoughtPainter::dimmed(std::string_view text) const {
  return painted(text, "2", colours_);
}

std::string ThoughtPainter::opening() const { return thinking_ ? dimmed(kOpening) : ""; }

std::string ThoughtPainter::shown(const std::vector<AnswerDelta>& deltas) {
  std::string out;
  for (const AnswerDelta& d : deltas) {
    const bool thought = d.kind == AnswerDelta::Kind::kReasoning;
    if (thought != thinking_) out += dimmed(thought ? kOpening : kClosing);
    thinking_ = thought;
    out += thought ? dimmed(d.text) : d.text;
  }
  return out;
}

std::string ThoughtPainter::push(std::string_view piece) { return shown(parser_.push(piece)); }

std::string ThoughtPainter::flush() { return shown(parser_.finish()); }

}  // namespace ferry::text
