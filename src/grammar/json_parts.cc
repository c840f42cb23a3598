#include "grammar/json_parts.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "text/utf8.h"

namespace ferry::grammar {
namespace {

constexpr int kIndentMax = 64;
constexpr int kDigitsMax = 40;  // before the point, and behind it

std::string utf8(char32_t c) {
  std::string out;
  text::append_utf8(out, c);
  return out;
}

State hexadecimal(AutomatonBuilder& b, State from, int digits) {
  for (int i = 0; i < digits; ++i) {
    const State to = b.state();
    b.bytes(from, '0', '9', to);
    b.bytes(from, 'a', 'f', to);
    b.bytes(from, 'A', 'F', to);
    from = to;
  }
  return from;
}

}  // namespace

State JsonParts::space(State from) {
  if (!space_) {
    space_ = b_.rule();
    const State start = b_.start(*space_);
    b_.end(start);
    b_.end(b_.literal(start, " "));
    State line = b_.literal(start, "\n");
    b_.end(line);
    for (int i = 0; i < kIndentMax; ++i) {
      const State next = b_.state();
      b_.bytes(line, ' ', ' ', next);
      b_.bytes(line, '\t', '\t', next);
      b_.end(next);
      line = next;
    }
  }
  const State to = b_.state();
  b_.call(from, *space_, to);
  return to;
}

Rule JsonParts::character() {
  if (character_) return *character_;
  character_ = b_.rule();
  const State start = b_.start(*character_), end = b_.state();
  b_.end(end);
  const CodePoints unescaped = escaped_.complement();
  for (const auto& [low, high] : unescaped.ranges()) read_utf8(b_, start, low, high, end);
  const State escape = b_.literal(start, "\\");
  for (const char c : std::string_view("\"\\/bfnrt"))
    b_.bytes(escape, static_cast<uint8_t>(c), static_cast<uint8_t>(c), end);
  // \uXXXX; where that is a surrogate, two that make a character.
  const State unit = b_.literal(escape, "u"), other = b_.state(), d = b_.state();
  for (const auto& [low, high] :
       {std::pair{'0', '9'}, {'a', 'c'}, {'e', 'f'}, {'A', 'C'}, {'E', 'F'}})
    b_.bytes(unit, static_cast<uint8_t>(low), static_cast<uint8_t>(high), other);
  b_.nothing(hexadecimal(b_, other, 3), end);
  b_.bytes(unit, 'd', 'd', d);
  b_.bytes(unit, 'D', 'D', d);
  const State below = b_.state(), leading = b_.state();
  b_.bytes(d, '0', '7', below);
  b_.nothing(hexadecimal(b_, below, 2), end);
  for (const auto& [low, high] : {std::pair{'8', '9'}, {'a', 'b'}, {'A', 'B'}})
    b_.bytes(d, static_cast<uint8_t>(low), static_cast<uint8_t>(high), leading);
  const State second = b_.literal(hexadecimal(b_, leading, 2), "\\u"), second_d = b_.state(),
              trailing = b_.state();
  b_.bytes(second, 'd', 'd', second_d);
  b_.bytes(second, 'D', 'D', second_d);
  b_.bytes(second_d, 'c', 'f', trailing);
  b_.bytes(second_d, 'C', 'F', trailing);
  b_.nothing(hexadecimal(b_, trailing, 2), end);
  return *character_;
}

Rule JsonParts::character_of(const CodePoints& set) {
  const auto found = sets_.find(set);
  if (found != sets_.end()) return found->second;
  const Rule rule = b_.rule();
  sets_.emplace(set, rule);
  const State start = b_.start(rule), end = b_.state();
  b_.end(end);
  const auto without = [&](const CodePoints& others) {
    CodePoints out = set.complement();
    out.add(others);
    return out.complement();
  };
  const CodePoints plain = without(escaped_), escaped = without(escaped_.complement());
  for (const auto& [low, high] : plain.ranges()) read_utf8(b_, start, low, high, end);
  for (const auto& [low, high] : escaped.ranges())
    for (char32_t c = low; c <= high; ++c) {
      const std::string quoted = written(json_text(nlohmann::json(utf8(c))));
      b_.nothing(b_.literal(start, std::string_view(quoted).substr(1, quoted.size() - 2)), end);
    }
  return rule;
}

State JsonParts::string(State from, uint64_t least, std::optional<uint64_t> most) {
  State at = b_.literal(from, "\"");
  const State end = b_.state();
  for (uint64_t i = 0; !b_.full(); ++i) {
    b_.set_free(at, most ? static_cast<uint32_t>(*most - i) : Automaton::kFreely);
    if (i >= least) b_.bytes(at, '"', '"', end);
    if (most ? i == *most : i == least) break;
    const State next = b_.state();
    b_.call(at, character(), next);
    at = next;
  }
  if (!most) b_.call(at, character(), at);
  return end;
}

State JsonParts::string_of(State from, const std::string& text) {
  return b_.literal(from, written(json_text(nlohmann::json(text))));
}

std::string JsonParts::written(std::string json) const {
  if (escaped_ == kEscaped) return json;
  const std::string mark = utf8(kOfMarks);
  for (size_t at = 0; (at = json.find(mark, at)) != json.npos;)
    json.replace(at, mark.size(), fmt::format("\\u{:04x}", static_cast<uint32_t>(kOfMarks)));
  return json;
}

State JsonParts::boolean(State from) {
  const State to = b_.state();
  for (const char* word : {"true", "false"}) b_.nothing(b_.literal(from, word), to);
  return to;
}

State JsonParts::digits(State from, int most) {
  const State to = b_.state();
  for (int i = 0; i < most; ++i) {
    const State next = b_.state();
    b_.bytes(from, '0', '9', next);
    b_.nothing(next, to);
    from = next;
  }
  return to;
}

State JsonParts::whole(State from) {
  const State magnitude = b_.state(), first = b_.state(), to = b_.state();
  b_.nothing(from, magnitude);
  b_.bytes(from, '-', '-', magnitude);
  b_.bytes(magnitude, '0', '0', to);
  b_.bytes(magnitude, '1', '9', first);
  b_.nothing(first, to);
  b_.nothing(digits(first, kDigitsMax - 1), to);
  return to;
}

State JsonParts::any_number(State from) {
  const State integer = whole(from), fraction = b_.state(), to = b_.state();
  b_.nothing(integer, fraction);
  b_.nothing(digits(b_.literal(integer, "."), kDigitsMax), fraction);
  b_.nothing(fraction, to);
  const State mark = b_.state(), positive = b_.state(), negative = b_.state();
  b_.bytes(fraction, 'e', 'e', mark);
  b_.bytes(fraction, 'E', 'E', mark);
  b_.nothing(mark, positive);
  b_.bytes(mark, '+', '+', positive);
  b_.bytes(mark, '-', '-', negative);
  b_.nothing(digits(positive, 2), to);
  b_.nothing(digits(negative, 3), to);
  return to;
}

/// What is read by a rule, which is made when it is first called.
State JsonParts::called(std::optional<Rule>& rule, State from, State (JsonParts::*read)(State)) {
  if (!rule) {
    rule = b_.rule();
    b_.end((this->*read)(b_.start(*rule)));
  }
  const State to = b_.state();
  b_.call(from, *rule, to);
  return to;
}

State JsonParts::integer(State from) { return called(whole_, from, &JsonParts::whole); }

State JsonParts::number(State from) { return called(number_, from, &JsonParts::any_number); }

State JsonParts::value(State from) { return called(value_, from, &JsonParts::any_value); }

/// Any values between the brackets, with keys or without.
State JsonParts::members(State from, uint8_t open, uint8_t close, bool keys) {
  const State opened = b_.state(), member = b_.state(), end = b_.state();
  b_.bytes(from, open, open, opened);
  const State first = space(opened);
  b_.bytes(first, close, close, end);
  b_.nothing(first, member);
  State at = member;
  if (keys) at = space(b_.literal(string(at, 0, std::nullopt), ":"));
  at = value(at);
  b_.nothing(space(b_.literal(at, ",")), member);
  b_.bytes(space(at), close, close, end);
  return end;
}

State JsonParts::object(State from) { return members(from, '{', '}', true); }

State JsonParts::array(State from) { return members(from, '[', ']', false); }

State JsonParts::any_value(State from) {
  const State end = b_.state();
  for (const State to : {object(from),
                         array(from),
                         string(from, 0, std::nullopt),
                         number(from),
                         boolean(from),
                         b_.literal(from, "null")})
    b_.nothing(to, end);
  return end;
}

}  // namespace ferry::grammar
