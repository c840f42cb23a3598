// Reading JSON of outside origin strictly: duplicate keys, deep nesting and bad UTF-8 are refused.
// For the .cc files of this folder only.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry {

/// Errors: kCorrupt, naming the path and the byte or key. `path` is for messages.
Result<nlohmann::json> parse_json(std::string_view text, const std::string& path);

/// The text as a JSON string with its quotes. Errors: kInvalidInput if it is not UTF-8.
Result<std::string> json_quoted(std::string_view text);

/// A name of outside origin, fit for a message: quoted, control bytes escaped, cut at 200 bytes.
std::string printable(std::string_view name);

/// Whether a file's name or relative path stays inside its folder: no empty, "." or ".." component,
/// no leading slash, no NUL.
bool is_inside(std::string_view relative_path);

}  // namespace ferry
