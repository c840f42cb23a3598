#include "optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/check.h"
#include "base/random.h"
#include "optim/muon.h"

namespace ferry {
namespace {

Device& cpu() { return **open_device("cpu"); }

std::vector<float> normal(int64_t count, uint64_t stream, double scale = 1) {
  const Random random(3, RandomPurpose::kTest, stream);
  std::vector<float> v(static_cast<size_t>(count));
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(scale * random.normal(i));
  return v;
}

Weight weight(const char* name, const Shape& shape, uint64_t stream) {
  Weight w;
  w.name = name;
  w.global_shape = shape;
  w.role = shape.rank() == 1   ? WeightRole::kVector
           : shape.rank() == 3 ? WeightRole::kExperts
                               : WeightRole::kProjection;
  w.value = Tensor::from_f32(normal(shape.count(), stream, 0.1), shape, cpu());
  return w;
}

double rms(const std::vector<float>& v) {
  double sum = 0;
  for (const float x : v) sum += double{x} * x;
  return std::sqrt(sum / static_cast<double>(v.size()));
}

// ---- Which weight gets what ---------------------------------------------------------------------

TEST(UpdateRule, FollowsTheTable) {
  using Kind = UpdateRule::Kind;
  const OptimizerSettings adamw, muon{.kind = OptimizerSettings::Kind::kMuon};
  const OptimizerSettings all{.decay_all = true};
  const auto rule = [](WeightRole role, const OptimizerSettings& s) { return rule_for(role, s); };
  EXPECT_EQ(rule(WeightRole::kVector, muon), (UpdateRule{Kind::kAdamW, false}));
  EXPECT_EQ(rule(WeightRole::kVector, all), (UpdateRule{Kind::kAdamW, true}));
  for (const WeightRole table : {WeightRole::kEmbedding, WeightRole::kHead})
    EXPECT_EQ(rule(table, muon), (UpdateRule{Kind::kAdamW, true}));
  for (const WeightRole matrix :
       {WeightRole::kProjection, WeightRole::kFine, WeightRole::kRouter, WeightRole::kExperts}) {
    EXPECT_EQ(rule(matrix, muon), (UpdateRule{Kind::kMuon, true}));
    EXPECT_EQ(rule(matrix, adamw), (UpdateRule{Kind::kAdamW, true}));
  }
  EXPECT_EQ(rule(WeightRole::kSelectionBias, muon), UpdateRule{});
}

// What a weight is called decides nothing: another architecture calls its head "output.weight".
TEST(UpdateRule, FollowsTheRoleNotTheName) {
  Weight head = weight("output.weight", {6, 4}, 1), matrix = weight("lm_head.weight", {6, 4}, 2);
  head.role = WeightRole::kHead;
  const Optimizer optimizer({.kind = OptimizerSettings::Kind::kMuon}, {&head, &matrix});
  std::vector<std::string> states;
  optimizer.for_each_state([&](const std::string& name, const Tensor&) { states.push_back(name); });
  EXPECT_EQ(states,
            (std::vector<std::string>{
                "adam.m.output.weight", "adam.v.output.weight", "muon.m.lm_head.weight"}));
}

// ---- AdamW against float64 ----------------------------------------------------------------------

TEST(Optimizer, AdamWFollowsTheFormulaInFloat64) {
  Weight matrix = weight("a.weight", {5, 7}, 1), vector = weight("norm.weight", {9}, 2),
         fixed = weight("bias", {3}, 3);
  fixed.role = WeightRole::kSelectionBias;
  const OptimizerSettings settings{.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
  Optimizer optimizer(settings, {&matrix, &vector, &fixed});
  ASSERT_EQ(optimizer.weights().size(), 2u);
  const std::vector<float> fixed_before = fixed.value.to_f32();
  struct Reference {
    std::vector<double> p, m, v;
    double decay;
  };
  std::vector<Reference> references;
  for (Weight* w : optimizer.weights()) {
    const std::vector<float> p = w->value.to_f32();
    references.push_back({{p.begin(), p.end()},
                          std::vector<double>(p.size()),
                          std::vector<double>(p.size()),
                          w == &matrix ? 0.1 : 0});
  }
  const double scale = 0.25;
  for (int step = 1; step <= 10; ++step) {
    const double lr = 1e-3 * step;
    std::vector<Tensor> gradients;
    for (size_t i = 0; i < 2; ++i) {
      const Weight& w = *optimizer.weights()[i];
      const std::vector<float> g = normal(w.value.count(), static_cast<uint64_t>(100 * step) + i);
      gradients.push_back(Tensor::from_f32(g, w.value.shape(), cpu()));
      Reference& r = references[i];
      for (size_t j = 0; j < g.size(); ++j) {
        const double d = g[j] * scale;
        r.m[j] = 0.9 * r.m[j] + 0.1 * d;
        r.v[j] = 0.95 * r.v[j] + 0.05 * d * d;
        const double m_hat = r.m[j] / (1 - std::pow(0.9, step)),
                     v_hat = r.v[j] / (1 - std::pow(0.95, step));
        r.p[j] = r.p[j] * (1 - lr * r.decay) - lr * m_hat / (std::sqrt(v_hat) + 1e-8);
      }
    }
    const uint64_t version = matrix.version;
    optimizer.step(gradients, lr, scale);
    EXPECT_GT(matrix.version, version);
    for (size_t i = 0; i < 2; ++i) {
      const std::vector<float> p = optimizer.weights()[i]->value.to_f32();
      // Each step rounds the parameter (|p| < 1: 2^-25) and an update of about lr (a dozen
      // roundings).
      const double bound = step * (0x1p-24 + 16 * 0x1p-24 * lr);
      for (size_t j = 0; j < p.size(); ++j)
        ASSERT_NEAR(p[j], references[i].p[j], bound) << "step " << step;
    }
  }
  EXPECT_EQ(optimizer.steps(), 10);
  EXPECT_EQ(fixed.value.to_f32(), fixed_before);
}

TEST(Optimizer, StateGoesToACheckpointAndComesBack) {
  const OptimizerSettings settings{.kind = OptimizerSettings::Kind::kMuon};
  const auto make = [] {
    return std::vector<Weight>{weight("a.weight", {4, 6}, 1), weight("norm.weight", {6}, 2)};
  };
  const auto gradients = [](int step) {
    return std::vector<Tensor>{
        Tensor::from_f32(normal(24, 10 * static_cast<uint64_t>(step)), {4, 6}, cpu()),
        Tensor::from_f32(normal(6, 10 * static_cast<uint64_t>(step) + 1), {6}, cpu())};
  };
  std::vector<Weight> whole = make(), resumed = make();
  Optimizer a(settings, {&whole[0], &whole[1]});
  for (int step = 0; step < 3; ++step) a.step(gradients(step), 1e-2, 1);
  std::map<std::string, std::vector<float>> saved;
  a.for_each_state([&](const std::string& name, const Tensor& t) { saved[name] = t.to_f32(); });
  ASSERT_EQ(saved.size(), 3u);
  for (const char* name : {"muon.m.a.weight", "adam.m.norm.weight", "adam.v.norm.weight"})
    EXPECT_TRUE(saved.contains(name)) << name;
  for (size_t i = 0; i < 2; ++i) resumed[i].value.assign_f32(whole[i].value.to_f32());
  Optimizer b(settings, {&resumed[0], &resumed[1]});
  b.for_each_state([&](const std::string& name, Tensor t) { t.assign_f32(saved.at(name)); });
  b.set_steps(a.steps());
  EXPECT_EQ(b.state_bytes(), (24 + 12) * 4u);
  for (int step = 3; step < 6; ++step) {
    a.step(gradients(step), 1e-2, 1);
    b.step(gradients(step), 1e-2, 1);
  }
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(whole[i].value.to_f32(), resumed[i].value.to_f32());
}

TEST(Optimizer, AWeightWithoutGradientStays) {
  Weight w = weight("a.weight", {4, 6}, 1);
  const std::vector<float> before = w.value.to_f32();
  Optimizer o({}, {&w});
  o.step(std::vector<Tensor>(1), 1e-2, 1);
  EXPECT_EQ(w.value.to_f32(), before);
  EXPECT_THROW(o.step({}, 1e-2, 1), Bug);
}

GradientNorm norm_of(const std::vector<Tensor>& gradients, double scale) {
  const Tensor squares = gradient_squares(gradients);
  return gradient_norm(read_together({&squares, 1})[0], scale);
}

TEST(GradientNorm, SeesEveryTensorAndWhatIsNotFinite) {
  const Tensor a = Tensor::from_f32(std::vector<float>{3, 0}, {2}, cpu()),
               b = Tensor::from_f32(std::vector<float>{4}, {1}, cpu());
  const GradientNorm n = norm_of({a, {}, b}, 0.5);
  EXPECT_TRUE(n.finite);
  EXPECT_DOUBLE_EQ(n.norm, 2.5);
  EXPECT_FALSE(gradient_squares(std::vector<Tensor>{{}, {}}).defined());
  EXPECT_DOUBLE_EQ(gradient_norm({}, 1).norm, 0);
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const Tensor c = Tensor::from_f32(std::vector<float>{1, bad, 1}, {3}, cpu());
    EXPECT_FALSE(norm_of({a, c}, 1).finite);
  }
  EXPECT_EQ(clip_scale(0.5, 1), 1);
  EXPECT_EQ(clip_scale(50, 0), 1);
  EXPECT_NEAR(clip_scale(50, 1) * 50, 1, 1e-6);
}

// ---- Muon against float64 -----------------------------------------------------------------------

using Matrix = std::vector<double>;

Matrix product(const Matrix& a, const Matrix& b, int64_t n, int64_t k, int64_t m) {
  Matrix c(static_cast<size_t>(n * m));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t l = 0; l < k; ++l)
      for (int64_t j = 0; j < m; ++j)
        c[static_cast<size_t>(i * m + j)] +=
            a[static_cast<size_t>(i * k + l)] * b[static_cast<size_t>(l * m + j)];
  return c;
}

Matrix transposed(const Matrix& a, int64_t n, int64_t m) {
  Matrix t(a.size());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < m; ++j)
      t[static_cast<size_t>(j * n + i)] = a[static_cast<size_t>(i * m + j)];
  return t;
}

