// RotaryPositionEmbedding and its gradient: modes 0 (half) and 1 (interleaved), which the training
// chips take.
#include "opapi/op_kit.h"

using namespace ascend_sim;

namespace {

enum : int64_t { kHalf = 0, kInterleaved = 1 };

/// The documented limits, less those of BNSD layouts that depend on the number of cores.
void require_layout(
    const Plan& op, const Tensor& x, const Tensor& cos, const Tensor& sin, int64_t mode) {
  require_training_chip(op);
  require_float(op, "x", x);
  op.require_same_type("x", x, "cos", cos);
  op.require_same_type("x", x, "sin", sin);
  op.require(mode == kHalf || mode == kInterleaved, "mode must be 0 or 1 on " + op.chip().name);
  op.require_rank("x", x, 3, 4);
  op.require_shape("sin", sin, cos.shape);
  op.require(cos.rank() == x.rank(), "cos has not the rank of x");
  const int64_t dim = x.dim(-1);
  op.require(dim % 2 == 0 && dim < 896, "the last dimension must be even and below 896");
  op.require(cos.dim(-1) == dim && cos.broadcast_to(x.shape).has_value(),
             "cos " + to_string(cos.shape) + " does not broadcast to x " + to_string(x.shape));
  if (x.rank() == 3) {  // TND, with T1D or (half only) TND
    op.require(x.dim(1) < 1000, "N must be below 1000");
    op.require(cos.dim(0) == x.dim(0) && (cos.dim(1) == 1 || mode == kHalf),
               "cos must be [T, 1, D]");
    return;
  }
  if (mode == kHalf) {
    // Which dimension is S follows from cos, as far as it says; all others are B and N.
    int longest = 0;
    for (int d = 1; d < 3; ++d)
      if (cos.dim(d) > cos.dim(longest)) longest = d;
    for (int d = 0; d < 3; ++d)
      op.require(d == longest || x.dim(d) < 1000, "B and N must be below 1000");
    return;
  }
  int varying = 0;
  for (int d = 0; d < 3; ++d) varying += cos.dim(d) != 1;
  op.require(varying <= 1, "mode 1 takes cos of [1, 1, S, D], [1, S, 1, D] or [S, 1, 1, D]");
  // Where S is 1 it may be any of the three: the most favourable reading holds.
  int64_t others = element_count({x.dim(0), x.dim(1), x.dim(2)});
  int64_t sequence = 1;
  for (int d = 0; d < 3; ++d)
    if (cos.dim(d) != 1) sequence = x.dim(d);
  if (varying == 0)
    for (int d = 0; d < 3; ++d)
      if (x.dim(d) == 1) sequence = 1;
  op.require(others / sequence < 1000, "B * N must be below 1000 in mode 1");
}

/// The partner of element i in a row of `dim`, and the sign with which it enters the rotation.
struct Partner {
  int64_t index;
  float sign;
};

Partner partner(int64_t i, int64_t dim, int64_t mode) {
  if (mode == kHalf) return i < dim / 2 ? Partner{i + dim / 2, -1.0f} : Partner{i - dim / 2, 1.0f};
  return i % 2 == 0 ? Partner{i + 1, -1.0f} : Partner{i - 1, 1.0f};
}

std::vector<Partner> partners(int64_t dim, int64_t mode) {
  std::vector<Partner> all;
  for (int64_t i = 0; i < dim; ++i) all.push_back(partner(i, dim, mode));
  return all;
}

/// Calls row(r, x, cos, sin) with each row as floats.
template <class Row>
void for_rows(const Tensor& x, const Tensor& cos, const Tensor& sin, const Row& row) {
  const int64_t dim = x.dim(-1), rows = x.elements() / std::max<int64_t>(dim, 1);
  const View from = view(x), c = broadcast(view(cos), x.shape), s = broadcast(view(sin), x.shape);
  in_parallel((rows + 63) / 64, [&](int64_t part) {
    float a[896], b[896], d[896];
    for (int64_t r = part * 64; r < std::min(rows, (part + 1) * 64); ++r) {
      read(from, r * dim, dim, a);
      read(c, r * dim, dim, b);
      read(s, r * dim, dim, d);
      row(r, a, b, d);
    }
  });
}

}  // namespace

ASCEND_DEFECT(rope_half_split, "RotaryPositionEmbedding", "pairs by halves in interleaved mode")
ASCEND_DEFECT(rope_position_off_by_one,
              "RotaryPositionEmbedding",
              "each row but the first takes the angle of the row before")

