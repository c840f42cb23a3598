// What made_from.json and the passport's statement have in common: the fields. For .cc files.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "base/json_fields.h"
#include "checkpoint/made_from.h"

namespace ferry {

nlohmann::json to_json(const MadeFrom& made);
MadeFrom read_made_from(JsonFields fields);

}  // namespace ferry
