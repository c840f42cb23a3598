#include "grammar/schema.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/ordered_json.h"
#include "grammar/matcher.h"
#include "grammar/number_range.h"
#include "grammar/pattern.h"
#include "grammar/schema_merge.h"
#include "text/utf8.h"

namespace ferry::grammar {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kSchemaBytesMax = size_t{1} << 20;
constexpr int kDepthMax = 100;  // of schemas within each other, as far as they are put together
constexpr int kSchemasMax = 50'000;    // that are read, each as often as it is
constexpr int kSchemasOfValues = 500;  // that values which must satisfy something count as
constexpr int kValuesOfASchema = 25;   // of enum, that count as one
constexpr uint64_t kCountMax = 20'000;
constexpr size_t kFieldsMax = 4096;  // of an object

const std::set<std::string> kTypes = {
    "array", "boolean", "integer", "null", "number", "object", "string"};

const std::set<std::string> kKeywords = {"$ref",
                                         "additionalItems",
                                         "additionalProperties",
                                         "allOf",
                                         "anyOf",
                                         "const",
                                         "enum",
                                         "exclusiveMaximum",
                                         "exclusiveMinimum",
                                         "format",
                                         "items",
                                         "maxItems",
                                         "maxLength",
                                         "maximum",
                                         "minItems",
                                         "minLength",
                                         "minimum",
                                         "oneOf",
                                         "pattern",
                                         "prefixItems",
                                         "properties",
                                         "required",
                                         "type"};

/// Those that say something about values which are neither objects nor lists.
const std::set<std::string> kOfPlainValues = {"exclusiveMaximum",
                                              "exclusiveMinimum",
                                              "format",
                                              "maxLength",
                                              "maximum",
                                              "minLength",
                                              "minimum",
                                              "pattern",
                                              "type"};

/// Formats of strings as patterns; those of numbers say nothing more than their type.
const std::map<std::string, std::string>& formats() {
  static const std::map<std::string, std::string> kFormats = [] {
    const std::string day31 = R"((?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01]))",
                      day30 = R"((?:0[469]|11)-(?:0[1-9]|[12]\d|30))",
                      day28 = R"(02-(?:0[1-9]|1\d|2[0-8]))",
                      date = R"(\d{4}-(?:)" + day31 + "|" + day30 + "|" + day28 + ")";
    const std::string clock = R"((?:[01]\d|2[0-3]):[0-5]\d)",
                      time = clock + R"(:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-])" + clock + ")";
    const std::string days = R"((?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D))",
                      hours = R"(T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S))";
    const std::string hex = "[0-9a-fA-F]", byte = R"((?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))",
                      label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?",
                      atom = "[A-Za-z0-9_+-]+";
    std::map<std::string, std::string> out = {
        {"date", date},
        {"time", time},
        {"date-time", date + "T" + time},
        {"duration", "P(?:\\d+W|" + days + "(?:" + hours + ")?|" + hours + ")"},
        {"uuid", hex + "{8}(?:-" + hex + "{4}){3}-" + hex + "{12}"},
        {"email", atom + "(?:\\." + atom + ")*@(?:" + label + "\\.)+[A-Za-z]{2,63}"},
        {"hostname", label + "(?:\\." + label + ")*"},
        {"ipv4", "(?:" + byte + "\\.){3}" + byte},
        {"ipv6", "(?:" + hex + "{1,4}:){7}" + hex + "{1,4}"},
        {"uri", "[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#@!$&'()*+,;=-]|%" + hex + "{2})+"}};
    for (auto& [name, pattern] : out) pattern = "^" + pattern + "$";
    return out;
  }();
  return kFormats;
}

const std::set<std::string> kFormatsOfNumbers = {"int32", "int64", "float", "double"};

/// A name as a part of a place: cut where it is long.
std::string shortened(std::string_view name) {
  constexpr size_t kNameBytesMax = 200;
  return name.size() > kNameBytesMax ? printable(name) : std::string(name);
}

/// Where a part of what is at `where` is, for messages. Each rule keeps its place until it is read: the lengths are
/// bounded, so that all of them are.
std::string place(const std::string& where, std::string_view part) {
  constexpr size_t kPlaceBytesMax = 1000;
  if (where.size() <= kPlaceBytesMax) return where + "/" + shortened(part);
  return where.ends_with("/...") ? where : where + "/...";
}

class Compiler {
 public:
  Compiler(
      AutomatonBuilder& b, JsonParts& parts, const Json& root, std::string name, SchemaWork& work)
      : b_(b), parts_(parts), references_(root, work), root_name_(std::move(name)), work_(work) {}

