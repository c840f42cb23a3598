// Ops of one element at a time: arithmetic, comparisons, selection, functions, activations.
#include <cmath>
#include <limits>

#include "opapi/op_kit.h"

using namespace ascend_sim;

namespace {

void require_broadcast(const Plan& op, const Tensor& a, const Tensor& b, const Tensor& out) {
  const std::optional<Shape> shape = broadcast_shapes(a.shape, b.shape);
  op.require(shape && *shape == out.shape,
             "out " + to_string(out.shape) + " is not self " + to_string(a.shape) + " and other " +
                 to_string(b.shape) + " broadcast");
}

/// A scalar as floats of the tensor's precision see it; integers keep it exactly.
template <class Number>
Number number(double value) {
  return static_cast<Number>(value);
}

/// A result that a defect spoils beyond the last whole block of 32 bytes.
int64_t whole_blocks(int64_t n, aclDataType type) {
  const int64_t block = 32 / static_cast<int64_t>(size_of(type));
  return n / block * block;
}

using Function = float (*)(float);

/// One tensor in, one of the same shape out, through a float function.
aclnnStatus apply(const char* name,
                  const aclTensor* self,
                  aclTensor* out,
                  uint64_t* workspace_size,
                  aclOpExecutor** executor,
                  Function f) {
  return plan(name, workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_float(op, "self", x);
    require_float(op, "out", y);
    op.require_shape("out", y, x.shape);
    op.launch([=](Launch&) { map([f](auto v) { return f(static_cast<float>(v)); }, y, x); });
  });
}

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

/// a and b of any number types, a result of their common shape.
struct Pair {
  Tensor a, b, out;
};

Pair take_broadcast(Plan& op, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  Pair p{op.input("self", self), op.input("other", other), op.output("out", out)};
  require_number(op, "self", p.a);
  require_number(op, "other", p.b);
  require_broadcast(op, p.a, p.b, p.out);
  return p;
}

Pair take_pair(Plan& op, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  Pair p = take_broadcast(op, self, other, out);
  require_number(op, "out", p.out);
  op.require(is_float(p.out.dtype) || p.out.dtype == ACL_BOOL ||
                 (!is_float(p.a.dtype) && !is_float(p.b.dtype)),
             "a result of type FLOAT cannot be cast to " + to_string(p.out.dtype));
  return p;
}

Pair take_comparison(Plan& op, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  Pair p = take_broadcast(op, self, other, out);
  op.require_type("out", p.out, {ACL_BOOL});
  return p;
}

}  // namespace

// --- a + alpha b and its like
// ---------------------------------------------------------------------

ASCEND_DEFECT(add_loses_tail, "Add", "leaves what lies behind the last whole block of 32 bytes")
ASCEND_DEFECT(inplace_add_overwrites, "InplaceAdd", "writes alpha * other without adding self")
ASCEND_DEFECT(inplace_add_ignores_alpha, "InplaceAdd", "takes alpha for 1")

ASCEND_OP(
    Add, const aclTensor* self, const aclTensor* other, const aclScalar* alpha, aclTensor* out) {
  return plan("Add", workspace_size, executor, [&](Plan& op) {
    const Pair p = take_pair(op, self, other, out);
    const double scale = op.scalar("alpha", alpha);
    op.launch([=](Launch&) {
      const auto f = [scale](auto a, auto b) { return a + number<decltype(a)>(scale) * b; };
      if (defect("add_loses_tail") && p.out.contiguous()) {
        const int64_t n = whole_blocks(p.out.elements(), p.out.dtype);
        const View to = view(p.out);
        const View a = broadcast(view(p.a), p.out.shape), b = broadcast(view(p.b), p.out.shape);
        in_pieces(n, [&](int64_t first, int64_t count) {
          float x[kPiece], y[kPiece];
          read(a, first, count, x);
          read(b, first, count, y);
          for (int64_t i = 0; i < count; ++i) x[i] = f(x[i], y[i]);
          write(to, first, count, x);
        });
        return;
      }
      map(f, p.out, p.a, p.b);
    });
  });
}

ASCEND_OP(
    Adds, const aclTensor* self, const aclScalar* other, const aclScalar* alpha, aclTensor* out) {
  return plan("Adds", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    op.require_shape("out", y, x.shape);
    const double more = op.scalar("other", other) * op.scalar("alpha", alpha);
    op.launch(
        [=](Launch&) { map([more](auto v) { return v + number<decltype(v)>(more); }, y, x); });
  });
}

