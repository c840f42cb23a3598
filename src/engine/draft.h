// Guesses what comes next from the text itself: texts repeat themselves. A guess that is wrong costs
// a row of a pass and changes nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ferry::engine {

/// What followed the last time the last tokens (three of them, else two) stood in the text, at most
/// `count` tokens; empty if they did not.
/// Source  Saxena 2023, "Prompt Lookup Decoding".
std::vector<int32_t> draft_from_text(std::span<const int32_t> text, int64_t count);

}  // namespace ferry::engine
