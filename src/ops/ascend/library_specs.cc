#include "ops/ascend/library_specs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/math.h"
#include "ops/ascend/aclnn.h"
#include "ops/matmul/matmul_reference.h"

namespace ferry::ops::ascend {
namespace {

using Inputs = std::vector<Tensor>;
using Refs = std::vector<RefTensor>;
using Fill = InputSpec::Fill;
constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16, kI32 = DType::kI32;
constexpr double kU = 0x1p-24;
constexpr double kFunction = 0x1p-19;  // of exp and its like, whose last bits a chip may choose

Stream& stream_of(const Inputs& in) { return in[0].device().stream(); }
Operand operand(const Tensor& t) { return Operand(t.view()); }
Tensor like(const Tensor& t) { return Tensor::empty(t.shape(), t.dtype(), t.device()); }
Tensor copy_of(const Tensor& t) {
  Tensor c = like(t);
  t.device().copy(c.data(), t.data(), t.bytes());
  return c;
}

/// A tensor has no int64 and no bool: int64 are pairs of int32 (low, high) in the last dimension,
/// bool four to an int32.
Operand as_int64(const Tensor& t) {
  std::vector<int64_t> shape;
  for (int d = 0; d < t.rank(); ++d) shape.push_back(t.dim(d));
  shape.back() /= 2;
  return Operand(t.data(), acl::kInt64, shape);
}
Operand as_bool(const Tensor& t) {
  std::vector<int64_t> shape;
  for (int d = 0; d < t.rank(); ++d) shape.push_back(t.dim(d));
  shape.back() *= 4;
  return Operand(t.data(), acl::kBool, shape);
}
double int64_of(const RefTensor& r, int64_t i) { return r[2 * i] + 0x1p32 * r[2 * i + 1]; }
bool bool_of(const RefTensor& r, int64_t i) {
  return (static_cast<int64_t>(r[i / 4]) >> (8 * (i % 4)) & 0xFF) != 0;
}
RefTensor pack_int64(Shape shape, const std::vector<int64_t>& values) {
  shape[shape.rank() - 1] *= 2;
  RefTensor r(shape);
  for (size_t i = 0; i < values.size(); ++i)
    r[static_cast<int64_t>(2 * i)] = static_cast<double>(values[i]);
  return r;
}
RefTensor pack_bool(Shape shape, const std::vector<bool>& values) {
  shape[shape.rank() - 1] /= 4;
  RefTensor r(shape);
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i]) r[static_cast<int64_t>(i / 4)] += static_cast<double>(1 << (8 * (i % 4)));
  return r;
}
InputSpec int64_input(const char* name, Shape shape, const std::vector<int64_t>& values) {
  const RefTensor packed = pack_int64(shape, values);
  return {.name = name,
          .shape = packed.shape,
          .dtype = kI32,
          .fill = Fill::kGiven,
          .given = packed.values};
}
InputSpec bool_input(const char* name, Shape shape, const std::vector<bool>& values) {
  const RefTensor packed = pack_bool(shape, values);
  return {.name = name,
          .shape = packed.shape,
          .dtype = kI32,
          .fill = Fill::kGiven,
          .given = packed.values};
}
InputSpec normal(const char* name, const Shape& shape, DType dtype, double offset = 0) {
  return {.name = name, .shape = shape, .dtype = dtype, .offset = offset};
}
InputSpec positive(const char* name, const Shape& shape, DType dtype) {
  return {.name = name,
          .shape = shape,
          .dtype = dtype,
          .fill = Fill::kUniform,
          .scale = 0.9,
          .offset = 1.5};
}
/// Few different values, so that some are equal: 0 to 6.
InputSpec whole(const char* name, const Shape& shape, DType dtype) {
  return {.name = name, .shape = shape, .dtype = dtype, .fill = Fill::kIndex, .scale = 7};
}

using Tolerance = std::function<std::vector<double>(int, const Refs&, const RefTensor&)>;
std::vector<double> exact(int, const Refs&, const RefTensor&) { return {0.0}; }

/// Bound of sums: n roundings of the sum of magnitudes, and one to the type.
Tolerance sum_tolerance(DType dtype, double terms, double magnitude) {
  return [=](int, const Refs&, const RefTensor& y) {
    std::vector<double> bound(y.values.size());
    for (size_t i = 0; i < bound.size(); ++i)
      bound[i] = (unit_roundoff(dtype) * std::abs(y.values[i]) + terms * kU * magnitude) * 1.001 +
                 kLeastNormal;
    return bound;
  };
}

/// Collects the cases of each op.
class Book {
 public:
  OpCase& add(const char* op,
              std::string name,
              std::vector<InputSpec> inputs,
              std::function<std::vector<Tensor>(const Inputs&)> run,
              std::function<std::vector<RefTensor>(const Refs&)> reference,
              Tolerance tolerance) {
    auto spec =
        std::find_if(specs_.begin(), specs_.end(), [&](const OpSpec& s) { return s.op == op; });
    if (spec == specs_.end())
      spec = specs_.insert(spec, OpSpec{.op = op, .kernels = {}, .cases = {}});
    OpCase c;
    c.name = std::move(name);
    c.inputs = std::move(inputs);
    c.run = std::move(run);
    c.reference = std::move(reference);
    c.tolerance = std::move(tolerance);
    c.row_independent = false;
    spec->cases.push_back(std::move(c));
    return spec->cases.back();
  }
  std::vector<OpSpec> take() { return std::move(specs_); }

 private:
  std::vector<OpSpec> specs_;
};

std::string name_of(DType dtype, const Shape& shape) {
  return fmt::format("{} {}", to_string(dtype), shape.str());
}

const Shape kOdd = {7, 129};
// One element; less than a tile; rows and columns beyond what one core takes at a time.
const Shape kShapes[] = {{1}, kOdd, {131, 517}};

template <typename F>
RefTensor each(const RefTensor& x, F&& f) {
  RefTensor y(x.shape);
  for (int64_t i = 0; i < x.shape.count(); ++i) y[i] = f(x[i]);
  return y;
}
template <typename F>
RefTensor each(const RefTensor& a, const RefTensor& b, F&& f) {
  RefTensor y(a.shape);
  for (int64_t i = 0; i < a.shape.count(); ++i) y[i] = f(a[i], b[i]);
  return y;
}

using UnaryOp = AclnnOp<acl::Tensor*, acl::Tensor*>;

/// y = f(x), f32 and bf16, contiguous and as a transposed view.
void unary(
    Book& book, const UnaryOp& op, double (*f)(double), bool takes_positive, double relative) {
  for (const DType t : {kF32, kBF16}) {
    const auto input = [&](const Shape& s) {
      return takes_positive ? positive("x", s, t) : normal("x", s, t);
    };
    for (const Shape& shape : kShapes)
      book.add(
          op.name(),
          name_of(t, shape),
          {input(shape)},
          [&op](const Inputs& in) {
            const Tensor y = like(in[0]);
            op(stream_of(in), operand(in[0]), operand(y));
            return Inputs{y};
          },
          [f](const Refs& in) { return Refs{each(in[0], f)}; },
          elementwise_tolerance(t, relative));
    book.add(
        op.name(),
        name_of(t, {5, 33}) + " transposed",
        {input({5, 33})},
        [&op](const Inputs& in) {
          const Tensor y = Tensor::empty({33, 5}, in[0].dtype(), in[0].device());
          op(stream_of(in), operand(in[0]).transpose(0, 1), operand(y));
          return Inputs{y};
        },
        [f](const Refs& in) {
          RefTensor y({33, 5});
          for (int64_t i = 0; i < 165; ++i) y[i % 33 * 5 + i / 33] = f(in[0][i]);
          return Refs{y};
        },
        elementwise_tolerance(t, relative));
  }
}