  /// What satisfies the schema, and in the end the rules that it refers to.
  Result<State> document(const Json& schema, State from) {
    TRY_ASSIGN(const State to, value(schema, from, root_name_));
    while (!open_.empty() && !b_.full()) {
      const auto [rule, target, where] = std::move(open_.back());
      open_.pop_back();
      TRY_ASSIGN(const State end, value(*target, b_.start(rule), where));
      b_.end(end);
    }
    return to;
  }

 private:
  struct OpenRule {
    Rule rule;
    const Json* schema;
    std::string where;
  };

  static tl::unexpected<Status> refuse(const std::string& where, std::string_view why) {
    return fail(Code::kInvalidInput, "{}: {}", where, why);
  }

  Result<State> value(const Json& schema, State from, const std::string& where) {
    if (++work_.schemas > kSchemasMax || depth_ == kDepthMax)
      return refuse(
          where,
          fmt::format("more than {} schemas ({} values of enum count as one), or {} within "
                      "each other, are put together",
                      kSchemasMax,
                      kValuesOfASchema,
                      kDepthMax));
    if (b_.full()) return from;  // which is refused in the end
    ++depth_;
    Result<State> out = value_of(schema, from, where);
    --depth_;
    return out;
  }

  Result<State> value_of(const Json& schema, State from, const std::string& where) {
    if (schema.is_boolean()) return schema.get<bool>() ? parts_.value(from) : b_.state();
    if (!schema.is_object()) return refuse(where, "a schema is an object, true or false");
    bool says = false;  // something
    for (const auto& [key, unused] : schema.items()) {
      if (only_explains(key)) continue;
      says = true;
      if (!kKeywords.contains(key))
        return refuse(where, fmt::format("{} is not supported", printable(key)));
    }
    if (!says) return parts_.value(from);
    for (const char* several : {"$ref", "allOf", "anyOf", "oneOf"})
      if (schema.contains(several)) return put_together(schema, several, from, where);
    if (schema.contains("enum") || schema.contains("const")) return given(schema, from, where);
    return typed(schema, from, where);
  }

  /// A schema of others, and what stands beside them.
  Result<State> put_together(const Json& schema,
                             const std::string& keyword,
                             State from,
                             const std::string& where) {
    Json beside = Json::object();
    for (const auto& [key, field] : schema.items())
      if (key != keyword && !only_explains(key)) beside[key] = field;
    const Json& parts = schema[keyword];
    if (keyword == "$ref") {
      if (beside.empty()) return refer(parts, from, where);
      TRY_ASSIGN(Json both, references_.merge({{"$ref", parts}}, beside, where));
      return value(kept(std::move(both)), from, where);
    }
    const std::string within = place(where, keyword);
    if (!parts.is_array() || parts.empty()) return refuse(within, "must be a list of schemas");
    if (keyword == "allOf") {
      for (const Json& part : parts) {
        TRY_ASSIGN(beside, references_.merge(beside, part, within));
      }
      return value(kept(std::move(beside)), from, where);
    }
    if (keyword == "oneOf")
      for (size_t i = 0; i < parts.size(); ++i)
        for (size_t k = 0; k < i; ++k)
          if (!references_.exclude_each_other(parts[k], parts[i])) {
            TRY(references_.within_limits(within));
            return refuse(
                within,
                fmt::format("a document may satisfy both {} and {}, as far as their types, "
                            "enum and const tell: use anyOf",
                            k,
                            i));
          }
    const State to = b_.state();
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string branch = place(within, std::to_string(i));
      const Json* one = &parts[i];
      if (!beside.empty()) {
        TRY_ASSIGN(Json both, references_.merge(beside, *one, branch));
        one = &kept(std::move(both));
      }
      TRY_ASSIGN(const State end, value(*one, from, branch));
      b_.nothing(end, to);
    }
    return to;
  }

