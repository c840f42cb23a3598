#include "optim/muon.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "ops/axpby/axpby.h"
#include "ops/matmul/matmul.h"
#include "ops/unit_norm/unit_norm.h"

namespace ferry {
namespace {

struct NewtonSchulz {
  float a, b, c;
};
constexpr NewtonSchulz kLift{3.4445f, -4.7750f, 2.0315f};
constexpr NewtonSchulz kConverge{2.0f, -1.5f, 0.5f};

/// Of a stack of matrices so many are updated together that a processor's cache holds them.
constexpr int64_t kPartBytes = int64_t{512} << 10;

void update_part(const Tensor& value,
                 const Tensor& m,
                 const Tensor& gradient,
                 const Muon& muon,
                 double gradient_scale) {
  const auto scale = static_cast<float>(gradient_scale),
             momentum = static_cast<float>(muon.momentum);
  ops::axpby(scale, gradient, momentum, m);
  // Nesterov's look-ahead: the direction is where the momentum will be after the next like
  // gradient.
  const Tensor ahead = Tensor::empty(value.shape(), DType::kF32, value.device());
  ops::axpby(scale, gradient, 0, ahead);
  ops::axpby(momentum, m, 1, ahead);
  const Tensor o = orthogonal_factor(ahead, muon.newton_schulz);
  const double size = std::sqrt(static_cast<double>(std::max(value.dim(-2), value.dim(-1))));
  ops::axpby(static_cast<float>(-muon.lr * muon.update_rms * size),
             o,
             static_cast<float>(1 - muon.lr * muon.weight_decay),
             value);
}

}  // namespace

Tensor orthogonal_factor(const Tensor& u, const NewtonSchulzSteps& steps) {
  check((u.rank() == 2 || u.rank() == 3) && u.dtype() == DType::kF32 && u.contiguous(),
        "orthogonal_factor: {} {}",
        to_string(u.dtype()),
        u.shape().str());
  const int64_t n = u.dim(-2), m = u.dim(-1);
  const bool wide =
      n <= m;  // the smaller of XXᵀ and XᵀX: the same polynomial of the singular values
  Tensor x = ops::unit_norm(u);
  for (int k = 0; k < steps.lift + steps.converge; ++k) {
    const NewtonSchulz& s = k < steps.lift ? kLift : kConverge;
    const Tensor a =
        wide ? ops::matmul(x, x, {.transpose_b = true}) : ops::matmul(x, x, {.transpose_a = true});
    const Tensor p = ops::matmul(a, a);
    ops::axpby(s.b, a, s.c, p);  // p = bA + cA²
    const Tensor next = wide ? ops::matmul(p, x) : ops::matmul(x, p);
    ops::axpby(s.a, x, 1, next);  // next = aX + pX, or aX + Xp
    x = next;
  }
  return x;
}

void muon_update(
    Weight& w, const Tensor& m, const Tensor& gradient, const Muon& muon, double gradient_scale) {
  const Tensor& value = w.value;
  check(gradient.shape() == value.shape() && m.shape() == value.shape(),
        "muon: {} {}, momentum {}, gradient {}",
        w.name,
        value.shape().str(),
        m.shape().str(),
        gradient.shape().str());
  if (value.rank() == 2) {
    update_part(value, m, gradient, muon, gradient_scale);
  } else {
    const int64_t count = value.dim(0),
                  bytes = std::max<int64_t>(static_cast<int64_t>(value.bytes()) / count, 1),
                  part = std::max<int64_t>(kPartBytes / bytes, 1);
    for (int64_t begin = 0; begin < count; begin += part) {
      const int64_t end = std::min(begin + part, count);
      update_part(value.slice(0, begin, end),
                  m.slice(0, begin, end),
                  gradient.slice(0, begin, end),
                  muon,
                  gradient_scale);
    }
  }
  w.changed();
}

}  // namespace ferry