/// y = f(a, b) by `call(stream, a, b, y)`; b also as one row and as one column for all.
void binary(
    Book& book,
    const char* op,
    const std::function<void(Stream&, const Operand&, const Operand&, const Operand&)>& call,
    const std::function<double(double, double)>& f,
    bool positive_b = false,
    bool broadcasts = true) {
  for (const DType t : {kF32, kBF16}) {
    // A sum of two may cancel: one rounding of each operand's scale, not of the result alone.
    const Tolerance tolerance = [=](int, const Refs& in, const RefTensor& y) {
      std::vector<double> bound(y.values.size());
      const int64_t whole = in[1].shape.count();
      for (size_t i = 0; i < bound.size(); ++i) {
        const double b = whole == y.shape.count() ? std::abs(in[1].values[i]) : 4;
        bound[i] = 1.001 * (unit_roundoff(t) + kU) * std::abs(y.values[i]) +
                   4 * kU * (std::abs(in[0].values[i]) + b) * (t == kF32 ? 0.25 : 1) + kLeastNormal;
      }
      return bound;
    };
    const auto b_input = [&](const Shape& s) {
      return positive_b ? positive("b", s, t) : normal("b", s, t);
    };
    const auto add = [&](const Shape& shape, const Shape& other) {
      book.add(
          op,
          name_of(t, shape) + (shape == other ? "" : " and " + other.str()),
          {normal("a", shape, t), b_input(other)},
          [call](const Inputs& in) {
            const Tensor y = like(in[0]);
            call(stream_of(in), operand(in[0]), operand(in[1]), operand(y));
            return Inputs{y};
          },
          [f](const Refs& in) {
            RefTensor y(in[0].shape);
            const int64_t rows = in[1].shape.rank() > 1 ? in[1].shape[0] : 1;
            const int64_t columns = in[1].shape[in[1].shape.rank() - 1];
            const int64_t width = y.shape[y.shape.rank() - 1];
            for (int64_t i = 0; i < y.shape.count(); ++i) {
              const int64_t r = rows == 1 ? 0 : i / width, c = columns == 1 ? 0 : i % width;
              y[i] = f(in[0][i], in[1][r * columns + c]);
            }
            return Refs{y};
          },
          tolerance);
    };
    for (const Shape& shape : kShapes) add(shape, shape);
    if (!broadcasts) continue;
    add(kOdd, {1, 129});
    add(kOdd, {7, 1});
  }
}

/// In place: the first input's copy is what the op writes to.
void in_place(Book& book,
              const char* op,
              const std::vector<InputSpec>& inputs,
              const std::function<void(Stream&, const Operand&, const Inputs&)>& call,
              const std::function<RefTensor(const Refs&)>& reference,
              const Tolerance& tolerance,
              const std::string& name) {
  book.add(
      op,
      name,
      inputs,
      [call](const Inputs& in) {
        const Tensor y = copy_of(in[0]);
        call(stream_of(in), operand(y), in);
        return Inputs{y};
      },
      [reference](const Refs& in) { return Refs{reference(in)}; },
      tolerance);
}

