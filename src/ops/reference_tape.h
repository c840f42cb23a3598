// Differentiates the float64 references, and bounds what a kernel's roundings may do to the result:
// a reference that is written for any number type T runs with T = double for its values, and with
// T = Real, which records. From the record come every element's gradient and, for every output and
// gradient, the largest error that a kernel in float32 (with some values in bf16) may make, and its
// variance. So no spec needs a gradient reference or a gradient tolerance of its own; the rules that
// judge single calls (ops/call_check.h) do without the reference, and have theirs.
//
// The bounds are a running error analysis (Wilkinson; Higham, Accuracy and Stability, chapter 3):
// each number carries |error|, each operation passes the errors of its operands on, times the
// derivative, and adds roundings of its own. In the way back the derivatives themselves are off by
// what the forward values are off. Sums are bounded for every order of summation.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "ops/reference_tensor.h"

namespace ferry::ops {

/// A number of a reference that is being recorded; a constant where it has no node.
struct Real {
  double value = 0;
  int32_t node = -1;

  Real() = default;
  Real(double v) : value(v) {}  // constants mix with numbers, as doubles do with each other
  Real(double v, int32_t n) : value(v), node(n) {}
};

using RealTensor = RefArray<Real>;

Real operator+(const Real& a, const Real& b);
Real operator-(const Real& a, const Real& b);
Real operator*(const Real& a, const Real& b);
Real operator/(const Real& a, const Real& b);
Real exp(const Real& x);
Real log(const Real& x);
Real sqrt(const Real& x);
inline Real operator-(const Real& x) { return Real(0.0) - x; }
inline Real& operator+=(Real& a, const Real& b) { return a = a + b; }
inline Real& operator*=(Real& a, const Real& b) { return a = a * b; }

/// The value alone: for what is compared, sorted, counted; its gradient is not asked for.
inline double value_of(double x) { return x; }
inline double value_of(const Real& x) { return x.value; }
inline const RefTensor& value_of(const RefTensor& x) { return x; }
RefTensor value_of(const RealTensor& x);

/// 1 / (1 + e^-x), without a number that float64 cannot hold. Kernels differentiate it with
/// 1 - sigmoid, which is off by a rounding of 1.
double sigmoid(double x);
Real sigmoid(const Real& x);

/// Σ a[i * a_step] * b[i * b_step] for i < n: one record, whatever n is.
double dot(const double* a, int64_t a_step, const double* b, int64_t b_step, int64_t n);
Real dot(const Real* a, int64_t a_step, const Real* b, int64_t b_step, int64_t n);

/// x again, with a gradient of its own: an element of another tensor that holds the same number.
inline double copied(double x) { return x; }
Real copied(const Real& x);

// Where a kernel rounds more than the reference's own operations say. All return x itself.
/// A kernel may keep x in the compute type.
inline double stored(double x) { return x; }
Real stored(const Real& x);
/// A kernel may keep the gradient with respect to x in the compute type.
inline double gradient_stored(double x) { return x; }
Real gradient_stored(const Real& x);
/// x may be off by this much in a kernel's own way of computing it.
inline double uncertain(double x, double) { return x; }
Real uncertain(const Real& x, double error);

/// How many roundings of float32, each of a number as large as the sum of all |a b|, a sum of k
/// products of bf16 numbers on tensor cores is off by at most (docs/numerics.md, "On tensor cores"),
/// where a chain of fma is off by k: one product is exact; of eight products and what they are added
/// to, each but the largest is off by 1, and the new sum by 2.
constexpr int64_t tensor_roundings(int64_t k) { return k < 2 ? 0 : k + 2 * ((k + 7) / 8); }

/// What a kernel may give for one element: |error| at most, and its variance where roundings are
/// independent. `own`: the part of it that is this element's alone, from the last operation; what
/// came before, and constants and reciprocals, many elements may share.
struct Judged {
  RefTensor value, bound, variance, own;
};

/// The record of one reference's run. One at a time records on a thread.
class ReferenceTape {
 public:
  /// `stored`: unit roundoff of the compute type, for what stored() marks; 0: nothing is.
  /// `tensor_cores`: sums of products may be made there, where what is added is cut, not rounded: they
  /// are off by tensor_roundings(), and errors lean (docs/numerics.md).
  explicit ReferenceTape(double stored, bool tensor_cores = false);
  ~ReferenceTape();
  ReferenceTape(const ReferenceTape&) = delete;
  ReferenceTape& operator=(const ReferenceTape&) = delete;

  RealTensor leaves(const RefTensor& x);
  /// What a kernel may give for a recorded tensor, before the rounding to its type.
  Judged judged(const RealTensor& x) const;
  /// Differentiates Σ cotangent * output over all outputs. Once.
  void backward(const std::vector<RealTensor>& outputs, const std::vector<RefTensor>& cotangents);
  /// After backward: the gradient of leaves, before the rounding to its type.
  Judged gradient(const RealTensor& leaves) const;

  struct Impl;

 private:
  friend struct TapeAccess;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ferry::ops
