#include "grammar/schema_merge.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "base/json.h"

namespace ferry::grammar {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRefsMax = 32;   // from one to the next
constexpr int kDepthMax = 64;  // of schemas that are put together within each other
// What is copied: all that is kept is among it.
constexpr size_t kValuesMax = 1'000'000;
constexpr size_t kTextBytesMax = size_t{64} << 20;  // names are text
constexpr size_t kBranchesMax = 256;                // that two lists of alternatives give

/// An object's fields by name: an ordered object goes through them for each that is looked for.
using Fields = std::map<std::string_view, const Json*>;

Fields fields_of(const Json& object) {
  Fields out;
  for (const auto& [name, value] : object.get_ref<const Json::object_t&>())
    out.emplace(name, &value);
  return out;
}

const Json& found(const Fields& fields, std::string_view name, const Json& otherwise) {
  const auto it = fields.find(name);
  return it == fields.end() ? otherwise : *it->second;
}

std::set<std::string> texts_of(const Json& list) {
  std::set<std::string> out;
  if (list.is_string()) out.insert(list.get<std::string>());
  if (list.is_array())
    for (const Json& item : list)
      if (item.is_string()) out.insert(item.get<std::string>());
  return out;
}

Json both_types(const Json& a, const Json& b) {
  Json out = Json::array();
  const std::set<std::string> left = texts_of(a), right = texts_of(b);
  for (const std::string& type : left) {
    const bool whole = type == "integer" && right.contains("number");
    if (right.contains(type) || whole) out.push_back(type);
    if (type == "number" && right.contains("integer")) out.push_back("integer");
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

Json values_of(const Json& schema) {
  if (schema.contains("const")) return Json::array({schema["const"]});
  return schema.contains("enum") ? schema["enum"] : Json();
}

/// A list's values, in whose objects the order of fields does not count.
std::set<nlohmann::json> set_of(const Json& list) {
  return std::set<nlohmann::json>(list.begin(), list.end());
}

class Merge {
 public:
  Merge(const Json& a, const Json& b, References& references, const std::string& where)
      : a_(a), b_(b), references_(references), where_(where) {}

  Result<Json> both() {
    Json out = Json::object();
    auto& fields = out.get_ref<Json::object_t&>();
    fields.reserve(a_.size() + b_.size());
    TRY(properties(out));
    TRY(items(out));
    const auto is_read = [](const std::string& key) {
      static const std::set<std::string> kRead = {
          "properties", "additionalProperties", "items", "prefixItems", "additionalItems"};
      return kRead.contains(key);
    };
    const Fields left = fields_of(a_), right = fields_of(b_);
    for (const auto& [key, value] : a_.get_ref<const Json::object_t&>()) {
      if (is_read(key)) continue;
      const auto other = right.find(key);
      if (other == right.end()) {
        fields.push_back({key, value});
      } else {
        TRY_ASSIGN(Json merged, keyword(key, value, *other->second));
        fields.push_back({key, std::move(merged)});
      }
    }
    for (const auto& [key, value] : b_.get_ref<const Json::object_t&>())
      if (!is_read(key) && !left.contains(key)) fields.push_back({key, value});
    return out;
  }

 private:
  tl::unexpected<Status> refuse(const std::string& keyword) const {
    return fail(Code::kInvalidInput,
                "{}: {} is asked for twice, in ways that cannot be put together: write it once",
                where_,
                printable(keyword));
  }

  Result<Json> keyword(const std::string& key, const Json& a, const Json& b) const {
    if (a == b) return a;
    if (key == "type") return both_types(a, b);
    const bool numbers = a.is_number() && b.is_number();
    if (numbers && (key.starts_with("min") || key == "exclusiveMinimum")) return a < b ? b : a;
    if (numbers && (key.starts_with("max") || key == "exclusiveMaximum")) return a < b ? a : b;
    if (key == "const") return refuse(key);
    if (a.is_array() && b.is_array()) {
      if (key == "required") {
        Json out = a;
        const std::set<nlohmann::json> has = set_of(a);
        for (const Json& name : b)
          if (!has.contains(name)) out.push_back(name);
        return out;
      }
      if (key == "enum") {
        Json out = Json::array();
        const std::set<nlohmann::json> others = set_of(b);
        for (const Json& value : a)
          if (others.contains(value)) out.push_back(value);
        return out;
      }
      if (key == "anyOf") return each_with_each(a, b);
      if (key == "allOf") {
        Json out = a;
        out.insert(out.end(), b.begin(), b.end());
        return out;
      }
    }
    return refuse(key);
  }

  Result<Json> each_with_each(const Json& a, const Json& b) const {
    if (a.size() * b.size() > kBranchesMax) return refuse("anyOf");
    Json out = Json::array();
    for (const Json& x : a)
      for (const Json& y : b) {
        TRY_ASSIGN(Json one, references_.merge(x, y, where_));
        out.push_back(std::move(one));
      }
    return out;
  }

  /// A field that one of them does not name is, for that one, an additional one.
  Result<void> properties(Json& out) const {
    const Json none = Json::object(), anything = true;
    const auto part = [](const Json& of, const char* name, const Json& otherwise) -> const Json& {
      return of.contains(name) ? of[name] : otherwise;
    };
    const Json &left = part(a_, "properties", none), &right = part(b_, "properties", none);
    const Json &left_more = part(a_, "additionalProperties", anything),
               &right_more = part(b_, "additionalProperties", anything);
    if (!left.is_object() || !right.is_object()) return refuse("properties");
    const Fields lefts = fields_of(left), rights = fields_of(right);
    Json all = Json::object();
    auto& fields = all.get_ref<Json::object_t&>();
    fields.reserve(left.size() + right.size());
    const auto add = [&](const std::string& name) -> Result<void> {
      TRY_ASSIGN(Json field,
                 references_.merge(
                     found(lefts, name, left_more), found(rights, name, right_more), where_));
      fields.push_back({name, std::move(field)});
      return {};
    };
    for (const auto& [name, schema] : left.get_ref<const Json::object_t&>()) TRY(add(name));
    for (const auto& [name, schema] : right.get_ref<const Json::object_t&>())
      if (!lefts.contains(name)) TRY(add(name));
    if (!all.empty() || a_.contains("properties")) out["properties"] = std::move(all);
    if (a_.contains("additionalProperties") || b_.contains("additionalProperties")) {
      TRY_ASSIGN(out["additionalProperties"], references_.merge(left_more, right_more, where_));
    }
    return {};
  }

  /// Items that stand in a list, and what comes after them.
  struct Items {
    const Json *first, *rest;
  };

  /// As 2020-12 writes them (prefixItems, items) or earlier drafts do (items, additionalItems, which says nothing
  /// where items is no list).
  Result<Items> items_of(const Json& schema) const {
    static const Json kNone = Json::array(), kAnything = true;
    const auto part = [&](const char* name, const Json& otherwise) {
      return schema.contains(name) ? &schema[name] : &otherwise;
    };
    const bool old = schema.contains("items") && schema["items"].is_array();
    if (old && schema.contains("prefixItems")) return refuse("items");
    const Items out = {.first = part(old ? "items" : "prefixItems", kNone),
                       .rest = part(old ? "additionalItems" : "items", kAnything)};
    if (!out.first->is_array()) return refuse("prefixItems");
    return out;
  }

  /// Place by place: one that is beyond a list is, for that list, what comes after it.
  Result<void> items(Json& out) const {
    const auto says = [&](const char* name) { return a_.contains(name) || b_.contains(name); };
    if (!says("items") && !says("prefixItems")) return {};
    TRY_ASSIGN(const Items left, items_of(a_));
    TRY_ASSIGN(const Items right, items_of(b_));
    const auto at = [](const Items& of, size_t i) -> const Json& {
      return i < of.first->size() ? (*of.first)[i] : *of.rest;
    };
    Json all = Json::array();
    for (size_t i = 0; i < std::max(left.first->size(), right.first->size()); ++i) {
      TRY_ASSIGN(Json item, references_.merge(at(left, i), at(right, i), where_));
      all.push_back(std::move(item));
    }
    TRY_ASSIGN(Json rest, references_.merge(*left.rest, *right.rest, where_));
    if (!all.empty()) out["prefixItems"] = std::move(all);
    if (rest != Json(true)) out["items"] = std::move(rest);
    return {};
  }

  const Json &a_, &b_;
  References& references_;
  const std::string& where_;
};

}  // namespace

bool only_explains(const std::string& keyword) {
  static const std::set<std::string> kKeywords = {"$comment",
                                                  "$defs",
                                                  "$id",
                                                  "$schema",
                                                  "definitions",
                                                  "default",
                                                  "deprecated",
                                                  "description",
                                                  "example",
                                                  "title",
                                                  "examples",
                                                  "readOnly",
                                                  "discriminator",
                                                  "writeOnly"};
  return kKeywords.contains(keyword) || keyword.starts_with("x-");
}

Result<const Json*> References::find(const Json& ref, const std::string& where) const {
  const auto refuse = [&](const char* why) {
    return fail(Code::kInvalidInput, "{}: $ref {} {}", where, printable(json_text(ref)), why);
  };
  if (!ref.is_string() || !ref.get_ref<const std::string&>().starts_with('#'))
    return refuse("does not begin with #: only what is in the same schema can be referred to");
  // A fragment of a URL, in which some bytes are written as %XX.
  const std::string written = ref.get<std::string>();
  std::string pointer;
  for (size_t i = 1; i < written.size(); ++i) {
    unsigned byte = 0;
    const char* const digits = written.data() + i + 1;
    if (written[i] == '%' && i + 2 < written.size() &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      pointer += static_cast<char>(byte);
      i += 2;
    } else {
      pointer += written[i];
    }
  }
  try {
    const Json::json_pointer at(pointer);
    if (root_.contains(at)) return &root_.at(at);
  } catch (const Json::exception&) {
    return refuse("is no JSON pointer");
  }
  return refuse("refers to nothing");
}

void References::count(const Json& copied) {
  ++work_.values;
  if (copied.is_string()) work_.text_bytes += copied.get_ref<const std::string&>().size();
  if (copied.is_array())
    for (const Json& item : copied) count(item);
  if (!copied.is_object()) return;
  for (const auto& [name, value] : copied.get_ref<const Json::object_t&>()) {
    work_.text_bytes += name.size();
    count(value);
  }
}

Result<void> References::within_limits(const std::string& where) const {
  if (depth_ <= kDepthMax && work_.values <= kValuesMax && work_.text_bytes <= kTextBytesMax)
    return {};
  return fail(Code::kInvalidInput,
              "{}: allOf, or what stands beside $ref and anyOf, leads on for more than {} levels, "
              "{} values or {} bytes of text",
              where,
              kDepthMax,
              kValuesMax,
              kTextBytesMax);
}

Json References::copy_of(const Json& schema) {
  Json out = schema.is_object() ? Json::object() : schema;
  if (schema.is_object()) {
    auto& fields = out.get_ref<Json::object_t&>();
    fields.reserve(schema.size());
    for (const auto& [key, value] : schema.get_ref<const Json::object_t&>())
      if (!only_explains(key)) fields.push_back({key, value});
  }
  count(out);
  return out;
}

Result<Json> References::resolved(const Json& schema, const std::string& where) {
  Json out = copy_of(schema);
  for (int i = 0; out.is_object() && out.contains("$ref"); ++i) {
    if (i == kRefsMax)
      return fail(Code::kInvalidInput, "{}: $ref leads on for more than {} steps", where, kRefsMax);
    TRY_ASSIGN(const Json* const target, find(out["$ref"], where));
    out.erase("$ref");
    if (out.empty()) {
      out = copy_of(*target);
    } else {
      TRY_ASSIGN(out, merge(*target, out, where));
    }
  }
  if (out.is_boolean() && out.get<bool>()) return Json::object();
  if (!out.is_object() && !out.is_boolean())
    return fail(Code::kInvalidInput, "{}: a schema is an object, true or false", where);
  return out;
}

Result<Json> References::merge(const Json& a, const Json& b, const std::string& where) {
  // What is the other one's needs no merging, and stays a reference that a rule is made of.
  const auto only = [&]() -> const Json* {
    if (a.is_boolean()) return a.get<bool>() ? &b : &a;
    if (b.is_boolean()) return b.get<bool>() ? &a : &b;
    if (a.is_object() && a.empty()) return &b;
    if (b.is_object() && b.empty()) return &a;
    return a == b ? &a : nullptr;
  };
  if (const Json* const one = only()) {
    count(*one);
    TRY(within_limits(where));
    return *one;
  }
  ++depth_;
  const auto both = [&]() -> Result<Json> {
    TRY(within_limits(where));
    TRY_ASSIGN(const Json left, resolved(a, where));
    TRY_ASSIGN(const Json right, resolved(b, where));
    if (left.is_boolean()) return left;
    if (right.is_boolean()) return right;
    return Merge(left, right, *this, where).both();
  };
  Result<Json> out = both();
  --depth_;
  return out;
}

bool References::exclude_each_other(const Json& a, const Json& b) {
  ++depth_;
  const bool out = within_limits("") && excluded(a, b);
  --depth_;
  return out;
}

bool References::excluded(const Json& a, const Json& b) {
  const Result<Json> left = resolved(a, ""), right = resolved(b, "");
  if (!left || !right || !left->is_object() || !right->is_object()) return false;
  const Json values = values_of(*left), others = values_of(*right);
  if (values.is_array() && others.is_array()) {
    const std::set<nlohmann::json> set = set_of(others);
    return std::none_of(
        values.begin(), values.end(), [&](const Json& v) { return set.contains(v); });
  }
  if (!left->contains("type") || !right->contains("type")) return false;
  if (both_types((*left)["type"], (*right)["type"]).empty()) return true;
  if ((*left)["type"] != "object" || (*right)["type"] != "object") return false;
  // A field that both must have, with values that are never the same: what tells variants apart.
  for (const Json* s : {&*left, &*right})
    if (!s->contains("required") || !s->contains("properties") || !(*s)["properties"].is_object())
      return false;
  const std::set<std::string> required = texts_of((*right)["required"]);
  const Fields mine = fields_of((*left)["properties"]), its = fields_of((*right)["properties"]);
  for (const std::string& name : texts_of((*left)["required"])) {
    const auto one = mine.find(name), other = its.find(name);
    if (required.contains(name) && one != mine.end() && other != its.end() &&
        exclude_each_other(*one->second, *other->second))
      return true;
  }
  return false;
}

}  // namespace ferry::grammar
