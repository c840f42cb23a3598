#include "grammar/automaton.h"

#include <algorithm>

namespace ferry::grammar {
namespace {

constexpr size_t kStatesMax = size_t{1} << 18, kEdgesMax = size_t{1} << 20;
constexpr uint8_t kNever = Automaton::kCallsMax + 1;

using Kind = Automaton::Edge::Kind;

/// The heights, from the lowest to the highest: of a state the smallest over its edges, of a call the
/// larger one of what is called, and one more, and of what follows (Knuth 1977, "A generalization of
/// Dijkstra's algorithm").
class Heights {
 public:
  explicit Heights(Automaton& automaton) : a_(automaton) {
    const size_t states = a_.ends.size();
    std::vector<std::vector<uint32_t>> into(states);  // edges that wait for a state
    std::vector<State> from(a_.edges.size());
    for (State s = 0; s < states; ++s)
      for (uint32_t e = a_.first[s]; e < a_.first[s + 1]; ++e) {
        from[e] = s;
        into[a_.edges[e].to].push_back(e);
        if (a_.edges[e].kind == Kind::kCall) into[a_.edges[e].called].push_back(e);
      }
    a_.height.assign(states, kNever);
    for (State s = 0; s < states; ++s)
      if (a_.ends[s] != 0) lower(s, 0);
    for (uint32_t h = 0; h < kNever; ++h)
      while (!at_[h].empty()) {
        const State s = at_[h].back();
        at_[h].pop_back();
        if (a_.height[s] != h) continue;  // it became lower since
        for (const uint32_t e : into[s]) lower(from[e], of(a_.edges[e]));
      }
  }

 private:
  uint32_t of(const Automaton::Edge& edge) const {
    const uint32_t after = a_.height[edge.to];
    return edge.kind == Kind::kCall ? std::max(after, a_.height[edge.called] + 1u) : after;
  }
  void lower(State s, uint32_t height) {
    if (height >= a_.height[s]) return;
    a_.height[s] = static_cast<uint8_t>(height);
    at_[height].push_back(s);
  }
  Automaton& a_;
  std::vector<State> at_[kNever];  // of each height
};

}  // namespace

State AutomatonBuilder::state() {
  full_ = full_ || ends_.size() >= kStatesMax;
  if (!full_ || ends_.empty()) {
    ends_.push_back(0);
    free_.push_back(0);
  }
  return static_cast<State>(ends_.size() - 1);
}

Rule AutomatonBuilder::rule() {
  rules_.push_back(state());
  return static_cast<Rule>(rules_.size() - 1);
}

void AutomatonBuilder::add(const Edge& edge) {
  full_ = full_ || edges_.size() >= kEdgesMax;
  if (!full_) edges_.push_back(edge);
}

void AutomatonBuilder::nothing(State from, State to) {
  add({from, {.kind = Kind::kNothing, .low = 0, .high = 0, .to = to, .called = 0}, 0});
}

void AutomatonBuilder::bytes(State from, uint8_t low, uint8_t high, State to) {
  add({from, {.kind = Kind::kBytes, .low = low, .high = high, .to = to, .called = 0}, 0});
}

void AutomatonBuilder::call(State from, Rule rule, State to) {
  add({from, {.kind = Kind::kCall, .low = 0, .high = 0, .to = to, .called = 0}, rule});
}

State AutomatonBuilder::literal(State from, std::string_view text) {
  for (const char c : text) {
    const State to = state();
    bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
    from = to;
  }
  return from;
}

void AutomatonBuilder::one_of(State from, const std::set<std::string>& texts, State to) {
  std::vector<State> path = {from};  // of the text before
  std::string_view before;
  for (const std::string& text : texts) {
    const auto [differs, unused] =
        std::mismatch(before.begin(), before.end(), text.begin(), text.end());
    path.resize(static_cast<size_t>(differs - before.begin()) + 1);
    for (const char c : std::string_view(text).substr(path.size() - 1))
      path.push_back(literal(path.back(), {&c, 1}));
    nothing(path.back(), to);
    before = text;
  }
}

Result<Automaton> AutomatonBuilder::finish() {
  if (full_)
    return fail(Code::kInvalidInput,
                "it needs more than {} states or {} edges: ask for less, or in fewer words",
                kStatesMax,
                kEdgesMax);
  std::stable_sort(
      edges_.begin(), edges_.end(), [](const Edge& a, const Edge& b) { return a.from < b.from; });
  Automaton a;
  a.start = rules_[0];
  a.ends = ends_;
  a.free = free_;
  a.first.assign(ends_.size() + 1, 0);
  for (const Edge& e : edges_) {
    ++a.first[e.from + 1];
    a.edges.push_back(e.edge);
    if (e.edge.kind == Kind::kCall) a.edges.back().called = rules_[e.rule];
  }
  for (size_t s = 1; s < a.first.size(); ++s) a.first[s] += a.first[s - 1];
  Heights{a};
  if (a.height[a.start] == kNever)
    return fail(Code::kInvalidInput,
                "nothing satisfies it, or only what nests deeper than {} levels",
                Automaton::kCallsMax);
  return a;
}

}  // namespace ferry::grammar
