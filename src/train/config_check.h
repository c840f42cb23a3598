// What no setting can say alone: settings that exclude or need each other.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "train/config.h"

namespace ferry {

/// Errors: kInvalidInput, "NAME: ...", with the settings that do not go together and what would.
Result<void> check_together(const Settings& settings, std::string_view name);

/// That something is named to learn from: a run needs it, settings that are only looked at do not.
/// Errors: kInvalidInput.
Result<void> check_data_named(const Settings& settings, std::string_view name);

/// parse_settings() without that.
Result<Settings> parse_settings_to_print(std::string_view toml,
                                         std::string_view name,
                                         std::span<const std::string> overrides = {});

}  // namespace ferry