  /// Rules are read later: what they are made of must be there then.
  const Json& kept(Json schema) { return kept_.emplace_back(std::move(schema)); }

  Result<State> refer(const Json& ref, State from, const std::string& where) {
    TRY_ASSIGN(const Json* const target, references_.find(ref, where));
    const State to = b_.state();
    b_.call(
        from, rule_of(*target, fmt::format("{} ({})", root_name_, shortened(json_text(ref)))), to);
    return to;
  }

  /// A rule of a part of the schema, which is read later.
  Rule rule_of(const Json& schema, const std::string& where) {
    const auto [it, is_new] = rules_.try_emplace(&schema, 0);
    if (is_new) {
      it->second = b_.rule();
      open_.push_back({it->second, &schema, where});
    }
    return it->second;
  }

  Result<std::set<std::string>> types(const Json& schema, const std::string& where) {
    std::set<std::string> out;
    if (!schema.contains("type")) {
      out = kTypes;
      out.erase("integer");
      return out;
    }
    const Json& type = schema["type"];
    for (const Json& one : type.is_array() ? type : Json::array({type})) {
      if (!one.is_string() || !kTypes.contains(one.get<std::string>()))
        return refuse(where, fmt::format("type {} is none", printable(json_text(one))));
      out.insert(one.get<std::string>());
    }
    if (out.contains("number")) out.erase("integer");
    return out;
  }

  /// enum and const: those values that satisfy what stands beside them.
  Result<State> given(const Json& schema, State from, const std::string& where) {
    Json beside = Json::object();
    for (const auto& [key, field] : schema.items()) {
      if (only_explains(key) || key == "enum" || key == "const") continue;
      if (!kOfPlainValues.contains(key))
        return refuse(where, fmt::format("{} beside values that are given is not supported", key));
      beside[key] = field;
    }
    const bool listed = schema.contains("enum");
    if (listed && !schema["enum"].is_array()) return refuse(where, "enum must be a list");
    const Json only = listed ? Json() : Json::array({schema["const"]});
    const Json& values = listed ? schema["enum"] : only;
    work_.schemas += static_cast<int>(values.size()) / kValuesOfASchema;
    TRY_ASSIGN(const std::vector<bool> fit, which_satisfy(values, beside, where));
    // In objects of these, unlike ordered ones, the order of fields does not count.
    std::optional<nlohmann::json> constant;
    if (listed && schema.contains("const")) constant = nlohmann::json(schema["const"]);
    const State to = b_.state();
    std::set<std::string> plain;
    for (size_t i = 0; i < values.size() && !b_.full(); ++i) {
      if (!fit[i] || (constant && nlohmann::json(values[i]) != *constant)) continue;
      if (values[i].is_structured())
        b_.nothing(spelled(values[i], from), to);
      else
        plain.insert(parts_.written(json_text(values[i])));
    }
    b_.one_of(from, plain, to);
    return to;
  }

