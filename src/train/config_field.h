// One setting: where it is kept, what it may be, and the words for it. The list of all of them is
// fields_of(); everything that reads, prints or compares settings walks it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "base/result.h"
#include "train/config.h"

namespace ferry::settings {

using Value =
    std::variant<std::monostate, int64_t, double, bool, std::string>;  // monostate: not set
using Target = std::variant<int64_t*,
                            double*,
                            bool*,
                            std::string*,
                            std::optional<int64_t>*,
                            std::optional<double>*,
                            std::optional<bool>*,
                            std::optional<std::string>*>;

struct Bounds {
  double least = -1e300;
  double most = 1e300;
  bool above = false;  // `least` itself is out
};

struct Field {
  const char* section;
  const char* key;
  Target target;
  Change change;
  const char* meaning;
  const char* unit = "";
  Bounds bounds = {};
  std::vector<std::string> choices = {};
  std::string path() const { return fmt::format("{}.{}", section, key); }
};

/// The list, with targets in `settings`.
std::vector<Field> fields_of(Settings& settings);

enum class Kind { kInteger, kNumber, kBool, kText };
Kind kind_of(const Field& field);
Value value_of(const Field& field);
bool is_set(const Value& value);

/// With everything escaped that TOML and a terminal would take amiss.
std::string printable(std::string_view text);
std::string in_quotes(std::string_view text);

/// As TOML has it; "not set" where it is not.
std::string text_of(const Value& value);

/// "a whole number, 1 to 1000000000"; "one of "bf16", "f32"": what the field takes.
std::string allowed(const Field& field);

/// "WHERE: PATH is GOT; it must be ..."
tl::unexpected<Status> refused(std::string_view where, const Field& field, std::string_view got);

/// Puts a value of the field's kind into it, if the field's bounds allow it.
Result<void> assign(const Field& field, const Value& value, std::string_view where);

}  // namespace ferry::settings
