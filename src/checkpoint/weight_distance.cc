#include "checkpoint/weight_distance.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "checkpoint/weights.h"
#include "tensor/code_panels.h"

namespace ferry {
namespace {

/// Of which types it is known what a number loses.
bool is_judged(DType stored) {
  return stored == DType::kF32 || stored == DType::kBF16 || stored == DType::kI8 ||
         stored == DType::kU8;
}

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

/// The same of one tensor of two models, some rows of each at a time.
Result<double> worst_of_tensor(ModelSource& made,
                               const NamedTensor& is,
                               ModelSource& source,
                               const NamedTensor& was) {
  const DType stored = made.stored(is.name)->dtype;
  if (!is_judged(stored))
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" is stored as {}: how near it is to that of {} cannot be judged; "
                "what ferry convert writes (F32, BF16, int8 and int4 codes) can",
                made.path(),
                is.name,
                to_string(stored),
                source.path());
  const int64_t columns = was.shape[was.shape.rank() - 1];
  const int64_t group = stored == DType::kU8 ? int64_t{kCodeGroup} : columns;
  const auto worst = [&](const std::vector<float>& a, const std::vector<float>& b) {
    return worst_of(a, b, stored, static_cast<size_t>(columns), static_cast<size_t>(group));
  };
  if (was.shape.rank() != 2) {
    TRY_ASSIGN(const Tensor a, is.load());
    TRY_ASSIGN(const Tensor b, was.load());
    return worst(a.to_f32(), b.to_f32());
  }
  double largest = 0;
  TRY(for_each_piece_of_rows(was.shape, [&](int64_t first, int64_t rows) -> Result<void> {
    TRY_ASSIGN(const std::vector<float> a, load_numbers(made, is.name, first, rows, columns));
    TRY_ASSIGN(const std::vector<float> b, load_numbers(source, was.name, first, rows, columns));
    largest = std::max(largest, worst(a, b));
    return {};
  }));
  return largest;
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
    TRY_ASSIGN(const double worst, worst_of_tensor(made, is[t], source, was[t]));
    if (worst > distance.worst) {
      distance.worst = worst;
      distance.tensor = was[t].name;
    }
    distance.numbers += was[t].shape.count();
    compared();
  }
  return distance;
}

}  // namespace ferry
