// Text as it stands in HTML and XML.
#pragma once

#include <string>
#include <string_view>

namespace ferry {

/// `text` between tags or in an attribute. Control characters, which XML cannot hold, are left out,
/// but for tabs and ends of lines.
std::string escape_markup(std::string_view text);

}  // namespace ferry
