// The parts that JSON consists of, as an automaton reads them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "grammar/automaton.h"
#include "grammar/code_points.h"

namespace ferry::grammar {

/// The characters that do not stand for themselves in a string.
inline const CodePoints kEscaped{{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};

/// ▁: all of DeepSeek's marks have it, and hardly a text has.
inline constexpr char32_t kOfMarks = 0x2581;

/// Rules that many parts share, each made when it is first asked for. The builder must outlive it.
/// Functions give the state after what they read.
class JsonParts {
 public:
  /// without_marks: kOfMarks, too, is escaped, so that no string holds one of these marks as it is
  /// written; for answers in which a mark ends what is read wherever it stands.
  explicit JsonParts(AutomatonBuilder& builder, bool without_marks = false) : b_(builder) {
    if (without_marks) escaped_.add(kOfMarks, kOfMarks);
  }

  /// The characters that do not stand for themselves here.
  const CodePoints& escaped() const { return escaped_; }
  /// A string's or a plain value's one way.
  std::string written(std::string json) const;

  /// White space as people and programs lay JSON out: none, a blank, or a new line with its
  /// indentation. Bounded, so that no model can go on with it for ever.
  State space(State from);
  /// One character of a string, as it is or escaped in any way.
  Rule character();
  /// One of these, each in one way: escaped where it must be.
  Rule character_of(const CodePoints& set);
  /// A string of so many characters.
  State string(State from, uint64_t length_min, std::optional<uint64_t> length_max);
  /// A string in its one way, with the characters escaped that must be.
  State string_of(State from, const std::string& text);
  State boolean(State from);
  /// Numbers have so many digits, and their exponents, that readers can represent them.
  State number(State from);
  State integer(State from);  // without fraction or exponent
  State object(State from);   // any at all
  State array(State from);
  State value(State from);

 private:
  State digits(State from, int most);  // one or more
  State whole(State from);
  State called(std::optional<Rule>& rule, State from, State (JsonParts::*read)(State));
  State any_number(State from);
  State any_value(State from);
  State members(State from, uint8_t open, uint8_t close, bool keys);
  AutomatonBuilder& b_;
  CodePoints escaped_ = kEscaped;
  std::optional<Rule> space_, character_, whole_, number_, value_;
  std::map<CodePoints, Rule> sets_;
};

}  // namespace ferry::grammar