/// As the recipe states it: transpose if tall, then ten steps on XXᵀ.
Matrix reference_factor(Matrix x, int64_t n, int64_t m) {
  if (n > m) return transposed(reference_factor(transposed(x, n, m), m, n), m, n);
  const double norm = std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
  for (double& v : x) v /= norm;
  for (int k = 0; k < 10; ++k) {
    const double a = k < 8 ? 3.4445 : 2, b = k < 8 ? -4.7750 : -1.5, c = k < 8 ? 2.0315 : 0.5;
    const Matrix g = product(x, transposed(x, n, m), n, m, n), gg = product(g, g, n, n, n);
    Matrix p(g.size());
    for (size_t i = 0; i < p.size(); ++i) p[i] = b * g[i] + c * gg[i];
    const Matrix px = product(p, x, n, n, m);
    for (size_t i = 0; i < x.size(); ++i) x[i] = a * x[i] + px[i];
  }
  return x;
}

TEST(Muon, FactorAgreesWithFloat64AndIsNearlyOrthogonal) {
  for (const auto& [n, m] :
       {std::pair<int64_t, int64_t>{8, 8}, {24, 40}, {40, 24}, {1, 16}, {33, 7}}) {
    const std::vector<float> u = normal(n * m, static_cast<uint64_t>(n * 100 + m), 1e-6);
    const std::vector<float> got = orthogonal_factor(Tensor::from_f32(u, {n, m}, cpu())).to_f32();
    const Matrix expected = reference_factor(Matrix(u.begin(), u.end()), n, m);
    // The lifting steps may multiply a rounding (2^-24 of norm 1) by 3.4445 each, 1.2e-3 in all,
    // for a singular value near zero; the converging ones shrink it. Matrices without such values
    // stay well below.
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-4) << n << "x" << m;
    const Matrix o(got.begin(), got.end());
    const bool wide = n <= m;
    const int64_t k = std::min(n, m);
    const Matrix gram =
        wide ? product(o, transposed(o, n, m), n, m, n) : product(transposed(o, n, m), o, m, n, m);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j)
        ASSERT_NEAR(gram[static_cast<size_t>(i * k + j)], i == j ? 1 : 0, 0.02) << n << "x" << m;
  }
}

