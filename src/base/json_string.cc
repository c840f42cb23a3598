#include "base/json_string.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace ferry {

void append_json_string(std::string& out, std::string_view text) {
  const auto plain = [](char c) { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; };
  if (!std::all_of(text.begin(), text.end(), plain)) {
    out += json_text(nlohmann::json(text));
    return;
  }
  out += '"';
  out += text;
  out += '"';
}

}  // namespace ferry
