// Ops that reduce dimensions, and running sums.
#include <cmath>
#include <limits>

#include "opapi/op_kit.h"
#include "opapi/sums.h"

using namespace ascend_sim;

namespace {

/// What a reduction over `dims` (all of them, if there are none) leaves.
struct Reduced {
  Dims order;  // a permutation that puts the reduced dimensions last
  int64_t lines = 1, length = 1;
  Shape shape;  // of the result
};

Reduced reduced(const Plan& op, const Tensor& x, const Shape& dims, bool keep) {
  std::vector<bool> gone(x.shape.size(), dims.empty());
  for (int64_t d : dims) {
    const auto axis = static_cast<size_t>(op.axis(d, x.rank()));
    op.require(!gone[axis], "dims names a dimension twice");
    gone[axis] = true;
  }
  Reduced r;
  Dims last;
  for (size_t d = 0; d < gone.size(); ++d) {
    (gone[d] ? last : r.order).push_back(static_cast<int64_t>(d));
    (gone[d] ? r.length : r.lines) *= x.shape[d];
    if (!gone[d] || keep) r.shape.push_back(gone[d] ? 1 : x.shape[d]);
  }
  r.order.insert(r.order.end(), last.begin(), last.end());
  return r;
}

void require_result(const Plan& op, const Tensor& y, const Shape& shape) {
  // A result of no dimensions may also be given as [1].
  op.require(y.shape == shape || (shape.empty() && y.shape == Shape{1}),
             "out " + to_string(y.shape) + " is not " + to_string(shape));
}

/// y[line] = f(the line's elements, their number). Number: float or int64_t.
template <class Number, class F>
void reduce(const Tensor& x, const Reduced& r, const Tensor& y, const F& f) {
  const View from = permuted(view(x), r.order);
  const int64_t share = std::max<int64_t>(1, 65536 / std::max<int64_t>(r.length, 1));
  in_parallel((r.lines + share - 1) / share, [&](int64_t part) {
    std::vector<Number> line(static_cast<size_t>(r.length));
    for (int64_t i = part * share; i < std::min(r.lines, (part + 1) * share); ++i) {
      read(from, i * r.length, r.length, line.data());
      const Number value = f(line.data(), r.length);
      write(view(y), i, 1, &value);
    }
  });
}

}  // namespace

ASCEND_REDUCES(ReduceSum)
ASCEND_DEFECT(reduce_sum_loses_tail,
              "ReduceSum",
              "leaves out what lies behind the last 64 of a line")

ASCEND_OP(ReduceSum,
          const aclTensor* self,
          const aclIntArray* dims,
          bool keep_dims,
          aclDataType dtype,
          aclTensor* out) {
  return plan("ReduceSum", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    op.require(y.dtype == dtype, "out is not of type dtype");
    const Reduced r = reduced(op, x, op.ints("dims", dims), keep_dims);
    require_result(op, y, r.shape);
    op.launch([=](Launch& at) {
      const bool tail = defect("reduce_sum_loses_tail");
      const Order order{at.order(r.lines)};
      const int64_t n = at.reduction(r.length);
      if (is_float(x.dtype) || is_float(y.dtype))
        reduce<float>(x, r, y, [=](const float* v, int64_t) {
          return sum(v, tail && n > 64 ? n / 64 * 64 : n, order);
        });
      else
        reduce<int64_t>(x, r, y, [=](const int64_t* v, int64_t) {
          int64_t total = 0;
          for (int64_t i = 0; i < n; ++i) total += v[i];
          return total;
        });
    });
  });
}

ASCEND_OP(Mean,
          const aclTensor* self,
          const aclIntArray* dim,
          bool keep_dim,
          aclDataType dtype,
          aclTensor* out) {
  return plan("Mean", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_float(op, "self", x);
    op.require(y.dtype == dtype, "out is not of type dtype");
    require_float(op, "out", y);
    const Reduced r = reduced(op, x, op.ints("dim", dim), keep_dim);
    require_result(op, y, r.shape);
    op.launch([=](Launch& at) {
      const Order order{at.order(r.lines)};
      reduce<float>(x, r, y, [order](const float* v, int64_t n) {
        return sum(v, n, order) / static_cast<float>(n);
      });
    });
  });
}

