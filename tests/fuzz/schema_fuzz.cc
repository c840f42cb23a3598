// Fuzzer of JSON schemas: the first byte draws an answer. Any text is refused with words, or gives an
// automaton, and a walk under its masks always finds something that it may say, and says JSON.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/check.h"
#include "grammar/matcher.h"
#include "grammar/schema.h"

namespace {

using namespace ferry;
using namespace ferry::grammar;

constexpr size_t kAnswerBytes = 300;  // after which it is let alone

std::shared_ptr<const Vocabulary> vocabulary() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* text : {"{\"", "\":", ", \"", "\"}", "[[", "]]", "\\u00", "12", "\n  ", "é"})
    tokens.emplace_back(text);
  return Vocabulary::of(std::move(tokens));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokens = vocabulary();
  if (size == 0) return 0;
  const auto automaton =
      schema_automaton({reinterpret_cast<const char*>(data) + 1, size - 1}, "fuzz");
  if (!automaton) {
    check(automaton.error().message.starts_with("fuzz"), "fuzz: {}", automaton.error().message);
    return 0;
  }
  Matcher matcher(std::make_shared<const Constraint>(Constraint{*automaton, tokens}));
  uint64_t draw = data[0];
  std::string answer;
  while (answer.size() < kAnswerBytes) {
    const std::span<const uint64_t> allowed = matcher.allowed();
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < tokens->size(); ++id)
      if ((allowed[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0) ids.push_back(id);
    draw = draw * 6364136223846793005 + 1442695040888963407;
    if (matcher.may_end() && (ids.empty() || (draw >> 60) == 0)) {
      check(nlohmann::json::accept(answer), "fuzz: {} is no JSON", answer);
      return 0;
    }
    check(!ids.empty(), "fuzz: nothing may follow {}", answer);
    const int32_t id = ids[(draw >> 33) % ids.size()];
    check(matcher.accept(id), "fuzz: what is allowed is not taken");
    answer += tokens->bytes(id);
  }
  return 0;
}