void add_elementwise(Book& book) {
  unary(
      book, aclnn::Exp, [](double x) { return math::exp(x); }, false, kFunction);
  unary(
      book, aclnn::Log, [](double x) { return math::log(x); }, true, 0x1p-14);  // near 1 it cancels
  unary(
      book, aclnn::Sqrt, [](double x) { return std::sqrt(x); }, true, 4 * kU);
  unary(
      book, aclnn::Rsqrt, [](double x) { return 1 / std::sqrt(x); }, true, kFunction);
  unary(
      book, aclnn::Reciprocal, [](double x) { return 1 / x; }, true, 4 * kU);
  unary(
      book, aclnn::Neg, [](double x) { return -x; }, false, 0);
  unary(
      book, aclnn::Cos, [](double x) { return math::cos(x); }, true, 0x1p-12);
  unary(
      book, aclnn::Sin, [](double x) { return math::sin(x); }, false, 0x1p-14);
  unary(
      book, aclnn::Sigmoid, [](double x) { return 1 / (1 + math::exp(-x)); }, false, kFunction);
  unary(
      book, aclnn::Silu, [](double x) { return x / (1 + math::exp(-x)); }, false, kFunction);
  for (const DType t : {kF32, kBF16})  // what float16 could not hold
    book.add(
        "aclnnExp",
        name_of(t, {3, 65}) + " large",
        {{.name = "x", .shape = {3, 65}, .dtype = t, .fill = Fill::kUniform, .scale = 60}},
        [](const Inputs& in) {
          const Tensor y = like(in[0]);
          aclnn::Exp(stream_of(in), operand(in[0]), operand(y));
          return Inputs{y};
        },
        [](const Refs& in) { return Refs{each(in[0], [](double x) { return math::exp(x); })}; },
        elementwise_tolerance(t, 0x1p-16));

  const auto scaled = [](float alpha, double sign) {
    return std::pair{alpha, sign * static_cast<double>(alpha)};
  };
  for (const auto& [alpha, factor] : {scaled(1, 1), scaled(0.75f, 1)}) {
    const double k = factor;
    binary(
        book,
        "aclnnAdd",
        [a = alpha](Stream& s, const Operand& x, const Operand& z, const Operand& y) {
          aclnn::Add(s, x, z, Scalar(a), y);
        },
        [k](double x, double z) { return x + k * z; });
    binary(
        book,
        "aclnnSub",
        [a = alpha](Stream& s, const Operand& x, const Operand& z, const Operand& y) {
          aclnn::Sub(s, x, z, Scalar(a), y);
        },
        [k](double x, double z) { return x - k * z; });
  }
  binary(
      book,
      "aclnnMul",
      [](Stream& s, const Operand& x, const Operand& z, const Operand& y) {
        aclnn::Mul(s, x, z, y);
      },
      [](double x, double z) { return x * z; });
  binary(
      book,
      "aclnnDiv",
      [](Stream& s, const Operand& x, const Operand& z, const Operand& y) {
        aclnn::Div(s, x, z, y);
      },
      [](double x, double z) { return x / z; },
      true);
  binary(
      book,
      "aclnnMaximum",
      [](Stream& s, const Operand& x, const Operand& z, const Operand& y) {
        aclnn::Maximum(s, x, z, y);
      },
      [](double x, double z) { return std::max(x, z); });
  binary(
      book,
      "aclnnSigmoidBackward",
      [](Stream& s, const Operand& x, const Operand& z, const Operand& y) {
        aclnn::SigmoidBackward(s, x, z, y);
      },
      [](double d, double z) { return d * z * (1 - z); },
      true,
      false);
  for (const DType t : {kF32, kBF16}) {
    for (const Shape& shape : kShapes) {
      const std::string name = name_of(t, shape);
      const auto scalar_op = [&](const char* op, const auto& call, double (*f)(double)) {
        book.add(
            op,
            name,
            {normal("x", shape, t, 0.1)},
            [call](const Inputs& in) {
              const Tensor y = like(in[0]);
              call(stream_of(in), operand(in[0]), operand(y));
              return Inputs{y};
            },
            [f](const Refs& in) { return Refs{each(in[0], f)}; },
            [t](int, const Refs& in, const RefTensor& y) {
              std::vector<double> bound(y.values.size());
              for (size_t i = 0; i < bound.size(); ++i)
                bound[i] = 1.001 * (unit_roundoff(t) + 2 * kU) * std::abs(y.values[i]) +
                           2 * kU * std::abs(in[0].values[i]) + kLeastNormal;
              return bound;
            });
      };
      scalar_op(
          "aclnnAdds",
          [](Stream& s, const Operand& x, const Operand& y) {
            aclnn::Adds(s, x, Scalar(0.6f), Scalar(1.0f), y);
          },
          [](double x) { return x + static_cast<double>(0.6f); });
      scalar_op(
          "aclnnMuls",
          [](Stream& s, const Operand& x, const Operand& y) { aclnn::Muls(s, x, Scalar(0.3f), y); },
          [](double x) { return x * static_cast<double>(0.3f); });
      scalar_op(
          "aclnnDivs",
          [](Stream& s, const Operand& x, const Operand& y) { aclnn::Divs(s, x, Scalar(3.0f), y); },
          [](double x) { return x / 3; });
      in_place(
          book,
          "aclnnInplaceMuls",
          {normal("x", shape, t)},
          [](Stream& s, const Operand& y, const Inputs&) {
            aclnn::InplaceMuls(s, y, Scalar(0.7f));
          },
          [](const Refs& in) {
            return each(in[0], [](double x) { return x * static_cast<double>(0.7f); });
          },
          elementwise_tolerance(t, kU),
          name);
      in_place(
          book,
          "aclnnInplaceAdd",
          {normal("x", shape, t), normal("z", shape, t)},
          [](Stream& s, const Operand& y, const Inputs& in) {
            aclnn::InplaceAdd(s, y, operand(in[1]), Scalar(0.5f));
          },
          [](const Refs& in) {
            return each(in[0], in[1], [](double x, double z) { return x + 0.5 * z; });
          },
          elementwise_tolerance(t, kU),
          name);
      in_place(
          book,
          "aclnnInplaceMul",
          {normal("x", shape, t), normal("z", shape, t)},
          [](Stream& s, const Operand& y, const Inputs& in) {
            aclnn::InplaceMul(s, y, operand(in[1]));
          },
          [](const Refs& in) {
            return each(in[0], in[1], [](double x, double z) { return x * z; });
          },
          elementwise_tolerance(t, kU),
          name);
      in_place(
          book,
          "aclnnInplaceZero",
          {normal("x", shape, t)},
          [](Stream& s, const Operand& y, const Inputs&) { aclnn::InplaceZero(s, y); },
          [](const Refs& in) { return each(in[0], [](double) { return 0.0; }); },
          exact,
          name);
      in_place(
          book,
          "aclnnInplaceFillScalar",
          {normal("x", shape, t)},
          [](Stream& s, const Operand& y, const Inputs&) {
            aclnn::InplaceFillScalar(s, y, Scalar(-2.5f));
          },
          [](const Refs& in) { return each(in[0], [](double) { return -2.5; }); },
          exact,
          name);
    }
  }
}

void add_choices(Book& book) {
  const Shape shape = {5, 36};
  std::vector<bool> mask(180);
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 7 < 3 || i % 11 == 5;
  for (const DType t : {kF32, kBF16}) {
    const auto compare = [&](const char* op, const auto& call, bool (*f)(double, double)) {
      book.add(
          op,
          name_of(t, shape),
          {whole("a", shape, t), whole("b", shape, t)},
          [call](const Inputs& in) {
            const Tensor y = Tensor::empty({5, 9}, kI32, in[0].device());
            call(stream_of(in), operand(in[0]), operand(in[1]), as_bool(y));
            return Inputs{y};
          },
          [f, shape](const Refs& in) {
            std::vector<bool> y(180);
            for (size_t i = 0; i < y.size(); ++i) y[i] = f(in[0].values[i], in[1].values[i]);
            return Refs{pack_bool(shape, y)};
          },
          exact);
    };
    compare(
        "aclnnEqTensor",
        [](Stream& s, const Operand& a, const Operand& b, const Operand& y) {
          aclnn::EqTensor(s, a, b, y);
        },
        [](double a, double b) { return a == b; });
    compare(
        "aclnnLtTensor",
        [](Stream& s, const Operand& a, const Operand& b, const Operand& y) {
          aclnn::LtTensor(s, a, b, y);
        },
        [](double a, double b) { return a < b; });
    compare(
        "aclnnGtScalar",
        [](Stream& s, const Operand& a, const Operand&, const Operand& y) {
          aclnn::GtScalar(s, a, Scalar(3.0f), y);
        },
        [](double a, double) { return a > 3; });
    in_place(
        book,
        "aclnnInplaceMaskedFillScalar",
        {normal("x", shape, t), bool_input("mask", shape, mask)},
        [](Stream& s, const Operand& y, const Inputs& in) {
          aclnn::InplaceMaskedFillScalar(s, y, as_bool(in[1]), Scalar(-7.0f));
        },
        [](const Refs& in) {
          RefTensor y = in[0];
          for (int64_t i = 0; i < y.shape.count(); ++i)
            if (bool_of(in[1], i)) y[i] = -7;
          return y;
        },
        exact,
        name_of(t, shape));
    book.add(
        "aclnnSWhere",
        name_of(t, shape),
        {normal("a", shape, t), normal("b", shape, t), bool_input("mask", shape, mask)},
        [](const Inputs& in) {
          const Tensor y = like(in[0]);
          aclnn::SWhere(stream_of(in), as_bool(in[2]), operand(in[0]), operand(in[1]), operand(y));
          return Inputs{y};
        },
        [](const Refs& in) {
          RefTensor y = in[1];
          for (int64_t i = 0; i < y.shape.count(); ++i)
            if (bool_of(in[2], i)) y[i] = in[0][i];
          return Refs{y};
        },
        exact);
  }
}

