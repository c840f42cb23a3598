// Elementwise work over tensors of one shape: finds the longest runs that are contiguous in all of
// them and cuts the work into blocks for the thread pool. Blocks never split differently by
// threads.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "tensor/view.h"

namespace ferry::ops::FERRY_TIER {

class Rows {
 public:
  static constexpr int kViewsMax = 6;
  static constexpr int64_t kBlockElements = 16384;

  explicit Rows(std::initializer_list<const View*> views) {
    const View& first = **views.begin();
    for (const View* v : views) views_[count_++] = v;
    // Merge inner dimensions as long as every view is contiguous across them.
    split_ = first.rank;
    length_ = 1;
    while (split_ > 0) {
      const int d = split_ - 1;
      bool merges = true;
      for (int i = 0; i < count_; ++i)
        merges = merges && (first.shape[d] == 1 || views_[i]->stride[d] == length_);
      if (!merges) break;
      length_ *= first.shape[d];
      split_ = d;
    }
    rows_ = 1;
    for (int d = 0; d < split_; ++d) rows_ *= first.shape[d];
    if (length_ == 0) rows_ = 0;
    if (split_ == 0) {  // wholly contiguous: one run, cut into blocks
      pieces_ = length_ == 0 ? 0 : (length_ + kBlockElements - 1) / kBlockElements;
    } else {
      rows_per_block_ =
          length_ >= kBlockElements ? 1 : kBlockElements / (length_ > 0 ? length_ : 1);
      pieces_ = (rows_ + rows_per_block_ - 1) / rows_per_block_;
    }
  }

  int64_t blocks() const { return pieces_; }

  /// f(const int64_t* offsets of each view in elements, int64_t length)
  template <typename F>
  void for_block(int64_t block, F&& f) const {
    int64_t offset[kViewsMax];
    if (split_ == 0) {
      const int64_t begin = block * kBlockElements;
      const int64_t n = length_ - begin < kBlockElements ? length_ - begin : kBlockElements;
      for (int i = 0; i < count_; ++i) offset[i] = begin;
      f(static_cast<const int64_t*>(offset), n);
      return;
    }
    const int64_t end =
        (block + 1) * rows_per_block_ < rows_ ? (block + 1) * rows_per_block_ : rows_;
    for (int64_t r = block * rows_per_block_; r < end; ++r) {
      for (int i = 0; i < count_; ++i) offset[i] = 0;
      int64_t rest = r;
      for (int d = split_ - 1; d >= 0; --d) {
        const int64_t at = rest % views_[0]->shape[d];
        rest /= views_[0]->shape[d];
        for (int i = 0; i < count_; ++i) offset[i] += at * views_[i]->stride[d];
      }
      f(static_cast<const int64_t*>(offset), length_);
    }
  }

 private:
  const View* views_[kViewsMax] = {};
  int count_ = 0;
  int split_ = 0;
  int64_t length_ = 1, rows_ = 1, pieces_ = 0, rows_per_block_ = 1;
};

}  // namespace ferry::ops::FERRY_TIER
