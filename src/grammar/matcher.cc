#include "grammar/matcher.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/check.h"

namespace ferry::grammar {
namespace {

constexpr size_t kReadingMax = 256;  // alternatives that are followed side by side
constexpr size_t kVisitsMax = 4096;  // states that are looked at for them
/// Of one mask: nodes of the tree, each as often as there are alternatives. A function of the place,
/// not of what is kept.
constexpr uint64_t kWorkMax = uint64_t{1} << 22;
// What is kept beside the place.
constexpr size_t kNodesMax = 2048, kCallsMax = size_t{1} << 16, kMasksMax = 128;

using Kind = Automaton::Edge::Kind;

}  // namespace

Matcher::Matcher(std::shared_ptr<const Constraint> constraint)
    : constraint_(std::move(constraint)),
      automaton_(constraint_->automaton.get()),
      calls_({{.back = 0, .below = 0, .depth = 0}}) {
  restart();
}

void Matcher::restart() {
  path_ = {closure({{automaton_->start, 0}})};
  check(path_[0] != kDead, "grammar: the automaton reads nothing");
  make_room();
}

uint32_t Matcher::call(State back, uint32_t below) {
  const Call c{.back = back, .below = below, .depth = calls_[below].depth + 1};
  const auto [it, is_new] = call_index_.try_emplace(c, static_cast<uint32_t>(calls_.size()));
  if (is_new) calls_.push_back(c);
  return it->second;
}

/// The node of all that can be reached from these without reading.
uint32_t Matcher::closure(std::vector<Position> open) {
  const Automaton& a = *automaton_;
  std::reverse(open.begin(), open.end());  // the first is looked at first
  Place place;
  std::set<Position> seen;
  while (!open.empty() && seen.size() < kVisitsMax && place.reading.size() < kReadingMax) {
    const Position p = open.back();
    open.pop_back();
    const uint32_t depth = calls_[p.calls].depth;
    if (depth + a.height[p.state] > Automaton::kCallsMax || !seen.insert(p).second) continue;
    place.free = std::max(place.free, a.free[p.state]);
    if (a.ends[p.state] != 0) {
      if (p.calls == 0)
        place.may_end = true;
      else
        open.push_back({calls_[p.calls].back, calls_[p.calls].below});
    }
    bool reads = false;
    for (uint32_t e = a.first[p.state + 1]; e-- > a.first[p.state];) {
      const Automaton::Edge& edge = a.edges[e];
      if (edge.kind == Kind::kBytes)
        reads = true;
      else if (edge.kind == Kind::kNothing)
        open.push_back({edge.to, p.calls});
      else if (depth + std::max<uint32_t>(a.height[edge.to], a.height[edge.called] + 1u) <=
               Automaton::kCallsMax)
        open.push_back({edge.called, call(edge.to, p.calls)});
    }
    if (reads) place.reading.push_back(p);
  }
  if (place.reading.empty() && !place.may_end) return kDead;
  return node_of(std::move(place));
}

uint32_t Matcher::node_of(Place place) {
  const auto [it, is_new] =
      node_index_.try_emplace(std::move(place), static_cast<uint32_t>(nodes_.size()));
  if (is_new) {
    nodes_.push_back({.place = &it->first, .next = {}, .allowed = {}});
    std::fill(std::begin(nodes_.back().next), std::end(nodes_.back().next), kUnknown);
  }
  return it->second;
}

uint32_t Matcher::step(uint32_t node, uint8_t byte) {
  if (const uint32_t known = nodes_[node].next[byte]; known != kUnknown) return known;
  std::vector<Position> after;
  for (const Position& p : nodes_[node].place->reading)
    for (uint32_t e = automaton_->first[p.state]; e < automaton_->first[p.state + 1]; ++e) {
      const Automaton::Edge& edge = automaton_->edges[e];
      if (edge.kind == Kind::kBytes && edge.low <= byte && byte <= edge.high)
        after.push_back({edge.to, p.calls});
    }
  const uint32_t next = after.empty() ? kDead : closure(std::move(after));
  nodes_[node].next[byte] = next;
  return next;
}

/// Where too much is kept, forgets all but the path.
void Matcher::make_room() {
  if (nodes_.size() < kNodesMax && calls_.size() < kCallsMax && masks_ < kMasksMax) return;
  std::vector<Place> places;
  for (const uint32_t node : path_) places.push_back(*nodes_[node].place);
  const std::vector<Call> before = std::exchange(calls_, {{.back = 0, .below = 0, .depth = 0}});
  call_index_.clear();
  node_index_.clear();
  nodes_.clear();
  masks_ = 0;
  std::vector<uint32_t> moved(before.size(), 0);
  for (size_t i = 0; i < places.size(); ++i) {
    for (Position& p : places[i].reading) {
      std::vector<uint32_t> chain;  // from the innermost call outwards
      for (uint32_t c = p.calls; c != 0 && moved[c] == 0; c = before[c].below) chain.push_back(c);
      for (; !chain.empty(); chain.pop_back()) {
        const Call& c = before[chain.back()];
        moved[chain.back()] = call(c.back, moved[c.below]);
      }
      p.calls = moved[p.calls];
    }
    path_[i] = node_of(std::move(places[i]));
  }
}

void Matcher::walk(const Vocabulary::Tree& tree, std::vector<uint64_t>& allowed) {
  uint64_t work = 0;
  for (size_t i = 0; i < tree.nodes.size();) {
    const Vocabulary::Node& n = tree.nodes[i];
    path_.resize(n.depth);
    make_room();
    work += nodes_[path_.back()].place->reading.size();
    const bool too_long = work > kWorkMax && n.depth > 1;
    const uint32_t next = too_long ? kDead : step(path_.back(), n.byte);
    if (next == kDead) {
      i = n.end;
      continue;
    }
    path_.push_back(next);
    for (uint32_t t = n.tokens; t < n.tokens_end; ++t) {
      const auto id = static_cast<uint32_t>(tree.tokens[t]);
      allowed[id / 64] |= uint64_t{1} << (id % 64);
    }
    ++i;
  }
  path_.resize(1);
}

std::span<const uint64_t> Matcher::allowed() {
  if (!nodes_[path_[0]].allowed.empty()) return nodes_[path_[0]].allowed;
  const Vocabulary& v = *constraint_->vocabulary;
  std::vector<uint64_t> allowed(v.plain().size());
  if (nodes_[path_[0]].place->free >= v.longest_plain()) {
    allowed = v.plain();
    walk(v.not_plain(), allowed);
  } else {
    walk(v.all(), allowed);
  }
  make_room();
  ++masks_;
  nodes_[path_[0]].allowed = std::move(allowed);
  return nodes_[path_[0]].allowed;
}

bool Matcher::accept(std::string_view bytes) {
  uint32_t node = path_[0];
  for (const char c : bytes) {
    node = step(node, static_cast<uint8_t>(c));
    if (node == kDead) return false;
  }
  path_[0] = node;
  make_room();
  return true;
}

bool Matcher::accept(int32_t token) {
  const Vocabulary& v = *constraint_->vocabulary;
  return token >= 0 && token < v.size() && !v.bytes(token).empty() && accept(v.bytes(token));
}

}  // namespace ferry::grammar
