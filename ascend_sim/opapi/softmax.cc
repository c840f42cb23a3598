// Softmax, its logarithm, their gradients, and the negative log likelihood.
#include <cmath>

#include "opapi/exponential.h"
#include "opapi/op_kit.h"
#include "opapi/sums.h"

using namespace ascend_sim;

namespace {

/// Calls line(n, in, out) for each line along d: up to two inputs read, the last written.
template <class Line>
void for_lines(
    const Tensor& a, const std::optional<Tensor>& b, const Tensor& y, int d, const Line& line) {
  const View va = transposed(view(a), d, -1), vy = transposed(view(y), d, -1);
  const View vb = b ? transposed(view(*b), d, -1) : View{};
  const int64_t n = va.size(-1);
  const int64_t lines = n == 0 ? 0 : va.count() / n;
  const int64_t share = std::max<int64_t>(1, 16384 / std::max<int64_t>(n, 1));
  in_parallel((lines + share - 1) / share, [&](int64_t part) {
    std::vector<float> x(static_cast<size_t>(n)), z(b ? x.size() : 0);
    for (int64_t i = part * share; i < std::min(lines, (part + 1) * share); ++i) {
      read(va, i * n, n, x.data());
      if (b) read(vb, i * n, n, z.data());
      line(n, x.data(), z.data());
      write(vy, i * n, n, x.data());
    }
  });
}

struct Lines {
  Tensor a, out;
  std::optional<Tensor> b;
  int d;
  Order order(const Launch& at) const {
    return {at.order(a.elements() / std::max<int64_t>(a.dim(d), 1))};
  }
};

Lines take(Plan& op,
           const char* first,
           const aclTensor* a,
           const char* second,
           const aclTensor* b,
           int64_t dim,
           aclTensor* out) {
  Lines l{op.input(first, a), {}, {}, 0};
  if (second) l.b = op.input(second, b);
  l.out = op.output("out", out);
  require_float(op, first, l.a);
  require_float(op, "out", l.out);
  op.require_shape("out", l.out, l.a.shape);
  if (l.b) {
    op.require_same_type(first, l.a, second, *l.b);
    op.require_shape(second, *l.b, l.a.shape);
  }
  l.d = op.axis(dim, l.a.rank());
  return l;
}

}  // namespace

ASCEND_REDUCES(Softmax)
ASCEND_DEFECT(softmax_no_max,
              "Softmax",
              "does not subtract the maximum, with float16's range for e^x")

ASCEND_OP(Softmax, const aclTensor* self, int64_t dim, aclTensor* out) {
  return plan("Softmax", workspace_size, executor, [&](Plan& op) {
    const Lines l = take(op, "self", self, nullptr, nullptr, dim, out);
    op.launch([=](Launch& at) {
      const bool no_max = defect("softmax_no_max");
      const Order order = l.order(at);
      for_lines(l.a, l.b, l.out, l.d, [&](int64_t n, float* x, const float*) {
        exponentials(x, n, no_max ? 0 : largest(x, n));
        if (no_max)
          for (int64_t i = 0; i < n; ++i) x[i] = as_half(std::min(x[i], 65504.0f));
        const float total = sum(x, at.reduction(n), order);
        for (int64_t i = 0; i < n; ++i) x[i] /= total;
      });
    });
  });
}

ASCEND_OP(SoftmaxBackward,
          const aclTensor* grad_output,
          const aclTensor* output,
          int64_t dim,
          aclTensor* out) {
  return plan("SoftmaxBackward", workspace_size, executor, [&](Plan& op) {
    const Lines l = take(op, "gradOutput", grad_output, "output", output, dim, out);
    op.launch([=](Launch& at) {
      const Order order = l.order(at);
      for_lines(l.a, l.b, l.out, l.d, [&](int64_t n, float* g, const float* y) {
        const float mean = dot(g, y, n, order);
        for (int64_t i = 0; i < n; ++i) g[i] = (g[i] - mean) * y[i];
      });
    });
  });
}