ASCEND_OP(InplaceAdd, aclTensor* self_ref, const aclTensor* other, const aclScalar* alpha) {
  return plan("InplaceAdd", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.inout("selfRef", self_ref);
    const Tensor b = op.input("other", other);
    require_number(op, "selfRef", x);
    require_number(op, "other", b);
    require_broadcast(op, x, b, x);
    const double scale = defect("inplace_add_ignores_alpha") ? 1.0 : op.scalar("alpha", alpha);
    op.launch([=](Launch&) {
      const bool overwrites = defect("inplace_add_overwrites");
      map(
          [=](auto v, auto w) {
            using Number = decltype(v);
            return (overwrites ? Number(0) : v) + number<Number>(scale) * static_cast<Number>(w);
          },
          x,
          x,
          b);
    });
  });
}

ASCEND_OP(
    Sub, const aclTensor* self, const aclTensor* other, const aclScalar* alpha, aclTensor* out) {
  return plan("Sub", workspace_size, executor, [&](Plan& op) {
    const Pair p = take_pair(op, self, other, out);
    const double scale = op.scalar("alpha", alpha);
    op.launch([=](Launch&) {
      map([scale](auto a, auto b) { return a - number<decltype(a)>(scale) * b; }, p.out, p.a, p.b);
    });
  });
}

ASCEND_OP(Mul, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return plan("Mul", workspace_size, executor, [&](Plan& op) {
    const Pair p = take_pair(op, self, other, out);
    op.launch([=](Launch&) { map([](auto x, auto y) { return x * y; }, p.out, p.a, p.b); });
  });
}

ASCEND_OP(InplaceMul, aclTensor* self_ref, const aclTensor* other) {
  return plan("InplaceMul", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.inout("selfRef", self_ref);
    const Tensor b = op.input("other", other);
    require_number(op, "selfRef", x);
    require_number(op, "other", b);
    require_broadcast(op, x, b, x);
    op.launch([=](Launch&) {
      map([](auto v, auto w) { return v * static_cast<decltype(v)>(w); }, x, x, b);
    });
  });
}

ASCEND_DEFECT(muls_scalar_as_half, "Muls", "takes the factor for a float16")

ASCEND_OP(Muls, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return plan("Muls", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    op.require_shape("out", y, x.shape);
    const double given = op.scalar("other", other);
    const double factor =
        defect("muls_scalar_as_half") ? as_half(static_cast<float>(given)) : given;
    op.launch(
        [=](Launch&) { map([factor](auto v) { return v * number<decltype(v)>(factor); }, y, x); });
  });
}

ASCEND_OP(InplaceMuls, aclTensor* self_ref, const aclScalar* other) {
  return plan("InplaceMuls", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.inout("selfRef", self_ref);
    require_number(op, "selfRef", x);
    const double factor = op.scalar("other", other);
    op.launch(
        [=](Launch&) { map([factor](auto v) { return v * number<decltype(v)>(factor); }, x, x); });
  });
}

ASCEND_OP(Div, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return plan("Div", workspace_size, executor, [&](Plan& op) {
    const Pair p = take_pair(op, self, other, out);
    op.require(is_float(p.out.dtype), "out must be of a float type");
    op.launch([=](Launch&) {
      map_as<float>(
          view(p.out),
          std::array{broadcast(view(p.a), p.out.shape), broadcast(view(p.b), p.out.shape)},
          [](float a, float b) { return a / b; });
    });
  });
}

ASCEND_OP(Divs, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return plan("Divs", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    op.require(is_float(y.dtype), "out must be of a float type");
    op.require_shape("out", y, x.shape);
    const auto divisor = static_cast<float>(op.scalar("other", other));
    op.launch([=](Launch&) {
      map_as<float>(view(y), std::array{view(x)}, [divisor](float v) { return v / divisor; });
    });
  });
}

ASCEND_OP(Maximum, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return plan("Maximum", workspace_size, executor, [&](Plan& op) {
    const Pair p = take_pair(op, self, other, out);
    op.launch([=](Launch&) {
      map([](auto a, auto b) { return a > b || a != a ? a : b; }, p.out, p.a, p.b);
    });
  });
}

