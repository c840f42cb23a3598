// What the tests of this folder share: vocabularies, whether a text is read, why a schema is refused.
#pragma once

#include <bit>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "grammar/matcher.h"
#include "grammar/schema.h"

namespace ferry::grammar {

/// A token for each byte, and these.
inline std::shared_ptr<const Vocabulary> vocabulary_with(
    const std::vector<std::string>& more = {}) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  tokens.insert(tokens.end(), more.begin(), more.end());
  return Vocabulary::of(std::move(tokens));
}

inline std::shared_ptr<const Constraint> constraint_of(
    std::shared_ptr<const Automaton> automaton,
    std::shared_ptr<const Vocabulary> vocabulary = vocabulary_with()) {
  return std::make_shared<const Constraint>(
      Constraint{std::move(automaton), std::move(vocabulary)});
}

/// Whether the automaton reads the text to its end, and may end there.
inline bool reads(const std::shared_ptr<const Automaton>& automaton, std::string_view text) {
  Matcher matcher(constraint_of(automaton));
  return matcher.accept(text) && matcher.may_end();
}

/// Why the schema is refused.
inline std::string refusal(const std::string& schema) {
  const auto out = schema_automaton(schema, "schema");
  return out ? "taken" : out.error().message;
}

/// Where the n-th bit lies that is set.
inline int32_t bit_of(std::span<const uint64_t> words, uint64_t n) {
  size_t at = 0;
  for (; n >= static_cast<uint64_t>(std::popcount(words[at])); ++at)
    n -= static_cast<uint64_t>(std::popcount(words[at]));
  uint64_t word = words[at];
  for (; n > 0; --n) word &= word - 1;
  return static_cast<int32_t>(64 * at) + std::countr_zero(word);
}

/// A walk under the masks: tokens that are allowed, drawn, until the answer may end and has
/// `enough` bytes or nothing else may come; from then on the shortest way out is looked for, by
/// closing what can be closed. Empty if `longest` bytes were not enough.
inline std::string drawn(const std::shared_ptr<const Constraint>& constraint,
                         uint64_t seed,
                         size_t enough,
                         size_t longest) {
  Matcher matcher(constraint);
  const Random random(seed, RandomPurpose::kTest, 0);
  std::string text;
  for (uint64_t n = 0; text.size() < longest; ++n) {
    const std::span<const uint64_t> allowed = matcher.allowed();
    uint64_t count = 0;
    for (const uint64_t word : allowed) count += static_cast<uint64_t>(std::popcount(word));
    if (matcher.may_end() && (count == 0 || text.size() >= enough || random.below(2 * n, 4) == 0))
      return text;
    check(count != 0, "nothing is allowed after {}, and it may not end", text);
    int32_t id = -1;
    if (text.size() >= enough)
      for (const char closing : std::string_view("\"}]"))
        if (const auto at = static_cast<size_t>(closing);
            (allowed[at / 64] >> (at % 64) & 1) != 0) {
          id = closing;
          break;
        }
    if (id < 0) id = bit_of(allowed, random.below(2 * n + 1, count));
    check(matcher.accept(id), "token {} is allowed and not taken after {}", id, text);
    text += constraint->vocabulary->bytes(id);
  }
  return "";
}

}  // namespace ferry::grammar