ASCEND_OP(RotaryPositionEmbedding,
          const aclTensor* x_in,
          const aclTensor* cos_in,
          const aclTensor* sin_in,
          int64_t mode,
          aclTensor* out) {
  return plan("RotaryPositionEmbedding", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("x", x_in), cos = op.input("cos", cos_in),
                 sin = op.input("sin", sin_in);
    const Tensor y = op.output("out", out);
    require_layout(op, x, cos, sin, mode);
    op.require_same_type("x", x, "out", y);
    op.require_shape("out", y, x.shape);
    op.launch([=](Launch&) {
      const int64_t dim = x.dim(-1);
      const bool late = defect("rope_position_off_by_one");
      const std::vector<Partner> pairs =
          partners(dim, defect("rope_half_split") && mode == kInterleaved ? int64_t{kHalf} : mode);
      const View c = broadcast(view(cos), x.shape), s = broadcast(view(sin), x.shape);
      for_rows(x, cos, sin, [&](int64_t r, const float* v, float* cosine, float* sine) {
        if (late && r > 0) {
          read(c, (r - 1) * dim, dim, cosine);
          read(s, (r - 1) * dim, dim, sine);
        }
        float result[896];
        for (int64_t i = 0; i < dim; ++i) {
          const Partner p = pairs[static_cast<size_t>(i)];
          result[i] = v[i] * cosine[i] + p.sign * v[p.index] * sine[i];
        }
        write(view(y), r * dim, dim, result);
      });
    });
  });
}

ASCEND_OP(RotaryPositionEmbeddingGrad,
          const aclTensor* dy_in,
          const aclTensor* cos_in,
          const aclTensor* sin_in,
          const aclTensor* x_optional,
          int64_t mode,
          const aclTensor* dx_out,
          const aclTensor* dcos_out,
          const aclTensor* dsin_out) {
  return plan("RotaryPositionEmbeddingGrad", workspace_size, executor, [&](Plan& op) {
    const Tensor dy = op.input("dy", dy_in), cos = op.input("cos", cos_in),
                 sin = op.input("sin", sin_in);
    const std::optional<Tensor> x = op.optional_input("xOptional", x_optional);
    const Tensor dx = op.output("dxOut", dx_out);
    // The table of errors asks for dcosOut and dsinOut, the text calls them valid only with x:
    // taken as optional without x.
    const std::optional<Tensor> dcos = op.optional_output("dcosOut", dcos_out);
    const std::optional<Tensor> dsin = op.optional_output("dsinOut", dsin_out);
    require_layout(op, dy, cos, sin, mode);
    op.require_same_type("dy", dy, "dxOut", dx);
    op.require_shape("dxOut", dx, dy.shape);
    if (x) {
      op.require_same_type("dy", dy, "xOptional", *x);
      op.require_shape("xOptional", *x, dy.shape);
      op.require(dcos && dsin, "dcosOut and dsinOut are needed with xOptional");
      op.require_same_type("dy", dy, "dcosOut", *dcos);
      op.require_shape("dcosOut", *dcos, cos.shape);
      op.require_shape("dsinOut", *dsin, cos.shape);
    }
    op.launch([=](Launch&) {
      const int64_t dim = dy.dim(-1);
      const std::vector<Partner> pairs = partners(dim, mode);
      for_rows(
          dy, cos, sin, [&](int64_t r, const float* g, const float* cosine, const float* sine) {
            float result[896];
            // y[p] has sign(p) * sin[p] * x[i], where p is i's partner and its sign is the
            // opposite.
            for (int64_t i = 0; i < dim; ++i) {
              const Partner p = pairs[static_cast<size_t>(i)];
              result[i] = g[i] * cosine[i] - p.sign * g[p.index] * sine[p.index];
            }
            write(view(dx), r * dim, dim, result);
          });
      if (!x) return;
      const std::vector<float> g = floats(view(dy)), v = floats(view(*x));
      std::vector<float> sum_cos(static_cast<size_t>(cos.elements()), 0.0f), sum_sin = sum_cos;
      // Where each element of dy lands in cos: a view of cos's linear positions, broadcast.
      Tensor places = cos;
      places.offset = 0;
      places.strides = contiguous_strides(cos.shape);
      const Tensor wide = *places.broadcast_to(dy.shape);
      Dims index(dy.shape.size(), 0);
      for (size_t e = 0; e < g.size(); ++e) {
        int64_t at = 0;
        for (size_t d = 0; d < index.size(); ++d) at += index[d] * wide.strides[d];
        const Partner p = pairs[static_cast<size_t>(index.back())];
        const size_t other = e - static_cast<size_t>(index.back()) + static_cast<size_t>(p.index);
        sum_cos[static_cast<size_t>(at)] += g[e] * v[e];
        sum_sin[static_cast<size_t>(at)] += g[e] * p.sign * v[other];
        for (size_t d = index.size(); d-- > 0;) {
          if (++index[d] < dy.shape[d]) break;
          index[d] = 0;
        }
      }
      write(view(*dcos), 0, cos.elements(), sum_cos.data());
      write(view(*dsin), 0, cos.elements(), sum_sin.data());
    });
  });
}
