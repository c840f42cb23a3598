// Muon: momentum whose matrices are made orthogonal before they are applied.
#pragma once

#include "tensor/weight.h"

namespace ferry {

/// How many steps of each kind orthogonal_factor makes; V4's numbers. A small model learns as well
/// with half of them.
struct NewtonSchulzSteps {
  int lift = 8;
  int converge = 2;
};

struct Muon {
  double lr = 1e-3;
  double momentum = 0.95;
  double weight_decay = 0.1;
  double update_rms = 0.18;
  NewtonSchulzSteps newton_schulz = {};
};

/// The orthogonal factor of each matrix in u, nearly: singular values go to about 1, directions
/// stay.
///
/// Shapes    u [n, m], or [batch, n, m] matrix by matrix; contiguous; returns u's shape.
/// Types     f32.
/// Order     divided by its Frobenius norm, then Newton-Schulz steps X = aX + (bA + cA²)X with
///           A = XXᵀ (n <= m) or X = aX + X(bA + cA²) with A = XᵀX (n > m): steps.lift with
///           (3.4445, -4.7750, 2.0315), which lift small singular values fast but leave them
///           scattered around 1, then steps.converge with (2, -1.5, 0.5), which converge. A zero
///           matrix stays zero.
/// Source    Jordan et al. 2024 (Muon); the 8 + 2 hybrid is that of DeepSeek-V4's report,
///           section 4.2.
Tensor orthogonal_factor(const Tensor& u, const NewtonSchulzSteps& steps = {});

/// M = momentum M + s G;  O = orthogonal_factor(momentum M + s G) update_rms sqrt(max(n, m));
/// W = W (1 - lr weight_decay) - lr O.    s = gradient_scale.
///
/// An orthogonal n x m matrix has RMS 1 / sqrt(max(n, m)), so an update has RMS lr * update_rms, as
/// AdamW's has: both use one learning rate. Shapes and types as orthogonal_factor; m as w's value.
void muon_update(
    Weight& w, const Tensor& m, const Tensor& gradient, const Muon& muon, double gradient_scale);

}  // namespace ferry
