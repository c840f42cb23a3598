// Segments: which tokens belong together. There is no batch dimension anywhere: tensors are
// [tokens, ...] and this says, for each token, its position and where its document's keys begin.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace ferry::ops {

/// Rows of a page of a cache: a whole number of attention's tiles of keys.
inline constexpr int64_t kPageRows = 128;

/// The same as Segments on the host, where ops check and plan.
struct HostSegments {
  std::vector<int32_t> position;
  std::vector<int32_t> key_begin;
  std::vector<int32_t> pages;
  int64_t longest = 0;  // the largest position + 1; 0 without tokens

  /// Where key row r lies in k and v.
  int64_t lies_at(int64_t r) const {
    return pages.empty() ? r
                         : pages[static_cast<size_t>(r / kPageRows)] * kPageRows + r % kPageRows;
  }
};

/// Query token t attends to the key rows [key_begin[t], key_begin[t] + position[t]], and to no
/// other. Row r is row r of k and v or, where there are pages, row r % kPageRows of page
/// pages[r / kPageRows] of them: sequences that begin alike may share pages.
struct Segments {
  Tensor position;   // i32 [tokens]: place in the document, from 0; also RoPE's
  Tensor key_begin;  // i32 [tokens]: the document's first key row; with pages, a page's first
  Tensor pages;      // i32 [n]; not defined: rows lie as they are numbered
  std::shared_ptr<const HostSegments> host;

  int64_t tokens() const { return static_cast<int64_t>(host->position.size()); }

  /// Documents packed one after the other, keys being the tokens themselves (training, scoring).
  /// lengths: tokens of each document; their sum is the number of tokens.
  static Segments packed(std::span<const int32_t> lengths, Device& device);

  /// Rows of a cache: token t has the position and its document's keys begin at the row given.
  static Segments cached(std::vector<int32_t> position,
                         std::vector<int32_t> key_begin,
                         Device& device);

  /// The same of a cache in pages.
  static Segments paged(std::vector<int32_t> position,
                        std::vector<int32_t> key_begin,
                        std::vector<int32_t> pages,
                        Device& device);
};

}  // namespace ferry::ops