ASCEND_OP(Addcmul,
          const aclTensor* self,
          const aclTensor* tensor1,
          const aclTensor* tensor2,
          const aclScalar* value,
          aclTensor* out) {
  return plan("Addcmul", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self), a = op.input("tensor1", tensor1),
                 b = op.input("tensor2", tensor2);
    const Tensor y = op.output("out", out);
    for (const Tensor* t : {&x, &a, &b, &y}) require_float(op, "self, tensor1, tensor2, out", *t);
    const std::optional<Shape> product = broadcast_shapes(a.shape, b.shape);
    op.require(product && broadcast_shapes(x.shape, *product) == y.shape,
               "out is not self, tensor1 and tensor2 broadcast");
    const auto scale = static_cast<float>(op.scalar("value", value));
    op.launch([=](Launch&) {
      map([scale](auto v, auto s, auto t) { return v + static_cast<decltype(v)>(scale) * s * t; },
          y,
          x,
          a,
          b);
    });
  });
}

// --- comparisons and selection
// --------------------------------------------------------------------

ASCEND_OP(EqTensor, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return plan("EqTensor", workspace_size, executor, [&](Plan& op) {
    const Pair p = take_comparison(op, self, other, out);
    op.launch([=](Launch&) { map([](auto a, auto b) { return a == b; }, p.out, p.a, p.b); });
  });
}

ASCEND_OP(LtTensor, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return plan("LtTensor", workspace_size, executor, [&](Plan& op) {
    const Pair p = take_comparison(op, self, other, out);
    op.launch([=](Launch&) { map([](auto a, auto b) { return a < b; }, p.out, p.a, p.b); });
  });
}

ASCEND_DEFECT(gt_takes_equal, "GtScalar", "is true where both are equal")

ASCEND_OP(GtScalar, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return plan("GtScalar", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    op.require_type("out", y, {ACL_BOOL});
    op.require_shape("out", y, x.shape);
    const double bound = op.scalar("other", other);
    op.launch([=](Launch&) {
      const bool equal_too = defect("gt_takes_equal");
      map(
          [=](auto v) {
            const auto value = static_cast<double>(v);
            return value > bound || (equal_too && value == bound);
          },
          y,
          x);
    });
  });
}

ASCEND_DEFECT(where_swaps, "SWhere", "takes other where the condition holds")

ASCEND_OP(SWhere,
          const aclTensor* condition,
          const aclTensor* self,
          const aclTensor* other,
          aclTensor* out) {
  return plan("SWhere", workspace_size, executor, [&](Plan& op) {
    const Tensor c = op.input("condition", condition), a = op.input("self", self),
                 b = op.input("other", other);
    const Tensor y = op.output("out", out);
    op.require_type("condition", c, {ACL_BOOL, ACL_UINT8});
    require_number(op, "self", a);
    op.require_same_type("self", a, "other", b);
    op.require_same_type("self", a, "out", y);
    const std::optional<Shape> both = broadcast_shapes(a.shape, b.shape);
    op.require(both && broadcast_shapes(c.shape, *both) == y.shape,
               "out is not condition, self and other broadcast");
    op.launch([=](Launch&) {
      const bool swapped = defect("where_swaps");
      const auto pick = [swapped](auto when, auto v, auto w) {
        return (when != 0) != swapped ? v : w;
      };
      const View to = view(y);
      const std::array from = {
          broadcast(view(c), y.shape), broadcast(view(a), y.shape), broadcast(view(b), y.shape)};
      if (is_float(y.dtype))
        map_as<float>(to, from, pick);
      else
        map_as<int64_t>(to, from, pick);
    });
  });
}

ASCEND_OP(InplaceMaskedFillScalar,
          aclTensor* self_ref,
          const aclTensor* mask,
          const aclScalar* value) {
  return plan("InplaceMaskedFillScalar", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.inout("selfRef", self_ref);
    const Tensor m = op.input("mask", mask);
    require_number(op, "selfRef", x);
    op.require_type("mask", m, {ACL_BOOL});
    op.require(m.broadcast_to(x.shape).has_value(), "mask does not broadcast to selfRef");
    const double fill = op.scalar("value", value);
    op.launch([=](Launch&) {
      const std::array from = {view(x), broadcast(view(m), x.shape)};
      const auto pick = [fill](auto v, auto hidden) {
        return hidden != 0 ? number<decltype(v)>(fill) : v;
      };
      if (is_float(x.dtype))
        map_as<float>(view(x), from, pick);
      else
        map_as<int64_t>(view(x), from, pick);
    });
  });
}

