// Byte-pair merging of one piece: start from single bytes and merge the pair of lowest rank, the
// leftmost first, until no pair is left that the merge list knows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ferry::text {

/// The merge list as a hash table from (left, right) to (rank, merged token). Immutable once
/// filled.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;  // kNone: no such merge
    int32_t token;
  };
  static constexpr uint32_t kNone = UINT32_MAX;

  explicit MergeTable(size_t merges_max = 0);
  /// False if the pair is there already.
  bool add(int32_t left, int32_t right, Merge merge);
  Merge find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t pair;
    Merge merge;
  };
  size_t slot_of(uint64_t pair) const;
  std::vector<Slot> slots_;
  int shift_ = 63;
};

/// Working memory of one thread, and its cache of short pieces: direct-mapped, 2 MiB, never grows.
class BpeScratch {
 public:
  BpeScratch();

 private:
  friend class Bpe;
  static constexpr size_t kKeyMax = 30, kIdsMax = 8, kSlots = size_t{1} << 15;
  struct Slot {
    uint8_t bytes;  // 0: empty
    uint8_t ids_count;
    std::array<char, kKeyMax> key;
    std::array<int32_t, kIdsMax> ids;
  };
  std::vector<Slot> cache_;
  std::vector<int32_t> ids_, previous_, next_;
  std::vector<uint32_t> ranks_;
  std::vector<uint64_t> heap_;
  std::vector<int32_t> window_, window_after_;
};

/// The model. Immutable once built; encode may run on several threads, each with its own scratch.
class Bpe {
 public:
  struct Parts {
    std::array<int32_t, 256> byte_tokens;
    MergeTable merges;
    std::vector<std::string> token_bytes;  // by id
    bool ignore_merges = false;  // a piece that is a token becomes it, whatever the merges say
    std::vector<int32_t> whole_tokens;  // the ids that ignore_merges may give
  };
  explicit Bpe(Parts parts);

  /// Appends the ids of one non-empty piece. Time O(n log n); beyond 64 KiB the piece is encoded in
  /// windows, so that the memory does not grow with it (see the proof in bpe.cc).
  void encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  /// For tests: the same result, from the definition and in quadratic time.
  std::vector<int32_t> encode_by_definition(std::string_view piece) const;

 private:
  int32_t whole_token(std::string_view piece) const;
  void merge(std::string_view piece, BpeScratch& s, std::vector<int32_t>& ids) const;
  void merge_short(std::string_view piece, BpeScratch& s, std::vector<int32_t>& ids) const;
  void merge_heap(std::string_view piece, BpeScratch& s, std::vector<int32_t>& ids) const;
  void merge_windows(std::string_view piece, BpeScratch& s, std::vector<int32_t>& ids) const;

  Parts parts_;
  std::vector<int32_t> whole_slots_;  // open addressing over token_bytes; -1: empty
};

}  // namespace ferry::text
