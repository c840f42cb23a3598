// An answer on its way to a terminal: what stands between <think> and </think> is dimmed.
#pragma once

#include <string>
#include <string_view>

namespace ferry::text {

/// One answer. Pieces may cut tags anywhere; what may be the beginning of one is held back.
class ThoughtPainter {
 public:
  /// `thinking`: the answer begins within a thought, as prompts of R1 leave it.
  ThoughtPainter(bool thinking, bool colours) : thinking_(thinking), colours_(colours) {}

  std::string push(std::string_view piece);
  std::string flush();  // what is held back

 private:
  std::string shown(std::string_view text) const;

  bool thinking_, colours_;
  std::string held_;
};

}  // namespace ferry::text
