#include "ops/reference_tape.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/math.h"

namespace ferry::ops {
namespace {

constexpr double kUnit = 0x1p-24;  // of float32, in which kernels compute

// Roundings of one operation, in units: kernels write a formula in ways of their own (a product
// with a reciprocal for a quotient, a square root and a division for both), and their exp and log
// are within 2 ulp.
constexpr double kArithmetic = 2, kQuotient = 3, kTranscendental = 6;

enum class Kind : uint8_t {
  kLeaf,
  kCopy,
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kExp,
  kLog,
  kSqrt,
  kDot
};

struct Span {  // of a dot: the nodes of its factors
  int32_t a, a_step, b, b_step, n;
};

struct Node {
  double value = 0, error = 0, variance = 0;
  double own = 0;          // of the variance: no other node's
  int32_t a = -1, b = -1;  // operands; of a dot: its place among the spans
  Kind kind = Kind::kLeaf;
  bool gradient_stored = false;
  bool constant = false;
};

struct Adjoint {
  double value = 0, error = 0, variance = 0, own = 0;
  double magnitude = 0;  // Σ |contribution|
  int64_t contributions = 0;
  bool of_products = false;  // some of them come from sums of products
};

double square(double x) { return x * x; }

/// Variance of a sum whose terms have this magnitude: independent terms of either sign need no more
/// than `magnitude`²; of one sign, their partial sums grow, and kernels add in 16 lanes or more.
double sum_variance(double magnitude, int64_t n) {
  return square(kUnit * magnitude) / 3 * (1 + static_cast<double>(n) / 64);
}

/// What tensor cores cut off a sum of products, as far as it is known while the products come: of
/// eight at a time each is cut by less than kUnit of the largest addend, what they are added to
/// among them, and the sum by 2 kUnit of itself. (Sixteen with one bit more are cut by no more.)
class Cuts {
 public:
  void add(double product) {
    sum_ += product;
    largest_ = std::max(largest_, std::abs(product));
    if (++count_ % kTogether == 0) close();
  }
  double all() {
    if (count_ % kTogether != 0) close();
    return cut_;
  }

 private:
  static constexpr int64_t kTogether = 8;
  void close() {
    cut_ += kUnit * (kTogether * largest_ + 2 * std::abs(sum_));
    largest_ = std::abs(sum_);
  }
  double sum_ = 0, largest_ = 0, cut_ = 0;
  int64_t count_ = 0;
};

/// The same where magnitudes alone are known.
double cuts_of(double magnitude, int64_t n) {
  return kUnit * magnitude * static_cast<double>(tensor_roundings(n));
}

}  // namespace

struct ReferenceTape::Impl {
  double stored_unit = 0;
  bool tensor_cores = false;
  std::vector<Node> nodes;
  std::vector<Span> spans;
  std::vector<Adjoint> adjoints;

  int32_t add(Node n) {
    check(nodes.size() < INT32_MAX, "reference tape: more numbers than it can name");
    nodes.push_back(n);
    return static_cast<int32_t>(nodes.size() - 1);
  }
  int32_t node_of(const Real& x) {
    return x.node >= 0 ? x.node : add({.value = x.value, .constant = true});
  }
  const Node& at(int32_t i) const { return nodes[static_cast<size_t>(i)]; }

  /// A node of one or two operands, from the derivatives.
  Real operation(
      Kind kind, double value, int32_t a, double d_a, int32_t b, double d_b, double units) {
    Node n{.value = value, .a = a, .b = b, .kind = kind};
    const Node& x = at(a);
    n.error = std::abs(d_a) * x.error;
    n.variance = square(d_a) * x.variance;
    if (b >= 0) {
      n.error += std::abs(d_b) * at(b).error;
      n.variance += square(d_b) * at(b).variance;
    }
    n.error += units * kUnit * std::abs(value) + kLeastNormal;
    const double rounding = square(units * kUnit * value) / 3;
    n.variance += rounding + square(kLeastNormal);
    const bool arithmetic =
        kind == Kind::kAdd || kind == Kind::kSubtract || kind == Kind::kMultiply;
    if (arithmetic && !x.constant && !at(b).constant) n.own = rounding;
    return {value, add(n)};
  }