  /// As a rule they are only to be of a type; else by an automaton of its own that reads the values.
  Result<std::vector<bool>> which_satisfy(const Json& values,
                                          const Json& schema,
                                          const std::string& where) {
    std::vector<bool> out(values.size(), true);
    if (schema.empty()) return out;
    // A whole number may be written with a fraction that is none.
    const auto is_whole_fraction = [](const Json& v) {
      return v.is_number_float() && std::abs(v.get<double>()) < 0x1p53 &&
             std::floor(v.get<double>()) == v.get<double>();
    };
    if (schema.size() == 1 && schema.contains("type")) {
      TRY_ASSIGN(const std::set<std::string> allowed, types(schema, where));
      for (size_t i = 0; i < values.size(); ++i)
        out[i] = allowed.contains(values[i].type_name()) ||
                 (allowed.contains("integer") &&
                  (values[i].is_number_integer() || is_whole_fraction(values[i])));
      return out;
    }
    work_.schemas += kSchemasOfValues;
    AutomatonBuilder b;
    JsonParts parts(b);
    const State start = b.start(b.rule());
    TRY_ASSIGN(const State end, Compiler(b, parts, schema, where, work_).document(schema, start));
    b.end(end);
    const Result<Automaton> a = b.finish();
    auto constraint = std::make_shared<Constraint>();
    constraint->vocabulary = Vocabulary::of(std::vector<std::string>());
    if (a) constraint->automaton = std::make_shared<const Automaton>(*a);
    for (size_t i = 0; i < values.size(); ++i) {
      out[i] = false;
      if (!a) continue;  // nothing does
      Matcher matcher(constraint);
      const Json value = is_whole_fraction(values[i])
                             ? Json(static_cast<int64_t>(values[i].get<double>()))
                             : values[i];
      out[i] = matcher.accept(json_text(value)) && matcher.may_end();
    }
    return out;
  }

  /// A given value.
  State spelled(const Json& v, State from) {
    if (v.is_string()) return parts_.string_of(from, v.get<std::string>());
    if (!v.is_structured()) return b_.literal(from, json_text(v));
    const bool object = v.is_object();
    State at = parts_.space(b_.literal(from, object ? "{" : "["));
    bool first = true;
    for (const auto& [key, item] : v.items()) {
      if (b_.full()) break;
      if (!std::exchange(first, false)) at = parts_.space(b_.literal(at, ","));
      if (object) at = parts_.space(b_.literal(parts_.string_of(at, key), ":"));
      at = spelled(item, at);
    }
    return b_.literal(v.empty() ? at : parts_.space(at), object ? "}" : "]");
  }

  Result<State> typed(const Json& schema, State from, const std::string& where) {
    TRY_ASSIGN(const std::set<std::string> allowed, types(schema, where));
    const State to = b_.state();
    for (const std::string& type : allowed) {
      TRY_ASSIGN(const State end, of_type(type, schema, from, where));
      b_.nothing(end, to);
    }
    return to;
  }

  Result<State> of_type(const std::string& type,
                        const Json& schema,
                        State from,
                        const std::string& where) {
    if (type == "null") return b_.literal(from, "null");
    if (type == "boolean") return parts_.boolean(from);
    if (type == "string") return string(schema, from, where);
    if (type == "object") return object(schema, from, where);
    if (type == "array") return array(schema, from, where);
    return number(schema, type == "integer", from, where);
  }

  Result<std::optional<uint64_t>> count(const Json& schema,
                                        const char* keyword,
                                        const std::string& where) {
    if (!schema.contains(keyword)) return std::nullopt;
    const Json& n = schema[keyword];
    const bool whole = n.is_number_unsigned() || (n.is_number_float() && n.get<double>() >= 0 &&
                                                  n.get<double>() <= kCountMax &&
                                                  std::floor(n.get<double>()) == n.get<double>());
    if (!whole || n.get<uint64_t>() > kCountMax)
      return refuse(where,
                    fmt::format("{} must be a whole number from 0 to {}", keyword, kCountMax));
    return n.get<uint64_t>();
  }

