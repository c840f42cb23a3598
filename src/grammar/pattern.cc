#include "grammar/pattern.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/json.h"
#include "text/utf8.h"

namespace ferry::grammar {
namespace {

constexpr size_t kPatternBytesMax = 4096;
constexpr int kDepthMax = 100;
constexpr uint64_t kRepeatMax = 1000;
constexpr size_t kStatesMax = 20'000;  // of the pattern, whose characters are edges
constexpr uint64_t kUnbounded = UINT64_MAX;

const CodePoints kDigit{{'0', '9'}};
const CodePoints kWord{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePoints kBlank{{'\t', '\r'},
                        {' ', ' '},
                        {0xA0, 0xA0},
                        {0x1680, 0x1680},
                        {0x2000, 0x200A},
                        {0x2028, 0x2029},
                        {0x202F, 0x202F},
                        {0x205F, 0x205F},
                        {0x3000, 0x3000},
                        {0xFEFF, 0xFEFF}};
const CodePoints kLineEnd{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

/// What a pattern says, as a tree.
struct Node {
  enum class Kind { kSet, kSequence, kEither, kRepeat, kBegin, kEnd };
  Kind kind = Kind::kSequence;
  CodePoints set = {};
  std::vector<Node> of = {};
  uint64_t least = 0, most = 0;  // kRepeat
};

class Parser {
 public:
  explicit Parser(std::string_view pattern) : text_(pattern) {}

  Result<Node> parse() {
    if (text_.size() > kPatternBytesMax)
      return wrong(fmt::format("is longer than {} bytes", kPatternBytesMax));
    if (text::well_formed_prefix(text_) < text_.size()) return wrong("is not UTF-8");
    TRY_ASSIGN(Node node, either(0));
    if (at_ < text_.size()) return wrong("has a ) that closes nothing");
    return node;
  }

 private:
  tl::unexpected<Status> wrong(std::string_view what) const {
    return fail(Code::kInvalidInput, "pattern {} {}", printable(text_), what);
  }
  bool ended() const { return at_ == text_.size(); }
  bool next_is(char c) const { return !ended() && text_[at_] == c; }
  bool take(char c) {
    const bool is = next_is(c);
    if (is) ++at_;
    return is;
  }
  char32_t character() {
    const text::Utf8Char c = text::decode_utf8(text_, at_);
    at_ += c.bytes;
    return c.point;
  }

  Result<Node> either(int depth) {
    if (depth > kDepthMax) return wrong(fmt::format("is nested deeper than {} groups", kDepthMax));
    Node out{.kind = Node::Kind::kEither};
    do {
      TRY_ASSIGN(Node one, sequence(depth));
      out.of.push_back(std::move(one));
    } while (take('|'));
    return out;
  }

  Result<Node> sequence(int depth) {
    Node out;
    while (!ended() && !next_is('|') && !next_is(')')) {
      TRY_ASSIGN(Node one, item(depth));
      TRY(repeated(one));
      out.of.push_back(std::move(one));
    }
    return out;
  }

  Result<Node> item(int depth) {
    if (take('^')) return Node{.kind = Node::Kind::kBegin};
    if (take('$')) return Node{.kind = Node::Kind::kEnd};
    if (take('(')) return group(depth);
    Node out{.kind = Node::Kind::kSet};
    if (take('.')) {
      out.set = kLineEnd.complement();
    } else if (take('[')) {
      TRY_ASSIGN(out.set, char_class());
    } else if (take('\\')) {
      TRY_ASSIGN(out.set, escape(false));
    } else if (next_is('*') || next_is('+') || next_is('?')) {
      return wrong(fmt::format("repeats nothing, at byte {}", at_ + 1));
    } else {
      const char32_t c = character();
      out.set.add(c, c);
    }
    return out;
  }

  Result<Node> group(int depth) {
    if (take('?')) {
      if (take('<') && !next_is('=') && !next_is('!')) {  // a name changes nothing
        const size_t end = text_.find('>', at_);
        if (end == text_.npos) return wrong("has a group whose name does not end");
        at_ = end + 1;
      } else if (!take(':')) {
        return wrong("looks ahead or behind, or sets flags: an automaton cannot");
      }
    }
    TRY_ASSIGN(Node inner, either(depth + 1));
    if (!take(')')) return wrong("has a ( that is not closed");
    return inner;
  }

  /// A quantifier, if one follows.
  Result<void> repeated(Node& node) {
    uint64_t least = 0, most = kUnbounded;
    const size_t before = at_;
    if (take('+')) {
      least = 1;
    } else if (take('?')) {
      most = 1;
    } else if (take('{')) {
      TRY_ASSIGN(const bool counts, braces(least, most));
      if (!counts) {  // a brace like any other
        at_ = before;
        return {};
      }
    } else if (!take('*')) {
      return {};
    }
    if (node.kind == Node::Kind::kBegin || node.kind == Node::Kind::kEnd)
      return wrong("repeats ^ or $");
    take('?');  // lazy: what matches is the same
    if (next_is('*') || next_is('+') || next_is('?'))
      return wrong(fmt::format("repeats what is repeated already, at byte {}", at_ + 1));
    Node out{.kind = Node::Kind::kRepeat, .least = least, .most = most};
    out.of.push_back(std::move(node));
    node = std::move(out);
    return {};
  }

  std::optional<uint64_t> number() {
    const size_t begin = at_;
    uint64_t value = 0;
    for (; !ended() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      value = std::min<uint64_t>(value * 10 + static_cast<uint64_t>(text_[at_] - '0'), 1 << 20);
    if (at_ == begin) return std::nullopt;
    return value;
  }

  /// m}, m,} or m,n}; false if it is none of these.
  Result<bool> braces(uint64_t& least, uint64_t& most) {
    const std::optional<uint64_t> first = number();
    if (!first) return false;
    least = most = *first;
    if (take(',')) most = number().value_or(kUnbounded);
    if (!take('}')) return false;
    if (least > most) return wrong("repeats from more to fewer times");
    if (least > kRepeatMax || (most != kUnbounded && most > kRepeatMax))
      return wrong(fmt::format("repeats more than {} times", kRepeatMax));
    return true;
  }

  Result<char32_t> hexadecimal(size_t digits) {
    char32_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const size_t digit =
          ended() ? 16 : std::string_view("0123456789abcdef").find(text_[at_] | 0x20);
      if (digit >= 16 || (digit < 10 && (text_[at_] < '0' || text_[at_] > '9')))
        return wrong("has an escape with too few hexadecimal digits");
      value = value * 16 + static_cast<char32_t>(digit);
      ++at_;
    }
    return value;
  }

  /// What stands behind a backslash.
  Result<CodePoints> escape(bool in_class) {
    if (ended()) return wrong("ends with a backslash");
    const auto one = [](char32_t c) { return CodePoints{{c, c}}; };
    const char32_t c = character();
    switch (c) {
      case 'd': return kDigit;
      case 'D': return kDigit.complement();
      case 'w': return kWord;
      case 'W': return kWord.complement();
      case 's': return kBlank;
      case 'S': return kBlank.complement();
      case 't': return one('\t');
      case 'n': return one('\n');
      case 'r': return one('\r');
      case 'f': return one('\f');
      case 'v': return one('\v');
      case '0': return one(0);
      case 'x': {
        TRY_ASSIGN(const char32_t value, hexadecimal(2));
        return one(value);
      }
      case 'u': return unicode();
      case 'c': {
        if (ended() || ((text_[at_] | 0x20) < 'a') || ((text_[at_] | 0x20) > 'z'))
          return wrong("has a \\c without a letter");
        return one(static_cast<char32_t>(text_[at_++] & 0x1F));
      }
      case 'b':
        if (in_class) return one('\b');
        break;
      default: break;
    }
    const bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    if (c < 0x80 && (letter || (c >= '1' && c <= '9')))
      return wrong(fmt::format("uses \\{}, which is not supported", static_cast<char>(c)));
    return one(c);
  }

  Result<CodePoints> unicode() {
    char32_t value = 0;
    if (take('{')) {
      const size_t end = text_.find('}', at_);
      if (end == text_.npos || end == at_ || end - at_ > 6)
        return wrong("has a \\u{ } of no character");
      TRY_ASSIGN(value, hexadecimal(end - at_));
      ++at_;
    } else {
      TRY_ASSIGN(value, hexadecimal(4));
      if (value >= 0xD800 && value < 0xDC00 && text_.substr(at_).starts_with("\\u")) {
        at_ += 2;
        TRY_ASSIGN(const char32_t second, hexadecimal(4));
        if (second < 0xDC00 || second > 0xDFFF) return wrong("has half a pair of surrogates");
        value = 0x10000 + ((value - 0xD800) << 10) + (second - 0xDC00);
      }
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
      return wrong("has a \\u of no character");
    return CodePoints{{value, value}};
  }

  Result<CodePoints> char_class() {
    CodePoints set;
    const bool negated = take('^');
    while (!take(']')) {
      if (ended()) return wrong("has a [ that is not closed");
      TRY_ASSIGN(const CodePoints low, class_member());
      if (!next_is('-') || text_.substr(at_).starts_with("-]")) {
        set.add(low);
        continue;
      }
      take('-');
      if (ended()) return wrong("has a [ that is not closed");
      TRY_ASSIGN(const CodePoints high, class_member());
      const auto single = [](const CodePoints& s) {
        return s.ranges().size() == 1 && s.ranges()[0].first == s.ranges()[0].second;
      };
      if (!single(low) || !single(high) || low.ranges()[0].first > high.ranges()[0].first)
        return wrong("has a range in [ ] that is none");
      set.add(low.ranges()[0].first, high.ranges()[0].first);
    }
    return negated ? set.complement() : set;
  }

  Result<CodePoints> class_member() {
    if (take('\\')) return escape(true);
    const char32_t c = character();
    return CodePoints{{c, c}};
  }

  std::string_view text_;
  size_t at_ = 0;
};

/// The pattern's own automaton, over characters.
struct Characters {
  struct Edge {
    const CodePoints* set;  // nullptr: nothing is read
    size_t to;
  };
  std::vector<std::vector<Edge>> edges = {{}};

  size_t state() {
    if (edges.size() < kStatesMax) edges.emplace_back();
    return edges.size() - 1;
  }
  bool full() const { return edges.size() >= kStatesMax; }

  /// Reads what the node says; the state after it.
  size_t read(const Node& node, size_t from) {
    switch (node.kind) {
      case Node::Kind::kSet: {
        const size_t to = state();
        edges[from].push_back({&node.set, to});
        return to;
      }
      case Node::Kind::kSequence:
        for (const Node& one : node.of) from = read(one, from);
        return from;
      case Node::Kind::kEither: {
        const size_t to = state();
        for (const Node& one : node.of) {
          const size_t begin = state();
          edges[from].push_back({nullptr, begin});
          edges[read(one, begin)].push_back({nullptr, to});
        }
        return to;
      }
      case Node::Kind::kRepeat: return repeat(node, from);
      case Node::Kind::kBegin:
      case Node::Kind::kEnd: return from;  // none is left
    }
    return from;
  }

  size_t repeat(const Node& node, size_t from) {
    const Node& one = node.of[0];
    for (uint64_t i = 0; i < node.least && !full(); ++i) from = read(one, from);
    const size_t end = state();
    if (node.most == kUnbounded) {
      const size_t begin = state();
      edges[from].push_back({nullptr, begin});
      edges[read(one, begin)].push_back({nullptr, begin});
      edges[begin].push_back({nullptr, end});
      return end;
    }
    edges[from].push_back({nullptr, end});
    for (uint64_t i = node.least; i < node.most && !full(); ++i) {
      from = read(one, from);
      edges[from].push_back({nullptr, end});
    }
    return end;
  }
};

bool has_anchor(const Node& node) {
  return node.kind == Node::Kind::kBegin || node.kind == Node::Kind::kEnd ||
         std::any_of(node.of.begin(), node.of.end(), has_anchor);
}

/// The alternatives without their anchors, and with anything around them where they have none.
Result<void> anchor(Node& pattern, std::string_view text) {
  Node anything{.kind = Node::Kind::kRepeat, .least = 0, .most = kUnbounded};
  anything.of.push_back({.kind = Node::Kind::kSet, .set = CodePoints::all()});
  for (Node& one : pattern.of) {
    std::vector<Node>& items = one.of;
    if (!items.empty() && items.front().kind == Node::Kind::kBegin)
      items.erase(items.begin());
    else
      items.insert(items.begin(), anything);
    if (!items.empty() && items.back().kind == Node::Kind::kEnd)
      items.pop_back();
    else
      items.push_back(anything);
    if (has_anchor(one))
      return fail(Code::kInvalidInput,
                  "pattern {} has ^ or $ within: they may stand at the ends alone",
                  printable(text));
  }
  return {};
}

/// The pattern's states, each with how many characters were read, as far as that counts.
class Counted {
 public:
  Counted(AutomatonBuilder& b,
          JsonParts& parts,
          const Characters& characters,
          uint64_t least,
          std::optional<uint64_t> most)
      : b_(b), parts_(parts), of_(characters), least_(least), most_(most) {}

  State read(State from, size_t last) {
    const State opened = b_.literal(from, "\""), end = b_.state();
    b_.nothing(opened, at(0, 0));
    while (!open_.empty() && !b_.full()) {
      const auto [state, count] = open_.back();
      open_.pop_back();
      const State here = at(state, count);
      if (state == last && count >= least_) b_.bytes(here, '"', '"', end);
      for (const Characters::Edge& e : of_.edges[state]) {
        if (e.set == nullptr) {
          b_.nothing(here, at(e.to, count));
        } else if (!most_ || count < *most_) {
          const uint64_t more = count < (most_ ? *most_ : least_) ? count + 1 : count;
          b_.call(here, parts_.character_of(*e.set), at(e.to, more));
        }
      }
    }
    return end;
  }

 private:
  State at(size_t state, uint64_t count) {
    const auto [it, is_new] = states_.try_emplace({state, count}, 0);
    if (is_new) {
      it->second = b_.state();
      open_.emplace_back(state, count);
    }
    return it->second;
  }

  AutomatonBuilder& b_;
  JsonParts& parts_;
  const Characters& of_;
  uint64_t least_;
  std::optional<uint64_t> most_;
  std::map<std::pair<size_t, uint64_t>, State> states_;
  std::vector<std::pair<size_t, uint64_t>> open_;
};

}  // namespace

Result<State> read_pattern(AutomatonBuilder& b,
                           JsonParts& parts,
                           State from,
                           std::string_view pattern,
                           uint64_t length_min,
                           std::optional<uint64_t> length_max) {
  TRY_ASSIGN(Node node, Parser(pattern).parse());
  TRY(anchor(node, pattern));
  Characters characters;
  const size_t last = characters.read(node, 0);
  if (characters.full())
    return fail(Code::kInvalidInput,
                "pattern {} unfolds to more than {} states",
                printable(pattern),
                kStatesMax);
  return Counted(b, parts, characters, length_min, length_max).read(from, last);
}

}  // namespace ferry::grammar
