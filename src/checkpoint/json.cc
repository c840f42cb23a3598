#include "checkpoint/json.h"

#include <nlohmann/json.hpp>

namespace ferry {

using nlohmann::json;

Result<std::string> json_quoted(std::string_view text) {
  try {
    return json(text).dump();
  } catch (const json::exception&) {
    return fail(
        Code::kInvalidInput, "{}: not UTF-8, so it cannot be stored as JSON", printable(text));
  }
}

bool is_inside(std::string_view path) {
  if (path.find('\0') != path.npos) return false;
  while (true) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == path.npos) return true;
    path.remove_prefix(slash + 1);
  }
}

}  // namespace ferry
