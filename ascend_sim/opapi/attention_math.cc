#include "opapi/attention_math.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "opapi/exponential.h"
#include "opapi/product.h"

namespace ascend_sim {
namespace {

constexpr int64_t kBlock = 64;  // query rows that are worked on together; changes no result
constexpr float kHidden = -std::numeric_limits<float>::infinity();

using Floats = std::unique_ptr<float[]>;

Floats room(int64_t n) {
  return std::make_unique_for_overwrite<float[]>(static_cast<size_t>(std::max<int64_t>(n, 1)));
}

ProductOptions alone(Order order, bool accumulate = false) {
  ProductOptions options;
  options.order = order;
  options.accumulate = accumulate;
  options.parallel = false;
  return options;
}

/// The rows of a block: what each sees, and the keys that any of them sees.
struct Block {
  int64_t first, rows;
  std::vector<Visible> visible;
  int64_t keys = 0;  // the last visible key of all, + 1
};

Block block_at(int64_t first,
               const AttentionSizes& sizes,
               const std::function<Visible(int64_t)>& visible) {
  Block b{first, std::min(kBlock, sizes.rows - first), {}};
  for (int64_t r = 0; r < b.rows; ++r) {
    b.visible.push_back(visible(first + r));
    b.keys = std::max(b.keys, b.visible.back().last);
  }
  return b;
}

bool sees(const Visible& v, int64_t key) {
  return key >= v.first && key < v.last && !(v.hidden && v.hidden[key]);
}

bool blind(const Visible& v) {
  for (int64_t j = v.first; j < v.last; ++j)
    if (!v.hidden || !v.hidden[j]) return false;
  return true;
}

/// Scores of a block: [rows, keys], scaled; what a row does not see is -infinity.
void scores_of(const float* q,
               const float* k,
               const Block& b,
               const AttentionSizes& sizes,
               const AttentionOptions& options,
               float* scores) {
  multiply(matrix(q + b.first * sizes.dim, sizes.dim),
           matrix(k, sizes.dim).transposed(),
           matrix(scores, b.keys),
           {b.rows, b.keys, options.depth > 0 ? options.depth : sizes.dim},
           alone(options.order));
  for (int64_t r = 0; r < b.rows; ++r) {
    float* row = scores + r * b.keys;
    const Visible& v = b.visible[static_cast<size_t>(r)];
    for (int64_t j = 0; j < b.keys; ++j) row[j] *= options.scale;
    std::fill(row, row + std::min(v.first, b.keys), kHidden);
    std::fill(row + v.last, row + b.keys, kHidden);
    if (v.hidden)
      for (int64_t j = v.first; j < v.last; ++j)
        if (v.hidden[j]) row[j] = kHidden;
  }
}

/// Planted: tiles of 16 keys, each with its own maximum, added up as if all maxima were one.
float total_without_rescaling(float* row, int64_t keys, float* maximum) {
  float total = 0, running = kHidden;
  for (int64_t j = 0; j < keys; j += 16) {
    const int64_t n = std::min<int64_t>(16, keys - j);
    running = std::max(running, largest(row + j, n));
    if (running == kHidden)
      std::fill(row + j, row + j + n, 0.0f);
    else
      exponentials(row + j, n, running);
    total += sum(row + j, n);
  }
  *maximum = running;
  return total;
}

}  // namespace

void attend(const float* q,
            const float* k,
            const float* v,
            AttentionSizes sizes,
            const std::function<Visible(int64_t row)>& visible,
            const AttentionOptions& options,
            float* out,
            float* maximum,
            float* total) {
  for (int64_t first = 0; first < sizes.rows; first += kBlock) {
    Block b = block_at(first, sizes, visible);
    for (Visible& see : b.visible)
      if (!options.zero_blind_rows && blind(see)) b.keys = sizes.keys;
    const Floats scores = room(b.rows * b.keys);
    scores_of(q, k, b, sizes, options, scores.get());
    for (int64_t r = 0; r < b.rows; ++r) {
      float* row = scores.get() + r * b.keys;
      float& max = maximum[first + r];
      float& all = total[first + r];
      max = largest(row, b.keys);
      // Not by the maximum, which passes over a score that is NaN.
      if (blind(b.visible[static_cast<size_t>(r)])) {
        // Finite masking values make all keys alike.
        all = options.zero_blind_rows ? 0.0f : static_cast<float>(sizes.keys);
        std::fill(row, row + b.keys, options.zero_blind_rows ? 0.0f : 1.0f);
      } else if (options.no_rescale) {
        all = total_without_rescaling(row, b.keys, &max);
      } else {
        exponentials(row, b.keys, max);
        all = sum(row, b.keys, options.order);
      }
    }
    float* to = out + first * sizes.value_dim;
    multiply(matrix(scores.get(), b.keys),
             matrix(v, sizes.value_dim),
             matrix(to, sizes.value_dim),
             {b.rows, sizes.value_dim, b.keys},
             alone(options.order));
    for (int64_t r = 0; r < b.rows; ++r) {
      const float all = total[first + r];
      for (int64_t d = 0; d < sizes.value_dim; ++d) {
        float& y = to[r * sizes.value_dim + d];
        y = all == 0 ? 0.0f : y / all;
      }
    }
  }
}

void attend_backward(const float* q,
                     const float* k,
                     const float* v,
                     const float* dy,
                     const float* out,
                     const float* maximum,
                     const float* total,
                     AttentionSizes sizes,
                     const std::function<Visible(int64_t row)>& visible,
                     const AttentionOptions& options,
                     const AttentionGradients& gradients) {
  const int64_t dim = sizes.dim, value_dim = sizes.value_dim;
  for (int64_t first = 0; first < sizes.rows; first += kBlock) {
    const Block b = block_at(first, sizes, visible);
    const Floats p = room(b.rows * b.keys), ds = room(b.rows * b.keys);
    scores_of(q, k, b, sizes, options, p.get());
    multiply(matrix(dy + first * value_dim, value_dim),
             matrix(v, value_dim).transposed(),
             matrix(ds.get(), b.keys),
             {b.rows, b.keys, value_dim},
             alone(options.order));
    for (int64_t r = 0; r < b.rows; ++r) {
      float* probability = p.get() + r * b.keys;
      float* gradient = ds.get() + r * b.keys;
      const float all = total[first + r];
      const float max = maximum[first + r];
      if (all == 0 || max == kHidden) {
        std::fill(probability, probability + b.keys, 0.0f);
        std::fill(gradient, gradient + b.keys, 0.0f);
        continue;
      }
      exponentials(probability, b.keys, max);
      const float mean = dot(
          dy + (first + r) * value_dim, out + (first + r) * value_dim, value_dim, options.order);
      for (int64_t j = 0; j < b.keys; ++j) {
        const bool seen = sees(b.visible[static_cast<size_t>(r)], j);
        probability[j] = seen ? probability[j] / all : 0.0f;
        gradient[j] = seen ? probability[j] * (gradient[j] - mean) * options.scale : 0.0f;
      }
    }
    multiply(matrix(ds.get(), b.keys),
             matrix(k, dim),
             matrix(gradients.dq + first * dim, dim),
             {b.rows, dim, b.keys},
             alone(options.order));
    multiply(matrix(ds.get(), b.keys).transposed(),
             matrix(q + first * dim, dim),
             matrix(gradients.dk, dim),
             {b.keys, dim, b.rows},
             alone(options.order, true));
    multiply(matrix(p.get(), b.keys).transposed(),
             matrix(dy + first * value_dim, value_dim),
             matrix(gradients.dv, value_dim),
             {b.keys, value_dim, b.rows},
             alone(options.order, true));
  }
}

}  // namespace ascend_sim