  Result<State> string(const Json& schema, State from, const std::string& where) {
    TRY_ASSIGN(const std::optional<uint64_t> least, count(schema, "minLength", where));
    TRY_ASSIGN(const std::optional<uint64_t> most, count(schema, "maxLength", where));
    std::string pattern;
    if (schema.contains("pattern")) {
      if (!schema["pattern"].is_string()) return refuse(where, "pattern must be a text");
      pattern = schema["pattern"].get<std::string>();
    }
    if (schema.contains("format")) {
      const Json& format = schema["format"];
      const std::string name = format.is_string() ? format.get<std::string>() : "";
      const auto it = formats().find(name);
      if (it == formats().end() && !kFormatsOfNumbers.contains(name))
        return refuse(where,
                      fmt::format("format {} is not supported", printable(json_text(format))));
      if (it != formats().end()) {
        if (!pattern.empty()) return refuse(where, "format beside pattern is not supported");
        pattern = it->second;
      }
    }
    if (pattern.empty()) return parts_.string(from, least.value_or(0), most);
    Result<State> out = read_pattern(b_, parts_, from, pattern, least.value_or(0), most);
    if (!out) return refuse(where, out.error().message);
    return out;
  }

  /// A bound; of the one that is included and the one that is not, the narrower.
  Result<std::optional<Decimal>> bound(const Json& schema, bool low, const std::string& where) {
    const char *included = low ? "minimum" : "maximum",
               *excluded = low ? "exclusiveMinimum" : "exclusiveMaximum";
    const Json* narrower = nullptr;
    bool is_excluded = false;
    for (const char* keyword : {included, excluded}) {
      if (!schema.contains(keyword)) continue;
      const Json& n = schema[keyword];
      if (!n.is_number()) return refuse(where, fmt::format("{} must be a number", keyword));
      const bool tighter = narrower == nullptr || (low ? !(n < *narrower) : !(*narrower < n));
      if (!tighter) continue;
      narrower = &n;
      is_excluded = keyword == excluded;
    }
    if (narrower == nullptr) return std::nullopt;
    std::optional<Decimal> out;
    if (narrower->is_number_integer()) {
      const bool negative = !narrower->is_number_unsigned() && narrower->get<int64_t>() < 0;
      const auto whole = narrower->get<uint64_t>();
      out = Decimal{.negative = negative, .whole = negative ? ~whole + 1 : whole};
    } else {
      out = decimal_of(narrower->get<double>());
    }
    // Beyond 63 bits nothing is read: a bound there excludes everything, or nothing that is.
    constexpr uint64_t kMost = INT64_MAX;
    if (!out || (out->whole >= kMost && low != out->negative))
      return refuse(where, "a bound is too large, or has too many digits behind its point");
    out->whole = std::min(out->whole, kMost);
    out->excluded = is_excluded;
    return out;
  }

  Result<State> number(const Json& schema, bool whole, State from, const std::string& where) {
    if (schema.contains("format") && !schema["format"].is_string())
      return refuse(where, "format must be a text");
    TRY_ASSIGN(const std::optional<Decimal> low, bound(schema, true, where));
    TRY_ASSIGN(const std::optional<Decimal> high, bound(schema, false, where));
    if (!low && !high) return whole ? parts_.integer(from) : parts_.number(from);
    if (!whole) return read_decimals(b_, from, low, high);
    // The first whole number that is within.
    const auto inwards = [](const std::optional<Decimal>& d,
                            bool is_low) -> std::optional<int64_t> {
      if (!d) return std::nullopt;
      const auto toward_zero = static_cast<int64_t>(d->whole) * (d->negative ? -1 : 1);
      const int64_t step = is_low ? 1 : -1;
      if (d->fraction.empty()) return toward_zero + (d->excluded ? step : 0);
      const bool outside = d->negative != is_low;
      return toward_zero + (outside ? step : 0);
    };
    return read_integers(b_, from, inwards(low, true), inwards(high, false));
  }

  /// An item of an array after `before` others.
  State separated(State from, uint64_t before) {
    return before == 0 ? from : parts_.space(b_.literal(from, ","));
  }

