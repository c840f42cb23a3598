// Reading JSON of outside origin strictly: duplicate keys, deep nesting and bad UTF-8 are refused.
// For .cc files: whoever includes this needs <nlohmann/json.hpp> to use the result.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry {

/// The place of a zero byte, or npos. JSON has none, and the library takes one for the end: whatever
/// comes behind it would go unseen. Every reader of JSON from outside asks this first.
inline size_t zero_byte(std::string_view text) { return text.find('\0'); }

/// Errors: kCorrupt, naming the path and the byte or key. `path` is for messages. The result is at
/// most 64 levels deep, so that functions that recurse on it (dump) cannot exhaust the stack.
Result<nlohmann::json> parse_json(std::string_view text, const std::string& path);

/// The document as text, `indent` blanks a level (-1: in one line). Text in it that is ill-formed
/// UTF-8 (a path, what a person typed) becomes U+FFFD: the library's dump() throws instead, where
/// nobody expects it. What must not be another text than it was is checked before it gets here.
std::string json_text(const nlohmann::json& document, int indent = -1);
std::string json_text(const nlohmann::ordered_json& document, int indent = -1);

/// A name of outside origin, fit for a message: quoted, control bytes escaped, cut at 200 bytes.
std::string printable(std::string_view name);

}  // namespace ferry