// --- functions
// ------------------------------------------------------------------------------------

ASCEND_DEFECT(exp_fp16_range, "Exp", "computes in float16: beyond e^11 everything is 65504")

ASCEND_OP(Exp, const aclTensor* self, aclTensor* out) {
  const Function narrow = [](float x) { return as_half(std::min(std::exp(x), 65504.0f)); };
  const Function f = [](float x) { return std::exp(x); };
  return apply("Exp", self, out, workspace_size, executor, defect("exp_fp16_range") ? narrow : f);
}
ASCEND_OP(Log, const aclTensor* self, aclTensor* out) {
  return apply("Log", self, out, workspace_size, executor, [](float x) { return std::log(x); });
}
ASCEND_DEFECT(sqrt_coarse, "Sqrt", "is good to the bits of float16 alone")

ASCEND_OP(Sqrt, const aclTensor* self, aclTensor* out) {
  const Function coarse = [](float x) { return as_half(std::sqrt(x)); };
  const Function f = [](float x) { return std::sqrt(x); };
  return apply("Sqrt", self, out, workspace_size, executor, defect("sqrt_coarse") ? coarse : f);
}
ASCEND_OP(Rsqrt, const aclTensor* self, aclTensor* out) {
  return apply(
      "Rsqrt", self, out, workspace_size, executor, [](float x) { return 1 / std::sqrt(x); });
}
ASCEND_OP(Reciprocal, const aclTensor* self, aclTensor* out) {
  return apply("Reciprocal", self, out, workspace_size, executor, [](float x) { return 1 / x; });
}
ASCEND_OP(Cos, const aclTensor* self, aclTensor* out) {
  return apply("Cos", self, out, workspace_size, executor, [](float x) { return std::cos(x); });
}
ASCEND_OP(Sin, const aclTensor* self, aclTensor* out) {
  return apply("Sin", self, out, workspace_size, executor, [](float x) { return std::sin(x); });
}
ASCEND_OP(Silu, const aclTensor* self, aclTensor* out) {
  return apply("Silu", self, out, workspace_size, executor, [](float x) { return x * sigmoid(x); });
}
ASCEND_OP(Sigmoid, const aclTensor* self, aclTensor* out) {
  return apply("Sigmoid", self, out, workspace_size, executor, sigmoid);
}

ASCEND_OP(Neg, const aclTensor* self, aclTensor* out) {
  return plan("Neg", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_number(op, "self", x);
    op.require_same_type("self", x, "out", y);
    op.require_shape("out", y, x.shape);
    op.launch([=](Launch&) { map([](auto v) { return -v; }, y, x); });
  });
}

ASCEND_OP(PowTensorScalar, const aclTensor* self, const aclScalar* exponent, aclTensor* out) {
  return plan("PowTensorScalar", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("self", self);
    const Tensor y = op.output("out", out);
    require_float(op, "self", x);
    op.require_shape("out", y, x.shape);
    const auto e = static_cast<float>(op.scalar("exponent", exponent));
    op.launch(
        [=](Launch&) { map([e](auto v) { return std::pow(static_cast<float>(v), e); }, y, x); });
  });
}

ASCEND_OP(PowScalarTensor, const aclScalar* self, const aclTensor* exponent, aclTensor* out) {
  return plan("PowScalarTensor", workspace_size, executor, [&](Plan& op) {
    const auto base = static_cast<float>(op.scalar("self", self));
    const Tensor x = op.input("exponent", exponent);
    const Tensor y = op.output("out", out);
    require_number(op, "exponent", x);
    require_float(op, "out", y);
    op.require_shape("out", y, x.shape);
    op.launch([=](Launch&) {
      map_as<float>(view(y), std::array{view(x)}, [base](float v) { return std::pow(base, v); });
    });
  });
}

// --- activations
// ----------------------------------------------------------------------------------

