// How unusual a number is among the last ones: the first sign that a run is about to go wrong.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace ferry {

/// Distance of a value from the mean of the `window` values before it, in their standard
/// deviations. The value itself is not among them: a spike would widen the measure that it is held
/// against.
class ZScore {
 public:
  static constexpr size_t kWindow = 128;
  static constexpr size_t kLeast = 16;  // fewer values say nothing

  /// The score of x, if there are enough values before it, they vary, and x is finite; then x joins
  /// them (unless it is not finite).
  std::optional<double> add(double x);

  /// The value whose score would be z now; nothing if there are too few values.
  std::optional<double> level(double z) const;

  /// Oldest first: part of a checkpoint. restore() of what values() gave goes on identically.
  std::vector<double> values() const;
  void restore(std::span<const double> values);

 private:
  struct Moments {
    double mean = 0, deviation = 0;
  };
  /// Of enough values.
  Moments moments() const;

  std::vector<double> ring_;
  size_t next_ = 0;  // where the ring is written next, once it is full
};

}  // namespace ferry
