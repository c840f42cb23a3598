// What the tests of this folder share: vocabularies, whether a text is read, why a schema is refused.
#pragma once

#include <algorithm>
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
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < constraint->vocabulary->size(); ++id)
      if ((allowed[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0) ids.push_back(id);
    if (matcher.may_end() && (ids.empty() || text.size() >= enough || random.below(2 * n, 4) == 0))
      return text;
    check(!ids.empty(), "nothing is allowed after {}, and it may not end", text);
    if (text.size() >= enough) {
      for (const char closing : std::string_view("\"}]"))
        if (std::find(ids.begin(), ids.end(), closing) != ids.end()) ids = {closing};
    }
    const int32_t id = ids[random.below(2 * n + 1, ids.size())];
    check(matcher.accept(id), "token {} is allowed and not taken after {}", id, text);
    text += constraint->vocabulary->bytes(id);
  }
  return "";
}

}  // namespace ferry::grammar
