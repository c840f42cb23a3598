#include "checkpoint/chat_padding.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

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

/// Where a null says nothing; empty: nowhere. `named`: the fields of `json` are names, not a schema's.
std::string null_in_schema(const Json& json, const std::string& where, bool named = false) {
  if (json.is_null()) return where;
  if (json.is_array()) {
    for (size_t i = 0; i < json.size(); ++i)
      if (std::string at = null_in_schema(json[i], fmt::format("{}[{}]", where, i)); !at.empty())
        return at;
  } else if (json.is_object()) {
    for (const auto& [name, value] : json.items()) {
      if (!named && (one_of(name, kValues) || (one_of(name, kLists) && !value.is_null()))) continue;
      std::string at =
          null_in_schema(value, fmt::format("{}.{}", where, name), !named && one_of(name, kNamed));
      if (!at.empty()) return at;
    }
  }
  return "";
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

/// The first null within arguments that their schema does not allow, "a.b[2].c"; empty: none.
std::string padding_in(const Json& value, const Json& schema, const std::string& where) {
  if (value.is_array()) {
    if (const Json* items = member(schema, "items"))
      for (size_t i = 0; i < value.size(); ++i)
        if (std::string at = padding_in(value[i], *items, fmt::format("{}[{}]", where, i));
            !at.empty())
          return at;
    return "";
  }
  const Json* properties = member(schema, "properties");
  if (!value.is_object() || properties == nullptr || !properties->is_object()) return "";
  const Json* others = member(schema, "additionalProperties");
  const bool closed =
      (others == nullptr || *others == false) && member(schema, "patternProperties") == nullptr;
  for (const auto& [name, item] : value.items()) {
    const Json* property = member(*properties, name.c_str());
    const std::string at = where.empty() ? name : where + "." + name;
    if (item.is_null()) {
      if (property == nullptr ? closed : !allows_null(*property)) return at;
    } else if (property != nullptr) {
      if (std::string deeper = padding_in(item, *property, at); !deeper.empty()) return deeper;
    }
  }
  return "";
}

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
    if (const std::string at = null_in_schema(*schema, where); !at.empty())
      return fail(Code::kInvalidInput,
                  "{}: {} is null, which says nothing in a JSON schema: {}",
                  path,
                  printable(at),
                  kAdvice);
    if (name != nullptr && name->is_string()) schemas[name->get<std::string>()] = schema;
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const Json* calls = member(messages[i], "tool_calls");
    for (size_t c = 0; c < (calls != nullptr && calls->is_array() ? calls->size() : 0); ++c) {
      const Json& function = function_of((*calls)[c]);
      const Json* name = member(function, "name");
      const Json* arguments = member(function, "arguments");
      if (name == nullptr || !name->is_string() || arguments == nullptr) continue;
      const auto schema = schemas.find(name->get<std::string>());
      if (schema == schemas.end()) continue;
      if (const std::string at = padding_in(*arguments, *schema->second, ""); !at.empty())
        return fail(Code::kInvalidInput,
                    "{}: messages[{}].tool_calls[{}]: calls {} with {} as null, which its schema "
                    "does not allow: {}",
                    path,
                    i,
                    c,
                    printable(schema->first),
                    printable(at),
                    kAdvice);
    }
  }
  return {};
}

}  // namespace ferry
