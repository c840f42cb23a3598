// RMSNorm and its gradient.
#include <cmath>
#include <memory>

#include "opapi/op_kit.h"
#include "opapi/sums.h"

using namespace ascend_sim;

namespace {

/// gamma covers the last dimensions of x: the rows before them are normalised one by one.
struct Rows {
  int64_t rows, hidden;
};

Rows rows_of(const Plan& op, const Tensor& x, const Tensor& gamma) {
  op.require(
      gamma.rank() >= 1 && gamma.rank() <= x.rank() &&
          std::equal(gamma.shape.rbegin(), gamma.shape.rend(), x.shape.rbegin()),
      "gamma " + to_string(gamma.shape) + " is not the end of x's shape " + to_string(x.shape));
  const int64_t hidden = gamma.elements();
  op.require(hidden > 0, "gamma is empty");
  return {x.elements() / hidden, hidden};
}

void require_types(const Plan& op, const Tensor& x, const Tensor& gamma) {
  require_float(op, "x", x);
  op.require(gamma.dtype == x.dtype || gamma.dtype == ACL_FLOAT,
             "gamma must be of x's type or FLOAT");
}

/// rstd has one float for each row: x's shape up to the normalised dimensions, which are 1 or
/// absent.
void require_rstd(const Plan& op, const Tensor& rstd, const Tensor& x, const Tensor& gamma) {
  op.require_type("rstd", rstd, {ACL_FLOAT});
  Shape kept = x.shape;
  std::fill(kept.end() - gamma.rank(), kept.end(), 1);
  const Shape dropped(x.shape.begin(), x.shape.end() - gamma.rank());
  op.require(rstd.shape == kept || rstd.shape == dropped,
             "rstd " + to_string(rstd.shape) + " is not " + to_string(kept));
}

std::unique_ptr<float[]> room(int64_t n) {
  return std::make_unique_for_overwrite<float[]>(static_cast<size_t>(std::max<int64_t>(n, 1)));
}

}  // namespace

ASCEND_DEFECT(rms_norm_epsilon, "RmsNorm", "takes 1e-3 for epsilon")
ASCEND_DEFECT(rms_norm_loses_tail, "RmsNorm", "the mean square leaves out the last hidden mod 16")

ASCEND_OP(RmsNorm,
          const aclTensor* x_in,
          const aclTensor* gamma_in,
          double epsilon,
          const aclTensor* y_out,
          const aclTensor* rstd_out) {
  return plan("RmsNorm", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("x", x_in), gamma = op.input("gamma", gamma_in);
    const Tensor y = op.output("yOut", y_out), rstd = op.output("rstdOut", rstd_out);
    require_types(op, x, gamma);
    op.require_same_type("x", x, "yOut", y);
    op.require_shape("yOut", y, x.shape);
    op.require(epsilon >= 0, "epsilon must not be negative");
    const Rows size = rows_of(op, x, gamma);
    require_rstd(op, rstd, x, gamma);
    op.launch([=](Launch& at) {
      const std::vector<float> g = floats(view(gamma));
      const float eps = defect("rms_norm_epsilon") ? 1e-3f : static_cast<float>(epsilon);
      const int64_t summed = defect("rms_norm_loses_tail") ? size.hidden / 16 * 16 : size.hidden;
      const Order order{at.order(size.rows)};
      const View from = view(x), to = view(y), inverse = view(rstd);
      in_parallel((size.rows + 63) / 64, [&](int64_t part) {
        const auto row = room(size.hidden);
        for (int64_t r = part * 64; r < std::min(size.rows, (part + 1) * 64); ++r) {
          read(from, r * size.hidden, size.hidden, row.get());
          const float mean =
              dot(row.get(), row.get(), summed, order) / static_cast<float>(size.hidden);
          const float scale = 1 / std::sqrt(mean + eps);
          for (int64_t i = 0; i < size.hidden; ++i)
            row[static_cast<size_t>(i)] *= scale * g[static_cast<size_t>(i)];
          write(to, r * size.hidden, size.hidden, row.get());
          write(inverse, r, 1, &scale);
        }
      });
    });
  });
}

ASCEND_DEFECT(rms_norm_grad_lost_row,
              "RmsNormGrad",
              "two cores add to dgamma at once: a row is lost")
ASCEND_DEFECT(rms_norm_grad_no_mean, "RmsNormGrad", "dx lacks the term of the row's mean")

ASCEND_OP(RmsNormGrad,
          const aclTensor* dy_in,
          const aclTensor* x_in,
          const aclTensor* rstd_in,
          const aclTensor* gamma_in,
          const aclTensor* dx_out,
          const aclTensor* dgamma_out) {
  return plan("RmsNormGrad", workspace_size, executor, [&](Plan& op) {
    const Tensor dy = op.input("dy", dy_in), x = op.input("x", x_in),
                 rstd = op.input("rstd", rstd_in), gamma = op.input("gamma", gamma_in);
    const Tensor dx = op.output("dxOut", dx_out), dgamma = op.output("dgammaOut", dgamma_out);
    require_types(op, x, gamma);
    op.require_same_type("dy", dy, "x", x);
    op.require_same_type("dxOut", dx, "x", x);
    op.require_shape("dy", dy, x.shape);
    op.require_shape("dxOut", dx, x.shape);
    op.require_type("dgammaOut", dgamma, {ACL_FLOAT});
    op.require_shape("dgammaOut", dgamma, gamma.shape);
    const Rows size = rows_of(op, x, gamma);
    require_rstd(op, rstd, x, gamma);
    op.workspace(static_cast<uint64_t>(size.hidden) * sizeof(float) * 48);
    op.launch([=](Launch& at) {
      const std::vector<float> g = floats(view(gamma));
      const Order order{at.order(size.rows)};
      const auto hidden = static_cast<size_t>(size.hidden);
      const bool lost = defect("rms_norm_grad_lost_row"), no_mean = defect("rms_norm_grad_no_mean");
      // dgamma: chunks of rows, each summed on its own, then added in the order that was given.
      const auto chunks = order.chunks(size.rows);
      std::vector<float> parts(chunks.size() * hidden, 0.0f);
      in_parallel(static_cast<int64_t>(chunks.size()), [&](int64_t c) {
        const auto [first, last] = chunks[static_cast<size_t>(c)];
        const auto grad = room(size.hidden), row = room(size.hidden), out = room(size.hidden);
        float* part = parts.data() + static_cast<size_t>(c) * hidden;
        for (int64_t r = first; r < last; ++r) {
          float scale = 0;
          read(view(rstd), r, 1, &scale);
          read(view(dy), r * size.hidden, size.hidden, grad.get());
          read(view(x), r * size.hidden, size.hidden, row.get());
          if (!(lost && r == size.rows / 2))
            for (size_t i = 0; i < hidden; ++i) part[i] += grad[i] * (row[i] * scale);
          for (size_t i = 0; i < hidden; ++i) {
            grad[i] *= g[i];
            row[i] *= scale;
          }
          const float mean = no_mean ? 0
                                     : dot(grad.get(), row.get(), size.hidden, order) /
                                           static_cast<float>(size.hidden);
          for (size_t i = 0; i < hidden; ++i) out[i] = (grad[i] - row[i] * mean) * scale;
          write(view(dx), r * size.hidden, size.hidden, out.get());
        }
      });
      std::vector<float> total(hidden, 0.0f);
      for (size_t c = 0; c < chunks.size(); ++c)
        for (size_t i = 0; i < hidden; ++i) total[i] += parts[c * hidden + i];
      write(view(dgamma), 0, size.hidden, total.data());
    });
  });
}
