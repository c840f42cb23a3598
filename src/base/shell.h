// Commands that are shown for a person to run.
#pragma once

#include <string>

namespace ferry {

/// A word as a shell reads it back: in quotes where it needs them.
std::string shell_quoted(const std::string& word);

}  // namespace ferry
