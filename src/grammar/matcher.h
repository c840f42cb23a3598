// Follows one answer through an automaton and says which tokens may come next.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/vocabulary.h"

namespace ferry::grammar {

/// What an answer is held to. Immutable, shared by the requests that ask for it.
struct Constraint {
  std::shared_ptr<const Automaton> automaton;
  std::shared_ptr<const Vocabulary> vocabulary;
};

/// What is allowed is a function of the constraint and the answer so far, and is never nothing unless
/// the answer may end; what is kept beside it makes it quick. Memory and time are bounded for any
/// automaton: alternatives that it leaves open are followed side by side up to a bound, beyond it the
/// first ones alone, and where asking for all tokens would take too long, some of more than one byte
/// are not allowed though they could be. One answer, one thread.
class Matcher {
 public:
  explicit Matcher(std::shared_ptr<const Constraint> constraint);
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;

  /// A bit for each token of the vocabulary: whether it may come next. Valid until the next call.
  std::span<const uint64_t> allowed();
  /// Whether the answer may end here.
  bool may_end() const { return nodes_[path_[0]].place->may_end; }
  /// False: the token may not come here; nothing has changed.
  bool accept(int32_t token);
  bool accept(std::string_view bytes);
  /// To the beginning of another answer.
  void restart();

 private:
  /// A state and the calls that are open: an index into calls_.
  struct Position {
    State state;
    uint32_t calls;
    auto operator<=>(const Position&) const = default;
  };
  struct Call {
    State back;
    uint32_t below;  // an index into calls_
    uint32_t depth;  // calls that are open with this one
    auto operator<=>(const Call&) const = default;
  };
  /// Where the walk may be, all at once.
  struct Place {
    /// From where bytes are read, in the order in which they are found: indices of calls tell what
    /// was looked at before, and nothing may depend on that.
    std::vector<Position> reading;
    uint32_t free = 0;
    bool may_end = false;
    auto operator<=>(const Place&) const = default;
  };
  /// A place as a state of an automaton that knows no alternatives; made as it is needed.
  struct Node {
    const Place* place;
    uint32_t next[256];             // nodes; kUnknown, kDead
    std::vector<uint64_t> allowed;  // empty: not known yet
  };
  static constexpr uint32_t kUnknown = UINT32_MAX, kDead = UINT32_MAX - 1;

  uint32_t call(State back, uint32_t below);
  uint32_t node_of(Place place);
  uint32_t closure(std::vector<Position> open);
  uint32_t step(uint32_t node, uint8_t byte);
  void walk(const Vocabulary::Tree& tree, std::vector<uint64_t>& allowed);
  void make_room();

  std::shared_ptr<const Constraint> constraint_;
  const Automaton* automaton_;
  std::vector<Call> calls_;  // the first is none
  std::map<Call, uint32_t> call_index_;
  std::map<Place, uint32_t> node_index_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> path_;  // nodes: where the answer is, and on the way down a tree from there
  size_t masks_ = 0;            // nodes whose `allowed` is known
};

}  // namespace ferry::grammar
