// JSON as Python's json module writes it, with NaN, Infinity and -Infinity, and numbers beyond a double, all of which
// JSON has not. For .cc files that use is_not_finite(): they need <nlohmann/json.hpp>.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace ferry {

enum class OddNumber { kNull, kText };

/// The text with null, or with a marked text that says what stood there, in place of each such number; empty if it has
/// none. What a string holds is left alone.
std::string without_odd_numbers(std::string_view text, OddNumber becomes);

/// JSON of a Hugging Face directory as JSON: `text` itself, unless it is none and would be but for such numbers. Each
/// is a text then, U+0000 and "NaN (not finite)", which is_not_finite() knows: whoever needs a number or a text there
/// refuses it and shows that (shown_json), and nobody else is hurt.
std::string json_of_python(std::string_view text);

/// parse_json (base/json.h) of that.
Result<nlohmann::json> parse_python_json(std::string_view text, const std::string& path);

/// Whether this is what json_of_python() put in place of a number.
bool is_not_finite(const nlohmann::json& value);
bool is_not_finite(const nlohmann::ordered_json& value);

/// The JSON of a value for people, in a line: "NaN (not finite)" where such a number stood.
std::string shown_json(const nlohmann::json& value);

/// Without the fields that are such numbers, or lists that hold one, however deep they stand: for a document that is
/// written anew.
void leave_out_not_finite(nlohmann::ordered_json& value);

}  // namespace ferry