void add_products(Book& book) {
  const auto product =
      [&](const char* op, const auto& call, DType t, int64_t m, int64_t n, int64_t k, bool tb) {
        OpCase& c = book.add(
            op,
            fmt::format("{} [{}, {}] x [{}, {}]{}", to_string(t), m, k, k, n, tb ? "^T" : ""),
            {{.name = "a", .shape = {m, k}, .dtype = t, .rows = true},
             normal("b", tb ? Shape{n, k} : Shape{k, n}, t)},
            [call, tb](const Inputs& in) {
              const Tensor y = Tensor::empty(
                  {in[0].dim(0), in[1].dim(tb ? 0 : 1)}, in[0].dtype(), in[0].device());
              call(stream_of(in),
                   operand(in[0]),
                   tb ? operand(in[1]).transpose(0, 1) : operand(in[1]),
                   operand(y));
              return Inputs{y};
            },
            [tb](const Refs& in) { return Refs{matmul_reference(in[0], in[1], false, tb)}; },
            [=](int, const Refs& in, const RefTensor& y) {
              return matmul_tolerance(
                  y, matmul_reference(absolute(in[0]), absolute(in[1]), false, tb), k, t, t);
            });
        c.row_independent = true;
      };
  const auto mm = [](Stream& s, const Operand& a, const Operand& b, const Operand& y) {
    aclnn::Mm(s, a, b, y, kKeepType);
  };
  const auto matmul = [](Stream& s, const Operand& a, const Operand& b, const Operand& y) {
    aclnn::Matmul(s, a, b, y, kKeepType);
  };
  const auto bmm = [](Stream& s, const Operand& a, const Operand& b, const Operand& y) {
    aclnn::BatchMatMul(s, a.unsqueeze(0), b.unsqueeze(0), y.unsqueeze(0), kKeepType);
  };
  for (const DType t : {kF32, kBF16})
    for (const bool tb : {false, true}) {
      product("aclnnMm", mm, t, 9, 33, 37, tb);
      product("aclnnMatmul", matmul, t, 9, 33, 37, tb);
      product("aclnnBatchMatMul", bmm, t, 9, 33, 37, tb);
      // Taller, wider and deeper than a tile, by a little.
      product("aclnnMm", mm, t, 261, 70, 1030, tb);
      product("aclnnMm", mm, t, 20, 1033, 66, tb);
      product("aclnnMatmul", matmul, t, 137, 265, 300, tb);
      product("aclnnBatchMatMul", bmm, t, 137, 265, 300, tb);
    }
}

/// y of lines of x along the last dimension.
RefTensor lines(const RefTensor& x, const std::function<void(const double*, double*, int64_t)>& f) {
  RefTensor y(x.shape);
  const int64_t n = x.shape[x.shape.rank() - 1];
  for (int64_t at = 0; at < x.shape.count(); at += n)
    f(&x.values[static_cast<size_t>(at)], &y[at], n);
  return y;
}

