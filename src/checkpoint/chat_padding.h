// Nulls in a conversation that stand for nothing: what tables (Arrow, Parquet) write where one row lacks a field that
// another has. Asked of conversations that a model learns.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"

namespace ferry {

/// Refuses nulls that are certain to be such: in a tool's schema, wherever one says nothing there, and in the arguments
/// of calls, if these are an object and the tool's schema lists its arguments and not this one, or one that cannot be
/// null. What stands in the text of arguments was said. `messages`: objects; `tools`: a list of objects, or null.
/// Errors: kInvalidInput, naming `path` and the null.
Result<void> check_padding(const nlohmann::ordered_json& messages,
                           const nlohmann::ordered_json& tools,
                           const std::string& path);

}  // namespace ferry
