// Reading JSON of outside origin as most readers do, where its writer is not ours to correct: for
// answers of servers whose keys are texts of tokens, of which several look alike.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry {

/// parse_json (base/json.h), but of a key that occurs twice the last one counts.
Result<nlohmann::json> parse_lenient_json(std::string_view text, const std::string& path);

}  // namespace ferry
