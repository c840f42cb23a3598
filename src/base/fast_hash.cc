#include "base/fast_hash.h"

#include <algorithm>

#include "base/alive.h"

#define XXH_INLINE_ALL  // of the library nothing is linked: its header has all that is used
#include <xxhash.h>

namespace ferry {

uint64_t fast_hash(std::span<const std::byte> bytes, uint64_t before) {
  constexpr size_t kBlock = size_t{4} << 20;  // a millisecond or less
  uint64_t hash = XXH3_64bits_withSeed(
      bytes.data(), std::min(bytes.size(), kBlock), before ^ uint64_t{bytes.size()});
  while (bytes.size() > kBlock) {
    still_alive(kBlock);
    bytes = bytes.subspan(kBlock);
    hash = XXH3_64bits_withSeed(bytes.data(), std::min(bytes.size(), kBlock), hash);
  }
  still_alive(bytes.size());
  return hash == 0 ? 1 : hash;
}

}  // namespace ferry
