// Text as a JSON string, for what is written so often that building a document for it would be most of the work.
#pragma once

#include <string>
#include <string_view>

namespace ferry {

/// Adds the text as json_text() (base/json.h) writes a string.
void append_json_string(std::string& out, std::string_view text);

}  // namespace ferry
