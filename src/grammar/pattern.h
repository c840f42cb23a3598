// Regular expressions as JSON Schema has them (ECMA-262's), read by an automaton: time is linear in
// what is read, whatever the pattern. What no automaton of bounded size can do is refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "grammar/json_parts.h"

namespace ferry::grammar {

/// A JSON string of `length_min` to `length_max` characters that matches; from its first quote to its
/// last, each character in its one way. As in JSON Schema the pattern may match anywhere: ^ and $ say
/// where it does not, at the ends of the whole pattern or of its alternatives.
/// Taken: characters, . [] classes, \d \w \s and their opposites, \t \n \r \f \v \0 \cX \xHH \uHHHH
/// \u{H..}, groups, alternatives, * + ? {m,n}, lazy or not.
/// Errors: kInvalidInput, saying what: look-around, back references, \b, \p, anchors within, what is
/// no pattern, or is too large or nested too deeply.
Result<State> read_pattern(AutomatonBuilder& to,
                           JsonParts& parts,
                           State from,
                           std::string_view pattern,
                           uint64_t length_min = 0,
                           std::optional<uint64_t> length_max = std::nullopt);

}  // namespace ferry::grammar
