#include "base/json_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/python_json.h"

namespace ferry {
namespace {

using Json = nlohmann::json;

const Json& null() {
  static const Json none;
  return none;
}
const Json& empty_list() {
  static const Json none = Json::array();
  return none;
}
const Json& empty_object() {
  static const Json none = Json::object();
  return none;
}

/// The value in one line, cut if it is long.
std::string shown(const Json& value) {
  constexpr size_t kShown = 60;
  std::string text = shown_json(value);
  if (text.size() > kShown) text.replace(kShown - 3, std::string::npos, "...");
  return text;
}

bool is_text(const Json& j) { return j.is_string() && !is_not_finite(j); }

/// Compared before it is converted: a large unsigned number must not come out negative.
std::optional<int64_t> integer_within(const Json& j, int64_t low, int64_t high) {
  if (j.is_number_unsigned() && j.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    return std::nullopt;
  if (!j.is_number_integer()) return std::nullopt;
  const auto n = j.get<int64_t>();
  return n >= low && n <= high ? std::optional(n) : std::nullopt;
}

}  // namespace

Result<void> JsonProblem::done() const {
  if (status) return tl::unexpected(*status);
  return {};
}

JsonFields::JsonFields(const Json& object, std::string where, JsonProblem& problem)
    : object_(&object), where_(std::move(where)), problem_(&problem) {
  if (object.is_object()) return;
  refuse("", "must be an object");
  object_ = &empty_object();
}

const Json* JsonFields::find(const char* name) {
  seen_.insert(name);
  const auto it = object_->find(name);
  return *problem_ || it == object_->end() || it->is_null() ? nullptr : &*it;
}

const Json& JsonFields::at(const char* name) {
  if (const Json* value = find(name)) return *value;
  refuse(name, object_->contains(name) ? "is null" : "is missing");
  return null();
}

int64_t JsonFields::integer(const char* name,
                            int64_t low,
                            int64_t high,
                            std::optional<int64_t> missing) {
  const Json& j = missing && !has(name) ? null() : at(name);
  if (j.is_null()) return missing.value_or(low);
  const std::optional<int64_t> n = integer_within(j, low, high);
  if (!n) wrong(name, j, fmt::format("must be a whole number from {} to {}", low, high));
  return n.value_or(low);
}

uint64_t JsonFields::natural(const char* name) {
  const Json& j = at(name);
  if (j.is_number_unsigned()) return j.get<uint64_t>();
  if (!j.is_null()) wrong(name, j, "must be a whole number from 0");
  return 0;
}

double JsonFields::real(const char* name, double low, double high, std::optional<double> missing) {
  const Json& j = missing && !has(name) ? null() : at(name);
  if (j.is_null()) return missing.value_or(low);
  const double x = j.is_number() ? j.get<double>() : low - 1;
  if (x >= low && x <= high) return x;
  wrong(name, j, fmt::format("must be a number from {:g} to {:g}", low, high));
  return low;
}

double JsonFields::real(const char* name) {
  const Json& j = at(name);
  if (j.is_number()) return j.get<double>();
  if (!j.is_null()) wrong(name, j, "must be a number");
  return 0;
}

bool JsonFields::boolean(const char* name, std::optional<bool> missing) {
  const Json& j = missing && !has(name) ? null() : at(name);
  if (j.is_null()) return missing.value_or(false);
  if (j.is_boolean()) return j.get<bool>();
  wrong(name, j, "must be true or false");
  return false;
}

std::string JsonFields::text(const char* name, std::optional<std::string> missing) {
  const Json& j = missing && !has(name) ? null() : at(name);
  if (j.is_null()) return missing.value_or("");
  if (is_text(j)) return j.get<std::string>();
  wrong(name, j, "must be a text");
  return "";
}

std::vector<std::string> JsonFields::texts(const char* name) {
  std::vector<std::string> all;
  for (const Json& j : list(name)) {
    if (is_text(j)) all.push_back(j.get<std::string>());
    if (!is_text(j)) wrong(name, list(name), "must be a list of texts");
  }
  return all;
}

std::vector<double> JsonFields::reals(const char* name) {
  std::vector<double> all;
  for (const Json& j : list(name)) {
    if (j.is_number()) all.push_back(j.get<double>());
    if (!j.is_number()) wrong(name, list(name), "must be a list of numbers");
  }
  return all;
}

std::vector<int64_t> JsonFields::integers(const char* name, int64_t low, int64_t high) {
  std::vector<int64_t> all;
  for (const Json& j : list(name)) {
    const std::optional<int64_t> n = integer_within(j, low, high);
    if (n) all.push_back(*n);
    if (!n)
      wrong(name,
            list(name),
            fmt::format("must be a list of whole numbers from {} to {}", low, high));
  }
  return all;
}

std::vector<int64_t> JsonFields::ids(const char* name, int64_t high) {
  std::vector<int64_t> all;
  const Json* value = find(name);
  if (value == nullptr) return all;
  const Json one = value->is_array() ? *value : Json::array({*value});
  for (const Json& j : one) {
    const std::optional<int64_t> id = integer_within(j, 0, high);
    if (!id) {
      wrong(name, *value, fmt::format("must be an id or a list of ids, from 0 to {}", high));
      return {};
    }
    if (std::find(all.begin(), all.end(), *id) == all.end()) all.push_back(*id);
  }
  return all;
}

const Json& JsonFields::list(const char* name) {
  const Json& j = at(name);
  if (j.is_array()) return j;
  if (!j.is_null()) wrong(name, j, "must be a list");
  return empty_list();
}

const Json& JsonFields::members(const char* name) {
  const Json& j = at(name);
  if (j.is_object()) return j;
  if (!j.is_null()) wrong(name, j, "must be an object");
  return empty_object();
}

JsonFields JsonFields::object(const char* name) {
  const Json& j = at(name);
  return {j.is_null() ? empty_object() : j, fmt::format("{}: {}", where_, name), *problem_};
}

JsonFields JsonFields::item(const char* name, const Json& item, size_t index) {
  return {item, fmt::format("{}: {}[{}]", where_, name, index), *problem_};
}

void JsonFields::only(const char* name, const Json& allowed) {
  const Json* value = find(name);
  if (value == nullptr || *value == allowed) return;
  wrong(name, *value, fmt::format("is not supported; Ferry computes {}", shown(allowed)));
}

void JsonFields::refuse_unknown(const std::set<std::string>& ignored, std::string_view why) {
  for (const auto& [name, value] : object_->items())
    if (!value.is_null() && !seen_.contains(name) && !ignored.contains(name))
      wrong(name, value, why);
}

void JsonFields::refuse(const std::string& name, std::string_view why) {
  if (*problem_) return;
  const auto it = name.empty() ? object_->end() : object_->find(name);
  if (!name.empty() && it != object_->end() && !it->is_null()) return wrong(name, *it, why);
  problem_->place = name.empty() ? where_ : fmt::format("{}: {}", where_, name);
  problem_->status =
      Status{problem_->code,
             name.empty() ? fmt::format("{} {}{}", where_, why, problem_->advice)
                          : fmt::format("{}: \"{}\" {}{}", where_, name, why, problem_->advice)};
}

void JsonFields::wrong(const std::string& name, const Json& value, std::string_view why) {
  if (*problem_) return;
  problem_->place = fmt::format("{}: {}", where_, name);
  problem_->status =
      Status{problem_->code,
             fmt::format("{}: \"{}\": {} {}{}", where_, name, shown(value), why, problem_->advice)};
}

}  // namespace ferry
