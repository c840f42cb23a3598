// The judge of gradients, judged: its derivatives against finite differences, its bounds against
// what float32 and bf16 really do.
#include "ops/reference_tape.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "ops/spec_check.h"
#include "tensor/bf16.h"

namespace ferry::ops {
namespace {

RefTensor normals(const Shape& shape, uint64_t seed, double scale = 1, double offset = 0) {
  const Random random(seed, RandomPurpose::kTest, 17);
  RefTensor x(shape);
  for (size_t i = 0; i < x.values.size(); ++i) x.values[i] = offset + scale * random.normal(i);
  return x;
}

double weighted_sum(const std::vector<RefTensor>& y, const std::vector<RefTensor>& weights) {
  double sum = 0;
  for (size_t o = 0; o < weights.size(); ++o)
    for (size_t i = 0; i < weights[o].values.size(); ++i)
      sum += weights[o].values[i] * y[o].values[i];
  return sum;
}

/// The derivative along a direction that touches every element of one input, from the tape and from
/// a central difference of the float64 reference.
void expect_derivative(const Reference& reference,
                       const std::vector<RefTensor>& in,
                       const std::vector<RefTensor>& cotangents,
                       size_t input,
                       const std::string& what) {
  ReferenceTape tape(0);
  std::vector<RealTensor> leaves;
  for (const RefTensor& x : in) leaves.push_back(tape.leaves(x));
  tape.backward(reference(leaves), cotangents);
  const RefTensor gradient = tape.gradient(leaves[input]).value;
  const RefTensor direction = normals(in[input].shape, 99 + input);
  constexpr double kStep = 1e-5;
  const auto at = [&](double step) {
    std::vector<RefTensor> moved = in;
    for (size_t i = 0; i < moved[input].values.size(); ++i)
      moved[input].values[i] += step * direction.values[i];
    return weighted_sum(reference(moved), cotangents);
  };
  const double difference = (at(kStep) - at(-kStep)) / (2 * kStep);
  double exact = 0, magnitude = 0;
  for (size_t i = 0; i < direction.values.size(); ++i) {
    exact += gradient.values[i] * direction.values[i];
    magnitude += std::abs(gradient.values[i] * direction.values[i]);
  }
  // The difference is off by the third derivative times the step squared, and by float64's roundoff
  // of the sum over the step.
  EXPECT_NEAR(exact, difference, 1e-6 * std::max(magnitude, 1.0)) << what;
}

TEST(ReferenceTape, EveryOperationHasItsDerivative) {
  const auto each = [](const char* what, auto f) {
    const std::vector<RefTensor> in = {normals({9}, 1, 0.3, 2), normals({9}, 2, 0.3, -2)};
    const Reference reference = [f](const auto& x) {
      auto y = x[0];
      for (int64_t i = 0; i < y.shape.count(); ++i) y[i] = f(x[0][i], x[1][i]);
      return std::vector{y};
    };
    for (const size_t input : {0, 1})
      expect_derivative(reference, in, {normals({9}, 3)}, input, what);
  };
  using std::exp, std::log, std::sqrt;
  each("a + b", [](auto a, auto b) { return a + b + a; });
  each("a - b", [](auto a, auto b) { return a - b - b; });
  each("a b", [](auto a, auto b) { return a * b * a; });
  each("a / b", [](auto a, auto b) { return a / b; });
  each("-a", [](auto a, auto b) { return -a * b; });
  each("exp", [](auto a, auto b) { return exp(a) * b; });
  each("log", [](auto a, auto b) { return log(a) * b; });
  each("sqrt", [](auto a, auto b) { return sqrt(a) * b; });
  each("a copy", [](auto a, auto b) { return copied(a) * copied(a) * b; });
}

TEST(ReferenceTape, ProductsOfStridedRowsHaveTheirDerivatives) {
  const Reference reference = []<class T>(const std::vector<RefArray<T>>& x) {
    RefArray<T> y({3});
    y[0] = dot(x[0].values.data(), 4, x[1].values.data(), 1, 5);
    y[1] = dot(x[0].values.data() + 1, 1, x[0].values.data() + 1, 1, 7);  // with itself
    const std::vector<T> mixed = {y[0], x[1][2], y[1]};                   // of uneven places
    y[2] = dot(mixed.data(), 1, x[1].values.data(), 2, 3);
    return std::vector{y};
  };
  const std::vector<RefTensor> in = {normals({5, 4}, 4), normals({5}, 5)};
  for (const size_t input : {0, 1})
    expect_derivative(reference, in, {normals({3}, 6)}, input, "dot");
}

/// Every op's reference, at its smallest case that has a gradient.
TEST(ReferenceTape, EveryReferenceAgreesWithFiniteDifferences) {
  int references = 0;
  for (const OpSpec& spec : all_op_specs())
    for (const OpCase& c : spec.cases) {
      int64_t elements = 0;
      for (const InputSpec& i : c.inputs) elements += i.shape.count();
      // Of 1e30 a step is lost in float64, and near certainty differences are.
      if (c.benchmark || !has_gradient(c) || elements == 0 || elements > 600 || elements < 20)
        continue;
      std::vector<RefTensor> in;
      double largest = 0;
      for (const Tensor& x : make_inputs(c, cpu_device(), 1)) {
        RefTensor r(x.shape());
        if (x.dtype() == DType::kI32) {
          const std::vector<int32_t> v = x.to_i32();
          std::copy(v.begin(), v.end(), r.values.begin());
        } else {
          const std::vector<float> v = x.to_f32();
          std::copy(v.begin(), v.end(), r.values.begin());
          for (const float value : v) largest = std::max(largest, std::abs(double{value}));
        }
        in.push_back(r);
      }
      if (largest > 100 || largest < 0.1) continue;
      std::vector<RefTensor> cotangents;
      for (const RefTensor& y : c.reference(in)) {
        if (c.differentiable_outputs >= 0 &&
            static_cast<int>(cotangents.size()) >= c.differentiable_outputs)
          break;
        cotangents.push_back(normals(y.shape, 7));
      }
      for (size_t i = 0; i < in.size(); ++i)
        if (c.inputs[i].gradient)
          expect_derivative(c.reference, in, cotangents, i, spec.op + ", " + c.name);
      ++references;
    }
  EXPECT_GE(references, 40);
}

/// A sum in float32, in a bad order, stays within its bound; the same sum in bf16 does not hide.
TEST(ReferenceTape, BoundsHoldForFloat32AndNotForBf16) {
  constexpr int64_t kTerms = 400, kSums = 64;
  double squares32 = 0, squares16 = 0;
  for (uint64_t sum = 0; sum < kSums; ++sum) {
    RefTensor a = normals({kTerms}, 2 * sum), b = normals({kTerms}, 2 * sum + 1);
    float in32 = 0, in16 = 0;
    for (int64_t i = 0; i < kTerms; ++i) {
      const auto x = static_cast<float>(a[i]), y = static_cast<float>(b[i]);
      a[i] = double{x}, b[i] = double{y};
      in32 += x * y;
      in16 = bf16_to_f32(f32_to_bf16(in16 + x * y));
    }
    ReferenceTape tape(0);
    const RealTensor left = tape.leaves(a), right = tape.leaves(b);
    RealTensor y({1});
    y[0] = dot(left.values.data(), 1, right.values.data(), 1, kTerms);
    const Judged judged = tape.judged(y);
    EXPECT_LE(std::abs(double{in32} - judged.value[0]), judged.bound[0]);
    squares32 += std::pow(double{in32} - judged.value[0], 2) / judged.variance[0];
    squares16 += std::pow(double{in16} - judged.value[0], 2) / judged.variance[0];
  }
  EXPECT_LE(std::sqrt(squares32 / kSums), 2);
  EXPECT_GE(std::sqrt(squares16 / kSums), 1000);
}

}  // namespace
}  // namespace ferry::ops
