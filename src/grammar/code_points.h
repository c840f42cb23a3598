// Sets of characters, and how an automaton reads their UTF-8.
#pragma once

#include <utility>
#include <vector>

#include "grammar/automaton.h"

namespace ferry::grammar {

/// A set of Unicode's code points, surrogates excluded. A value.
class CodePoints {
 public:
  using Range = std::pair<char32_t, char32_t>;  // both included

  CodePoints() = default;
  CodePoints(std::initializer_list<Range> ranges) {
    for (const Range& r : ranges) add(r.first, r.second);
  }
  static CodePoints all();

  void add(char32_t low, char32_t high);
  void add(const CodePoints& other);
  CodePoints complement() const;
  const std::vector<Range>& ranges() const& { return ranges_; }  // in order, disjoint, not adjacent
  const std::vector<Range>& ranges() && = delete;
  auto operator<=>(const CodePoints&) const = default;

 private:
  void append(char32_t low, char32_t high);  // behind all others
  std::vector<Range> ranges_;
};

/// One character from low to high, which has no surrogates.
void read_utf8(AutomatonBuilder& to, State from, char32_t low, char32_t high, State after);

}  // namespace ferry::grammar
