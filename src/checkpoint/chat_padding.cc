#include "checkpoint/chat_padding.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "base/json.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kAdvice =
    "leave it out (tables pad their rows with nulls: jq -c 'del(..|nulls)' FILE takes all out)";

/// nullptr: there is none.
const Json* member(const Json& json, const char* name) {
  if (!json.is_object()) return nullptr;
  const auto it = json.find(name);
  return it == json.end() ? nullptr : &*it;
}

template <size_t n>
bool one_of(std::string_view name, const std::array<std::string_view, n>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Fields of a schema that are any values, null among them; those that are lists of such.
constexpr std::array<std::string_view, 2> kValues = {"default", "const"};
constexpr std::array<std::string_view, 2> kLists = {"enum", "examples"};
/// Those whose values are schemas under names of their own.
constexpr std::array<std::string_view, 5> kNamed = {
    "properties", "patternProperties", "$defs", "definitions", "dependentSchemas"};

/// Where below `json` a null says nothing, ".a[2].b" ("": `json` is that null). `named`: the fields of `json` are
/// names, not a schema's. A path is put together once there is a null, on the way back: most have none.
std::optional<std::string> null_in_schema(const Json& json, bool named = false) {
  if (json.is_null()) return "";
  if (json.is_array()) {
    for (size_t i = 0; i < json.size(); ++i)
      if (const auto at = null_in_schema(json[i])) return fmt::format("[{}]{}", i, *at);
  } else if (json.is_object()) {
    for (const auto& [name, value] : json.items()) {
      if (!named && (one_of(name, kValues) || (one_of(name, kLists) && !value.is_null()))) continue;
      if (const auto at = null_in_schema(value, !named && one_of(name, kNamed)))
        return fmt::format(".{}{}", name, *at);
    }
  }
  return std::nullopt;
}

bool holds_null(const Json* list) {
  return list != nullptr && std::find(list->begin(), list->end(), nullptr) != list->end();
}

/// Whether a value may be null, as far as that is certain.
bool allows_null(const Json& schema) {
  if (!schema.is_object()) return schema != false;
  const Json *fallback = member(schema, "default"), *nullable = member(schema, "nullable"),
             *constant = member(schema, "const"), *values = member(schema, "enum"),
             *type = member(schema, "type");
  if (nullable != nullptr && *nullable == true) return true;
  if (fallback != nullptr && fallback->is_null()) return true;
  if (constant != nullptr) return constant->is_null();
  if (values != nullptr) return holds_null(values);
  for (const char* name : {"anyOf", "oneOf"})
    if (const Json* either = member(schema, name); either != nullptr && either->is_array())
      return std::any_of(either->begin(), either->end(), allows_null);
  if (type == nullptr) return true;
  if (type->is_array()) return std::find(type->begin(), type->end(), "null") != type->end();
  return *type == "null";
}

/// Whether a schema certainly knows no properties but those that it lists. JSON Schema allows others unless they are
/// forbidden; schemas of tools list what there is, and what tables pad are the other tools' arguments.
bool lists_all(const Json& schema) {
  const auto has = [&](const char* name) { return member(schema, name) != nullptr; };
  for (const char* elsewhere : {"patternProperties", "$ref", "$dynamicRef"})
    if (has(elsewhere)) return false;
  if (const Json* others = member(schema, "additionalProperties")) return *others == false;
  for (const char* more : {"allOf", "anyOf", "oneOf", "if", "dependentSchemas", "dependencies"})
    if (has(more)) return false;
  const Json* others = member(schema, "unevaluatedProperties");
  return others == nullptr || *others == false;
}

/// A null among the arguments of a call: where, "a.b[2].c", and what is wrong with it.
struct Padding {
  std::string where;
  const char* reason;
};

/// Finds the first null within arguments that their schema does not allow. What a schema says is read once, however
/// many values it is of: each look for a field goes through those before it.
class PaddingSearch {
 public:
  std::optional<Padding> first(const Json& arguments, const Json& schema) {
    std::optional<Padding> found = within(arguments, rules_of(schema));
    if (found) found->where.erase(0, 1);  // the dot before the first name
    return found;
  }

 private:
  struct Rules {
    const Json* items;  // nullptr: there is none
    bool null_allowed, lists_all;
    std::optional<std::unordered_map<std::string_view, const Json*>> properties;
  };

  const Rules& rules_of(const Json& schema) {
    const auto [it, fresh] = rules_.try_emplace(&schema);
    Rules& rules = it->second;
    if (!fresh) return rules;
    rules = {member(schema, "items"), allows_null(schema), lists_all(schema), std::nullopt};
    const Json* properties = member(schema, "properties");
    if (properties == nullptr || !properties->is_object()) return rules;
    rules.properties.emplace();
    for (const auto& [name, property] : properties->get_ref<const Json::object_t&>())
      rules.properties->emplace(name, &property);
    return rules;
  }

  std::optional<Padding> within(const Json& value, const Rules& rules) {
    if (value.is_array() && rules.items != nullptr) {
      const Rules& of_items = rules_of(*rules.items);
      for (size_t i = 0; i < value.size(); ++i)
        if (auto found = within(value[i], of_items)) {
          found->where.insert(0, fmt::format("[{}]", i));
          return found;
        }
    }
    if (!value.is_object() || !rules.properties) return std::nullopt;
    for (const auto& [name, item] : value.items())
      if (auto found = of_property(name, item, rules)) {
        found->where.insert(0, "." + name);
        return found;
      }
    return std::nullopt;
  }

  std::optional<Padding> of_property(const std::string& name,
                                     const Json& item,
                                     const Rules& rules) {
    const auto property = rules.properties->find(name);
    if (property == rules.properties->end()) {
      if (!item.is_null() || !rules.lists_all) return std::nullopt;
      return Padding{"", "does not list"};
    }
    const Rules& own = rules_of(*property->second);
    if (!item.is_null()) return within(item, own);
    if (own.null_allowed) return std::nullopt;
    return Padding{"", "does not allow"};
  }

  std::unordered_map<const Json*, Rules> rules_;  // references into it stay
};

/// A tool or a call, with or without a "function" around what it is.
const Json& function_of(const Json& json) {
  const Json* function = member(json, "function");
  return function != nullptr && function->is_object() ? *function : json;
}

}  // namespace

