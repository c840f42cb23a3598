#include "text/nfc.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace ferry::text {
namespace {

// Hangul syllables are composed by arithmetic (The Unicode Standard, section 3.12).
constexpr char32_t kSyllableBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161,
                   kTailBase = 0x11A7;
constexpr char32_t kLeads = 19, kVowels = 21, kTails = 28, kSyllables = kLeads * kVowels * kTails;

/// One bit per code point below 0x30000: set when NFC must look at it. Above, nothing composes.
class ActiveSet {
 public:
  ActiveSet() : bits_(kLimit / 64) {
    for (size_t i = 0; i < kCombiningClassesCount; ++i) set(kCombiningClasses[i].point);
    for (size_t i = 0; i < kCompositionsCount; ++i) set(kCompositions[i].second);
    for (char32_t c = kVowelBase; c < kVowelBase + kVowels; ++c) set(c);
    for (char32_t c = kTailBase + 1; c < kTailBase + kTails; ++c) set(c);
    std::vector<char32_t> composites;
    for (size_t i = 0; i < kCompositionsCount; ++i)
      composites.push_back(kCompositions[i].composite);
    std::sort(composites.begin(), composites.end());
    for (size_t i = 0; i < kDecompositionsCount; ++i) {  // decomposes and does not come back
      const char32_t point = kDecompositions[i].point;
      if (!std::binary_search(composites.begin(), composites.end(), point)) set(point);
    }
  }
  bool has(char32_t point) const {
    return point < kLimit && (bits_[point / 64] >> (point % 64) & 1) != 0;
  }

 private:
  static constexpr char32_t kLimit = 0x30000;
  void set(char32_t point) {
    if (point < kLimit) bits_[point / 64] |= uint64_t{1} << (point % 64);
  }
  std::vector<uint64_t> bits_;
};

const ActiveSet& active() {
  static const ActiveSet set;
  return set;
}

struct Marked {
  char32_t point;
  uint8_t combining_class;
};

uint8_t combining_class(char32_t point) {
  if (point < 0x300) return 0;
  const auto* end = kCombiningClasses + kCombiningClassesCount;
  const auto* it =
      std::lower_bound(kCombiningClasses, end, point, [](const CombiningClass& c, char32_t p) {
        return c.point < p;
      });
  return it != end && it->point == point ? it->value : uint8_t{0};
}

void decompose(char32_t point, std::vector<Marked>& out) {
  if (point >= kSyllableBase && point < kSyllableBase + kSyllables) {
    const char32_t s = point - kSyllableBase;
    out.push_back({kLeadBase + s / (kVowels * kTails), 0});
    out.push_back({kVowelBase + s % (kVowels * kTails) / kTails, 0});
    if (s % kTails != 0) out.push_back({kTailBase + s % kTails, 0});
    return;
  }
  const auto* end = kDecompositions + kDecompositionsCount;
  const auto* it = std::lower_bound(
      kDecompositions, end, point, [](const Decomposition& d, char32_t p) { return d.point < p; });
  if (it == end || it->point != point) {
    out.push_back({point, combining_class(point)});
    return;
  }
  for (uint32_t i = 0; i < it->count; ++i) {
    const char32_t part = kDecompositionParts[it->offset + i];
    out.push_back({part, combining_class(part)});
  }
}

/// The primary composite of the two, or 0.
char32_t compose(char32_t first, char32_t second) {
  if (first >= kLeadBase && first < kLeadBase + kLeads && second >= kVowelBase &&
      second < kVowelBase + kVowels) {
    return kSyllableBase + ((first - kLeadBase) * kVowels + (second - kVowelBase)) * kTails;
  }
  if (first >= kSyllableBase && first < kSyllableBase + kSyllables &&
      (first - kSyllableBase) % kTails == 0 && second > kTailBase && second < kTailBase + kTails) {
    return first + (second - kTailBase);
  }
  const auto* end = kCompositions + kCompositionsCount;
  const auto* it = std::lower_bound(kCompositions,
                                    end,
                                    std::pair{first, second},
                                    [](const Composition& c, std::pair<char32_t, char32_t> p) {
                                      return std::pair{c.first, c.second} < p;
                                    });
  return it != end && it->first == first && it->second == second ? it->composite : char32_t{0};
}

/// Canonical order, then canonical composition, of a run of decomposed characters; clears it.
void flush(std::vector<Marked>& run, std::string& out) {
  for (size_t i = 0; i < run.size();) {
    if (run[i].combining_class == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < run.size() && run[end].combining_class != 0) ++end;
    std::stable_sort(
        run.begin() + static_cast<ptrdiff_t>(i),
        run.begin() + static_cast<ptrdiff_t>(end),
        [](const Marked& a, const Marked& b) { return a.combining_class < b.combining_class; });
    i = end;
  }
  size_t kept = 0;
  ptrdiff_t starter = -1;
  int last_class = -1;  // of the character kept last since the starter; -1: none in between
  for (size_t i = 0; i < run.size(); ++i) {
    const Marked c = run[i];
    if (starter >= 0 && last_class < static_cast<int>(c.combining_class)) {
      Marked& s = run[static_cast<size_t>(starter)];
      if (const char32_t composite = compose(s.point, c.point); composite != 0) {
        s.point = composite;
        continue;
      }
    }
    if (c.combining_class == 0) {
      starter = static_cast<ptrdiff_t>(kept);
      last_class = -1;
    } else {
      last_class = c.combining_class;
    }
    run[kept++] = c;
  }
  for (size_t i = 0; i < kept; ++i) append_utf8(out, run[i].point);
  run.clear();
}

}  // namespace

bool nfc_may_change(std::string_view text) {
  const ActiveSet& set = active();
  for (size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) <
        0xCC) {  // U+0000..U+02FF start below CC and are inert
      ++i;
      continue;
    }
    const Utf8Char c = decode_utf8(text, i);
    if (c.well_formed && set.has(c.point)) return true;
    i += c.bytes;
  }
  return false;
}

std::string to_nfc(std::string_view text) {
  const ActiveSet& set = active();
  std::string out;
  out.reserve(text.size());
  std::vector<Marked> run;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = decode_utf8(text, i);
    if (!c.well_formed) {
      flush(run, out);
      out.append(text, i, c.bytes);
    } else {
      // An inert character never joins what stands before it.
      if (!set.has(c.point)) flush(run, out);
      decompose(c.point, run);
    }
    i += c.bytes;
  }
  flush(run, out);
  return out;
}

}  // namespace ferry::text
