// Settings from TOML and from the command line, with messages that say file, line and key.
#include <algorithm>
#include <charconv>

// The only place that includes it: it takes seconds to compile.
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include "base/file.h"
#include "train/config.h"
#include "train/config_check.h"
#include "train/config_field.h"

namespace ferry {
namespace {

using namespace settings;

/// Edits (Damerau-Levenshtein, adjacent swaps count one) from a to b.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min(
          {d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

/// The same key elsewhere counts as near: "steps" under [schedule] means train.steps.
tl::unexpected<Status> unknown(std::string_view where,
                               const std::string& section,
                               const std::string& key,
                               const std::vector<Field>& fields) {
  const std::string path = section.empty() ? key : section + "." + key;
  std::string nearest;
  size_t best = 1000;
  const auto consider = [&](size_t cost, const std::string& candidate) {
    if (cost < best) best = cost, nearest = candidate;
  };
  if (path.size() <= 64)
    for (const Field& f : fields) {
      consider(distance(path, f.path()), f.path());
      if (section != f.section) consider(distance(key, f.key) + 1, f.path());
      if (section.empty()) consider(distance(key, f.section), f.section);
    }
  const std::string shown = path.size() <= 64 ? path : path.substr(0, 61) + "...";
  const std::string name = printable(shown);
  if (best <= std::max<size_t>(2, key.size() / 3))
    return fail(
        Code::kInvalidInput, "{}: unknown setting {}; did you mean {}?", where, name, nearest);
  return fail(Code::kInvalidInput,
              "{}: unknown setting {}; `ferry train --print-config` lists all",
              where,
              name);
}

const char* type_name(toml::node_type t) {
  switch (t) {
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "an array";
    case toml::node_type::string: return "text";
    case toml::node_type::integer: return "a whole number";
    case toml::node_type::floating_point: return "a number with a fraction";
    case toml::node_type::boolean: return "true or false";
    case toml::node_type::none: return "nothing";
    default: return "a date or time";
  }
}

Result<void> assign_node(const Field& f, const toml::node& node, std::string_view where) {
  const Kind kind = kind_of(f);
  if (const auto* i = node.as_integer()) {
    if (kind == Kind::kInteger) return assign(f, i->get(), where);
    if (kind == Kind::kNumber) return assign(f, static_cast<double>(i->get()), where);
  }
  if (const auto* d = node.as_floating_point(); d && kind == Kind::kNumber)
    return assign(f, d->get(), where);
  if (const auto* b = node.as_boolean(); b && kind == Kind::kBool)
    return assign(f, b->get(), where);
  if (const auto* s = node.as_string(); s && kind == Kind::kText) return assign(f, s->get(), where);
  return refused(where, f, type_name(node.type()));
}

Result<void> read_table(const toml::table& table,
                        const std::string& section,
                        std::string_view name,
                        const std::vector<Field>& fields) {
  for (const auto& [k, node] : table) {
    const std::string key(k.str());
    const std::string path = section.empty() ? key : section + "." + key;
    const std::string where =
        fmt::format("{}:{}", name, static_cast<int64_t>(k.source().begin.line));
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const Field& f) {
      return f.section == section && f.key == key;
    });
    if (field != fields.end()) {
      TRY(assign_node(*field, node, where));
      continue;
    }
    const bool is_section = std::any_of(
        fields.begin(), fields.end(), [&](const Field& f) { return f.section == path; });
    if (!is_section) return unknown(where, section, key, fields);
    if (const toml::table* inner = node.as_table())
      TRY(read_table(*inner, path, name, fields));
    else
      return fail(Code::kInvalidInput,
                  "{}: {} is {}; it must be a section, [{}]",
                  where,
                  path,
                  type_name(node.type()),
                  path);
  }
  return {};
}

template <typename T>
bool read_whole(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

Result<void> override(std::string_view option, const std::vector<Field>& fields) {
  if (option.starts_with("--")) option.remove_prefix(2);
  const size_t equals = option.find('=');
  if (equals == std::string_view::npos)
    return fail(Code::kInvalidInput,
                "command line: {}: settings are given as --section.key=value",
                in_quotes(option));
  const std::string path(option.substr(0, equals));
  const std::string text(option.substr(equals + 1));
  const std::string where = "command line";
  const auto f =
      std::find_if(fields.begin(), fields.end(), [&](const Field& x) { return x.path() == path; });
  if (f == fields.end()) {
    const size_t dot = path.rfind('.');
    return dot == std::string::npos
               ? unknown(where, "", path, fields)
               : unknown(where, path.substr(0, dot), path.substr(dot + 1), fields);
  }
  switch (kind_of(*f)) {
    case Kind::kInteger: {
      int64_t v = 0;
      return read_whole(text, v) ? assign(*f, v, where) : refused(where, *f, in_quotes(text));
    }
    case Kind::kNumber: {
      double v = 0;
      return read_whole(text, v) ? assign(*f, v, where) : refused(where, *f, in_quotes(text));
    }
    case Kind::kBool:
      if (text != "true" && text != "false") return refused(where, *f, in_quotes(text));
      return assign(*f, text == "true", where);
    case Kind::kText: return assign(*f, text, where);
  }
  return {};
}

}  // namespace

Result<Settings> parse_settings(std::string_view text,
                                std::string_view name,
                                std::span<const std::string> overrides) {
  Settings settings;
  const std::vector<Field> fields = fields_of(settings);
  const toml::parse_result parsed = toml::parse(text, name);
  if (!parsed)
    return fail(Code::kInvalidInput,
                "{}:{}: {}",
                name,
                static_cast<int64_t>(parsed.error().source().begin.line),
                parsed.error().description());
  TRY(read_table(parsed.table(), "", name, fields));
  for (const std::string& option : overrides) TRY(override(option, fields));
  TRY(check_together(settings, name));
  return settings;
}

Result<Settings> read_settings(const std::string& path, std::span<const std::string> overrides) {
  TRY_ASSIGN(const std::string text, read_file(path, 1 << 20));
  return parse_settings(text, path, overrides);
}

}  // namespace ferry