  Result<State> array(const Json& schema, State from, const std::string& where) {
    TRY_ASSIGN(const std::optional<uint64_t> min_items, count(schema, "minItems", where));
    TRY_ASSIGN(const std::optional<uint64_t> most, count(schema, "maxItems", where));
    const uint64_t least = min_items.value_or(0);
    // Before 2020-12 items was a list, too, and additionalItems was what came after it.
    const bool old = schema.contains("items") && schema["items"].is_array();
    if (old && schema.contains("prefixItems"))
      return refuse(where, "items must be a schema where there are prefixItems");
    const char* const first_keyword = old ? "items" : "prefixItems";
    const char* const rest_keyword = old ? "additionalItems" : "items";
    static const Json kNone = Json::array(), kAnything = true;
    const Json& first = schema.contains(first_keyword) ? schema[first_keyword] : kNone;
    const Json& rest = schema.contains(rest_keyword) ? schema[rest_keyword] : kAnything;
    if (!first.is_array()) return refuse(where, "prefixItems must be a list");
    // Each item is a rule: it stands in several places.
    const auto item = [&](uint64_t i, State at, State to) {
      const bool listed = i < first.size();
      const Json& of = listed ? first[i] : rest;
      b_.call(at, rule_of(of, place(where, listed ? first_keyword : rest_keyword)), to);
    };
    const State end = b_.state();
    State at = parts_.space(b_.literal(from, "["));
    const uint64_t counted = std::max<uint64_t>({least, most.value_or(0), first.size()});
    for (uint64_t i = 0; !b_.full(); ++i) {
      if (i >= least) b_.nothing(b_.literal(i == 0 ? at : parts_.space(at), "]"), end);
      if (most && i == *most) return end;
      if (i == counted) break;
      const State next = b_.state();
      item(i, separated(at, i), next);
      at = next;
    }
    // Any number of further ones.
    const State more = b_.state(), after = b_.state();
    b_.nothing(separated(at, counted), more);
    item(counted, more, after);
    b_.nothing(separated(after, 1), more);
    b_.nothing(b_.literal(parts_.space(after), "]"), end);
    return end;
  }

  Result<State> object(const Json& schema, State from, const std::string& where) {
    static const Json kNone = Json::object(), kAnything = true;
    const Json& properties = schema.contains("properties") ? schema["properties"] : kNone;
    const Json& others =
        schema.contains("additionalProperties") ? schema["additionalProperties"] : kAnything;
    if (!properties.is_object()) return refuse(where, "properties must be an object");
    static const Json kNoNames = Json::array();
    const Json& required = schema.contains("required") ? schema["required"] : kNoNames;
    const bool names_only =
        required.is_array() && std::all_of(required.begin(), required.end(), [](const Json& name) {
          return name.is_string();
        });
    if (!names_only) return refuse(where, "required must be a list of names");
    if (properties.size() + required.size() > kFieldsMax)
      return refuse(where, fmt::format("has more than {} fields", kFieldsMax));
    struct Field {
      std::string name;
      const Json* schema;
      bool required;
    };
    std::vector<Field> fields;
    std::set<std::string> names, needed;
    for (const Json& name : required) needed.insert(name.get<std::string>());
    const auto add = [&](const std::string& name, const Json& of) {
      if (names.insert(name).second) fields.push_back({name, &of, needed.contains(name)});
    };
    for (const auto& [name, of] : properties.items()) add(name, of);
    for (const Json& name : required) add(name.get<std::string>(), others);
    size_t closes = fields.size();  // no field from there on is required
    while (closes > 0 && !fields[closes - 1].required) --closes;

    // next: where a field from the i-th on is read. It is another one unless it must be the i-th.
    const State end = b_.state(), opened = parts_.space(b_.literal(from, "{"));
    State next = b_.state();
    b_.nothing(opened, next);
    if (closes == 0) b_.nothing(b_.literal(opened, "}"), end);
    for (size_t i = 0; i < fields.size(); ++i) {
      const Field& f = fields[i];
      const State name = parts_.string_of(next, f.name);
      TRY_ASSIGN(const State after,
                 value(*f.schema, parts_.space(b_.literal(name, ":")), place(where, f.name)));
      if (i + 1 >= closes) b_.nothing(b_.literal(parts_.space(after), "}"), end);
      const State before = std::exchange(next, b_.state());
      b_.nothing(parts_.space(b_.literal(after, ",")), next);
      if (!f.required) b_.nothing(before, next);
    }
    if (others.is_boolean() && !others.get<bool>()) return end;
    // Then any, under other names.
    const State more = b_.state();
    b_.nothing(next, more);
    TRY_ASSIGN(const State after,
               value(others,
                     parts_.space(b_.literal(other_name(more, names), ":")),
                     place(where, "additionalProperties")));
    b_.nothing(parts_.space(b_.literal(after, ",")), more);
    b_.nothing(b_.literal(parts_.space(after), "}"), end);
    return end;
  }