TEST(Muon, StackedExpertsAreTakenOneByOne) {
  const std::vector<float> u = normal(3 * 8 * 12, 77);
  const std::vector<float> all = orthogonal_factor(Tensor::from_f32(u, {3, 8, 12}, cpu())).to_f32();
  for (size_t e = 0; e < 3; ++e) {
    const std::vector<float> part(u.begin() + static_cast<std::ptrdiff_t>(e * 96),
                                  u.begin() + static_cast<std::ptrdiff_t>(e * 96 + 96));
    const std::vector<float> one =
        orthogonal_factor(Tensor::from_f32(part, {8, 12}, cpu())).to_f32();
    EXPECT_TRUE(
        std::equal(one.begin(), one.end(), all.begin() + static_cast<std::ptrdiff_t>(e * 96)))
        << e;
  }
  const std::vector<float> zero =
      orthogonal_factor(Tensor::zeros({2, 4, 4}, DType::kF32, cpu())).to_f32();
  EXPECT_EQ(zero, std::vector<float>(32));  // an expert that no token chose
}

TEST(Muon, UpdateFollowsTheRecipe) {
  const Shape shape{24, 40};
  Weight w = weight("a.weight", shape, 5);
  Optimizer optimizer({.kind = OptimizerSettings::Kind::kMuon, .weight_decay = 0.1}, {&w});
  const std::vector<float> start = w.value.to_f32();
  Matrix p(start.begin(), start.end()), m(p.size());
  const double lr = 0.02, scale = 0.5;
  for (int step = 0; step < 4; ++step) {
    const std::vector<float> before = w.value.to_f32();
    const std::vector<float> g = normal(shape.count(), 40 + static_cast<uint64_t>(step));
    optimizer.step(std::vector<Tensor>{Tensor::from_f32(g, shape, cpu())}, lr, scale);
    Matrix ahead(p.size());
    for (size_t i = 0; i < p.size(); ++i) {
      m[i] = 0.95 * m[i] + scale * g[i];
      ahead[i] = 0.95 * m[i] + scale * g[i];
    }
    const Matrix o = reference_factor(ahead, 24, 40);
    for (size_t i = 0; i < p.size(); ++i)
      p[i] = p[i] * (1 - lr * 0.1) - lr * 0.18 * std::sqrt(40.0) * o[i];
    const std::vector<float> after = w.value.to_f32();
    std::vector<float> update(after.size());
    for (size_t i = 0; i < after.size(); ++i) {
      ASSERT_NEAR(after[i], p[i], (step + 1) * lr * 0.18 * std::sqrt(40.0) * 2e-4)
          << "step " << step;
      update[i] = static_cast<float>(after[i] - before[i] * (1 - lr * 0.1));
    }
    EXPECT_NEAR(rms(update), 0.18 * lr, 0.01 * 0.18 * lr);
  }
}

}  // namespace
}  // namespace ferry
