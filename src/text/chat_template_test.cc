#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace ferry::text {
namespace {

/// 2026-03-07 09:05:01, as tools/oracle/make_chat_goldens.py has it, in the formats of its cases.
std::string golden_time(const std::string& format) {
  if (format == "%d %b %Y") return "07 Mar 2026";
  if (format == "%d %b %Y %H:%M") return "07 Mar 2026 09:05";
  if (format == "%Y-%m-%d") return "2026-03-07";
  if (format == "%B %d, %Y") return "March 07, 2026";
  return "a format that no case has: " + format;
}

Result<std::string> render(std::string_view source,
                           const nlohmann::ordered_json& context = nlohmann::ordered_json::object(),
                           const jinja::Limits& limits = {}) {
  TRY_ASSIGN(const ChatTemplate t, ChatTemplate::parse(source, "template"));
  return t.render(context, golden_time, limits);
}

/// Each case as jinja2 renders it; what jinja2 refuses is refused. FERRY_CHAT_TEMPLATES: other cases
/// (tools/oracle/make_chat_goldens.py).
TEST(ChatTemplate, RendersAsJinja2) {
  const char* const others = std::getenv("FERRY_CHAT_TEMPLATES");
  std::ifstream file(others != nullptr ? others : FERRY_SOURCE_DIR "/testdata/chat/templates.json");
  const auto cases = nlohmann::ordered_json::parse(file);
  ASSERT_GT(cases.size(), 100u);
  for (const auto& c : cases) {
    const Result<std::string> got = render(c.at("template").get<std::string>(), c.at("context"));
    const std::string name = c.at("name").get<std::string>();
    if (c.at("expected").is_null()) {
      EXPECT_FALSE(got.has_value()) << name << ": " << *got;
      EXPECT_TRUE(got || got.error().message.find("line ") != std::string::npos) << name;
    } else {
      EXPECT_TRUE(got.has_value()) << name << ": " << got.error().message;
      if (got) {
        EXPECT_EQ(*got, c.at("expected").get<std::string>()) << name;
      }
    }
  }
}

/// The demo's: what is asked for becomes the head of a dictionary's entry.
TEST(ChatTemplate, TheDemosAsksForAnEntry) {
  std::ifstream file(FERRY_SOURCE_DIR "/configs/demo_chat.jinja");
  std::ostringstream source;
  source << file.rdbuf();
  for (const auto& [asked, head] : std::initializer_list<std::pair<const char*, const char*>>{
           {"ferry", "Ferry"},
           {"define ocean", "Ocean"},
           {"  Define Ocean.\n", "Ocean"},
           {"Please define the word \"mercy\"!", "Mercy"},
           {"What is a ship?", "Ship"},
           {"What does 'anchor' mean?", "Anchor"},
           {"Can you explain an oar, please?", "Oar"},
           {"Theory", "Theory"},  // does not begin with an article
           {"?", ""}}) {
    const Result<std::string> got =
        render(source.str(),
               {{"bos_token", "<s>"},
                {"messages",
                 {{{"role", "user"}, {"content", "define something else"}},
                  {{"role", "assistant"}, {"content", "n."}},
                  {{"role", "user"}, {"content", asked}}}}});
    ASSERT_TRUE(got) << asked << ": " << got.error().message;
    EXPECT_EQ(*got, std::string("<s>") + head + " \\") << asked;
  }
}

TEST(ChatTemplate, NamesTheLineThatGoesWrong) {
  EXPECT_EQ(render("a\nb\n{{ nothing.at_all }}").error().message,
            "template: line 3: 'nothing' is undefined; it has no 'at_all'");
  EXPECT_EQ(render("\n{% include 'x' %}").error().message,
            "template: line 2: the tag 'include' is not supported in chat templates");
}

/// What a template must not do to whoever renders it.
TEST(ChatTemplate, IsLimited) {
  const auto refused = [](const std::string& source) {
    const Result<std::string> r = render(source,
                                         nlohmann::ordered_json::object(),
                                         {.steps = 300'000, .text_bytes = size_t{1} << 20});
    EXPECT_TRUE(!r && r.error().code == Code::kInvalidInput) << source.substr(0, 100);
    return r ? "" : r.error().message;
  };
  EXPECT_NE(refused("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}")
                .find("steps"),
            std::string::npos);
  refused("{{ 'a' * 999999999999 }}");
  refused(
      "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor "
      "%}");
  refused(
      "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor "
      "%}");
  refused("{% for i in range(99999) %}{{ 'abcdefghij' * 999 }}{% endfor %}");
  refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
  refused("{{ range(999999999)|list }}");
  refused(
      "{% set l = range(1, 9999)|list %}{% for i in range(999) %}{{ l|reject|first }}{% endfor %}");
  refused("{{ 9223372036854775807 + 1 }}");
  refused("{{ -9223372036854775807 - 2 }}");
  refused("{{ 10 ** 99 }}");
  refused("{{ 'a'|replace('', 'x' * 999999)|replace('', 'x' * 999999) }}");
  for (const char* wide :
       {"{{ '%99999999999d' % 1 }}",
        "{{ '%*s' % (9223372036854775807, 'a') }}",
        "{{ '%-*s' % (-9223372036854775807 - 1, 'a') }}",
        "{{ '%.99999f' % 1.5 }}",
        "{{ '{:099999999,}'.format(1) }}",
        "{{ '{:>{}}'.format('a', 99999999) }}",
        "{{ ('{0:900000}' * 99).format(1) }}",
        "{% for i in range(999) %}{{ '{:0999999,}'.format(1)|length }}{% endfor %}"})
    refused(wide);
  for (const char* piece : {"(", "[", "{", "not ", "-", "x[", "x(", "'a' if "})
    for (const size_t times : {size_t{99}, size_t{100000}}) {
      std::string source = "{{ ";
      for (size_t i = 0; i < times; ++i) source += piece;
      refused(source);
    }
  // Values that share their parts are as large as if they did not.
  const std::string doubled =
      "{% set n = namespace(v=['abcdefghij']) %}{% for i in range(60) %}{% set n.v = [n.v, n.v] %}"
      "{% endfor %}";
  for (const char* use :
       {"{{ n.v }}", "{{ n.v == [n.v] }}", "{{ n.v|tojson }}", "{{ n.v|length }}"})
    refused(doubled + use);
  refused("{% for i in range(2) %}{{ loop.changed(loop) }}{% endfor %}");
  refused(
      "{% set n = namespace(g=[1]|select) %}{% for i in range(9999) %}{% set n.g = n.g|select %}{% "
      "endfor %}{{ n.g|list }}");
  // Work within one call is counted, too.
  refused("{{ ('a ' * 500000).split()|length }}");
  refused("{{ (' ' * 1000000)|list|length }}");
  refused("{{ ('a' * 500000 + 'b') in ('a' * 1000000) }}");
  refused("{{ ('a' * 1000000).rfind('b' + 'a' * 500000) }}");
  refused("{{ ('a' * 1000000).replace('a' * 500000 + 'b', '') }}");
  refused("{{ ('a' * 1000000).split('a' * 500000 + 'b') }}");
  refused(
      "{% set a = 'a' * 100000 %}{{ [a ~ 1, a ~ 2, a ~ 3, a ~ 4, a ~ 5, a ~ 6]|map('lower')|sort"
      "|map('upper')|sort|map('lower')|sort|unique|list|length }}"
      "{% for i in range(99) %}{{ [a ~ 1, a ~ 2]|sort|length }}{% endfor %}");
  // So is looking for a name among many, and copying all of them.
  nlohmann::ordered_json many = nlohmann::ordered_json::object();
  for (int i = 0; i < 3'000; ++i) many[fmt::format("k{}", i)] = i;
  const nlohmann::ordered_json by_name = {{"d", many}};
  const jinja::Limits bounds = {.steps = 300'000, .text_bytes = size_t{1} << 20};
  for (const char* once : {"{{ '%(k2999)s' % d }}", "{{ '{k2999}'.format_map(d) }}"})
    EXPECT_EQ(render(once, by_name, bounds).value_or("refused"), "2999") << once;
  for (const char* often : {"{{ (('%(k2999)s' * 4000) % d)|length }}",
                            "{{ ('{k2999}' * 4000).format_map(d)|length }}",
                            "{% for i in range(500) %}{{ ''.format_map(d) }}{% endfor %}"}) {
    const Result<std::string> r = render(often, by_name, bounds);
    EXPECT_TRUE(!r && r.error().message.find("steps") != std::string::npos) << often;
  }
  // Numbers whose digits Python would keep.
  refused("{{ '9223372036854775808'|int }}");
  refused("{{ 1e30|int }}");
  refused("{{ '1e30'|int }}");
  refused("{{ 9007199254740993 / 3 }}");
  std::string conditions = "{{ 1", sum = "1";
  for (int i = 0; i < 1000000; ++i) conditions += " if 1";
  for (int i = 0; i < 1900; ++i) sum += " + 1";
  refused(conditions + " }}");
  refused("{% macro f() %}{{ " + sum + " + f() }}{% endmacro %}{{ f() }}");
  refused("{% macro f() %}{{ f() + " + sum + " }}{% endmacro %}{{ f() }}");
  std::string chain = "{{ 1", fields = "{{ x", blocks;
  for (int i = 0; i < 100000; ++i) {
    chain += " + 1";
    fields += ".a";
    blocks += "{% if 1 %}";
  }
  refused(chain + " }}");
  refused(fields + " }}");
  refused(blocks);
}

/// A value that holds itself cannot be made, and none is printed without end.
TEST(ChatTemplate, ValuesEnd) {
  EXPECT_FALSE(render("{% set n = namespace() %}{% set n.n = n %}{{ n }}").has_value());
  EXPECT_FALSE(render("{% set n = namespace() %}{% set n.n = [n] %}{{ n.n }}").has_value());
  EXPECT_FALSE(
      render(
          "{% set n = namespace(v=[]) %}{% for i in range(50000) %}{% set n.v = [n.v] %}{% endfor "
          "%}{{ n.v }}")
          .has_value());
}

}  // namespace
}  // namespace ferry::text
