// KvCache: what a model remembers of the tokens before, in pages of kPageRows tokens. It knows of no
// sequence: whoever runs passes says which pages hold the tokens of which (models/slot_cache.h,
// engine/engine.h). Opaque to models: they append and get back keys to attend to.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ops/segments.h"
#include "tensor/tensor.h"

namespace ferry::models {

inline constexpr int64_t kPageTokens = ops::kPageRows;

/// Pages that so many tokens take.
constexpr int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

class KvCache {
 public:
  /// For each layer and token as many numbers as `widths` has, in parts that lie apart, as kernels
  /// take them (MLA: the latent and the rotated shared key).
  KvCache(int64_t layers,
          const std::vector<int64_t>& widths,
          int64_t pages,
          DType dtype,
          Device& device);

  struct Part {
    std::span<const int32_t> pages;  // of a sequence: token i lies in the (i / kPageTokens)-th
    int64_t length;                  // its tokens that these pages hold
    int64_t tokens;                  // new ones, following them; the pages have room for them
  };
  /// Announces the tokens of the next forward pass, in batch order, and gives their segments. Two
  /// parts may share pages that both only read. A pass that throws has changed no row that a
  /// sequence holds; the next begin() forgets it. Check: pages that are not there or too few.
  ops::Segments begin(std::span<const Part> parts);

  /// Stores what one layer keeps of the announced tokens, a tensor [tokens, width] for each width;
  /// returns all rows of the layer, [pages * kPageTokens, width], of which the segments of begin()
  /// say who sees which.
  const std::vector<Tensor>& append(int64_t layer, const std::vector<Tensor>& parts);

  /// The first `tokens` rows of a page become another's, in every layer.
  void copy_rows(int32_t from, int32_t to, int64_t tokens);

  int64_t pages() const { return layers_.at(0).at(0).dim(0) / kPageTokens; }

 private:
  struct Stretch {
    int64_t row, tokens;  // rows of the cache that the next tokens of the pass become
  };
  void append(const Tensor& rows, const Tensor& part) const;
  static void clear_behind(const Tensor& rows, int64_t page_row, int64_t tokens);

  std::vector<std::vector<Tensor>> layers_;  // and their parts
  std::vector<Stretch> stretches_;           // of the pass under way
};

}  // namespace ferry::models
