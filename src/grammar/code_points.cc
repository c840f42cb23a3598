#include "grammar/code_points.h"

#include <algorithm>

#include "text/utf8.h"

namespace ferry::grammar {
namespace {

constexpr char32_t kLast = 0x10FFFF, kSurrogates = 0xD800, kSurrogatesEnd = 0xE000;

/// The last code point whose UTF-8 is as long as that of `point`.
char32_t last_as_long(char32_t point) {
  for (const char32_t last : {0x7F, 0x7FF, 0xFFFF})
    if (point <= last) return last;
  return kLast;
}

/// Sequences of equally many bytes from low to high, each but the first of 0x80 to 0xBF.
void read_between(
    AutomatonBuilder& b, State from, std::string_view low, std::string_view high, State after) {
  const auto first = static_cast<uint8_t>(low[0]), last = static_cast<uint8_t>(high[0]);
  if (low.size() == 1) return b.bytes(from, first, last, after);
  const std::string least(low.size() - 1, '\x80'), most(low.size() - 1, '\xBF');
  const auto with_first = [&](uint8_t l, uint8_t h, std::string_view rest, std::string_view to) {
    if (l > h) return;
    const State next = b.state();
    b.bytes(from, l, h, next);
    read_between(b, next, rest, to, after);
  };
  if (first == last) return with_first(first, first, low.substr(1), high.substr(1));
  const bool low_cut = low.substr(1) != least, high_cut = high.substr(1) != most;
  if (low_cut) with_first(first, first, low.substr(1), most);
  with_first(static_cast<uint8_t>(first + (low_cut ? 1 : 0)),
             static_cast<uint8_t>(last - (high_cut ? 1 : 0)),
             least,
             most);
  if (high_cut) with_first(last, last, least, high.substr(1));
}

}  // namespace

CodePoints CodePoints::all() { return CodePoints().complement(); }

void CodePoints::append(char32_t low, char32_t high) {
  high = std::min(high, kLast);
  if (low < kSurrogates && high >= kSurrogates) {
    append(low, kSurrogates - 1);
    low = kSurrogatesEnd;
  }
  if (low >= kSurrogates && low < kSurrogatesEnd) low = kSurrogatesEnd;
  if (low <= high) ranges_.emplace_back(low, high);
}

void CodePoints::add(char32_t low, char32_t high) {
  append(low, high);
  std::sort(ranges_.begin(), ranges_.end());
  std::vector<Range> joined;
  for (const Range& r : ranges_)
    if (!joined.empty() && r.first <= joined.back().second + 1)
      joined.back().second = std::max(joined.back().second, r.second);
    else
      joined.push_back(r);
  ranges_ = std::move(joined);
}

void CodePoints::add(const CodePoints& other) {
  for (const Range& r : other.ranges_) add(r.first, r.second);
}

CodePoints CodePoints::complement() const {
  CodePoints out;
  char32_t next = 0;
  for (const Range& r : ranges_) {
    if (r.first > next) out.append(next, r.first - 1);
    next = r.second + 1;
  }
  if (next <= kLast) out.append(next, kLast);
  return out;
}

void read_utf8(AutomatonBuilder& b, State from, char32_t low, char32_t high, State after) {
  while (low <= high) {
    const char32_t last = std::min(high, last_as_long(low));
    std::string first_bytes, last_bytes;
    text::append_utf8(first_bytes, low);
    text::append_utf8(last_bytes, last);
    read_between(b, from, first_bytes, last_bytes, after);
    low = last + 1;
  }
}

}  // namespace ferry::grammar
