// Reading JSON of outside origin whose fields have an order that counts: a schema's, a conversation's.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry {

/// parse_json (base/json.h), in the order of its fields. Each look for one of them goes through those before it: the
/// larger objects are gone through as they are. A whole number that 64 bits cannot hold is refused: what is read here
/// is written again, for a model to see or to repeat, digit by digit.
Result<nlohmann::ordered_json> parse_ordered_json(std::string_view text, const std::string& path);

}  // namespace ferry
