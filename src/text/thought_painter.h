// An answer on its way to a terminal: what was thought is dimmed.
#pragma once

#include <string>
#include <string_view>

#include "text/answer_parser.h"

namespace ferry::text {

/// One answer. Thoughts are shown within their tags, whichever of them the model wrote itself.
class ThoughtPainter {
 public:
  /// `thinking`: the answer begins within a thought, as prompts of R1 leave it.
  ThoughtPainter(const AnswerSyntax& syntax, bool thinking, bool colours);

  /// What stands before the answer: the tag that its prompt ends in.
  std::string opening() const;
  std::string push(std::string_view piece);
  std::string flush();  // what is held back

 private:
  std::string shown(const std::vector<AnswerDelta>& deltas);
  std::string dimmed(std::string_view text) const;

  AnswerParser parser_;
  bool thinking_, colours_;
};

}  // namespace ferry::text