ASCEND_REDUCES(LogSoftmax)
ASCEND_DEFECT(log_softmax_no_max,
              "LogSoftmax",
              "does not subtract the maximum, with float16's range for e^x")

ASCEND_OP(LogSoftmax, const aclTensor* self, int64_t dim, aclTensor* out) {
  return plan("LogSoftmax", workspace_size, executor, [&](Plan& op) {
    const Lines l = take(op, "self", self, nullptr, nullptr, dim, out);
    op.launch([=](Launch& at) {
      const bool no_max = defect("log_softmax_no_max");
      const Order order = l.order(at);
      for_lines(l.a, l.b, l.out, l.d, [&](int64_t n, float* x, const float*) {
        const float m = no_max ? 0 : largest(x, n);
        std::vector<float> e(x, x + n);
        exponentials(e.data(), n, m);
        if (no_max)
          for (float& v : e) v = as_half(std::min(v, 65504.0f));
        const float shift = std::log(sum(e.data(), at.reduction(n), order));
        for (int64_t i = 0; i < n; ++i) x[i] = (x[i] - m) - shift;
      });
    });
  });
}

ASCEND_DEFECT(log_softmax_grad_no_sum, "LogSoftmaxBackward", "leaves out softmax * sum(gradient)")

// `output` is LogSoftmax's result.
ASCEND_OP(LogSoftmaxBackward,
          const aclTensor* grad_output,
          const aclTensor* output,
          int64_t dim,
          aclTensor* out) {
  return plan("LogSoftmaxBackward", workspace_size, executor, [&](Plan& op) {
    const Lines l = take(op, "gradOutput", grad_output, "output", output, dim, out);
    op.launch([=](Launch& at) {
      const bool no_sum = defect("log_softmax_grad_no_sum");
      const Order order = l.order(at);
      for_lines(l.a, l.b, l.out, l.d, [&](int64_t n, float* g, const float* y) {
        const float total = no_sum ? 0 : sum(g, n, order);
        std::vector<float> p(y, y + n);
        exponentials(p.data(), n, 0);
        for (int64_t i = 0; i < n; ++i) g[i] -= p[static_cast<size_t>(i)] * total;
      });
    });
  });
}

// --- negative log likelihood
// ----------------------------------------------------------------------

namespace {

enum : int64_t { kNone = 0, kMean = 1, kSum = 2 };

struct Likelihood {
  Tensor self, target, weight;
  int64_t rows, classes;
};

/// self is [N, C] or [C]; target [N] or of one element.
Likelihood take_likelihood(Plan& op,
                           const aclTensor* self,
                           const aclTensor* target,
                           const aclTensor* weight,
                           int64_t reduction) {
  Likelihood l{
      op.input("self", self), op.input("target", target), op.input("weight", weight), 0, 0};
  require_float(op, "self", l.self);
  op.require_rank("self", l.self, 1, 2);
  op.require_type("target", l.target, {ACL_INT64, ACL_UINT8, ACL_INT32});
  op.require_same_type("self", l.self, "weight", l.weight);
  l.classes = l.self.dim(-1);
  l.rows = l.self.rank() == 2 ? l.self.dim(0) : 1;
  op.require_shape("weight", l.weight, {l.classes});
  op.require(l.target.elements() == l.rows && l.target.rank() <= 1, "target has not N elements");
  op.require(reduction >= kNone && reduction <= kSum, "reduction must be 0, 1 or 2");
  return l;
}

/// Targets, -1 for those that are ignored.
std::vector<int64_t> classes_of(const Launch& at, const Likelihood& l, int64_t ignore) {
  std::vector<int64_t> all = integers(view(l.target));
  for (int64_t& t : all) {
    if (t == ignore)
      t = -1;
    else if (t < 0 || t >= l.classes)
      at.fault(code::kVectorCoreException,
               "target " + std::to_string(t) + " of " + std::to_string(l.classes));
  }
  return all;
}

void require_one(const Plan& op, const char* name, const Tensor& t) {
  op.require(t.elements() == 1, std::string(name) + " must have one element");
}

}  // namespace

