// ApplyAdamWV2: one step of AdamW on tensors of one type.
#include <cmath>

#include "opapi/op_kit.h"

using namespace ascend_sim;

ASCEND_OP(ApplyAdamWV2,
          aclTensor* var_ref,
          aclTensor* m_ref,
          aclTensor* v_ref,
          aclTensor* max_grad_norm_ref,
          const aclTensor* grad_in,
          const aclTensor* step_in,
          float lr,
          float beta1,
          float beta2,
          float weight_decay,
          float eps,
          bool amsgrad,
          bool maximize) {
  return plan("ApplyAdamWV2", workspace_size, executor, [&](Plan& op) {
    require_training_chip(op);
    const Tensor var = op.inout("varRef", var_ref), m = op.inout("mRef", m_ref),
                 v = op.inout("vRef", v_ref);
    std::optional<Tensor> most;
    if (amsgrad) most = op.inout("maxGradNormOptionalRef", max_grad_norm_ref);
    const Tensor grad = op.input("grad", grad_in), step = op.input("step", step_in);
    require_float(op, "varRef", var);
    for (const Tensor* t : {&m, &v, &grad}) {
      op.require_same_type("varRef", var, "mRef, vRef, grad", *t);
      op.require_shape("mRef, vRef, grad", *t, var.shape);
    }
    if (most) {
      op.require_same_type("varRef", var, "maxGradNormOptionalRef", *most);
      op.require_shape("maxGradNormOptionalRef", *most, var.shape);
    }
    op.require_type("step", step, {ACL_INT64, ACL_FLOAT});
    op.require(step.elements() == 1, "step must have one element");
    op.launch([=](Launch&) {
      const double t = scalar(view(step));
      const auto correction = [t](float beta) {
        return static_cast<float>(1 - std::pow(static_cast<double>(beta), t));
      };
      const float first = correction(beta1), second = correction(beta2);
      const float decay = lr * weight_decay;
      in_pieces(var.elements(), [&](int64_t at, int64_t n) {
        float w[kPiece], mean[kPiece], square[kPiece], g[kPiece], peak[kPiece];
        read(view(var), at, n, w);
        read(view(m), at, n, mean);
        read(view(v), at, n, square);
        read(view(grad), at, n, g);
        if (most) read(view(*most), at, n, peak);
        for (int64_t i = 0; i < n; ++i) {
          const float gradient = maximize ? -g[i] : g[i];
          mean[i] = beta1 * mean[i] + (1 - beta1) * gradient;
          square[i] = beta2 * square[i] + (1 - beta2) * gradient * gradient;
          float second_moment = square[i];
          if (most) second_moment = peak[i] = std::max(peak[i], square[i]);
          const float size = std::sqrt(second_moment / second) + eps;
          w[i] = w[i] - lr * (mean[i] / first) / size - decay * w[i];
        }
        write(view(var), at, n, w);
        write(view(m), at, n, mean);
        write(view(v), at, n, square);
        if (most) write(view(*most), at, n, peak);
      });
    });
  });
}
