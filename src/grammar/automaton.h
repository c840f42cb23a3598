// What an answer may be, as an automaton over bytes: its edges read bytes, nothing, or call a rule,
// which is a part of the same automaton and may call itself. A walk keeps the states to return to on
// a stack.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ferry::grammar {

using State = uint32_t;
using Rule = uint32_t;

/// Immutable. The first rule is the whole; it begins in `start`.
///
/// No walk ends in a blind alley: height(s) is how many calls must at least be open at once on some
/// way from s to the end of its rule, and a walk that enters only states whose height fits below
/// kCallsMax can always come to an end. A state that leads nowhere has a height beyond that.
struct Automaton {
  static constexpr uint32_t kCallsMax = 96;  // open at once: bounds how deep an answer nests
  static constexpr uint32_t kFreely = UINT32_MAX;

  struct Edge {
    enum class Kind : uint8_t { kBytes, kNothing, kCall };
    Kind kind;
    uint8_t low, high;  // kBytes
    State to;           // kCall: where the walk goes on once the rule has ended
    State called;       // kCall: where the rule begins
  };
  std::vector<Edge> edges;  // of state s: from first[s] to first[s + 1]
  std::vector<uint32_t> first;
  std::vector<uint8_t> height;
  std::vector<uint8_t> ends;  // whether a rule ends there
  /// So many characters that JSON strings hold unescaped may come here, whichever they are, and the
  /// walk goes on. A hint: less is never wrong.
  std::vector<uint32_t> free;
  State start = 0;
};

/// Makes one. Functions that read something take the state before it and give, or take, the one
/// after it. Nothing may lead back into a state that was given out for something else to begin in.
class AutomatonBuilder {
 public:
  State state();
  Rule rule();  // to be called before it is known what it is, too
  State start(Rule rule) const { return rules_[rule]; }
  void end(State state) { ends_[state] = 1; }
  void set_free(State state, uint32_t characters) { free_[state] = characters; }

  void nothing(State from, State to);
  void bytes(State from, uint8_t low, uint8_t high, State to);
  void call(State from, Rule rule, State to);
  State literal(State from, std::string_view text);
  /// Any of the texts: what begins alike is read once, so that many are no alternatives of the walk.
  void one_of(State from, const std::set<std::string>& texts, State to);

  /// No more is taken in. What builds in a loop asks; finish() refuses.
  bool full() const { return full_; }
  /// The automaton of rule 0. Errors: kInvalidInput: it is too large, nothing satisfies it, or what
  /// does nests too deeply.
  Result<Automaton> finish();

 private:
  struct Edge {
    State from;
    Automaton::Edge edge;
    Rule rule;
  };
  void add(const Edge& edge);
  std::vector<State> rules_;  // where each begins
  std::vector<Edge> edges_;
  std::vector<uint8_t> ends_;
  std::vector<uint32_t> free_;
  bool full_ = false;
};

}  // namespace ferry::grammar