ASCEND_DEFECT(nll_ignored_as_zero, "NLLLoss", "takes an ignored target for class 0")

ASCEND_OP(NLLLoss,
          const aclTensor* self,
          const aclTensor* target,
          const aclTensor* weight,
          int64_t reduction,
          int64_t ignore_index,
          aclTensor* out,
          aclTensor* total_weight_out) {
  return plan("NLLLoss", workspace_size, executor, [&](Plan& op) {
    const Likelihood l = take_likelihood(op, self, target, weight, reduction);
    const Tensor y = op.output("out", out), all = op.output("totalWeightOut", total_weight_out);
    op.require_same_type("self", l.self, "out", y);
    op.require_same_type("self", l.self, "totalWeightOut", all);
    require_one(op, "totalWeightOut", all);
    if (reduction == kNone)
      op.require(y.elements() == l.rows, "out has not N elements");
    else
      require_one(op, "out", y);
    op.launch([=](Launch& at) {
      std::vector<int64_t> of = classes_of(at, l, ignore_index);
      if (defect("nll_ignored_as_zero"))
        for (int64_t& t : of) t = std::max<int64_t>(t, 0);
      const std::vector<float> w = floats(view(l.weight));
      std::vector<float> losses(of.size(), 0.0f), weights(of.size(), 0.0f);
      for (size_t r = 0; r < of.size(); ++r) {
        if (of[r] < 0) continue;
        float x = 0;
        read(view(l.self), static_cast<int64_t>(r) * l.classes + of[r], 1, &x);
        weights[r] = w[static_cast<size_t>(of[r])];
        losses[r] = -weights[r] * x;
      }
      const Order order{at.order(l.rows)};
      float total = sum(weights.data(), l.rows, order);
      if (reduction == kNone) {
        write(view(y), 0, l.rows, losses.data());
        total = 0;
      } else {
        float loss = sum(losses.data(), l.rows, order);
        if (reduction == kMean) loss /= total;
        write(view(y), 0, 1, &loss);
      }
      write(view(all), 0, 1, &total);
    });
  });
}

ASCEND_OP(NLLLossBackward,
          const aclTensor* grad_output,
          const aclTensor* self,
          const aclTensor* target,
          const aclTensor* weight,
          int64_t reduction,
          int64_t ignore_index,
          const aclTensor* total_weight,
          aclTensor* out) {
  return plan("NLLLossBackward", workspace_size, executor, [&](Plan& op) {
    const Tensor grad = op.input("gradOutput", grad_output);
    const Likelihood l = take_likelihood(op, self, target, weight, reduction);
    const Tensor all = op.input("totalWeight", total_weight), y = op.output("out", out);
    op.require_same_type("self", l.self, "gradOutput", grad);
    op.require_same_type("self", l.self, "out", y);
    op.require_shape("out", y, l.self.shape);
    require_one(op, "totalWeight", all);
    op.require(grad.elements() == (reduction == kNone ? l.rows : 1),
               "gradOutput has not as many elements as the loss");
    op.launch([=](Launch& at) {
      const std::vector<int64_t> of = classes_of(at, l, ignore_index);
      const std::vector<float> w = floats(view(l.weight)), g = floats(view(grad));
      const auto total = static_cast<float>(scalar(view(all)));
      in_parallel((l.rows + 15) / 16, [&](int64_t part) {
        std::vector<float> row(static_cast<size_t>(l.classes));
        for (int64_t r = part * 16; r < std::min(l.rows, (part + 1) * 16); ++r) {
          std::fill(row.begin(), row.end(), 0.0f);
          const int64_t t = of[static_cast<size_t>(r)];
          if (t >= 0) {
            const float mine = reduction == kNone ? g[static_cast<size_t>(r)] : g[0];
            const float share = reduction == kMean ? mine / total : mine;
            row[static_cast<size_t>(t)] = -w[static_cast<size_t>(t)] * share;
          }
          write(view(y), r * l.classes, l.classes, row.data());
        }
      });
    });
  });
}
