#include "base/json.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/lenient_json.h"

namespace ferry {
namespace {

using nlohmann::json;

constexpr int kDepthMax = 64;

Result<json> parse(std::string_view text, const std::string& path, bool keys_once) {
  if (const size_t at = zero_byte(text); at != text.npos)
    return fail(Code::kCorrupt, "{}: not JSON: byte {} is zero", path, at + 1);
  std::vector<std::set<std::string>> keys;
  std::string problem;
  // The callback cannot stop the parser: it remembers the first problem, and what follows is
  // dropped.
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    if (!problem.empty()) return false;
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (depth > kDepthMax) problem = fmt::format("nested deeper than {} levels", kDepthMax);
    if (event == json::parse_event_t::key && keys_once &&
        !keys.back().insert(value.get_ref<const std::string&>()).second)
      problem =
          fmt::format("the key {} occurs twice", printable(value.get_ref<const std::string&>()));
    return problem.empty();
  };
  try {
    json parsed = json::parse(text, watch);
    if (!problem.empty()) return fail(Code::kCorrupt, "{}: {}", path, problem);
    return parsed;
  } catch (const json::exception& e) {
    return fail(Code::kCorrupt, "{}: not JSON: {}", path, e.what());
  }
}

}  // namespace

Result<json> parse_json(std::string_view text, const std::string& path) {
  return parse(text, path, true);
}

Result<json> parse_lenient_json(std::string_view text, const std::string& path) {
  return parse(text, path, false);
}

std::string json_text(const json& document, int indent) {
  return document.dump(indent, ' ', false, json::error_handler_t::replace);
}

std::string json_text(const nlohmann::ordered_json& document, int indent) {
  return document.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string printable(std::string_view name) {
  constexpr size_t kShown = 200;
  std::string out = "'";
  for (const char c : name.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + (name.size() > kShown ? "...'" : "'");
}

}  // namespace ferry