ASCEND_OP(LinalgVectorNorm,
          const aclTensor* self,
          const aclScalar* ord,
          const aclIntArray* dims,
          bool keep_dims,
          aclDataType dtype,
          aclTensor* out) {
  return plan("LinalgVectorNorm", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_float(op, "self", x);
    require_float(op, "out", y);
    op.require(y.dtype == dtype, "out is not of type dtype");
    const auto p = static_cast<float>(op.scalar("ord", ord));
    const Reduced r = reduced(op, x, op.ints("dims", dims), keep_dims);
    require_result(op, y, r.shape);
    op.launch([=](Launch& at) {
      const Order order{at.order(r.lines)};
      reduce<float>(x, r, y, [=](float* v, int64_t n) {
        if (p == 2) return std::sqrt(dot(v, v, n, order));
        for (int64_t i = 0; i < n; ++i) v[i] = std::abs(v[i]);
        if (std::isinf(p)) {
          float m = n > 0 ? v[0] : 0.0f;
          for (int64_t i = 1; i < n; ++i) m = p > 0 ? std::max(m, v[i]) : std::min(m, v[i]);
          return m;
        }
        for (int64_t i = 0; i < n; ++i) v[i] = p == 0 ? (v[i] != 0) : std::pow(v[i], p);
        const float total = sum(v, n, order);
        return p == 0 || p == 1 ? total : std::pow(total, 1 / p);
      });
    });
  });
}

ASCEND_OP(Amax, const aclTensor* self, const aclIntArray* dim, bool keep_dim, aclTensor* out) {
  return plan("Amax", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    op.require_same_type("self", x, "out", y);
    const Reduced r = reduced(op, x, op.ints("dim", dim), keep_dim);
    op.require(r.length > 0, "there is no largest of nothing");
    require_result(op, y, r.shape);
    op.launch([=](Launch&) {
      const auto most = [](const auto* v, int64_t n) {
        auto m = v[0];
        for (int64_t i = 1; i < n; ++i) m = v[i] > m || v[i] != v[i] ? v[i] : m;
        return m;
      };
      if (is_float(x.dtype))
        reduce<float>(x, r, y, most);
      else
        reduce<int64_t>(x, r, y, most);
    });
  });
}

namespace {

/// The first of the largest of each line.
void largest_of_lines(const Tensor& x,
                      const Reduced& r,
                      const std::optional<Tensor>& values,
                      const Tensor& indices) {
  const View from = permuted(view(x), r.order);
  std::vector<double> line(static_cast<size_t>(r.length));
  for (int64_t i = 0; i < r.lines; ++i) {
    read(from, i * r.length, r.length, line.data());
    const auto at = std::max_element(line.begin(), line.end());
    const int64_t index = at - line.begin();
    write(view(indices), i, 1, &index);
    if (values) write(view(*values), i, 1, &*at);
  }
}

}  // namespace

ASCEND_OP(ArgMax, const aclTensor* self, int64_t dim, bool keepdim, aclTensor* out) {
  return plan("ArgMax", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    require_index(op, "out", y);
    const Reduced r = reduced(op, x, {op.axis(dim, x.rank())}, keepdim);
    op.require(r.length > 0, "there is no largest of nothing");
    require_result(op, y, r.shape);
    op.launch([=](Launch&) { largest_of_lines(x, r, std::nullopt, y); });
  });
}

ASCEND_OP(
    MaxDim, const aclTensor* self, int64_t dim, bool keepdim, aclTensor* out, aclTensor* indices) {
  return plan("MaxDim", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out), index = op.output("indices", indices);
    require_number(op, "self", x);
    op.require_same_type("self", x, "out", y);
    require_index(op, "indices", index);
    const Reduced r = reduced(op, x, {op.axis(dim, x.rank())}, keepdim);
    op.require(r.length > 0, "there is no largest of nothing");
    require_result(op, y, r.shape);
    require_result(op, index, r.shape);
    op.launch([=](Launch&) { largest_of_lines(x, r, y, index); });
  });
}

ASCEND_DEFECT(cumsum_exclusive, "Cumsum", "leaves each element out of its own sum")

ASCEND_OP(Cumsum, const aclTensor* self, int64_t dim, aclDataType dtype, aclTensor* out) {
  return plan("Cumsum", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    op.require(y.dtype == dtype, "out is not of type dtype");
    op.require_shape("out", y, x.shape);
    const int d = op.axis(dim, x.rank());
    op.launch([=](Launch&) {
      const bool exclusive = defect("cumsum_exclusive");
      const View from = transposed(view(x), d, -1), to = transposed(view(y), d, -1);
      const int64_t n = from.size(-1);
      const auto run = [&](auto zero) {
        using Number = decltype(zero);
        std::vector<Number> line(static_cast<size_t>(n));
        for (int64_t i = 0; i < from.count() / std::max<int64_t>(n, 1); ++i) {
          read(from, i * n, n, line.data());
          Number total = 0;
          for (Number& v : line) {
            const Number one = v;
            if (exclusive) v = total;
            total += one;
            if (!exclusive) v = total;
          }
          write(to, i * n, n, line.data());
        }
      };
      if (is_float(x.dtype))
        run(0.0f);
      else
        run(int64_t{0});
    });
  });
}
