#include "checkpoint/weight_distance.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "checkpoint/weights.h"
#include "tensor/code_panels.h"

namespace ferry {
namespace {

/// What a number may be away from the source's; `largest`: of the source's group, which shares a scale.
double allowed(DType stored, double largest, double size) {
  constexpr double kRoundings = 1 + 0x1p-10;  // of the scale, its inverse and both products, in f32
  constexpr double kNothing = 0x1p-112;       // a group of such numbers becomes zeros
  switch (stored) {
    case DType::kI8: return largest / 127 / 2 * kRoundings + kNothing;
    // The smallest scale is the largest / 8.5, rounded to bf16, and the largest code 7.
    case DType::kU8: return largest * (1 - 7 / 8.5 * (1 - 0x1p-8)) * kRoundings + kNothing;
    case DType::kBF16: return size * 0x1p-8 + kNothing;  // of 8 bits, half of the last
    default: return 0;
  }
}

/// The largest distance of a tensor's numbers, in parts of what is allowed. `group`: numbers that share a scale, never
/// of two rows.
double worst_of(const std::vector<float>& is,
                const std::vector<float>& was,
                DType stored,
                size_t columns,
                size_t group) {
  double worst = 0;
  for (size_t at = 0, end = 0; at < was.size(); at = end) {
    end = std::min(at + group, (at / columns + 1) * columns);
    double largest = 0;
    for (size_t i = at; i < end; ++i)
      largest = std::max(largest, std::abs(static_cast<double>(was[i])));
    for (size_t i = at; i < end; ++i) {
      const double x = static_cast<double>(was[i]), away = std::abs(static_cast<double>(is[i]) - x);
      if (away == 0) continue;
      worst = std::isnan(away) ? std::numeric_limits<double>::infinity()
                               : std::max(worst, away / allowed(stored, largest, std::abs(x)));
    }
  }
  return worst;
}

}  // namespace

Result<WeightDistance> distance_of_weights(ModelSource& made,
                                           ModelSource& source,
                                           const std::vector<Weight*>& weights,
                                           const std::function<void()>& compared) {
  const auto numbers_of = [&](ModelSource& from) {
    return weights_to_convert(from, weights, {}, DType::kF32, [] {});
  };
  const std::vector<NamedTensor> is = numbers_of(made), was = numbers_of(source);
  WeightDistance distance;
  for (size_t t = 0; t < was.size(); ++t) {
    TRY_ASSIGN(const Tensor a, is[t].load());
    TRY_ASSIGN(const Tensor b, was[t].load());
    const DType stored = made.stored(was[t].name)->dtype;
    const auto columns = static_cast<size_t>(b.dim(-1));
    const double worst = worst_of(a.to_f32(),
                                  b.to_f32(),
                                  stored,
                                  columns,
                                  stored == DType::kU8 ? size_t{kCodeGroup} : columns);
    if (worst > distance.worst) {
      distance.worst = worst;
      distance.tensor = was[t].name;
    }
    distance.numbers += b.count();
    compared();
  }
  return distance;
}

}  // namespace ferry
