#include "exec/counters.h"

#include <algorithm>
#include <set>

#include "exec/warp.h"

namespace nvidia_sim {

void count_shared(const Warp& w, const uint32_t* addresses, uint32_t lanes, uint32_t bytes) {
  Counters* const counters = w.block->launch->counters;
  if (counters == nullptr || lanes == 0) return;
  constexpr uint32_t kWord = 4, kBanks = 32;
  ++counters->shared_requests;
  const int together = bytes <= kWord ? kWarpSize : static_cast<int>(kBanks * kWord / bytes);
  for (int first = 0; first < kWarpSize; first += together) {
    std::set<uint32_t> words[kBanks];
    for (int l = first; l < first + together; ++l)
      for (uint32_t at = 0; at < bytes && (lanes >> l & 1) != 0; at += kWord) {
        const uint32_t word = (addresses[l] + at) / kWord;
        words[word % kBanks].insert(word);
      }
    size_t passes = 1;
    for (const std::set<uint32_t>& bank : words) passes = std::max(passes, bank.size());
    counters->bank_conflicts += passes - 1;
  }
}

void count_global(
    const Warp& w, const uint64_t* addresses, uint32_t lanes, uint32_t bytes, bool written) {
  Counters* const counters = w.block->launch->counters;
  if (counters == nullptr || lanes == 0) return;
  constexpr uint64_t kSector = 32;
  ++counters->global_requests;
  std::set<uint64_t> sectors;
  for (int l = 0; l < kWarpSize; ++l) {
    if ((lanes >> l & 1) == 0) continue;
    for (uint64_t at = addresses[l]; at < addresses[l] + bytes; ++at) sectors.insert(at / kSector);
    (written ? counters->global_bytes_written : counters->global_bytes_read) += bytes;
  }
  counters->global_sectors += sectors.size();
}

}  // namespace nvidia_sim
