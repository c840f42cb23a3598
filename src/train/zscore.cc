#include "train/zscore.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace ferry {

std::optional<double> ZScore::add(double x) {
  if (!std::isfinite(x)) return std::nullopt;
  std::optional<double> z;
  if (ring_.size() >= kLeast) {
    const auto [mean, deviation] = moments();
    if (deviation > 0 && std::isfinite((x - mean) / deviation)) z = (x - mean) / deviation;
  }
  if (ring_.size() < kWindow) {
    ring_.push_back(x);
  } else {
    ring_[next_] = x;
    next_ = (next_ + 1) % kWindow;
  }
  return z;
}

/// From scratch each time, oldest first: 128 additions, no drift, and the same bits after a resume.
ZScore::Moments ZScore::moments() const {
  const std::vector<double> v = values();
  double sum = 0, squares = 0;
  for (const double y : v) sum += y;
  const double mean = sum / static_cast<double>(v.size());
  for (const double y : v) squares += (y - mean) * (y - mean);
  return {mean, std::sqrt(squares / static_cast<double>(v.size() - 1))};
}

std::optional<double> ZScore::level(double z) const {
  if (ring_.size() < kLeast) return std::nullopt;
  const auto [mean, deviation] = moments();
  return mean + z * deviation;
}

std::vector<double> ZScore::values() const {
  std::vector<double> v(ring_);
  std::rotate(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(next_), v.end());
  return v;
}

void ZScore::restore(std::span<const double> values) {
  check(values.size() <= kWindow, "z-score: {} values, at most {}", values.size(), kWindow);
  ring_.assign(values.begin(), values.end());
  next_ = 0;
}

}  // namespace ferry
