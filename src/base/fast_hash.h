// XXH3 (libxxhash): whether memory that should hold the same does. As fast as memory is read; 64 bits, so that one of
// 10^19 differences is not seen. Not for what somebody might forge, nor for what is kept in files: base/hash.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ferry {

/// Never 0, which so may stand for "not looked at". `before` chains pieces: the hash of what came before this one.
uint64_t fast_hash(std::span<const std::byte> bytes, uint64_t before = 0);

}  // namespace ferry