Result<void> check_padding(const Json& messages, const Json& tools, const std::string& path) {
  std::map<std::string, const Json*> schemas;
  for (size_t i = 0; i < (tools.is_array() ? tools.size() : 0); ++i) {
    const Json& function = function_of(tools[i]);
    const Json* name = member(function, "name");
    const Json* schema = member(function, "parameters");
    if (schema == nullptr || schema->is_null()) continue;
    const std::string where =
        fmt::format("tools[{}].{}parameters", i, &function == &tools[i] ? "" : "function.");
    if (const auto at = null_in_schema(*schema))
      return fail(Code::kInvalidInput,
                  "{}: {} is null, which says nothing in a JSON schema: {}",
                  path,
                  printable(where + *at),
                  kAdvice);
    if (name != nullptr && name->is_string()) schemas[name->get<std::string>()] = schema;
  }
  PaddingSearch search;
  for (size_t i = 0; i < messages.size(); ++i) {
    const Json* calls = member(messages[i], "tool_calls");
    for (size_t c = 0; c < (calls != nullptr && calls->is_array() ? calls->size() : 0); ++c) {
      const Json& function = function_of((*calls)[c]);
      const Json* name = member(function, "name");
      const Json* arguments = member(function, "arguments");
      if (name == nullptr || !name->is_string() || arguments == nullptr) continue;
      const auto schema = schemas.find(name->get<std::string>());
      if (schema == schemas.end()) continue;
      if (const auto found = search.first(*arguments, *schema->second))
        return fail(Code::kInvalidInput,
                    "{}: messages[{}].tool_calls[{}]: calls {} with {} as null, which its schema "
                    "{}: {}",
                    path,
                    i,
                    c,
                    printable(schema->first),
                    printable(found->where),
                    found->reason,
                    kAdvice);
    }
  }
  return {};
}

}  // namespace ferry
