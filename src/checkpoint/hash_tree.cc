#include "checkpoint/hash_tree.h"

#include <algorithm>
#include <bit>

#include "base/alive.h"
#include "base/stopping.h"

namespace ferry {
namespace {

constexpr uint8_t kLeaf = 0, kNode = 1, kEmpty = 2;

}  // namespace

Digest hash_chunk(std::span<const std::byte> chunk) {
  Hasher hasher;
  hasher.update(&kLeaf, 1);
  hasher.update(chunk.data(), chunk.size());
  return hasher.digest();
}

Result<std::vector<Digest>> hash_chunks(std::span<const std::byte> file,
                                        const HashedBytes& hashed) {
  std::vector<Digest> leaves;
  for (size_t at = 0; at < file.size(); at += kChunkBytes) {
    TRY(files_not_stopped());
    const auto chunk = file.subspan(at, std::min<size_t>(kChunkBytes, file.size() - at));
    leaves.push_back(hash_chunk(chunk));
    still_alive(chunk.size());
    if (hashed) hashed(chunk.size());
  }
  return leaves;
}

Digest tree_root(std::span<const Digest> leaves) {
  Hasher hasher;
  if (leaves.empty()) {
    hasher.update(&kEmpty, 1);
    return hasher.digest();
  }
  if (leaves.size() == 1) return leaves[0];
  const size_t half = std::bit_floor(leaves.size() - 1);
  const Digest left = tree_root(leaves.first(half)), right = tree_root(leaves.subspan(half));
  hasher.update(&kNode, 1);
  hasher.update(left.data(), left.size());
  hasher.update(right.data(), right.size());
  return hasher.digest();
}

}  // namespace ferry
