// How long it takes to say which tokens may come next in an answer that is held to a schema: while a
// document is written, by a request that has said nothing yet and by one that has, and at single
// places. Usage: masks_bench TOKENIZER.json [TOKENS]: so many of its tokens, and where it has fewer,
// further ones that are two of it joined. The last line is JSON.
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/random.h"
#include "grammar/matcher.h"
#include "grammar/schema.h"

namespace ferry::grammar {
namespace {

constexpr const char* kSchema = R"({"type": "object", "properties": {
  "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
  "email": {"type": "string", "format": "email"},
  "short": {"type": "string", "maxLength": 200},
  "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
  "score": {"type": "number", "minimum": 0, "maximum": 1}, "more": {}},
  "required": ["name", "age", "email", "short", "tags", "score", "more"],
  "additionalProperties": false})";
constexpr const char* kDocument =
    R"({"name": "Ada Lovelace, countess of a place in England", "age": 36, "email": )"
    R"("ada.lovelace@example.org", "short": "She wrote what many call the first programme, for a )"
    R"(machine that was never built.", "tags": ["red", "blue"], "score": 0.9375, "more": {"born": )"
    R"([1815, 12, 10], "note": "Der Ärger mit \"Zahlen\" hört nie auf."}})";

double microseconds() { return system_clock().monotonic_s() * 1e6; }

std::vector<std::string> tokens_of(const text::Tokenizer& tokenizer, size_t count) {
  std::vector<std::string> tokens;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    tokens.emplace_back(tokenizer.is_special(id) ? "" : tokenizer.token_bytes(id));
  const size_t own = tokens.size();
  const Random random(1, RandomPurpose::kTest, 0);
  for (uint64_t i = 0; tokens.size() < count; ++i)
    tokens.push_back(tokens[random.below(2 * i, own)] + tokens[random.below(2 * i + 1, own)]);
  tokens.resize(count);
  return tokens;
}

/// The longest token each time.
std::vector<int32_t> cut(std::string_view text, const std::vector<std::string>& tokens) {
  std::map<std::string_view, int32_t> ids;
  size_t longest = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].empty()) continue;
    ids.emplace(tokens[i], static_cast<int32_t>(i));
    longest = std::max(longest, tokens[i].size());
  }
  std::vector<int32_t> out;
  while (!text.empty())
    for (size_t n = std::min(longest, text.size()); n > 0; --n)
      if (const auto it = ids.find(text.substr(0, n)); it != ids.end()) {
        out.push_back(it->second);
        text.remove_prefix(n);
        break;
      }
  return out;
}

void run(const std::string& path, size_t count) {
  auto tokenizer = text::Tokenizer::load(path);
  check(tokenizer.has_value(), "{}", tokenizer ? "" : tokenizer.error().message);
  if (count == 0) count = static_cast<size_t>(tokenizer->vocab_size());
  const std::vector<std::string> tokens = tokens_of(*tokenizer, count);
  const double begin = microseconds();
  const auto vocabulary = Vocabulary::of(tokens);
  const double vocabulary_ms = (microseconds() - begin) / 1e3;
  const double before = microseconds();
  auto automaton = schema_automaton(kSchema, "schema");
  check(automaton.has_value(), "{}", automaton ? "" : automaton.error().message);
  const double schema_us = microseconds() - before;
  const auto constraint = std::make_shared<const Constraint>(Constraint{*automaton, vocabulary});
  const std::vector<int32_t> ids = cut(kDocument, tokens);
  // The times of its masks, of a request that begins and when the document comes a second time.
  Matcher matcher(constraint);
  std::vector<double> first, again;
  for (std::vector<double>* const times : {&first, &again}) {
    for (const int32_t id : ids) {
      const double start = microseconds();
      static_cast<void>(matcher.allowed());
      times->push_back(microseconds() - start);
      check(matcher.accept(id), "the document is not read at token {}", id);
    }
    check(matcher.may_end(), "the document may not end");
    matcher.restart();
  }
  const auto mean = [](const std::vector<double>& t) {
    double sum = 0;
    for (const double x : t) sum += x;
    return sum / static_cast<double>(t.size());
  };
  nlohmann::ordered_json out = {{"tokens", vocabulary->size()},
                                {"nodes", vocabulary->all().nodes.size()},
                                {"nodes_not_plain", vocabulary->not_plain().nodes.size()},
                                {"vocabulary_ms", vocabulary_ms},
                                {"schema_us", schema_us},
                                {"document_tokens", ids.size()},
                                {"mean_us", mean(first)},
                                {"largest_us", *std::max_element(first.begin(), first.end())},
                                {"again_us", mean(again)}};
  for (const auto& [name, text] :
       {std::pair{"string_us", "{\"name\": \"A"},
        {"key_us", "{\""},
        {"bounded_string_us", "{\"name\": \"\", \"age\": 1, \"email\": \"a@b.cd\", \"short\": \"a"},
        {"number_us", "{\"name\": \"\", \"age\": 1"},
        {"email_us", "{\"name\": \"\", \"age\": 1, \"email\": \"a"}}) {
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
      Matcher fresh(constraint);
      check(fresh.accept(std::string_view(text)), "{} is not read", text);
      const double start = microseconds();
      static_cast<void>(fresh.allowed());
      times.push_back(microseconds() - start);
    }
    std::sort(times.begin(), times.end());
    out[name] = times[times.size() / 2];
  }
  fmt::print("{}\n", out.dump());
}

}  // namespace
}  // namespace ferry::grammar

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    fmt::print(stderr, "usage: masks_bench TOKENIZER.json [TOKENS]\n");
    return 2;
  }
  ferry::grammar::run(argv[1], argc == 3 ? std::strtoul(argv[2], nullptr, 10) : 0);
  return 0;
}
