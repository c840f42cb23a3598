#include "data/near_duplicates.h"

#include <algorithm>
#include <array>

namespace ferry::data {
namespace {

constexpr size_t kSlotsMin = 64;
constexpr int kShingleWeight = 10;  // five words of weight 2, or ten characters of weight 1

/// The finaliser of splitmix64: every input bit moves every output bit.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

enum class Letter : uint8_t {
  kNone,
  kWord,
  kWide
};  // kWide: leads a UTF-8 character of 3 or 4 bytes

struct Letters {
  std::array<Letter, 256> kind{};
  std::array<uint8_t, 256> folded{};
};

constexpr Letters kLetters = [] {
  Letters t;
  for (int c = 0; c < 256; ++c) {
    const bool upper = c >= 'A' && c <= 'Z';
    t.folded[c] = static_cast<uint8_t>(upper ? c + 32 : c);
    const bool word = upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80;
    t.kind[c] = c >= 0xE0 ? Letter::kWide : word ? Letter::kWord : Letter::kNone;
  }
  return t;
}();

/// The last words, and the shingle that each new one ends.
class ShingleWindow {
 public:
  explicit ShingleWindow(std::vector<uint64_t>& out) : out_(out) {}

  void add(uint64_t word, int weight) {
    words_[count_++ % kShingleWeight] = {word, weight};
    int total = 0;
    uint64_t hash = 0;
    for (size_t back = 1; back <= count_ && back <= kShingleWeight && total < kShingleWeight;
         ++back) {
      const Word& w = words_[(count_ - back) % kShingleWeight];
      hash = mix(hash + w.hash);
      total += w.weight;
    }
    if (total >= kShingleWeight) out_.push_back(hash);
    whole_ = hash;
    full_ = full_ || total >= kShingleWeight;
  }

  void end() {
    if (count_ > 0 && !full_) out_.push_back(whole_);
  }

 private:
  struct Word {
    uint64_t hash;
    int weight;
  };
  std::vector<uint64_t>& out_;
  std::array<Word, kShingleWeight> words_{};
  size_t count_ = 0;
  uint64_t whole_ = 0;
  bool full_ = false;
};

}  // namespace

HashSet::HashSet() : slots_(kSlotsMin) {}

size_t HashSet::place(uint64_t hash) const {
  size_t i = mix(hash) & (slots_.size() - 1);
  while (slots_[i] != 0 && slots_[i] != hash) i = (i + 1) & (slots_.size() - 1);
  return i;
}

bool HashSet::insert(uint64_t hash) {
  if (hash == 0) hash = 1;
  if (size_ * 8 >= slots_.size() * 5) {
    std::vector<uint64_t> old(slots_.size() * 2);
    old.swap(slots_);
    for (const uint64_t h : old)
      if (h != 0) slots_[place(h)] = h;
  }
  uint64_t& slot = slots_[place(hash)];
  if (slot == hash) return false;
  slot = hash;
  ++size_;
  return true;
}

int64_t HashSet::find(uint64_t hash) const {
  if (hash == 0) hash = 1;
  const size_t i = place(hash);
  return slots_[i] == hash ? static_cast<int64_t>(i) : -1;
}

void append_shingles(std::string_view text, std::vector<uint64_t>& hashes) {
  ShingleWindow window(hashes);
  size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const Letter kind = kLetters.kind[lead];
    if (kind == Letter::kNone) {
      ++i;
      continue;
    }
    uint64_t hash = 0xCBF29CE484222325;  // FNV-1a over the folded bytes of the word
    const auto take = [&] {
      hash = (hash ^ kLetters.folded[static_cast<unsigned char>(text[i++])]) * 0x100000001B3;
    };
    take();
    if (kind == Letter::kWide) {
      while (i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) take();
    } else {
      while (i < text.size() && kLetters.kind[static_cast<unsigned char>(text[i])] == Letter::kWord)
        take();
    }
    window.add(hash, kind == Letter::kWide ? 1 : 2);
  }
  window.end();
}

OverlapIndex::OverlapIndex(std::span<const std::string_view> held_out) {
  std::vector<uint64_t> hashes;
  for (const std::string_view text : held_out) {
    hashes.clear();
    append_shingles(text, hashes);
    for (const uint64_t h : hashes) shingles_.insert(h);
  }
  seen_ = std::vector<std::atomic<bool>>(shingles_.slots());
}

void OverlapIndex::see(std::string_view training, std::vector<uint64_t>& scratch) {
  if (shingles_.size() == 0) return;
  scratch.clear();
  append_shingles(training, scratch);
  for (const uint64_t h : scratch)
    if (const int64_t slot = shingles_.find(h); slot >= 0)
      seen_[slot].store(true, std::memory_order_relaxed);
}

double OverlapIndex::share_seen(std::string_view held_out) const {
  std::vector<uint64_t> hashes;
  append_shingles(held_out, hashes);
  std::sort(hashes.begin(), hashes.end());
  hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
  size_t seen = 0;
  for (const uint64_t h : hashes)
    if (const int64_t slot = shingles_.find(h); slot >= 0)
      seen += seen_[slot].load(std::memory_order_relaxed);
  return hashes.empty() ? 0 : static_cast<double>(seen) / static_cast<double>(hashes.size());
}

}  // namespace ferry::data