void softmax_line(const double* x, double* y, int64_t n) {
  const double top = *std::max_element(x, x + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += y[i] = math::exp(x[i] - top);
  for (int64_t i = 0; i < n; ++i) y[i] /= sum;
}

void add_softmax(Book& book) {
  for (const Shape& shape : {Shape{5, 67}, Shape{3, 4999}, Shape{131, 20}})
    for (const DType t : {kF32, kBF16})
      for (const double spread : {1.0, 30.0}) {
        const std::string name = name_of(t, shape) + (spread > 1 ? " large" : "");
        const InputSpec x{.name = "x", .shape = shape, .dtype = t, .scale = spread, .rows = true};
        // A sum of as many terms as a line has, each with the error of an exponential.
        const double relative = 0x1p-17 * spread + static_cast<double>(shape[1]) * kU;
        book.add(
                "aclnnSoftmax",
                name,
                {x},
                [](const Inputs& in) {
                  const Tensor y = like(in[0]);
                  aclnn::Softmax(stream_of(in), operand(in[0]), -1, operand(y));
                  return Inputs{y};
                },
                [](const Refs& in) { return Refs{lines(in[0], softmax_line)}; },
                // From e^-87 on, which is less than 2^-125, a chip's exp may give zero.
                [t, relative](int output, const Refs& in, const RefTensor& y) {
                  std::vector<double> bound = elementwise_tolerance(t, relative)(output, in, y);
                  for (double& b : bound) b += 0x1p-125;
                  return bound;
                })
            .row_independent = true;
        book.add(
                "aclnnLogSoftmax",
                name,
                {x},
                [](const Inputs& in) {
                  const Tensor y = like(in[0]);
                  aclnn::LogSoftmax(stream_of(in), operand(in[0]), -1, operand(y));
                  return Inputs{y};
                },
                [](const Refs& in) {
                  return Refs{lines(in[0], [](const double* x_line, double* y, int64_t n) {
                    const double top = *std::max_element(x_line, x_line + n);
                    double sum = 0;
                    for (int64_t i = 0; i < n; ++i) sum += math::exp(x_line[i] - top);
                    for (int64_t i = 0; i < n; ++i) y[i] = x_line[i] - top - math::log(sum);
                  })};
                },
                [t, spread, shape](int, const Refs&, const RefTensor& y) {
                  std::vector<double> bound(y.values.size());
                  for (size_t i = 0; i < bound.size(); ++i)
                    bound[i] = 1.001 * unit_roundoff(t) * std::abs(y.values[i]) + 0x1p-19 * spread +
                               static_cast<double>(shape[1]) * kU;
                  return bound;
                })
            .row_independent = true;
      }
  // Backward: y is a softmax, so the inputs are made as one in the reference's eyes: any y will do.
  const auto backward = [&](const char* op, const auto& call, const auto& f) {
    for (const DType t : {kF32, kBF16}) {
      const InputSpec y{.name = "y",
                        .shape = {5, 67},
                        .dtype = t,
                        .fill = Fill::kUniform,
                        .scale = 0.014,
                        .offset = op == std::string("aclnnLogSoftmaxBackward") ? -4.2 : 0.015};
      book.add(
          op,
          name_of(t, {5, 67}),
          {normal("d", {5, 67}, t, 0.5), y},
          [call](const Inputs& in) {
            const Tensor d = like(in[0]);
            call(stream_of(in), operand(in[0]), operand(in[1]), operand(d));
            return Inputs{d};
          },
          [f](const Refs& in) {
            RefTensor d(in[0].shape);
            for (int64_t at = 0; at < d.shape.count(); at += 67)
              f(&in[0].values[static_cast<size_t>(at)],
                &in[1].values[static_cast<size_t>(at)],
                &d[at]);
            return Refs{d};
          },
          [t](int, const Refs& in, const RefTensor& d) {
            std::vector<double> bound(d.values.size());
            for (size_t i = 0; i < bound.size(); ++i)
              bound[i] = 1.001 * unit_roundoff(t) * std::abs(d.values[i]) +
                         300 * kU * (1 + std::abs(in[0].values[i]));
            return bound;
          });
    }
  };
  backward(
      "aclnnSoftmaxBackward",
      [](Stream& s, const Operand& d, const Operand& y, const Operand& out) {
        aclnn::SoftmaxBackward(s, d, y, -1, out);
      },
      [](const double* d, const double* y, double* out) {
        double dot = 0;
        for (int i = 0; i < 67; ++i) dot += d[i] * y[i];
        for (int i = 0; i < 67; ++i) out[i] = (d[i] - dot) * y[i];
      });
  backward(
      "aclnnLogSoftmaxBackward",
      [](Stream& s, const Operand& d, const Operand& y, const Operand& out) {
        aclnn::LogSoftmaxBackward(s, d, y, -1, out);
      },
      [](const double* d, const double* y, double* out) {
        double sum = 0;
        for (int i = 0; i < 67; ++i) sum += d[i];
        for (int i = 0; i < 67; ++i) out[i] = d[i] - math::exp(y[i]) * sum;
      });
}

/// Likelihoods of a class of each row; one class is ignored.
void add_likelihoods(Book& book) {
  constexpr int64_t kRows = 21, kClasses = 67, kIgnored = 5, kNoReduction = 0;
  std::vector<int64_t> classes(kRows);
  for (size_t i = 0; i < classes.size(); ++i)
    classes[i] = i % 4 == 1 ? kIgnored : static_cast<int64_t>(i * 13 % kClasses);
  const InputSpec x = normal("x", {kRows, kClasses}, kF32, -4),
                  target = int64_input("target", {kRows}, classes),
                  weights = positive("weights", {kClasses}, kF32);
  const auto weight = [](const RefTensor& of, const RefTensor& by, int64_t row) {
    const auto mine = static_cast<int64_t>(int64_of(of, row));
    return mine == kIgnored ? 0 : by[mine];
  };
  book.add(
      "aclnnNLLLoss",
      name_of(kF32, {kRows, kClasses}),
      {x, target, weights},
      [](const Inputs& in) {
        const Tensor losses = Tensor::empty({kRows}, kF32, in[0].device()),
                     total = Tensor::empty({1}, kF32, in[0].device());
        aclnn::NLLLoss(stream_of(in),
                       operand(in[0]),
                       as_int64(in[1]),
                       operand(in[2]),
                       kNoReduction,
                       kIgnored,
                       operand(losses),
                       operand(total));
        return Inputs{losses};
      },
      [weight](const Refs& in) {
        RefTensor losses({kRows});
        for (int64_t r = 0; r < kRows; ++r)
          losses[r] = -weight(in[1], in[2], r) *
                      in[0][r * kClasses + static_cast<int64_t>(int64_of(in[1], r))];
        return Refs{losses};
      },
      elementwise_tolerance(kF32, kU));
  book.add(
      "aclnnNLLLossBackward",
      name_of(kF32, {kRows, kClasses}),
      {normal("d", {kRows}, kF32), x, target, weights},
      [](const Inputs& in) {
        const Tensor d_x = like(in[1]), total = Tensor::zeros({1}, kF32, in[0].device());
        aclnn::NLLLossBackward(stream_of(in),
                               operand(in[0]),
                               operand(in[1]),
                               as_int64(in[2]),
                               operand(in[3]),
                               kNoReduction,
                               kIgnored,
                               operand(total),
                               operand(d_x));
        return Inputs{d_x};
      },
      [weight](const Refs& in) {
        RefTensor d_x({kRows, kClasses});
        for (int64_t r = 0; r < kRows; ++r)
          d_x[r * kClasses + static_cast<int64_t>(int64_of(in[2], r))] =
              -weight(in[2], in[3], r) * in[0][r];
        return Refs{d_x};
      },
      elementwise_tolerance(kF32, kU));
}

void add_reductions(Book& book) {
  const Shape shape = {5, 131};
  const auto columns = [](const RefTensor& x,
                          const std::function<double(const double*, int64_t)>& f) {
    RefTensor y({x.shape[0]});
    for (int64_t r = 0; r < x.shape[0]; ++r)
      y[r] = f(&x.values[static_cast<size_t>(r * x.shape[1])], x.shape[1]);
    return y;
  };
  const auto sum = [](const double* x, int64_t n) { return std::accumulate(x, x + n, 0.0); };
  for (const DType t : {kF32, kBF16}) {
    const auto reduce =
        [&](const char* op, const auto& call, const auto& f, const auto& tolerance) {
          for (const Shape& lines_of : {shape, Shape{3, 4999}, Shape{131, 9}})
            book.add(
                op,
                name_of(t, lines_of) + " along lines",
                {normal("x", lines_of, t, 0.2)},
                [call](const Inputs& in) {
                  const Tensor y = Tensor::empty({in[0].dim(0)}, in[0].dtype(), in[0].device());
                  call(stream_of(in), operand(in[0]), operand(y));
                  return Inputs{y};
                },
                [f, columns](const Refs& in) { return Refs{columns(in[0], f)}; },
                tolerance(static_cast<double>(lines_of[1])));
        };
    const acl::DataType type = acl_type(t);
    reduce(
        "aclnnReduceSum",
        [type](Stream& s, const Operand& x, const Operand& y) {
          aclnn::ReduceSum(s, x, IntArray({-1}), false, type, y);
        },
        sum,
        [t](double n) { return sum_tolerance(t, n, n); });
    reduce(
        "aclnnMean",
        [type](Stream& s, const Operand& x, const Operand& y) {
          aclnn::Mean(s, x, IntArray({-1}), false, type, y);
        },
        [sum](const double* x, int64_t n) { return sum(x, n) / static_cast<double>(n); },
        [t](double n) { return sum_tolerance(t, n + 9, 1); });
    reduce(
        "aclnnAmax",
        [](Stream& s, const Operand& x, const Operand& y) {
          aclnn::Amax(s, x, IntArray({-1}), false, y);
        },
        [](const double* x, int64_t n) { return *std::max_element(x, x + n); },
        [](double) { return Tolerance(exact); });
    reduce(
        "aclnnLinalgVectorNorm",
        [type](Stream& s, const Operand& x, const Operand& y) {
          aclnn::LinalgVectorNorm(s, x, Scalar(2.0f), IntArray({-1}), false, type, y);
        },
        [](const double* x, int64_t n) { return std::sqrt(std::inner_product(x, x + n, x, 0.0)); },
        [t](double n) { return elementwise_tolerance(t, (n + 9) * kU); });
    book.add(
        "aclnnReduceSum",
        name_of(t, shape) + " along columns",
        {normal("x", shape, t, 0.2)},
        [type](const Inputs& in) {
          const Tensor y = Tensor::empty({131}, in[0].dtype(), in[0].device());
          aclnn::ReduceSum(stream_of(in), operand(in[0]), IntArray({0}), false, type, operand(y));
          return Inputs{y};
        },
        [](const Refs& in) {
          RefTensor y({131});
          for (int64_t i = 0; i < 5 * 131; ++i) y[i % 131] += in[0][i];
          return Refs{y};
        },
        sum_tolerance(t, 5, 10));
    book.add(
        "aclnnMaxDim",
        name_of(t, shape),
        {normal("x", shape, t)},
        [](const Inputs& in) {
          const Tensor y = Tensor::empty({5, 1}, in[0].dtype(), in[0].device()),
                       at = Tensor::empty({5, 2}, kI32, in[0].device());
          aclnn::MaxDim(stream_of(in), operand(in[0]), 1, true, operand(y), as_int64(at));
          return Inputs{y, at};
        },
        [](const Refs& in) {
          RefTensor y({5, 1});
          std::vector<int64_t> at(5);
          for (int64_t r = 0; r < 5; ++r) {
            const double* line = &in[0].values[static_cast<size_t>(r * 131)];
            at[static_cast<size_t>(r)] = std::max_element(line, line + 131) - line;
            y[r] = line[at[static_cast<size_t>(r)]];
          }
          return Refs{y, pack_int64({5, 1}, at)};
        },
        exact);
    book.add(
        "aclnnArgMax",
        name_of(t, shape),
        {normal("x", shape, t)},
        [](const Inputs& in) {
          const Tensor at = Tensor::empty({5, 2}, kI32, in[0].device());
          aclnn::ArgMax(stream_of(in), operand(in[0]), 1, true, as_int64(at));
          return Inputs{at};
        },
        [](const Refs& in) {
          std::vector<int64_t> at(5);
          for (size_t r = 0; r < 5; ++r) {
            const double* line = &in[0].values[r * 131];
            at[r] = std::max_element(line, line + 131) - line;
          }
          return Refs{pack_int64({5, 1}, at)};
        },
        exact);
  }
  for (const Shape& lines_of : {shape, Shape{2, 3001}})
    book.add(
        "aclnnCumsum",
        name_of(kF32, lines_of),
        {normal("x", lines_of, kF32, 0.2)},
        [](const Inputs& in) {
          const Tensor y = like(in[0]);
          aclnn::Cumsum(stream_of(in), operand(in[0]), 1, acl::kFloat, operand(y));
          return Inputs{y};
        },
        [](const Refs& in) {
          return Refs{lines(
              in[0], [](const double* x, double* y, int64_t n) { std::partial_sum(x, x + n, y); })};
        },
        sum_tolerance(kF32, static_cast<double>(lines_of[1]), static_cast<double>(lines_of[1])));
}

void add_indexing(Book& book) {
  const Shape table = {11, 35};
  const std::vector<int64_t> picks = {0, 10, 3, 3, 7, 1, 10};
  const auto count = static_cast<int64_t>(picks.size());
  const InputSpec index = int64_input("index", {count}, picks);
  std::vector<int64_t> many(1537);  // more rows than one core takes at a time
  for (size_t i = 0; i < many.size(); ++i) many[i] = static_cast<int64_t>(i * i % 11);
  for (const DType t : {kF32, kBF16}) {
    const auto rows = [&](const char* op, const auto& call) {
      for (const std::vector<int64_t>& wanted : {picks, many}) {
        const auto height = static_cast<int64_t>(wanted.size());
        book.add(
            op,
            fmt::format("{}, {} rows", name_of(t, table), height),
            {normal("w", table, t), int64_input("index", {height}, wanted)},
            [call, height](const Inputs& in) {
              const Tensor y = Tensor::empty({height, 35}, in[0].dtype(), in[0].device());
              call(stream_of(in), operand(in[0]), as_int64(in[1]), operand(y));
              return Inputs{y};
            },
            [height](const Refs& in) {
              RefTensor y({height, 35});
              for (int64_t i = 0; i < height * 35; ++i)
                y[i] = in[0][static_cast<int64_t>(int64_of(in[1], i / 35)) * 35 + i % 35];
              return Refs{y};
            },
            exact);
      }
    };
    rows("aclnnEmbedding", [](Stream& s, const Operand& w, const Operand& i, const Operand& y) {
      aclnn::Embedding(s, w, i, y);
    });
    rows("aclnnIndexSelect", [](Stream& s, const Operand& w, const Operand& i, const Operand& y) {
      aclnn::IndexSelect(s, w, 0, i, y);
    });
    rows("aclnnGatherV2", [](Stream& s, const Operand& w, const Operand& i, const Operand& y) {
      aclnn::GatherV2(s, w, 0, i, y);
    });
    std::vector<int64_t> places(11 * 5);
    for (size_t i = 0; i < places.size(); ++i) places[i] = static_cast<int64_t>(i * 13 % 35);
    book.add(
        "aclnnGather",
        name_of(t, table),
        {normal("x", table, t), int64_input("index", {11, 5}, places)},
        [](const Inputs& in) {
          const Tensor y = Tensor::empty({11, 5}, in[0].dtype(), in[0].device());
          aclnn::Gather(stream_of(in), operand(in[0]), 1, as_int64(in[1]), operand(y));
          return Inputs{y};
        },
        [](const Refs& in) {
          RefTensor y({11, 5});
          for (int64_t i = 0; i < 55; ++i)
            y[i] = in[0][i / 5 * 35 + static_cast<int64_t>(int64_of(in[1], i))];
          return Refs{y};
        },
        exact);
    std::vector<int64_t> distinct = {10, 0, 4, 7};
    in_place(
        book,
        "aclnnInplaceIndexCopy",
        {normal("x", table, t), normal("source", {4, 35}, t), int64_input("index", {4}, distinct)},
        [](Stream& s, const Operand& y, const Inputs& in) {
          aclnn::InplaceIndexCopy(s, y, 0, as_int64(in[2]), operand(in[1]));
        },
        [](const Refs& in) {
          RefTensor y = in[0];
          for (int64_t i = 0; i < 4 * 35; ++i)
            y[static_cast<int64_t>(int64_of(in[2], i / 35)) * 35 + i % 35] = in[1][i];
          return y;
        },
        exact,
        name_of(t, table));
  }
  const Tolerance sums = sum_tolerance(kF32, 8, 20);
  book.add(
      "aclnnIndexAdd",
      "f32 [11, 35]",
      {normal("x", table, kF32), normal("source", {count, 35}, kF32), index},
      [](const Inputs& in) {
        const Tensor y = like(in[0]);
        aclnn::IndexAdd(stream_of(in),
                        operand(in[0]),
                        0,
                        as_int64(in[2]),
                        operand(in[1]),
                        Scalar(1.0f),
                        operand(y));
        return Inputs{y};
      },
      [count](const Refs& in) {
        RefTensor y = in[0];
        for (int64_t i = 0; i < count * 35; ++i)
          y[static_cast<int64_t>(int64_of(in[2], i / 35)) * 35 + i % 35] += in[1][i];
        return Refs{y};
      },
      sums);
  std::vector<int64_t> places(11 * 5);
  for (size_t i = 0; i < places.size(); ++i) places[i] = static_cast<int64_t>(i * i % 6);
  book.add(
      "aclnnScatterAdd",
      "f32 [11, 35]",
      {normal("x", table, kF32),
       normal("source", {11, 5}, kF32),
       int64_input("index", {11, 5}, places)},
      [](const Inputs& in) {
        const Tensor y = like(in[0]);
        aclnn::ScatterAdd(
            stream_of(in), operand(in[0]), 1, as_int64(in[2]), operand(in[1]), operand(y));
        return Inputs{y};
      },
      [](const Refs& in) {
        RefTensor y = in[0];
        for (int64_t i = 0; i < 55; ++i)
          y[i / 5 * 35 + static_cast<int64_t>(int64_of(in[2], i))] += in[1][i];
        return Refs{y};
      },
      sums);
  for (const std::vector<int64_t>& ids : {picks, many}) {
    const auto rows = static_cast<int64_t>(ids.size());
    book.add(
        "aclnnEmbeddingDenseBackward",
        fmt::format("f32 [11, 35] of {} rows", rows),
        {normal("d", {rows, 35}, kF32), int64_input("index", {rows}, ids)},
        [](const Inputs& in) {
          const Tensor y = Tensor::empty({11, 35}, kF32, in[0].device());
          aclnn::EmbeddingDenseBackward(
              stream_of(in), operand(in[0]), as_int64(in[1]), 11, ~uint64_t{0}, false, operand(y));
          return Inputs{y};
        },
        [rows](const Refs& in) {
          RefTensor y({11, 35});
          for (int64_t i = 0; i < rows * 35; ++i)
            y[static_cast<int64_t>(int64_of(in[1], i / 35)) * 35 + i % 35] += in[0][i];
          return Refs{y};
        },
        sum_tolerance(kF32, static_cast<double>(rows) + 1, 2.0 * static_cast<double>(rows)));
  }
}

void add_sorting(Book& book) {
  const auto order = [](const double* x, int64_t n, bool descending) {
    std::vector<int64_t> at(static_cast<size_t>(n));
    std::iota(at.begin(), at.end(), 0);
    std::stable_sort(at.begin(), at.end(), [&](int64_t a, int64_t b) {
      return descending ? x[a] > x[b] : x[a] < x[b];
    });
    return at;
  };
  /// Sorted values and, behind them, where they stood: the first `keep` of each line.
  const auto sorted = [order](const RefTensor& x, bool descending, int64_t keep) {
    const int64_t lines = x.shape[0], n = x.shape[1];
    RefTensor values({lines, keep});
    std::vector<int64_t> at;
    for (int64_t r = 0; r < lines; ++r) {
      const double* line = &x.values[static_cast<size_t>(r * n)];
      const std::vector<int64_t> o = order(line, n, descending);
      for (int64_t i = 0; i < keep; ++i) {
        values[r * keep + i] = line[o[static_cast<size_t>(i)]];
        at.push_back(o[static_cast<size_t>(i)]);
      }
    }
    return Refs{values, pack_int64({lines, keep}, at)};
  };
  // Equal elements too: who stands first is what the router's ties hang on. Topk leaves it open.
  for (const Shape& shape : {Shape{5, 41}, Shape{1, 2051}})
    for (const bool ties : {false, true}) {
      const InputSpec x = ties ? whole("x", shape, kF32) : normal("x", shape, kF32);
      const std::string name = name_of(kF32, shape) + (ties ? " with equal ones" : "");
      book.add(
          "aclnnSort",
          name,
          {x},
          [](const Inputs& in) {
            const Tensor y = like(in[0]),
                         at = Tensor::empty({in[0].dim(0), 2 * in[0].dim(1)}, kI32, in[0].device());
            aclnn::Sort(stream_of(in), operand(in[0]), true, 1, false, operand(y), as_int64(at));
            return Inputs{y, at};
          },
          [sorted](const Refs& in) { return sorted(in[0], false, in[0].shape[1]); },
          exact);
      book.add(
          "aclnnTopk",
          name,
          {x},
          [](const Inputs& in) {
            const Tensor y = Tensor::empty({in[0].dim(0), 6}, kF32, in[0].device()),
                         at = Tensor::empty({in[0].dim(0), 12}, kI32, in[0].device());
            aclnn::Topk(stream_of(in), operand(in[0]), 6, 1, true, true, operand(y), as_int64(at));
            return Inputs{y, at};
          },
          [sorted](const Refs& in) { return sorted(in[0], true, 6); },
          exact);
      book.add(
          "aclnnArgsort",
          name,
          {x},
          [](const Inputs& in) {
            const Tensor at = Tensor::empty({in[0].dim(0), 2 * in[0].dim(1)}, kI32, in[0].device());
            aclnn::Argsort(stream_of(in), operand(in[0]), 1, false, as_int64(at));
            return Inputs{at};
          },
          [sorted](const Refs& in) { return Refs{sorted(in[0], false, in[0].shape[1])[1]}; },
          exact);
    }
}

void add_copies(Book& book) {
  for (const DType t : {kF32, kBF16}) {
    const Shape shape = {5, 34};
    const InputSpec x = normal("x", shape, t);
    const std::string name = name_of(t, shape);
    const auto transposed = [](const Refs& in) {
      RefTensor y({34, 5});
      for (int64_t i = 0; i < 170; ++i) y[i % 34 * 5 + i / 34] = in[0][i];
      return Refs{y};
    };
    const auto copying = [&](const char* op,
                             const char* what,
                             const Shape& out,
                             const auto& call,
                             std::function<std::vector<RefTensor>(const Refs&)> reference) {
      book.add(
          op,
          name + what,
          {x},
          [call, out](const Inputs& in) {
            const Tensor y = Tensor::empty(out, in[0].dtype(), in[0].device());
            call(stream_of(in), operand(in[0]), operand(y));
            return Inputs{y};
          },
          std::move(reference),
          exact);
    };
    copying(
        "aclnnInplaceCopy",
        "",
        shape,
        [](Stream& s, const Operand& a, const Operand& y) { aclnn::InplaceCopy(s, y, a); },
        [](const Refs& in) { return Refs{in[0]}; });
    copying(
        "aclnnInplaceCopy",
        " transposed",
        {34, 5},
        [](Stream& s, const Operand& a, const Operand& y) {
          aclnn::InplaceCopy(s, y, a.transpose(0, 1));
        },
        transposed);
    copying(
        "aclnnInplaceCopy",
        " into a transposed view",
        {34, 5},
        [](Stream& s, const Operand& a, const Operand& y) {
          aclnn::InplaceCopy(s, y.transpose(0, 1), a);
        },
        transposed);
    copying(
        "aclnnInplaceCopy",
        " of a part",
        {5, 19},
        [](Stream& s, const Operand& a, const Operand& y) {
          aclnn::InplaceCopy(s, y, a.slice(1, 3, 22));
        },
        [](const Refs& in) {
          RefTensor y({5, 19});
          for (int64_t i = 0; i < 95; ++i) y[i] = in[0][i / 19 * 34 + 3 + i % 19];
          return Refs{y};
        });
    copying(
        "aclnnPermute",
        "",
        {34, 5},
        [](Stream& s, const Operand& a, const Operand& y) {
          aclnn::Permute(s, a, IntArray({1, 0}), y);
        },
        transposed);
    copying(
        "aclnnPermute",
        " of three",
        {17, 5, 2},
        [](Stream& s, const Operand& a, const Operand& y) {
          aclnn::Permute(s, a.split(1, 2), IntArray({2, 0, 1}), y);
        },
        [](const Refs& in) {
          RefTensor y({17, 5, 2});
          for (int64_t i = 0; i < 170; ++i) y[(i % 17 * 5 + i / 34) * 2 + i / 17 % 2] = in[0][i];
          return Refs{y};
        });
    copying(
        "aclnnSlice",
        "",
        {5, 10},
        [](Stream& s, const Operand& a, const Operand& y) { aclnn::Slice(s, a, 1, 2, 31, 3, y); },
        [](const Refs& in) {
          RefTensor y({5, 10});
          for (int64_t i = 0; i < 50; ++i) y[i] = in[0][i / 10 * 34 + 2 + 3 * (i % 10)];
          return Refs{y};
        });
    copying(
        "aclnnRepeat",
        "",
        {10, 102},
        [](Stream& s, const Operand& a, const Operand& y) {
          aclnn::Repeat(s, a, IntArray({2, 3}), y);
        },
        [](const Refs& in) {
          RefTensor y({10, 102});
          for (int64_t i = 0; i < 1020; ++i) y[i] = in[0][i / 102 % 5 * 34 + i % 102 % 34];
          return Refs{y};
        });
    copying(
        "aclnnTriu",
        "",
        shape,
        [](Stream& s, const Operand& a, const Operand& y) { aclnn::Triu(s, a, 2, y); },
        [](const Refs& in) {
          RefTensor y = in[0];
          for (int64_t i = 0; i < 170; ++i)
            if (i % 34 < i / 34 + 2) y[i] = 0;
          return Refs{y};
        });
    book.add(
        "aclnnCat",
        name,
        {x, normal("z", {5, 7}, t)},
        [](const Inputs& in) {
          const Tensor y = Tensor::empty({5, 41}, in[0].dtype(), in[0].device());
          aclnn::Cat(stream_of(in), OperandList({operand(in[0]), operand(in[1])}), 1, operand(y));
          return Inputs{y};
        },
        [](const Refs& in) {
          RefTensor y({5, 41});
          for (int64_t i = 0; i < 205; ++i)
            y[i] = i % 41 < 34 ? in[0][i / 41 * 34 + i % 41] : in[1][i / 41 * 7 + i % 41 - 34];
          return Refs{y};
        },
        exact);
    book.add(
        "aclnnSplitWithSize",
        name,
        {x},
        [](const Inputs& in) {
          const Tensor a = Tensor::empty({5, 11}, in[0].dtype(), in[0].device()),
                       b = Tensor::empty({5, 23}, in[0].dtype(), in[0].device());
          aclnn::SplitWithSize(stream_of(in),
                               operand(in[0]),
                               IntArray({11, 23}),
                               1,
                               OperandList({operand(a), operand(b)}));
          return Inputs{a, b};
        },
        [](const Refs& in) {
          RefTensor a({5, 11}), b({5, 23});
          for (int64_t i = 0; i < 170; ++i)
            (i % 34 < 11 ? a[i / 34 * 11 + i % 34] : b[i / 34 * 23 + i % 34 - 11]) = in[0][i];
          return Refs{a, b};
        },
        exact);
    const DType other = t == kF32 ? kBF16 : kF32;
    book.add(
        "aclnnCast",
        fmt::format("{} to {}", to_string(t), to_string(other)),
        {normal("x", kOdd, t)},
        [other](const Inputs& in) {
          const Tensor y = Tensor::empty(in[0].shape(), other, in[0].device());
          aclnn::Cast(stream_of(in), operand(in[0]), acl_type(other), operand(y));
          return Inputs{y};
        },
        [](const Refs& in) { return Refs{in[0]}; },
        t == kF32 ? elementwise_tolerance(kBF16, 0) : Tolerance(exact));
  }
  book.add(
      "aclnnInplaceCopy",
      "f32 to bf16",
      {normal("x", kOdd, kF32)},
      [](const Inputs& in) {
        const Tensor y = Tensor::empty(in[0].shape(), kBF16, in[0].device());
        aclnn::InplaceCopy(stream_of(in), operand(y), operand(in[0]));
        return Inputs{y};
      },
      [](const Refs& in) { return Refs{in[0]}; },
      elementwise_tolerance(kBF16, 0));
  book.add(
      "aclnnCast",
      "int32 to f32",
      {{.name = "x",
        .shape = {7, 20},
        .dtype = kI32,
        .fill = Fill::kIndex,
        .scale = 1000,
        .offset = -300}},
      [](const Inputs& in) {
        const Tensor y = Tensor::empty({7, 20}, kF32, in[0].device());
        aclnn::Cast(stream_of(in), operand(in[0]), acl::kFloat, operand(y));
        return Inputs{y};
      },
      [](const Refs& in) { return Refs{in[0]}; },
      exact);
  book.add(
      "aclnnArange",
      "f32",
      {normal("x", {1}, kF32)},
      [](const Inputs& in) {
        const Tensor y = Tensor::empty({37}, kF32, in[0].device());
        aclnn::Arange(stream_of(in), Scalar(3.0f), Scalar(40.0f), Scalar(1.0f), operand(y));
        return Inputs{y};
      },
      [](const Refs&) {
        RefTensor y({37});
        for (int64_t i = 0; i < 37; ++i) y[i] = static_cast<double>(3 + i);
        return Refs{y};
      },
      exact);
}

void add_norm(Book& book) {
  for (const DType t : {kF32, kBF16})
    for (const double spread : {1.0, 0.01}) {  // small rows: where epsilon matters
      book.add(
              "aclnnRmsNorm",
              name_of(t, {5, 67}) + (spread < 1 ? " small" : ""),
              {{.name = "x", .shape = {5, 67}, .dtype = t, .scale = spread, .rows = true},
               normal("gamma", {67}, t)},
              [](const Inputs& in) {
                const Tensor y = like(in[0]),
                             rstd = Tensor::empty({in[0].dim(0), 1}, kF32, in[0].device());
                aclnn::RmsNorm(
                    stream_of(in), operand(in[0]), operand(in[1]), 1e-4, operand(y), operand(rstd));
                return Inputs{y, rstd};
              },
              [](const Refs& in) {
                RefTensor y(in[0].shape), rstd({in[0].shape[0], 1});
                for (int64_t r = 0; r < in[0].shape[0]; ++r) {
                  double squares = 0;
                  for (int64_t i = 0; i < 67; ++i) squares += in[0][r * 67 + i] * in[0][r * 67 + i];
                  rstd[r] = 1 / std::sqrt(squares / 67 + 1e-4);
                  for (int64_t i = 0; i < 67; ++i)
                    y[r * 67 + i] = in[0][r * 67 + i] * rstd[r] * in[1][i];
                }
                return Refs{y, rstd};
              },
              [t](int output, const Refs&, const RefTensor& y) {
                // A chip may round the normalised row before it multiplies by gamma.
                const double relative = 60 * kU + (output == 0 ? 2 * unit_roundoff(t) : 0);
                std::vector<double> bound(y.values.size());
                for (size_t i = 0; i < bound.size(); ++i)
                  bound[i] = 1.001 * relative * std::abs(y.values[i]) + kLeastNormal;
                return bound;
              })
          .row_independent = true;
    }
}

}  // namespace

std::vector<OpSpec> library_specs() {
  Book book;
  add_copies(book);
  add_elementwise(book);
  add_choices(book);
  add_indexing(book);
  add_reductions(book);
  add_sorting(book);
  add_softmax(book);
  add_likelihoods(book);
  add_norm(book);
  add_products(book);
  return book.take();
}

}  // namespace ferry::ops::ascend