  /// What one use of `to` gives it: a product with the derivative d, if d is not 1. `shared`: d is
  /// a constant or a reciprocal, whose rounding other elements may have too.
  void contribute(int32_t to,
                  const Adjoint& g,
                  double d,
                  double d_error = 0,
                  double d_variance = 0,
                  bool shared = false) {
    Adjoint& x = adjoints[static_cast<size_t>(to)];
    const double amount = g.value * d, rounding = kArithmetic * kUnit * amount;
    x.error +=
        std::abs(d) * g.error + std::abs(g.value) * d_error + std::abs(rounding) + kLeastNormal;
    x.variance += square(d) * g.variance + square(g.value) * d_variance + square(rounding) / 3;
    if (!shared) x.own += square(rounding) / 3;
    add_to(x, amount);
  }

  void multiply(int32_t to, const Adjoint& g, const Node& by) {
    contribute(to, g, by.value, by.error, by.variance, by.constant);
  }

  static void add_to(Adjoint& x, double amount) {
    x.value += amount;
    x.magnitude += std::abs(amount);
    ++x.contributions;
  }

  /// All contributions are there: what summing and storing them adds.
  void complete(Adjoint& g, bool stored) const {
    if (g.contributions > 1) {
      const bool cut = tensor_cores && g.of_products;
      const int64_t roundings = cut ? tensor_roundings(g.contributions) : g.contributions;
      g.error += static_cast<double>(roundings) * kUnit * g.magnitude;
      g.variance += sum_variance(g.magnitude, g.contributions);
      g.own += sum_variance(g.magnitude, g.contributions);
      if (cut)  // not its own: others lean as it does
        g.variance += square(cuts_of(g.magnitude, g.contributions)) / 3;
    }
    if (!stored) return;
    g.error += stored_unit * std::abs(g.value);
    g.variance += square(stored_unit * g.value) / 3;
  }

  void play(const Node& n, const Adjoint& g) {
    const auto from = [&](int32_t i) -> const Node& { return at(i); };
    switch (n.kind) {
      case Kind::kLeaf: return;
      case Kind::kCopy: contribute(n.a, g, 1); return;
      case Kind::kAdd:
        contribute(n.a, g, 1);
        contribute(n.b, g, 1);
        return;
      case Kind::kSubtract:
        contribute(n.a, g, 1);
        contribute(n.b, g, -1);
        return;
      case Kind::kMultiply:
        multiply(n.a, g, from(n.b));
        multiply(n.b, g, from(n.a));
        return;
      case Kind::kDivide: {
        const Node& b = from(n.b);
        const double inverse = 1 / b.value, to_b = -n.value * inverse;
        contribute(
            n.a, g, inverse, b.error * square(inverse), b.variance * square(square(inverse)), true);
        contribute(n.b,
                   g,
                   to_b,
                   std::abs(inverse) * n.error + std::abs(to_b * inverse) * b.error,
                   square(inverse) * n.variance + square(to_b * inverse) * b.variance,
                   true);
        return;
      }
      case Kind::kExp: contribute(n.a, g, n.value, n.error, n.variance); return;
      case Kind::kLog: {
        const Node& a = from(n.a);
        const double d = 1 / a.value;
        contribute(n.a, g, d, square(d) * a.error, square(square(d)) * a.variance, true);
        return;
      }
      case Kind::kSqrt: {
        const double d = 0.5 / n.value;
        contribute(n.a, g, d, d / n.value * n.error, square(d / n.value) * n.variance, true);
        return;
      }
      case Kind::kDot: {
        const Span s = spans[static_cast<size_t>(n.a)];
        for (int32_t i = 0; i < s.n; ++i) {
          const int32_t a = s.a + i * s.a_step, b = s.b + i * s.b_step;
          multiply(a, g, from(b));
          multiply(b, g, from(a));
          adjoints[static_cast<size_t>(a)].of_products = true;
          adjoints[static_cast<size_t>(b)].of_products = true;
        }
        return;
      }
    }
  }
};

namespace {
thread_local ReferenceTape* t_tape = nullptr;
}  // namespace

struct TapeAccess {
  static ReferenceTape::Impl& tape() {
    check(t_tape != nullptr, "reference tape: nothing records");
    return *t_tape->impl_;
  }
};

namespace {

Real binary(
    Kind kind, double value, const Real& a, double d_a, const Real& b, double d_b, double units) {
  if (a.node < 0 && b.node < 0) return value;
  ReferenceTape::Impl& tape = TapeAccess::tape();
  const int32_t left = tape.node_of(a), right = tape.node_of(b);
  return tape.operation(kind, value, left, d_a, right, d_b, units);
}

Real unary(Kind kind, double value, const Real& x, double d, double units) {
  if (x.node < 0) return value;
  return TapeAccess::tape().operation(kind, value, x.node, d, -1, 0, units);
}

}  // namespace

Real operator+(const Real& a, const Real& b) {
  if (a.node < 0 && a.value == 0) return b;  // a sum begins with no operation
  return binary(Kind::kAdd, a.value + b.value, a, 1, b, 1, kArithmetic);
}
Real operator-(const Real& a, const Real& b) {
  return binary(Kind::kSubtract, a.value - b.value, a, 1, b, -1, kArithmetic);
}
Real operator*(const Real& a, const Real& b) {
  return binary(Kind::kMultiply, a.value * b.value, a, b.value, b, a.value, kArithmetic);
}
Real operator/(const Real& a, const Real& b) {
  const double value = a.value / b.value;
  return binary(Kind::kDivide, value, a, 1 / b.value, b, -value / b.value, kQuotient);
}
Real exp(const Real& x) {
  const double value = math::exp(x.value);
  return unary(Kind::kExp, value, x, value, kTranscendental);
}
Real log(const Real& x) {
  const double value = math::log(x.value);
  // Near 1 the result is small and the error is not: it is the argument's.
  return uncertain(unary(Kind::kLog, value, x, 1 / x.value, kTranscendental), 2 * kUnit);
}
Real sqrt(const Real& x) {
  const double value = std::sqrt(x.value);
  return unary(Kind::kSqrt, value, x, 0.5 / value, kQuotient);
}

double sigmoid(double x) {
  return x < 0 ? math::exp(x) / (1 + math::exp(x)) : 1 / (1 + math::exp(-x));
}

Real sigmoid(const Real& x) {
  if (x.value >= 0) return Real(1) / (Real(1) + uncertain(exp(-x), 2 * kUnit));
  const Real e = exp(x);
  return e / (Real(1) + e);
}

RefTensor value_of(const RealTensor& x) {
  RefTensor out(x.shape);
  for (size_t i = 0; i < x.values.size(); ++i) out.values[i] = x.values[i].value;
  return out;
}

double dot(const double* a, int64_t a_step, const double* b, int64_t b_step, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i * a_step] * b[i * b_step];
  return sum;
}