  /// A name, of characters that stand for themselves, that is none of these.
  State other_name(State from, const std::set<std::string>& names) {
    const State opened = b_.literal(from, "\""), end = b_.state(), free = b_.state();
    const Rule any = parts_.character_of(parts_.escaped().complement());
    b_.call(free, any, free);
    b_.set_free(free, Automaton::kFreely);
    b_.bytes(free, '"', '"', end);
    // Down the tree of the names, and free where a character leaves it.
    struct Level {
      State state;
      size_t depth;
      std::vector<const std::u32string*> names;  // that begin as what was read
    };
    std::vector<std::u32string> all;
    for (const std::string& name : names) all.push_back(text::utf8_points(name));
    std::vector<Level> open = {{opened, 0, {}}};
    for (const std::u32string& name : all) open[0].names.push_back(&name);
    while (!open.empty() && !b_.full()) {
      Level level = std::move(open.back());
      open.pop_back();
      std::map<char32_t, std::vector<const std::u32string*>> next;
      CodePoints taken = parts_.escaped();
      bool is_name = false;
      for (const std::u32string* const name : level.names) {
        is_name = is_name || name->size() == level.depth;
        if (name->size() > level.depth) next[(*name)[level.depth]].push_back(name);
      }
      for (const auto& [c, unused] : next) taken.add(c, c);
      if (!is_name) b_.bytes(level.state, '"', '"', end);
      b_.call(level.state, parts_.character_of(taken.complement()), free);
      for (auto& [c, so_far] : next) {
        const State state = b_.state();
        b_.call(level.state, parts_.character_of({{c, c}}), state);
        open.push_back({state, level.depth + 1, std::move(so_far)});
      }
    }
    return end;
  }

  AutomatonBuilder& b_;
  JsonParts& parts_;
  References references_;
  std::string root_name_;
  std::map<const Json*, Rule> rules_;
  std::vector<OpenRule> open_;
  std::deque<Json> kept_;
  SchemaWork& work_;
  int depth_ = 0;
};

Result<std::shared_ptr<const Automaton>> shared(AutomatonBuilder& b, const std::string& name) {
  Result<Automaton> a = b.finish();
  if (!a) return fail(a.error().code, "{}: {}", name, a.error().message);
  return std::make_shared<const Automaton>(*std::move(a));
}

}  // namespace

Result<State> read_schema(AutomatonBuilder& b,
                          JsonParts& parts,
                          State from,
                          std::string_view schema,
                          const std::string& name,
                          SchemaWork& work) {
  if (schema.size() > kSchemaBytesMax)
    return fail(Code::kInvalidInput, "{}: is longer than {} bytes", name, kSchemaBytesMax);
  const Result<Json> root = parse_ordered_json(schema, name);
  if (!root) return fail(Code::kInvalidInput, "{}", root.error().message);
  return Compiler(b, parts, *root, name, work).document(*root, from);
}

Result<std::shared_ptr<const Automaton>> schema_automaton(std::string_view schema,
                                                          const std::string& name) {
  AutomatonBuilder b;
  JsonParts parts(b);
  SchemaWork work;
  const State start = b.start(b.rule());
  TRY_ASSIGN(const State end, read_schema(b, parts, start, schema, name, work));
  b.end(end);
  return shared(b, name);
}

}  // namespace ferry::grammar
