// Finds held-out documents whose words stand in the training text already.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace ferry::data {

/// A set of 64-bit hashes, 8 bytes a slot, one quarter to five eighths of the slots used.
class HashSet {
 public:
  HashSet();
  bool insert(uint64_t hash);         // false if it was there
  int64_t find(uint64_t hash) const;  // its slot, or -1; a slot holds until the next insert
  size_t size() const { return size_; }
  size_t slots() const { return slots_.size(); }

 private:
  size_t place(uint64_t hash) const;  // where it is, or the empty slot where it belongs
  std::vector<uint64_t> slots_;       // 0: empty
  size_t size_ = 0;
};

/// Appends the hash of every shingle: five successive words, whatever their ASCII case and what
/// stands between them. In scripts without spaces a character counts as half a word. A text of
/// fewer words is one shingle; one without words has none. Equal shingles come as often as they
/// stand there.
void append_shingles(std::string_view text, std::vector<uint64_t>& hashes);

/// Training text streams past an index of the held-out documents' shingles, which only remembers
/// what it saw: exact (but for collisions of 64-bit hashes), whatever the order and the threads, in
/// memory of the held-out text's size alone. The share seen is at least the Jaccard similarity with
/// any one training document, and it also finds copies that lie inside a longer one or are spread
/// over several.
class OverlapIndex {
 public:
  explicit OverlapIndex(std::span<const std::string_view> held_out);
  void see(std::string_view training,
           std::vector<uint64_t>& scratch);            // from any number of threads
  double share_seen(std::string_view held_out) const;  // distinct shingles seen / all; 0 if none

 private:
  HashSet shingles_;
  std::vector<std::atomic<bool>> seen_;  // by slot
};

}  // namespace ferry::data
