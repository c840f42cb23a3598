// Names and texts of outside origin in JSON and in paths. For the .cc files of this folder only.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace ferry {

/// The text as a JSON string with its quotes. Errors: kInvalidInput if it is not UTF-8.
Result<std::string> json_quoted(std::string_view text);

/// Whether a file's name or relative path stays inside its folder: no empty, "." or ".." component,
/// no leading slash, no NUL.
bool is_inside(std::string_view relative_path);

}  // namespace ferry
