// Ops that order the elements of lines. Equal elements keep their order (the lower index first),
// which the documents promise for `stable` alone.
#include <cmath>
#include <numeric>

#include "opapi/op_kit.h"

using namespace ascend_sim;

namespace {

/// NaN counts as larger than everything.
bool before(double a, double b, bool descending) {
  if (std::isnan(a) || std::isnan(b))
    return descending ? std::isnan(a) && !std::isnan(b) : !std::isnan(a) && std::isnan(b);
  return descending ? a > b : a < b;
}

enum class Ties { kLowerFirst, kHigherFirst };

/// Orders each line along d and writes `keep` of it, behind the first `skip`.
void order_lines(const Tensor& x,
                 int d,
                 bool descending,
                 int64_t keep,
                 const std::optional<Tensor>& values,
                 const Tensor& indices,
                 Ties ties = Ties::kLowerFirst,
                 int64_t skip = 0) {
  const View from = transposed(view(x), d, -1);
  const int64_t n = from.size(-1);
  const int64_t lines = n == 0 ? 0 : from.count() / n;
  in_parallel((lines + 15) / 16, [&](int64_t part) {
    std::vector<double> line(static_cast<size_t>(n)), sorted(static_cast<size_t>(keep));
    std::vector<int64_t> order(static_cast<size_t>(n));
    for (int64_t i = part * 16; i < std::min(lines, (part + 1) * 16); ++i) {
      read(from, i * n, n, line.data());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        const double va = line[static_cast<size_t>(a)], vb = line[static_cast<size_t>(b)];
        if (va == vb) return ties == Ties::kHigherFirst && a > b;
        return before(va, vb, descending);
      });
      const int64_t* kept = order.data() + skip;
      for (size_t j = 0; j < sorted.size(); ++j) sorted[j] = line[static_cast<size_t>(kept[j])];
      if (values) write(transposed(view(*values), d, -1), i * keep, keep, sorted.data());
      write(transposed(view(indices), d, -1), i * keep, keep, kept);
    }
  });
}

}  // namespace

ASCEND_DEFECT(topk_skips_first, "Topk", "leaves out the first of the k")

ASCEND_OP(Topk,
          const aclTensor* self,
          int64_t k,
          int64_t dim,
          bool largest,
          bool sorted,
          aclTensor* values_out,
          aclTensor* indices_out) {
  return plan("Topk", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor values = op.output("valuesOut", values_out),
                 indices = op.output("indicesOut", indices_out);
    require_number(op, "self", x);
    op.require_same_type("self", x, "valuesOut", values);
    op.require_type("indicesOut", indices, {ACL_INT64});
    op.require(sorted, "sorted must be true");
    const int d = op.axis(dim, x.rank());
    op.require(k >= 0 && k <= x.dim(d), "k is not within dimension dim");
    Shape shape = x.shape;
    shape[static_cast<size_t>(d)] = k;
    op.require_shape("valuesOut", values, shape);
    op.require_shape("indicesOut", indices, shape);
    op.launch([=](Launch&) {
      if (k == 0) return;
      const int64_t skip = defect("topk_skips_first") && k < x.dim(d) ? 1 : 0;
      order_lines(x, d, largest, k, values, indices, Ties::kLowerFirst, skip);
    });
  });
}

ASCEND_DEFECT(sort_never_stable, "Sort", "equal elements come in reverse order, stable or not")

ASCEND_OP(Sort,
          const aclTensor* self,
          bool stable,
          int64_t dim,
          bool descending,
          aclTensor* values_out,
          aclTensor* indices_out) {
  return plan("Sort", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor values = op.output("valuesOut", values_out),
                 indices = op.output("indicesOut", indices_out);
    require_number(op, "self", x);
    op.require_same_type("self", x, "valuesOut", values);
    op.require_type("indicesOut", indices, {ACL_INT64});
    op.require_shape("valuesOut", values, x.shape);
    op.require_shape("indicesOut", indices, x.shape);
    const int d = op.axis(dim, x.rank());
    // Unstable sorting may leave equal elements in any order: here in the reverse one.
    const Ties ties =
        stable && !defect("sort_never_stable") ? Ties::kLowerFirst : Ties::kHigherFirst;
    op.launch([=](Launch&) { order_lines(x, d, descending, x.dim(d), values, indices, ties); });
  });
}

ASCEND_OP(Argsort, const aclTensor* self, int64_t dim, bool descending, aclTensor* out) {
  return plan("Argsort", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor indices = op.output("out", out);
    require_number(op, "self", x);
    op.require_type("out", indices, {ACL_INT64});
    op.require_shape("out", indices, x.shape);
    const int d = op.axis(dim, x.rank());
    op.launch([=](Launch&) { order_lines(x, d, descending, x.dim(d), std::nullopt, indices); });
  });
}
