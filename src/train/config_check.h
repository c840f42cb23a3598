// What no setting can say alone: settings that exclude or need each other.
#pragma once

#include <string_view>

#include "base/result.h"
#include "train/config.h"

namespace ferry {

/// Errors: kInvalidInput, "NAME: ...", with the settings that do not go together and what would.
Result<void> check_together(const Settings& settings, std::string_view name);

}  // namespace ferry