ASCEND_OP(SiluBackward,
          const aclTensor* grad_output,
          const aclTensor* self,
          aclTensor* grad_input) {
  return plan("SiluBackward", workspace_size, executor, [&](Plan& op) {
    const Tensor g = op.input("gradOutput", grad_output), x = op.input("self", self);
    const Tensor y = op.output("gradInput", grad_input);
    for (const Tensor* t : {&g, &x, &y}) require_float(op, "gradOutput, self, gradInput", *t);
    op.require_shape("gradOutput", g, x.shape);
    op.require_shape("gradInput", y, x.shape);
    op.launch([=](Launch&) {
      map(
          [](auto grad, auto v) {
            const float s = sigmoid(static_cast<float>(v));
            return static_cast<float>(grad) * s * (1 + static_cast<float>(v) * (1 - s));
          },
          y,
          g,
          x);
    });
  });
}

// `output` is sigmoid's result, not its argument.
ASCEND_OP(SigmoidBackward,
          const aclTensor* grad_output,
          const aclTensor* output,
          aclTensor* grad_input) {
  return plan("SigmoidBackward", workspace_size, executor, [&](Plan& op) {
    const Tensor g = op.input("gradOutput", grad_output), s = op.input("output", output);
    const Tensor y = op.output("gradInput", grad_input);
    for (const Tensor* t : {&g, &s, &y}) require_float(op, "gradOutput, output, gradInput", *t);
    op.require_shape("gradOutput", g, s.shape);
    op.require_shape("gradInput", y, s.shape);
    op.launch([=](Launch&) { map([](auto grad, auto v) { return grad * v * (1 - v); }, y, g, s); });
  });
}

ASCEND_DEFECT(swiglu_halves_swapped, "SwiGlu", "gates the first half by the second")
ASCEND_DEFECT(swiglu_grad_no_slope, "SwiGluGrad", "the gate's gradient lacks the slope of silu")

namespace {

/// x's shape with half of dimension d.
Shape half_of(const Plan& op, const Tensor& x, int d) {
  op.require(x.dim(d) % 2 == 0, "dimension dim of x must be even");
  Shape half = x.shape;
  half[static_cast<size_t>(d)] /= 2;
  return half;
}

}  // namespace

ASCEND_OP(SwiGlu, const aclTensor* x_in, int64_t dim, const aclTensor* out) {
  return plan("SwiGlu", workspace_size, executor, [&](Plan& op) {
    const Tensor x = op.input("x", x_in);
    const Tensor y = op.output("out", out);
    require_float(op, "x", x);
    op.require_same_type("x", x, "out", y);
    const int d = op.axis(dim, x.rank());
    op.require_shape("out", y, half_of(op, x, d));
    op.launch([=](Launch&) {
      const int64_t n = y.dim(d);
      const bool swapped = defect("swiglu_halves_swapped");
      const Tensor gate = x.narrow(d, swapped ? n : 0, n), up = x.narrow(d, swapped ? 0 : n, n);
      map(
          [](auto a, auto b) {
            return static_cast<float>(a) * sigmoid(static_cast<float>(a)) * static_cast<float>(b);
          },
          y,
          gate,
          up);
    });
  });
}

ASCEND_OP(
    SwiGluGrad, const aclTensor* y_grad, const aclTensor* x_in, int64_t dim, const aclTensor* out) {
  return plan("SwiGluGrad", workspace_size, executor, [&](Plan& op) {
    const Tensor g = op.input("yGrad", y_grad), x = op.input("x", x_in);
    const Tensor dx = op.output("out", out);
    require_float(op, "x", x);
    op.require_same_type("x", x, "yGrad", g);
    op.require_same_type("x", x, "out", dx);
    const int d = op.axis(dim, x.rank());
    op.require_shape("yGrad", g, half_of(op, x, d));
    op.require_shape("out", dx, x.shape);
    op.launch([=](Launch&) {
      const int64_t n = g.dim(d);
      const bool flat = defect("swiglu_grad_no_slope");
      const Tensor gate = x.narrow(d, 0, n), up = x.narrow(d, n, n);
      map(
          [flat](auto grad, auto a, auto b) {
            const auto v = static_cast<float>(a);
            const float s = sigmoid(v);
            const float slope = flat ? s : s * (1 + v * (1 - s));
            return static_cast<float>(grad) * static_cast<float>(b) * slope;
          },
          dx.narrow(d, 0, n),
          g,
          gate,
          up);
      map(
          [](auto grad, auto a) {
            const auto v = static_cast<float>(a);
            return static_cast<float>(grad) * v * sigmoid(v);
          },
          dx.narrow(d, n, n),
          g,
          gate);
    });
  });
}
