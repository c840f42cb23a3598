// A hash tree over a file in chunks: each chunk can be checked alone, when it is first read, and
// one hash, the root, stands for all. BLAKE2b-256; leaves and nodes are hashed under different
// first bytes, so that none can pass for the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/hash.h"
#include "base/result.h"

namespace ferry {

constexpr uint64_t kChunkBytes = uint64_t{1} << 20;

/// 0x00, then the chunk's bytes.
Digest hash_chunk(std::span<const std::byte> chunk);

/// Is told of bytes that were hashed, chunk by chunk; may be empty.
using HashedBytes = std::function<void(uint64_t more)>;

/// The leaves of a file: its chunks in order, the last as long as it is. An empty file has none. A large file takes
/// long: signs of life are given meanwhile. Errors: kUnavailable: the process was told to stop (base/stopping.h).
Result<std::vector<Digest>> hash_chunks(std::span<const std::byte> file,
                                        const HashedBytes& hashed = {});

/// 0x01, left, right; the left part is the largest power of two below the whole. One leaf is its
/// own root; of none it is the hash of 0x02.
Digest tree_root(std::span<const Digest> leaves);

constexpr uint64_t chunk_count(uint64_t bytes) { return (bytes + kChunkBytes - 1) / kChunkBytes; }

}  // namespace ferry
