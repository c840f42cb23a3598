#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace ferry::text {
namespace {

constexpr size_t kShortMax = 40;  // above, the heap wins over scanning
constexpr size_t kWindow = size_t{1} << 12;

constexpr uint64_t pair_key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}
constexpr uint64_t kEmpty = UINT64_MAX;  // no pair: ids are not negative

uint64_t hash_bytes(std::string_view s) {
  uint64_t h = s.size() * 0x9E3779B97F4A7C15;
  const char* p = s.data();
  size_t left = s.size();
  while (left >= 8) {
    uint64_t word = 0;
    std::memcpy(&word, p, 8);
    h = (std::rotl(h, 23) ^ word) * 0xA24BAED4963EE407;
    p += 8;
    left -= 8;
  }
  uint64_t tail = 0;
  std::memcpy(&tail, p, left);
  h = (std::rotl(h, 23) ^ tail) * 0x9FB21C651E98DF25;
  return h ^ (h >> 32);
}

}  // namespace

MergeTable::MergeTable(size_t merges_max) {
  const size_t slots = std::bit_ceil(std::max<size_t>(merges_max, 4) * 2);
  slots_.assign(slots, {kEmpty, {kNone, -1}});
  shift_ = 64 - std::countr_zero(slots);
}

size_t MergeTable::slot_of(uint64_t pair) const {
  size_t i = (pair ^ (pair >> 29)) * 0x9E3779B97F4A7C15 >> shift_;
  while (slots_[i].pair != pair && slots_[i].pair != kEmpty) i = (i + 1) & (slots_.size() - 1);
  return i;
}

bool MergeTable::add(int32_t left, int32_t right, Merge merge) {
  const uint64_t pair = pair_key(left, right);
  Slot& slot = slots_[slot_of(pair)];
  if (slot.pair == pair) return false;
  slot = {pair, merge};
  return true;
}

MergeTable::Merge MergeTable::find(int32_t left, int32_t right) const {
  return slots_[slot_of(pair_key(left, right))].merge;
}

BpeScratch::BpeScratch() : cache_(kSlots, Slot{}) {}

Bpe::Bpe(Parts parts) : parts_(std::move(parts)) {
  if (!parts_.ignore_merges) return;
  whole_slots_.assign(std::bit_ceil(std::max<size_t>(parts_.whole_tokens.size(), 4) * 2), -1);
  for (const int32_t id : parts_.whole_tokens) {
    size_t i = hash_bytes(parts_.token_bytes[id]) & (whole_slots_.size() - 1);
    while (whole_slots_[i] >= 0) i = (i + 1) & (whole_slots_.size() - 1);
    whole_slots_[i] = id;
  }
}

int32_t Bpe::whole_token(std::string_view piece) const {
  size_t i = hash_bytes(piece) & (whole_slots_.size() - 1);
  for (; whole_slots_[i] >= 0; i = (i + 1) & (whole_slots_.size() - 1)) {
    if (parts_.token_bytes[whole_slots_[i]] == piece) return whole_slots_[i];
  }
  return -1;
}

void Bpe::encode(std::string_view piece, BpeScratch& s, std::vector<int32_t>& ids) const {
  if (piece.size() == 1 && !parts_.ignore_merges) {
    ids.push_back(parts_.byte_tokens[static_cast<unsigned char>(piece[0])]);
    return;
  }
  if (piece.size() > BpeScratch::kKeyMax) return merge(piece, s, ids);

  BpeScratch::Slot& slot = s.cache_[hash_bytes(piece) & (BpeScratch::kSlots - 1)];
  if (slot.bytes == piece.size() && std::memcmp(slot.key.data(), piece.data(), piece.size()) == 0) {
    ids.insert(ids.end(), slot.ids.begin(), slot.ids.begin() + slot.ids_count);
    return;
  }
  const size_t before = ids.size();
  merge(piece, s, ids);
  const size_t count = ids.size() - before;
  if (count > BpeScratch::kIdsMax) return;
  slot.bytes = static_cast<uint8_t>(piece.size());
  slot.ids_count = static_cast<uint8_t>(count);
  std::memcpy(slot.key.data(), piece.data(), piece.size());
  std::copy_n(ids.begin() + static_cast<ptrdiff_t>(before), count, slot.ids.begin());
}