Real dot(const Real* a, int64_t a_step, const Real* b, int64_t b_step, int64_t n) {
  if (n == 0) return 0.0;
  ReferenceTape::Impl& tape = TapeAccess::tape();
  const auto even = [n](const Real* x, int64_t step) {
    if (x[0].node < 0) return false;
    const int32_t apart = n > 1 ? x[step].node - x[0].node : 0;
    for (int64_t i = 1; i < n; ++i)
      if (x[i * step].node < 0 || x[i * step].node - x[(i - 1) * step].node != apart) return false;
    return true;
  };
  // A span names its factors by the first and the distance; what lies otherwise is copied together.
  if (!even(a, a_step) || !even(b, b_step)) {
    Real sum;
    for (int64_t i = 0; i < n; ++i) sum += a[i * a_step] * b[i * b_step];
    return sum;
  }
  const auto apart = [n](const Real* x, int64_t step) {
    return n > 1 ? x[step].node - x[0].node : 0;
  };
  const Span span{
      a[0].node, apart(a, a_step), b[0].node, apart(b, b_step), static_cast<int32_t>(n)};
  Node node{.a = static_cast<int32_t>(tape.spans.size()), .kind = Kind::kDot};
  double magnitude = 0;
  Cuts cuts;
  for (int32_t i = 0; i < span.n; ++i) {
    const Node &x = tape.at(span.a + i * span.a_step), &y = tape.at(span.b + i * span.b_step);
    node.value += x.value * y.value;
    magnitude += std::abs(x.value * y.value);
    cuts.add(x.value * y.value);
    node.error += std::abs(x.value) * y.error + std::abs(y.value) * x.error;
    node.variance += square(x.value) * y.variance + square(y.value) * x.variance;
  }
  const int64_t roundings = tape.tensor_cores ? std::max(n + 1, tensor_roundings(n)) : n + 1;
  node.error +=
      static_cast<double>(roundings) * kUnit * magnitude + static_cast<double>(n) * kLeastNormal;
  node.own = sum_variance(magnitude, n);
  node.variance += node.own + square(kLeastNormal);
  if (tape.tensor_cores)
    node.variance += square(cuts.all()) / 3;  // not its own: others lean as it does
  tape.spans.push_back(span);
  const double value = node.value;
  return {value, tape.add(node)};
}

Real copied(const Real& x) {
  if (x.node < 0) return x;
  ReferenceTape::Impl& tape = TapeAccess::tape();
  const Node& of = tape.at(x.node);
  return {x.value,
          tape.add({.value = of.value,
                    .error = of.error,
                    .variance = of.variance,
                    .a = x.node,
                    .kind = Kind::kCopy})};
}

Real stored(const Real& x) {
  if (x.node < 0) return x;
  ReferenceTape::Impl& tape = TapeAccess::tape();
  Node& n = tape.nodes[static_cast<size_t>(x.node)];
  n.error += tape.stored_unit * std::abs(n.value);
  n.variance += square(tape.stored_unit * n.value) / 3;
  return x;
}

Real gradient_stored(const Real& x) {
  if (x.node >= 0) TapeAccess::tape().nodes[static_cast<size_t>(x.node)].gradient_stored = true;
  return x;
}

Real uncertain(const Real& x, double error) {
  if (x.node < 0) return x;
  Node& n = TapeAccess::tape().nodes[static_cast<size_t>(x.node)];
  n.error += error;
  n.variance += square(error) / 3;
  return x;
}

ReferenceTape::ReferenceTape(double stored, bool tensor_cores) : impl_(std::make_unique<Impl>()) {
  check(t_tape == nullptr, "reference tape: another one records");
  impl_->stored_unit = stored;
  impl_->tensor_cores = tensor_cores;
  t_tape = this;
}
ReferenceTape::~ReferenceTape() { t_tape = nullptr; }

RealTensor ReferenceTape::leaves(const RefTensor& x) {
  RealTensor out(x.shape);
  for (size_t i = 0; i < x.values.size(); ++i)
    out.values[i] = {x.values[i], impl_->add({.value = x.values[i]})};
  return out;
}

Judged ReferenceTape::judged(const RealTensor& x) const {
  Judged out{value_of(x), RefTensor(x.shape), RefTensor(x.shape), RefTensor(x.shape)};
  for (size_t i = 0; i < x.values.size(); ++i) {
    if (x.values[i].node < 0) continue;
    const Node& n = impl_->at(x.values[i].node);
    out.bound.values[i] = n.error;
    out.variance.values[i] = n.variance;
    out.own.values[i] = n.own;
  }
  return out;
}

void ReferenceTape::backward(const std::vector<RealTensor>& outputs,
                             const std::vector<RefTensor>& cotangents) {
  check(impl_->adjoints.empty(), "reference tape: played twice");
  impl_->adjoints.resize(impl_->nodes.size());
  for (size_t o = 0; o < cotangents.size(); ++o)
    for (size_t i = 0; i < cotangents[o].values.size(); ++i) {
      const int32_t node = outputs[o].values[i].node;
      if (node < 0) continue;
      Impl::add_to(impl_->adjoints[static_cast<size_t>(node)], cotangents[o].values[i]);
    }
  for (size_t i = impl_->nodes.size(); i-- > 0;) {
    Adjoint& g = impl_->adjoints[i];
    if (g.value == 0 && g.error == 0 && g.magnitude == 0) continue;
    impl_->complete(g, impl_->nodes[i].gradient_stored);
    const Adjoint whole = g;
    impl_->play(impl_->nodes[i], whole);
  }
}

Judged ReferenceTape::gradient(const RealTensor& leaves) const {
  Judged out{RefTensor(leaves.shape),
             RefTensor(leaves.shape),
             RefTensor(leaves.shape),
             RefTensor(leaves.shape)};
  for (size_t i = 0; i < leaves.values.size(); ++i) {
    const Adjoint& g = impl_->adjoints[static_cast<size_t>(leaves.values[i].node)];
    out.value.values[i] = g.value;
    out.bound.values[i] = g.error;
    out.variance.values[i] = g.variance;
    out.own.values[i] = g.own;
  }
  return out;
}

}  // namespace ferry::ops