void Bpe::merge(std::string_view piece, BpeScratch& s, std::vector<int32_t>& ids) const {
  if (parts_.ignore_merges) {
    if (const int32_t id = whole_token(piece); id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  if (piece.size() <= kShortMax) return merge_short(piece, s, ids);
  if (piece.size() <= kWindow) return merge_heap(piece, s, ids);
  merge_windows(piece, s, ids);
}

void Bpe::merge_short(std::string_view piece, BpeScratch& s, std::vector<int32_t>& ids) const {
  size_t n = piece.size();
  s.ids_.resize(n);
  s.ranks_.resize(n);  // of the pair that starts here
  s.next_.resize(n);   // the token that the pair makes
  for (size_t i = 0; i < n; ++i)
    s.ids_[i] = parts_.byte_tokens[static_cast<unsigned char>(piece[i])];
  const auto look_up = [&](size_t i) {
    const MergeTable::Merge m = i + 1 < n ? parts_.merges.find(s.ids_[i], s.ids_[i + 1])
                                          : MergeTable::Merge{MergeTable::kNone, -1};
    s.ranks_[i] = m.rank;
    s.next_[i] = m.token;
  };
  for (size_t i = 0; i < n; ++i) look_up(i);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (s.ranks_[i] < s.ranks_[best]) best = i;
    }
    if (s.ranks_[best] == MergeTable::kNone) break;
    s.ids_[best] = s.next_[best];
    --n;
    for (size_t i = best + 1; i < n; ++i) {
      s.ids_[i] = s.ids_[i + 1];
      s.ranks_[i] = s.ranks_[i + 1];
      s.next_[i] = s.next_[i + 1];
    }
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  ids.insert(ids.end(), s.ids_.begin(), s.ids_.begin() + static_cast<ptrdiff_t>(n));
}

void Bpe::merge_heap(std::string_view piece, BpeScratch& s, std::vector<int32_t>& ids) const {
  const auto n = static_cast<int32_t>(piece.size());
  constexpr int32_t kGone = -2;
  s.ids_.resize(piece.size());
  s.previous_.resize(piece.size());
  s.next_.resize(piece.size());
  s.heap_.clear();
  const auto later = [](uint64_t a, uint64_t b) { return a > b; };
  // An entry is rank, then position: the smallest is the next merge. Entries that a merge beside
  // them made stale stay, and are known by their rank, which belongs to one pair only.
  const auto entry = [](uint32_t rank, int32_t at) {
    return uint64_t{rank} << 32 | static_cast<uint32_t>(at);
  };
  for (int32_t i = 0; i < n; ++i) {
    s.ids_[i] = parts_.byte_tokens[static_cast<unsigned char>(piece[static_cast<size_t>(i)])];
    s.previous_[i] = i - 1;
    s.next_[i] = i + 1;
  }
  for (int32_t i = 0; i + 1 < n; ++i) {
    const uint32_t rank = parts_.merges.find(s.ids_[i], s.ids_[i + 1]).rank;
    if (rank != MergeTable::kNone) s.heap_.push_back(entry(rank, i));
  }
  std::make_heap(s.heap_.begin(), s.heap_.end(), later);
  const auto push = [&](int32_t at) {
    const uint32_t rank = parts_.merges.find(s.ids_[at], s.ids_[s.next_[at]]).rank;
    if (rank == MergeTable::kNone) return;
    s.heap_.push_back(entry(rank, at));
    std::push_heap(s.heap_.begin(), s.heap_.end(), later);
  };
  while (!s.heap_.empty()) {
    const uint64_t top = s.heap_.front();
    std::pop_heap(s.heap_.begin(), s.heap_.end(), later);
    s.heap_.pop_back();
    const auto at = static_cast<int32_t>(top & UINT32_MAX);
    const int32_t right = s.next_[at];
    if (right == kGone || right == n) continue;
    const MergeTable::Merge m = parts_.merges.find(s.ids_[at], s.ids_[right]);
    if (m.rank != top >> 32) continue;
    s.ids_[at] = m.token;
    s.next_[at] = s.next_[right];
    s.next_[right] = kGone;
    if (s.next_[at] < n) {
      s.previous_[s.next_[at]] = at;
      push(at);
    }
    if (s.previous_[at] >= 0) push(s.previous_[at]);
  }
  for (int32_t i = 0; i < n; i = s.next_[i]) ids.push_back(s.ids_[i]);
}

// Why windows give the same ids. Call two adjacent tokens compatible if the bytes of both, encoded
// together, give these two again. Then: t1 … tn is the encoding of its bytes if and only if every
// adjacent pair is compatible. For the run over everything, looked at only inside ti ti+1, picks at
// every moment what the run over those bytes alone would pick, since both take the smallest (rank,
// position); so the first merge that crossed the border between ti and ti+1 would cross it alone
// too, and the other way round. Hence tokens of one window up to a border, followed by the tokens
// of a window that begins at that border, are the encoding of both together if the second begins
// with the token that follows the border in the first: then every adjacent pair comes from one of
// the two.
void Bpe::merge_windows(std::string_view piece, BpeScratch& s, std::vector<int32_t>& ids) const {
  size_t window = kWindow;
  size_t start = 0;
  s.window_.clear();
  merge_heap(piece.substr(0, window), s, s.window_);
  while (start + window < piece.size()) {
    size_t kept = 0;  // tokens to emit: about three quarters of the window's bytes
    size_t bytes = 0;
    while (kept < s.window_.size() && bytes < window / 4 * 3) {
      bytes += parts_.token_bytes[s.window_[kept++]].size();
    }
    if (kept < s.window_.size()) {
      s.window_after_.clear();
      merge_heap(piece.substr(start + bytes, window), s, s.window_after_);
      if (s.window_after_.front() == s.window_[kept]) {
        ids.insert(ids.end(), s.window_.begin(), s.window_.begin() + static_cast<ptrdiff_t>(kept));
        start += bytes;
        s.window_.swap(s.window_after_);
        continue;
      }
    }
    window *= 2;  // merges reach across the whole window: only odd merge lists on odd text do
    s.window_.clear();
    merge_heap(piece.substr(start, window), s, s.window_);
  }
  ids.insert(ids.end(), s.window_.begin(), s.window_.end());
}

std::vector<int32_t> Bpe::encode_by_definition(std::string_view piece) const {
  if (parts_.ignore_merges && whole_token(piece) >= 0) return {whole_token(piece)};
  std::vector<int32_t> ids;
  for (const char c : piece) ids.push_back(parts_.byte_tokens[static_cast<unsigned char>(c)]);
  while (true) {
    size_t best = 0;
    MergeTable::Merge merge{MergeTable::kNone, -1};
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const MergeTable::Merge m = parts_.merges.find(ids[i], ids[i + 1]);
      if (m.rank < merge.rank) {
        best = i;
        merge = m;
      }
    }
    if (merge.rank == MergeTable::kNone) return ids;
    ids[best] = merge.token;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

}  // namespace ferry::text
