// Ops of libopapi.so through their C interface, each against a naive formula in double that is
// written here; and each planted defect of an op must move what its formula judges.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <sstream>

#include "nnopbase/numbers.h"
#include "tests/acl_calls.h"

extern "C" {
aclIntArray* aclCreateIntArray(const int64_t*, uint64_t);
int aclDestroyIntArray(const aclIntArray*);
}

// Both phases of an op, by its arguments' types.
#define OP(name, ...)                                                                    \
  extern "C" int aclnn##name##GetWorkspaceSize(__VA_ARGS__, uint64_t*, aclOpExecutor**); \
  extern "C" int aclnn##name(void*, uint64_t, aclOpExecutor*, void*);
#define RUN(name, ...) run(aclnn##name##GetWorkspaceSize, aclnn##name, __VA_ARGS__)

using T = const aclTensor*;
using TL = const aclTensorList*;
using S = const aclScalar*;
using IA = const aclIntArray*;
using i8 = int8_t;
using i64 = int64_t;

OP(Mm, T, T, T, i8)
OP(Matmul, T, T, T, i8)
OP(BatchMatMul, T, T, T, i8)
OP(Cast, T, aclDataType, T)
OP(Add, T, T, S, T)
OP(InplaceAdd, T, T, S)
OP(Mul, T, T, T)
OP(Exp, T, T)
OP(SWhere, T, T, T, T)
OP(Muls, T, S, T)
OP(InplaceMul, T, T)
OP(Sqrt, T, T)
OP(GtScalar, T, S, T)
OP(Triu, T, i64, T)
OP(Sort, T, bool, i64, bool, T, T)
OP(InplaceCopy, T, T)
OP(Permute, T, IA, T)
OP(Cat, TL, i64, T)
OP(Slice, T, i64, i64, i64, i64, T)
OP(Repeat, T, IA, T)
OP(RmsNorm, T, T, double, T, T)
OP(RmsNormGrad, T, T, T, T, T, T)
OP(SwiGlu, T, i64, T)
OP(SwiGluGrad, T, T, i64, T)
OP(RotaryPositionEmbedding, T, T, T, i64, T)
OP(RotaryPositionEmbeddingGrad, T, T, T, T, i64, T, T, T)
OP(Embedding, T, T, T)
OP(EmbeddingDenseBackward, T, T, uint64_t, uint64_t, bool, T)
OP(IndexSelect, T, i64, T, T)
OP(Gather, T, i64, T, T)
OP(IndexAdd, T, i64, T, T, S, T)
OP(InplaceIndexCopy, T, i64, T, T)
OP(ReduceSum, T, IA, bool, aclDataType, T)
OP(ArgMax, T, i64, bool, T)
OP(Cumsum, T, i64, aclDataType, T)
OP(LinalgVectorNorm, T, S, IA, bool, aclDataType, T)
OP(Topk, T, i64, i64, bool, bool, T, T)
OP(Argsort, T, i64, bool, T)
OP(Softmax, T, i64, T)
OP(SoftmaxBackward, T, T, i64, T)
OP(LogSoftmax, T, i64, T)
OP(LogSoftmaxBackward, T, T, i64, T)
OP(NLLLoss, T, T, T, i64, i64, T, T)
OP(NLLLossBackward, T, T, T, T, i64, i64, T, T)
OP(ApplyAdamWV2, T, T, T, T, T, T, float, float, float, float, float, bool, bool)
OP(GroupedMatmulV5,
   TL,
   TL,
   TL,
   TL,
   TL,
   TL,
   TL,
   TL,
   T,
   TL,
   TL,
   TL,
   i64,
   i64,
   i64,
   i64,
   IA,
   TL,
   TL,
   TL)
OP(MoeGatingTopK, T, T, i64, i64, i64, i64, i64, i64, bool, double, double, T, T, T)
OP(MoeInitRoutingV2, T, T, i64, i64, i64, i64, i64, bool, T, T, T, T)
OP(MoeInitRoutingV2Grad, T, T, i64, i64, i64, T)
OP(MoeFinalizeRoutingV2, T, T, T, T, T, T, T, i64, T)
OP(MoeFinalizeRoutingV2Grad, T, T, T, T, T, T, i64, i64, i64, i64, T, T)
OP(MoeTokenPermute, T, T, i64, bool, T, T)
OP(MoeTokenPermuteGrad, T, T, i64, bool, T)
OP(MoeTokenUnpermute, T, T, T, bool, IA, T)
OP(MoeTokenUnpermuteGrad, T, T, T, T, bool, IA, T, T)
OP(FlashAttentionScore,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   IA,
   double,
   double,
   i64,
   i64,
   i64,
   const char*,
   i64,
   i64,
   T,
   T,
   T,
   T)
OP(FlashAttentionScoreGrad,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   IA,
   double,
   double,
   i64,
   i64,
   i64,
   const char*,
   i64,
   i64,
   T,
   T,
   T,
   T)
OP(FlashAttentionVarLenScore,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   IA,
   IA,
   IA,
   double,
   double,
   i64,
   i64,
   i64,
   const char*,
   i64,
   i64,
   T,
   T,
   T,
   T)
OP(FlashAttentionUnpaddingScoreGrad,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   IA,
   IA,
   IA,
   double,
   double,
   i64,
   i64,
   i64,
   const char*,
   i64,
   i64,
   T,
   T,
   T,
   T)
OP(FusedInferAttentionScoreV2,
   T,
   TL,
   TL,
   T,
   T,
   IA,
   IA,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   IA,
   i64,
   double,
   i64,
   i64,
   const char*,
   i64,
   i64,
   i64,
   i64,
   i64,
   bool,
   i64,
   i64,
   T,
   T)
OP(FusedInferAttentionScoreV3,
   T,
   TL,
   TL,
   T,
   T,
   IA,
   IA,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   T,
   IA,
   T,
   T,
   T,
   i64,
   double,
   i64,
   i64,
   const char*,
   i64,
   i64,
   i64,
   i64,
   i64,
   bool,
   i64,
   i64,
   T,
   T)

namespace ascend_sim_test {
namespace {

using namespace ascend_sim;

using Values = std::vector<double>;
using Shape = std::vector<int64_t>;

constexpr aclDataType kF32 = ACL_FLOAT, kBf16 = ACL_BF16, kI32 = ACL_INT32, kI64 = ACL_INT64;

int64_t product(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

size_t bytes_of(aclDataType type) {
  if (type == ACL_BF16 || type == ACL_FLOAT16) return 2;
  if (type == ACL_BOOL || type == ACL_UINT8) return 1;
  return type == ACL_INT64 ? 8 : 4;
}

/// The same n numbers in [-1, 1) for the same seed.
Values numbers(int64_t n, uint32_t seed) {
  Values out;
  uint32_t state = seed * 2654435761u + 12345u;
  for (int64_t i = 0; i < n; ++i) {
    state = state * 1664525u + 1013904223u;
    out.push_back(static_cast<double>(state >> 8) / (1 << 23) - 1);
  }
  return out;
}

/// A tensor in device memory; uninitialised (NaN) without values.
class Device {
 public:
  Device(Shape shape, aclDataType type) : shape_(std::move(shape)), type_(type) {
    bytes_ = static_cast<size_t>(product(shape_)) * bytes_of(type);
    data_ = device_memory(std::max<size_t>(bytes_, 1));
    handle_ = make(shape_, nullptr);
  }
  Device(Shape shape, aclDataType type, const Values& values) : Device(std::move(shape), type) {
    std::vector<unsigned char> raw(bytes_);
    for (size_t i = 0; i < values.size(); ++i) put(raw.data(), i, values[i]);
    aclrtMemcpy(data_, bytes_, raw.data(), bytes_, kToDevice);
  }
  Device(Device&& other) noexcept { *this = std::move(other); }
  Device& operator=(Device&& other) noexcept {
    std::swap(shape_, other.shape_);
    std::swap(type_, other.type_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    std::swap(handle_, other.handle_);
    std::swap(views_, other.views_);
    return *this;
  }
  ~Device() {
    for (T v : views_) aclDestroyTensor(v);
    if (handle_) aclDestroyTensor(handle_);
    if (data_) aclrtFree(data_);
  }

  operator T() const { return handle_; }
  /// The last two dimensions exchanged, as a view.
  T transposed() {
    Shape shape = shape_, strides(shape_.size(), 1);
    for (size_t i = shape.size() - 1; i-- > 0;) strides[i] = strides[i + 1] * shape[i + 1];
    std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
    std::swap(strides[shape.size() - 1], strides[shape.size() - 2]);
    views_.push_back(make(shape, strides.data()));
    return views_.back();
  }
  /// A handle of its own, for lists (which destroy what they hold).
  T given() const { return make(shape_, nullptr); }
  T given_transposed() {
    T t = transposed();
    views_.pop_back();
    return t;
  }

  Values values() const {
    std::vector<unsigned char> raw(bytes_);
    EXPECT_EQ(aclrtMemcpy(raw.data(), bytes_, data_, bytes_, kToHost), 0);
    Values out(static_cast<size_t>(product(shape_)));
    for (size_t i = 0; i < out.size(); ++i) out[i] = get(raw.data(), i);
    return out;
  }

 private:
  T make(const Shape& shape, const int64_t* strides) const {
    const int64_t storage = product(shape);
    return aclCreateTensor(
        shape.data(), shape.size(), type_, strides, 0, ACL_FORMAT_ND, &storage, 1, data_);
  }
  void put(unsigned char* raw, size_t i, double value) const {
    const auto as = [&](auto e) { std::memcpy(raw + i * sizeof(e), &e, sizeof(e)); };
    const auto f = static_cast<float>(value);
    if (type_ == ACL_FLOAT) return as(f);
    if (type_ == ACL_BF16) return as(encode_bf16(f, false).bits);
    if (type_ == ACL_FLOAT16) return as(encode_half(f, false).bits);
    if (type_ == ACL_INT32) return as(static_cast<int32_t>(value));
    if (type_ == ACL_INT64) return as(static_cast<int64_t>(value));
    as(static_cast<uint8_t>(value));
  }
  double get(const unsigned char* raw, size_t i) const {
    const auto as = [&](auto e) {
      std::memcpy(&e, raw + i * sizeof(e), sizeof(e));
      return e;
    };
    if (type_ == ACL_FLOAT) return as(float{});
    if (type_ == ACL_BF16) return decode(as(Bf16{}));
    if (type_ == ACL_FLOAT16) return decode(as(Half{}));
    if (type_ == ACL_INT32) return as(int32_t{});
    if (type_ == ACL_INT64) return static_cast<double>(as(int64_t{}));
    return as(uint8_t{});
  }

  Shape shape_;
  aclDataType type_ = ACL_FLOAT;
  size_t bytes_ = 0;
  void* data_ = nullptr;
  T handle_ = nullptr;
  std::vector<T> views_;
};

Device random(Shape shape, uint32_t seed, aclDataType type = kF32) {
  const int64_t n = product(shape);
  return Device(std::move(shape), type, numbers(n, seed));
}

struct List {
  explicit List(std::vector<T> tensors)
      : list(aclCreateTensorList(tensors.data(), tensors.size())) {}
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() { aclDestroyTensorList(list); }
  operator TL() const { return list; }
  aclTensorList* list;
};

struct Ints {
  Ints(std::initializer_list<int64_t> v) : array(aclCreateIntArray(v.begin(), v.size())) {}
  Ints(const Ints&) = delete;
  Ints& operator=(const Ints&) = delete;
  ~Ints() { aclDestroyIntArray(array); }
  operator IA() const { return array; }
  aclIntArray* array;
};

struct Scalar {
  explicit Scalar(float v) : value(v), scalar(aclCreateScalar(&value, ACL_FLOAT)) {}
  Scalar(const Scalar&) = delete;
  Scalar& operator=(const Scalar&) = delete;
  ~Scalar() { aclDestroyScalar(scalar); }
  operator S() const { return scalar; }
  float value;
  aclScalar* scalar;
};

/// Both phases and the end of the work; the first answer that is not 0.
template <class... P, class... A>
int run(int (*first)(P...),
        int (*second)(void*, uint64_t, aclOpExecutor*, void*),
        A&&... arguments) {
  uint64_t size = 0;
  aclOpExecutor* executor = nullptr;
  int answer = first(std::forward<A>(arguments)..., &size, &executor);
  if (answer != 0) return answer;
  void* workspace = size > 0 ? device_memory(size) : nullptr;
  void* stream = make_stream();
  answer = second(workspace, size, executor, stream);
  const int end = aclrtSynchronizeStream(stream);
  aclrtDestroyStream(stream);
  if (workspace) aclrtFree(workspace);
  return answer != 0 ? answer : end;
}

constexpr T kNone = nullptr;
constexpr TL kNoList = nullptr;
constexpr IA kNoInts = nullptr;

double silu(double x) { return x / (1 + std::exp(-x)); }

/// Naive attention of one head in double, with its gradients: row i of q sees keys
/// [first(i), last(i)).
struct NaiveAttention {
  Values y, maximum, sum, dq, dk, dv;
};

NaiveAttention naive_attention(
    const Values& q,
    const Values& k,
    const Values& v,
    const Values& dy,
    int64_t d,
    int64_t dv_size,
    double scale,
    const std::function<int64_t(int64_t)>& last,
    const std::function<int64_t(int64_t)>& first = [](int64_t) { return int64_t{0}; }) {
  const auto rows = static_cast<int64_t>(q.size()) / d, keys = static_cast<int64_t>(k.size()) / d;
  NaiveAttention out;
  out.y.assign(static_cast<size_t>(rows * dv_size), 0);
  out.dq.assign(q.size(), 0);
  out.dk.assign(k.size(), 0);
  out.dv.assign(static_cast<size_t>(keys * dv_size), 0);
  for (int64_t i = 0; i < rows; ++i) {
    Values p(static_cast<size_t>(last(i)), 0);
    double m = -1e300, total = 0;
    for (int64_t j = first(i); j < last(i); ++j) {
      double s = 0;
      for (int64_t c = 0; c < d; ++c)
        s += q[static_cast<size_t>(i * d + c)] * k[static_cast<size_t>(j * d + c)];
      p[static_cast<size_t>(j)] = s * scale;
      m = std::max(m, s * scale);
    }
    for (int64_t j = first(i); j < last(i); ++j) {
      double& x = p[static_cast<size_t>(j)];
      total += x = std::exp(x - m);
    }
    out.maximum.push_back(m);
    out.sum.push_back(total);
    for (int64_t j = first(i); j < last(i); ++j)
      for (int64_t c = 0; c < dv_size; ++c)
        out.y[static_cast<size_t>(i * dv_size + c)] +=
            p[static_cast<size_t>(j)] / total * v[static_cast<size_t>(j * dv_size + c)];
    if (dy.empty()) continue;
    double mean = 0;
    for (int64_t c = 0; c < dv_size; ++c)
      mean +=
          dy[static_cast<size_t>(i * dv_size + c)] * out.y[static_cast<size_t>(i * dv_size + c)];
    for (int64_t j = first(i); j < last(i); ++j) {
      const double share = p[static_cast<size_t>(j)] / total;
      double dp = 0;
      for (int64_t c = 0; c < dv_size; ++c) {
        dp += dy[static_cast<size_t>(i * dv_size + c)] * v[static_cast<size_t>(j * dv_size + c)];
        out.dv[static_cast<size_t>(j * dv_size + c)] +=
            share * dy[static_cast<size_t>(i * dv_size + c)];
      }
      const double ds = share * (dp - mean) * scale;
      for (int64_t c = 0; c < d; ++c) {
        out.dq[static_cast<size_t>(i * d + c)] += ds * k[static_cast<size_t>(j * d + c)];
        out.dk[static_cast<size_t>(j * d + c)] += ds * q[static_cast<size_t>(i * d + c)];
      }
    }
  }
  return out;
}

/// What an op gave and what its formula says.
struct Outcome {
  int answer = 0;
  Values got, expected;

  void add(const Values& g, const Values& e) {
    got.insert(got.end(), g.begin(), g.end());
    expected.insert(expected.end(), e.begin(), e.end());
  }
};

struct Scenario {
  const char* op;
  double tolerance;
  std::function<Outcome()> run;
};

Values naive_product(const Values& a, const Values& b, int64_t m, int64_t n, int64_t k) {
  Values c(static_cast<size_t>(m * n), 0);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t x = 0; x < k; ++x)
        c[static_cast<size_t>(i * n + j)] +=
            a[static_cast<size_t>(i * k + x)] * b[static_cast<size_t>(x * n + j)];
  return c;
}

Values transposed_values(const Values& v, int64_t rows, int64_t columns) {
  Values out(v.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      out[static_cast<size_t>(c * rows + r)] = v[static_cast<size_t>(r * columns + c)];
  return out;
}

Values causal_mask() {
  Values m(2048 * 2048, 0);
  for (size_t r = 0; r < 2048; ++r)
    for (size_t c = r + 1; c < 2048; ++c) m[r * 2048 + c] = 1;
  return m;
}

// --- the scenarios
// --------------------------------------------------------------------------------

Outcome mm(aclDataType type, int64_t m, int64_t n, int64_t k, bool turn) {
  Device a = random({m, k}, 1, type), b = random(turn ? Shape{n, k} : Shape{k, n}, 2, type),
         c({m, n}, type);
  Outcome o{RUN(Mm, a, turn ? b.transposed() : T(b), c, i8{0}), {}, {}};
  const Values vb = turn ? transposed_values(b.values(), n, k) : b.values();
  o.add(c.values(), naive_product(a.values(), vb, m, n, k));
  return o;
}

Outcome batch_matmul() {
  Device a = random({3, 5, 40}, 1), b = random({3, 40, 7}, 2), c({3, 5, 7}, kF32);
  Outcome o{RUN(BatchMatMul, a, b, c, i8{0}), {}, {}};
  const Values va = a.values(), vb = b.values();
  Values expected;
  for (int64_t i = 0; i < 3; ++i) {
    const Values one = naive_product(Values(va.begin() + i * 200, va.begin() + (i + 1) * 200),
                                     Values(vb.begin() + i * 280, vb.begin() + (i + 1) * 280),
                                     5,
                                     7,
                                     40);
    expected.insert(expected.end(), one.begin(), one.end());
  }
  o.add(c.values(), expected);
  return o;
}

Outcome matmul() {
  Device a = random({2, 1, 3, 18}, 1), b = random({4, 18, 5}, 2), c({2, 4, 3, 5}, kF32);
  Outcome o{RUN(Matmul, a, b, c, i8{0}), {}, {}};
  const Values va = a.values(), vb = b.values();
  Values expected;
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 4; ++j) {
      const Values one = naive_product(Values(va.begin() + i * 54, va.begin() + (i + 1) * 54),
                                       Values(vb.begin() + j * 90, vb.begin() + (j + 1) * 90),
                                       3,
                                       5,
                                       18);
      expected.insert(expected.end(), one.begin(), one.end());
    }
  o.add(c.values(), expected);
  return o;
}

Outcome cast() {
  Device x = random({5, 77}, 3), y({5, 77}, kBf16);
  Outcome o{RUN(Cast, x, kBf16, y), {}, {}};
  Values expected = x.values();
  for (double& v : expected) {  // to 8 significant bits, ties cannot occur here
    int exponent = 0;
    const double fraction = std::frexp(v, &exponent);
    v = std::ldexp(std::nearbyint(fraction * 256), exponent - 8);
  }
  o.add(y.values(), expected);
  return o;
}

Outcome add() {
  Device a = random({3, 7}, 4), b = random({7}, 5), y({3, 7}, kF32);
  const Scalar two(2);
  Outcome o{RUN(Add, a, b, two, y), {}, {}};
  Values expected = a.values();
  const Values vb = b.values();
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += 2 * vb[i % 7];
  o.add(y.values(), expected);
  return o;
}

Outcome inplace_add() {
  Device a = random({4, 5}, 4), b = random({4, 5}, 5, kBf16);
  const Scalar half(0.5f);
  Values expected = a.values();
  Outcome o{RUN(InplaceAdd, a, b, half), {}, {}};
  const Values vb = b.values();
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += 0.5 * vb[i];
  o.add(a.values(), expected);
  return o;
}

Outcome mul() {
  Device a = random({4, 6}, 4), b = random({4, 1}, 5), y({4, 6}, kF32);
  Outcome o{RUN(Mul, a, b, y), {}, {}};
  Values expected = a.values();
  const Values vb = b.values();
  for (size_t i = 0; i < expected.size(); ++i) expected[i] *= vb[i / 6];
  o.add(y.values(), expected);
  return o;
}

Outcome exponential() {
  Device x({4}, kF32, {-3, 0.5, 7, 13}), y({4}, kF32);
  Outcome o{RUN(Exp, x, y), {}, {}};
  o.add(y.values(), {std::exp(-3.0), std::exp(0.5), std::exp(7.0), std::exp(13.0)});
  return o;
}

Outcome where() {
  Device c({2, 3}, ACL_BOOL, {1, 0, 1, 0, 0, 1}), a = random({2, 3}, 1), b = random({3}, 2),
                                                  y({2, 3}, kF32);
  Outcome o{RUN(SWhere, c, a, b, y), {}, {}};
  const Values va = a.values(), vb = b.values();
  o.add(y.values(), {va[0], vb[1], va[2], vb[0], vb[1], va[5]});
  return o;
}

Outcome muls() {
  Device x = random({3, 5}, 4), b = random({3, 1}, 5), y({3, 5}, kF32);
  const Scalar factor(0.3337f);
  Outcome o{RUN(Muls, x, factor, y), {}, {}};
  if (o.answer == 0) o.answer = RUN(InplaceMul, y, b);
  Values expected = x.values();
  const Values vb = b.values();
  for (size_t i = 0; i < expected.size(); ++i) expected[i] *= double{0.3337f} * vb[i / 5];
  o.add(y.values(), expected);
  return o;
}

Outcome square_root() {
  Device x({3}, kF32, {2, 0.01, 1234}), y({3}, kF32);
  Outcome o{RUN(Sqrt, x, y), {}, {}};
  o.add(y.values(), {std::sqrt(2), std::sqrt(double{0.01f}), std::sqrt(1234)});
  return o;
}

Outcome greater() {
  Device x({4}, kI64, {-1, 3, 4, 9}), y({4}, ACL_BOOL);
  const Scalar three(3);
  Outcome o{RUN(GtScalar, x, three, y), {}, {}};
  o.add(y.values(), {0, 0, 1, 1});
  return o;
}

Outcome triangle() {
  Device x({3, 4}, ACL_BOOL, Values(12, 1)), y({3, 4}, ACL_BOOL);
  Outcome o{RUN(Triu, x, i64{1}, y), {}, {}};
  o.add(y.values(), {0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1});
  return o;
}

Outcome sort() {
  Device x({5}, kF32, {3, 1, 3, 0, 1}), v({5}, kF32), at({5}, kI64);
  Outcome o{RUN(Sort, x, true, i64{0}, true, v, at), {}, {}};
  o.add(v.values(), {3, 3, 1, 1, 0});
  o.add(at.values(), {0, 2, 1, 4, 3});
  return o;
}

Outcome inplace_copy() {
  Device from = random({3, 5}, 6, kBf16), to({5, 3}, kF32);
  Outcome o{RUN(InplaceCopy, to, from.transposed()), {}, {}};
  o.add(to.values(), transposed_values(from.values(), 3, 5));
  return o;
}

Outcome permute() {
  Device x = random({2, 3, 4}, 7), y({4, 2, 3}, kF32);
  const Ints order{2, 0, 1};
  Outcome o{RUN(Permute, x, order, y), {}, {}};
  o.add(y.values(), transposed_values(x.values(), 6, 4));
  return o;
}

Outcome cat() {
  Device a = random({2, 3}, 1), b = random({2, 2}, 2), y({2, 5}, kF32);
  const List both({a.given(), b.given()});
  Outcome o{RUN(Cat, both, i64{1}, y), {}, {}};
  const Values va = a.values(), vb = b.values();
  o.add(y.values(), {va[0], va[1], va[2], vb[0], vb[1], va[3], va[4], va[5], vb[2], vb[3]});
  return o;
}

Outcome slice_and_repeat() {
  Device x = random({3, 6}, 1), y({3, 2}, kF32), z({6, 4}, kF32);
  const Ints times{2, 2};
  Outcome o{RUN(Slice, x, i64{1}, i64{1}, i64{-1}, i64{2}, y), {}, {}};
  if (o.answer == 0) o.answer = RUN(Repeat, y, times, z);
  const Values v = x.values();
  Values part, twice;
  for (size_t r = 0; r < 3; ++r) part.insert(part.end(), {v[r * 6 + 1], v[r * 6 + 3]});
  for (size_t r = 0; r < 6; ++r)
    for (size_t c = 0; c < 4; ++c) twice.push_back(part[(r % 3) * 2 + c % 2]);
  o.add(y.values(), part);
  o.add(z.values(), twice);
  return o;
}

Outcome rms_norm() {
  const int64_t rows = 5, n = 36;
  Values small = numbers(rows * n, 1);
  for (double& v : small) v *= 0.01;  // where epsilon counts
  Device x({rows, n}, kF32, small), g = random({n}, 2), y({rows, n}, kF32), r({rows, 1}, kF32);
  Outcome o{RUN(RmsNorm, x, g, 1e-5, y, r), {}, {}};
  const Values vx = x.values(), vg = g.values();
  Values expected(vx.size()), inverse;
  for (size_t i = 0; i < 5; ++i) {
    double square = 0;
    for (size_t j = 0; j < 36; ++j) square += vx[i * 36 + j] * vx[i * 36 + j];
    inverse.push_back(1 / std::sqrt(square / 36 + 1e-5));
    for (size_t j = 0; j < 36; ++j) expected[i * 36 + j] = vx[i * 36 + j] * inverse[i] * vg[j];
  }
  o.add(y.values(), expected);
  o.add(r.values(), inverse);
  return o;
}

Outcome rms_norm_grad() {
  const size_t rows = 7, n = 19;
  Device dy = random({7, 19}, 1), x = random({7, 19}, 2), g = random({19}, 3), dx({7, 19}, kF32),
         dg({19}, kF32);
  const Values vd = dy.values(), vx = x.values(), vg = g.values();
  Values inverse, want_dx(vx.size()), want_dg(n, 0);
  for (size_t i = 0; i < rows; ++i) {
    double square = 0, mean = 0;
    for (size_t j = 0; j < n; ++j) square += vx[i * n + j] * vx[i * n + j];
    const double r = static_cast<float>(1 / std::sqrt(square / static_cast<double>(n) + 1e-6));
    inverse.push_back(r);
    for (size_t j = 0; j < n; ++j) {
      mean += vd[i * n + j] * vg[j] * vx[i * n + j] * r / static_cast<double>(n);
      want_dg[j] += vd[i * n + j] * vx[i * n + j] * r;
    }
    for (size_t j = 0; j < n; ++j)
      want_dx[i * n + j] = (vd[i * n + j] * vg[j] - vx[i * n + j] * r * mean) * r;
  }
  Device r({7, 1}, kF32, inverse);
  Outcome o{RUN(RmsNormGrad, dy, x, r, g, dx, dg), {}, {}};
  o.add(dx.values(), want_dx);
  o.add(dg.values(), want_dg);
  return o;
}

Outcome swiglu() {
  Device x = random({3, 10}, 1), y({3, 5}, kF32);
  Outcome o{RUN(SwiGlu, x, i64{-1}, y), {}, {}};
  const Values v = x.values();
  Values expected;
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 5; ++c) expected.push_back(silu(v[r * 10 + c]) * v[r * 10 + 5 + c]);
  o.add(y.values(), expected);
  return o;
}

Outcome swiglu_grad() {
  Device g = random({3, 5}, 2), x = random({3, 10}, 1), dx({3, 10}, kF32);
  Outcome o{RUN(SwiGluGrad, g, x, i64{-1}, dx), {}, {}};
  const Values v = x.values(), vg = g.values();
  Values expected(30);
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 5; ++c) {
      const double a = v[r * 10 + c], b = v[r * 10 + 5 + c], s = 1 / (1 + std::exp(-a));
      expected[r * 10 + c] = vg[r * 5 + c] * b * (s + a * s * (1 - s));
      expected[r * 10 + 5 + c] = vg[r * 5 + c] * a * s;
    }
  o.add(dx.values(), expected);
  return o;
}

/// x [T, N, D], angles by token; forward and backward.
Outcome rope(i64 mode, bool backward) {
  const size_t tokens = 4, heads = 3, d = 8;
  Values c, s;
  for (size_t t = 0; t < tokens; ++t)
    for (size_t i = 0; i < d; ++i) {
      const size_t pair = mode == 1 ? i / 2 : i % (d / 2);
      const double angle = static_cast<double>(t) * std::pow(10.0, -static_cast<double>(pair));
      c.push_back(std::cos(angle));
      s.push_back(std::sin(angle));
    }
  Device x = random({4, 3, 8}, 1), cosine({4, 1, 8}, kF32, c), sine({4, 1, 8}, kF32, s),
         y({4, 3, 8}, kF32);
  Outcome o;
  o.answer = backward
                 ? RUN(RotaryPositionEmbeddingGrad, x, cosine, sine, kNone, mode, y, kNone, kNone)
                 : RUN(RotaryPositionEmbedding, x, cosine, sine, mode, y);
  const Values v = x.values();
  Values expected(v.size());
  for (size_t t = 0; t < tokens; ++t)
    for (size_t h = 0; h < heads; ++h)
      for (size_t p = 0; p < d / 2; ++p) {
        const size_t row = (t * heads + h) * d;
        const size_t a = row + (mode == 1 ? 2 * p : p),
                     b = row + (mode == 1 ? 2 * p + 1 : p + d / 2);
        const double angle = static_cast<double>(t) * std::pow(10.0, -static_cast<double>(p));
        const double cs = std::cos(angle), sn = std::sin(angle) * (backward ? -1 : 1);
        expected[a] = v[a] * cs - v[b] * sn;
        expected[b] = v[b] * cs + v[a] * sn;
      }
  o.add(y.values(), expected);
  return o;
}

Outcome embedding() {
  Device w = random({19, 3}, 1), ids({2, 3}, kI64, {0, 18, 17, 5, 16, 7}), y({2, 3, 3}, kF32);
  Outcome o{RUN(Embedding, w, ids, y), {}, {}};
  const Values v = w.values();
  Values expected;
  for (size_t id : {0, 18, 17, 5, 16, 7})
    for (size_t c = 0; c < 3; ++c) expected.push_back(v[id * 3 + c]);
  o.add(y.values(), expected);
  return o;
}

Outcome embedding_grad() {
  const std::vector<size_t> of = {1, 3, 1, 0, 1};
  Device g = random({5, 4}, 1), ids({5}, kI32, {1, 3, 1, 0, 1}), y({6, 4}, kF32);
  Outcome o{RUN(EmbeddingDenseBackward, g, ids, uint64_t{6}, ~uint64_t{0}, false, y), {}, {}};
  const Values v = g.values();
  Values expected(24, 0);
  for (size_t t = 0; t < of.size(); ++t)
    for (size_t c = 0; c < 4; ++c) expected[of[t] * 4 + c] += v[t * 4 + c];
  o.add(y.values(), expected);
  return o;
}

Outcome index_ops(const std::string& op) {
  const std::vector<size_t> of = {3, 0, 3};
  Device x = random({4, 2}, 1), index({3}, kI64, {3, 0, 3}), source = random({3, 2}, 2);
  const Values vx = x.values(), vs = source.values();
  Outcome o;
  Values expected = vx;
  if (op == "IndexSelect") {
    Device y({3, 2}, kF32);
    o.answer = RUN(IndexSelect, x, i64{0}, index, y);
    o.add(y.values(), {vx[6], vx[7], vx[0], vx[1], vx[6], vx[7]});
  } else if (op == "Gather") {
    Device picks({2, 2}, kI64, {1, 3, 2, 0}), y({2, 2}, kF32);
    o.answer = RUN(Gather, x, i64{0}, picks, y);
    o.add(y.values(), {vx[2], vx[7], vx[4], vx[1]});
  } else if (op == "IndexAdd") {
    Device y({4, 2}, kF32);
    const Scalar two(2);
    o.answer = RUN(IndexAdd, x, i64{0}, index, source, two, y);
    for (size_t i = 0; i < 3; ++i)
      for (size_t c = 0; c < 2; ++c) expected[of[i] * 2 + c] += 2 * vs[i * 2 + c];
    o.add(y.values(), expected);
  } else {
    Device places({3}, kI64, {2, 0, 1});
    o.answer = RUN(InplaceIndexCopy, x, i64{0}, places, source);
    for (size_t c = 0; c < 2; ++c) {
      expected[4 + c] = vs[c];
      expected[c] = vs[2 + c];
      expected[2 + c] = vs[4 + c];
    }
    o.add(x.values(), expected);
  }
  return o;
}

Outcome reduce_sum() {
  Device x = random({3, 70, 2}, 1), y({3, 2}, kF32);
  const Ints middle{1};
  Outcome o{RUN(ReduceSum, x, middle, false, kF32, y), {}, {}};
  const Values v = x.values();
  Values expected(6, 0);
  for (size_t i = 0; i < v.size(); ++i) expected[i / 140 * 2 + i % 2] += v[i];
  o.add(y.values(), expected);
  return o;
}

Outcome argmax() {
  Device x({2, 4}, kF32, {1, 5, 3, 2, 9, 0, 1, 2}), y({2}, kI64);
  Outcome o{RUN(ArgMax, x, i64{1}, false, y), {}, {}};
  o.add(y.values(), {1, 0});
  return o;
}

Outcome cumsum() {
  Device x({2, 3}, kI32, {1, 2, 3, 4, 5, 6}), y({2, 3}, kI32);
  Outcome o{RUN(Cumsum, x, i64{0}, kI32, y), {}, {}};
  o.add(y.values(), {1, 2, 3, 5, 7, 9});
  return o;
}

Outcome vector_norm() {
  Device x = random({300}, 1), y({1}, kF32);
  const Scalar two(2);
  const Ints all{0};
  Outcome o{RUN(LinalgVectorNorm, x, two, all, true, kF32, y), {}, {}};
  double square = 0;
  for (double v : x.values()) square += v * v;
  o.add(y.values(), {std::sqrt(square)});
  return o;
}

Outcome topk() {
  Device x({2, 5}, kF32, {3, 9, 9, 1, 4, 0, 7, 2, 7, 5}), v({2, 3}, kF32), at({2, 3}, kI64);
  Outcome o{RUN(Topk, x, i64{3}, i64{1}, true, true, v, at), {}, {}};
  o.add(v.values(), {9, 9, 4, 7, 7, 5});
  o.add(at.values(), {1, 2, 4, 1, 3, 4});
  return o;
}

Outcome argsort() {
  Device x({5}, kI32, {3, 1, 3, 0, 1}), at({5}, kI64);
  Outcome o{RUN(Argsort, x, i64{0}, false, at), {}, {}};
  o.add(at.values(), {3, 1, 4, 0, 2});
  return o;
}

Values naive_softmax(const Values& x, size_t n) {
  Values y = x;
  for (size_t r = 0; r < x.size(); r += n) {
    const double m = *std::max_element(y.begin() + static_cast<int64_t>(r),
                                       y.begin() + static_cast<int64_t>(r + n));
    double total = 0;
    for (size_t i = r; i < r + n; ++i) total += y[i] = std::exp(y[i] - m);
    for (size_t i = r; i < r + n; ++i) y[i] /= total;
  }
  return y;
}

Outcome softmaxes(const std::string& op) {
  Values logits = numbers(3 * 21, 1);
  for (double& v : logits) v *= 20;
  logits[20] = 19;  // so that the last term of a sum counts
  Device x({3, 21}, kF32, logits), y({3, 21}, kF32), g = random({3, 21}, 2);
  const Values p = naive_softmax(x.values(), 21), vg = g.values();
  Values expected = p, logs = p;
  for (double& v : logs) v = std::log(v);
  Outcome o;
  if (op == "Softmax") {
    o.answer = RUN(Softmax, x, i64{1}, y);
  } else if (op == "LogSoftmax") {
    o.answer = RUN(LogSoftmax, x, i64{1}, y);
    expected = logs;
  } else {
    const bool log = op == "LogSoftmaxBackward";
    Device output({3, 21}, kF32, log ? logs : p);
    o.answer = log ? RUN(LogSoftmaxBackward, g, output, i64{1}, y)
                   : RUN(SoftmaxBackward, g, output, i64{1}, y);
    for (size_t r = 0; r < 63; r += 21) {
      double total = 0;
      for (size_t i = r; i < r + 21; ++i) total += log ? vg[i] : vg[i] * p[i];
      for (size_t i = r; i < r + 21; ++i)
        expected[i] = log ? vg[i] - p[i] * total : p[i] * (vg[i] - total);
    }
  }
  o.add(y.values(), expected);
  return o;
}

Outcome nll_loss() {
  Device x = random({4, 3}, 1), target({4}, kI64, {2, 0, -100, 1}), w({3}, kF32, {1, 1, 1}),
         loss({1}, kF32), total({1}, kF32), one({1}, kF32, {1}), dx({4, 3}, kF32);
  Outcome o{RUN(NLLLoss, x, target, w, i64{1}, i64{-100}, loss, total), {}, {}};
  const Values v = x.values();
  o.add(loss.values(), {-(v[2] + v[3] + v[10]) / 3});
  o.add(total.values(), {3});
  if (o.answer == 0)
    o.answer = RUN(NLLLossBackward, one, x, target, w, i64{1}, i64{-100}, total, dx);
  Values grad(12, 0);
  grad[2] = grad[3] = grad[10] = -1.0 / 3;
  o.add(dx.values(), grad);
  return o;
}

Outcome adamw() {
  const float lr = 0.1f, b1 = 0.9f, b2 = 0.99f, decay = 0.25f, eps = 1e-3f;
  Device w = random({37}, 1), m = random({37}, 2), g = random({37}, 4), step({1}, kI64, {3});
  Values positive = numbers(37, 3);
  for (double& x : positive) x = x * x * 0.01;
  Device v({37}, kF32, positive);
  Values vw = w.values(), vm = m.values(), vv = v.values();
  const Values vg = g.values();
  Outcome o{
      RUN(ApplyAdamWV2, w, m, v, kNone, g, step, lr, b1, b2, decay, eps, false, false), {}, {}};
  for (size_t i = 0; i < 37; ++i) {
    vm[i] = double{b1} * vm[i] + (1 - double{b1}) * vg[i];
    vv[i] = double{b2} * vv[i] + (1 - double{b2}) * vg[i] * vg[i];
    const double mean = vm[i] / (1 - std::pow(double{b1}, 3)),
                 square = vv[i] / (1 - std::pow(double{b2}, 3));
    vw[i] -= double{lr} * (mean / (std::sqrt(square) + double{eps}) + double{decay} * vw[i]);
  }
  o.add(w.values(), vw);
  o.add(m.values(), vm);
  o.add(v.values(), vv);
  return o;
}

/// Three experts, the second one without tokens.
Outcome grouped_forward(bool sums) {
  Device x = random({9, 20}, 1), w = random({3, 20, 6}, 2), y({9, 6}, kF32);
  Device list({3}, kI64, sums ? Values{4, 4, 9} : Values{4, 0, 5});
  const List xs({x.given()}), ws({w.given()}), ys({y.given()});
  Outcome o{RUN(GroupedMatmulV5,
                xs,
                ws,
                kNoList,
                kNoList,
                kNoList,
                kNoList,
                kNoList,
                kNoList,
                list,
                kNoList,
                kNoList,
                kNoList,
                i64{3},
                i64{0},
                i64{sums ? 0 : 1},
                i64{0},
                kNoInts,
                ys,
                kNoList,
                kNoList),
            {},
            {}};
  const Values vx = x.values(), vw = w.values();
  Values expected;
  for (int64_t r = 0; r < 9; ++r) {
    const int64_t e = r < 4 ? 0 : 2;
    const Values row = naive_product(Values(vx.begin() + r * 20, vx.begin() + (r + 1) * 20),
                                     Values(vw.begin() + e * 120, vw.begin() + (e + 1) * 120),
                                     1,
                                     6,
                                     20);
    expected.insert(expected.end(), row.begin(), row.end());
  }
  o.add(y.values(), expected);
  return o;
}

Outcome grouped_gradient() {
  const std::vector<int64_t> ends = {20, 20, 29};
  Device x = random({29, 5}, 1), dy = random({29, 4}, 2), dw({3, 5, 4}, kF32, Values(60, 0));
  Device list({3}, kI64, {20, 20, 29});
  const List xs({x.given_transposed()}), ys({dy.given()}), ws({dw.given()});
  Outcome o{RUN(GroupedMatmulV5,
                xs,
                ys,
                kNoList,
                kNoList,
                kNoList,
                kNoList,
                kNoList,
                kNoList,
                list,
                kNoList,
                kNoList,
                kNoList,
                i64{3},
                i64{2},
                i64{0},
                i64{0},
                kNoInts,
                ws,
                kNoList,
                kNoList),
            {},
            {}};
  const Values vx = x.values(), vd = dy.values();
  Values expected(60, 0);
  for (int64_t t = 0; t < 29; ++t)
    for (int64_t i = 0; i < 5; ++i)
      for (int64_t j = 0; j < 4; ++j)
        expected[static_cast<size_t>((t < 20 ? 0 : 2) * 20 + i * 4 + j)] +=
            vx[static_cast<size_t>(t * 5 + i)] * vd[static_cast<size_t>(t * 4 + j)];
  o.add(dw.values(), expected);
  return o;
}

/// Sigmoid gating over 4 groups of 4, the best two groups, 3 experts: DeepSeek-V3's form.
Outcome gating(i64 norm) {
  const size_t rows = 6, experts = 16;
  Values logits = numbers(96, 1), shift = numbers(16, 2);
  for (double& v : logits) v *= 3;
  for (double& v : shift) v *= 0.3;
  Device x({6, 16}, kF32, logits), b({16}, kF32, shift), y({6, 3}, kF32), at({6, 3}, kI32),
      all({6, 16}, kF32);
  Outcome o{RUN(MoeGatingTopK,
                x,
                b,
                i64{3},
                i64{2},
                i64{4},
                i64{1},
                i64{0},
                norm,
                true,
                2.5,
                1e-20,
                y,
                at,
                all),
            {},
            {}};
  Values score = x.values(), want_y, want_at;
  const Values vb = b.values();
  if (norm == 1)
    for (double& v : score) v = 1 / (1 + std::exp(-v));
  else
    score = naive_softmax(score, experts);
  for (size_t r = 0; r < rows; ++r) {
    Values choice(16);
    for (size_t e = 0; e < 16; ++e) choice[e] = score[r * 16 + e] + vb[e];
    Values groups;
    for (size_t g = 0; g < 4; ++g) {
      Values four(choice.begin() + static_cast<int64_t>(g * 4),
                  choice.begin() + static_cast<int64_t>(g * 4 + 4));
      std::sort(four.rbegin(), four.rend());
      groups.push_back(four[0] + four[1]);
    }
    Values ordered = groups;
    std::sort(ordered.rbegin(), ordered.rend());
    for (size_t e = 0; e < 16; ++e)
      if (groups[e / 4] < ordered[1]) choice[e] = -1e9;
    double total = 0;
    std::vector<size_t> picks;
    for (int i = 0; i < 3; ++i) {
      const auto best =
          static_cast<size_t>(std::max_element(choice.begin(), choice.end()) - choice.begin());
      picks.push_back(best);
      total += score[r * 16 + best];
      choice[best] = -1e9;
    }
    for (size_t e : picks) {
      want_y.push_back(score[r * 16 + e] / (norm == 1 ? total : 1) * 2.5);
      want_at.push_back(static_cast<double>(e));
    }
  }
  o.add(y.values(), want_y);
  o.add(at.values(), want_at);
  o.add(all.values(), score);
  return o;
}

/// Rows in expert order for 4 tokens, 2 experts each; row_of[token * 2 + j].
struct Routing {
  Values experts = {2, 0, 0, 1, 2, 1, 0, 2};
  std::vector<size_t> row_of = {5, 0, 1, 3, 6, 4, 2, 7};
  std::vector<size_t> token_of = {0, 1, 3, 1, 2, 0, 2, 3};
  Values rows() const { return Values(row_of.begin(), row_of.end()); }
};

Outcome init_routing() {
  const Routing routing;
  Device x = random({4, 3}, 1), e({4, 2}, kI32, routing.experts), rows({8, 3}, kF32), of({8}, kI32),
         counts({3}, kI32);
  Outcome o{RUN(MoeInitRoutingV2,
                x,
                e,
                i64{0},
                i64{0},
                i64{3},
                i64{0},
                i64{2},
                false,
                rows,
                of,
                counts,
                kNone),
            {},
            {}};
  const Values v = x.values();
  Values expected;
  for (size_t t : routing.token_of)
    expected.insert(expected.end(), {v[t * 3], v[t * 3 + 1], v[t * 3 + 2]});
  o.add(rows.values(), expected);
  o.add(of.values(), routing.rows());
  o.add(counts.values(), {3, 2, 3});
  return o;
}

Outcome permute_tokens() {
  const Routing routing;
  Device x = random({4, 3}, 1, kBf16), e({4, 2}, kI64, routing.experts), rows({8, 3}, kBf16),
         of({8}, kI32);
  Outcome o{RUN(MoeTokenPermute, x, e, i64{0}, false, rows, of), {}, {}};
  const Values v = x.values();
  Values expected;
  for (size_t t : routing.token_of)
    expected.insert(expected.end(), {v[t * 3], v[t * 3 + 1], v[t * 3 + 2]});
  o.add(rows.values(), expected);
  o.add(of.values(), routing.rows());
  return o;
}

/// Sums over a token's rows: the gradients of both forms of routing.
Outcome routing_grad(bool permute_form) {
  const Routing routing;
  Device g = random({8, 3}, 1), of({8}, kI32, routing.rows()), y({4, 3}, kF32);
  Outcome o;
  o.answer = permute_form ? RUN(MoeTokenPermuteGrad, g, of, i64{2}, false, y)
                          : RUN(MoeInitRoutingV2Grad, g, of, i64{2}, i64{0}, i64{0}, y);
  const Values v = g.values();
  Values expected(12, 0);
  for (size_t p = 0; p < 8; ++p)
    for (size_t c = 0; c < 3; ++c) expected[p / 2 * 3 + c] += v[routing.row_of[p] * 3 + c];
  o.add(y.values(), expected);
  return o;
}

Outcome combine(bool permute_form) {
  const Routing routing;
  Device rows = random({8, 3}, 1), of({8}, kI32, routing.rows()), w = random({4, 2}, 2),
         y({4, 3}, kF32);
  Outcome o;
  o.answer = permute_form
                 ? RUN(MoeTokenUnpermute, rows, of, w, false, kNoInts, y)
                 : RUN(MoeFinalizeRoutingV2, rows, of, kNone, kNone, kNone, w, kNone, i64{2}, y);
  const Values v = rows.values(), vw = w.values();
  Values expected(12, 0);
  for (size_t p = 0; p < 8; ++p)
    for (size_t c = 0; c < 3; ++c) expected[p / 2 * 3 + c] += vw[p] * v[routing.row_of[p] * 3 + c];
  o.add(y.values(), expected);
  return o;
}

Outcome combine_grad(bool permute_form) {
  const Routing routing;
  Device rows = random({8, 3}, 1), of({8}, kI32, routing.rows()), w = random({4, 2}, 2),
         dy = random({4, 3}, 3), drows({8, 3}, kF32), dw({4, 2}, kF32);
  Outcome o;
  o.answer = permute_form ? RUN(MoeTokenUnpermuteGrad, rows, dy, of, w, false, kNoInts, drows, dw)
                          : RUN(MoeFinalizeRoutingV2Grad,
                                dy,
                                of,
                                rows,
                                w,
                                kNone,
                                kNone,
                                i64{0},
                                i64{0},
                                i64{0},
                                i64{0},
                                drows,
                                dw);
  const Values v = rows.values(), vw = w.values(), vd = dy.values();
  Values want_rows(24, 0), want_w(8, 0);
  for (size_t p = 0; p < 8; ++p)
    for (size_t c = 0; c < 3; ++c) {
      want_rows[routing.row_of[p] * 3 + c] = vw[p] * vd[p / 2 * 3 + c];
      want_w[p] += v[routing.row_of[p] * 3 + c] * vd[p / 2 * 3 + c];
    }
  o.add(drows.values(), want_rows);
  o.add(dw.values(), want_w);
  return o;
}

/// head `h` of [T, N, D], tokens [first, last).
Values head_of(const Values& v, int64_t heads, int64_t d, int64_t h, int64_t first, int64_t last) {
  Values out;
  for (int64_t t = first; t < last; ++t)
    out.insert(out.end(), v.begin() + (t * heads + h) * d, v.begin() + (t * heads + h + 1) * d);
  return out;
}

/// Two documents of 70 and 100 tokens, 4 heads on 2 key heads, D 24 and 16: causal, both ways.
Outcome varlen(bool backward) {
  const int64_t tokens = 170, heads = 4, key_heads = 2, d = 24, dv = 16;
  const double scale = 0.7;
  Device q = random({tokens, heads, d}, 1), k = random({tokens, key_heads, d}, 2),
         v = random({tokens, key_heads, dv}, 3), dy = random({tokens, heads, dv}, 4),
         mask({2048, 2048}, ACL_BOOL, causal_mask()), y({tokens, heads, dv}, kF32),
         maximum({tokens, heads, 8}, kF32), sum({tokens, heads, 8}, kF32),
         dq({tokens, heads, d}, kF32), dk({tokens, key_heads, d}, kF32),
         dvs({tokens, key_heads, dv}, kF32);
  const Values vq = q.values(), vk = k.values(), vv = v.values(), vd = dy.values();
  Values want_y(static_cast<size_t>(tokens * heads * dv)), want_dq(vq.size()),
      want_dk(vk.size(), 0), want_dv(vv.size(), 0),
      want_max(static_cast<size_t>(tokens * heads * 8)), want_sum = want_max;
  for (auto [first, last] : {std::pair<int64_t, int64_t>{0, 70}, {70, 170}})
    for (int64_t h = 0; h < heads; ++h) {
      const NaiveAttention n = naive_attention(head_of(vq, heads, d, h, first, last),
                                               head_of(vk, key_heads, d, h / 2, first, last),
                                               head_of(vv, key_heads, dv, h / 2, first, last),
                                               head_of(vd, heads, dv, h, first, last),
                                               d,
                                               dv,
                                               scale,
                                               [](int64_t i) { return i + 1; });
      for (int64_t t = first; t < last; ++t) {
        const int64_t r = t - first;
        for (int64_t c = 0; c < dv; ++c) {
          want_y[static_cast<size_t>((t * heads + h) * dv + c)] =
              n.y[static_cast<size_t>(r * dv + c)];
          want_dv[static_cast<size_t>((t * key_heads + h / 2) * dv + c)] +=
              n.dv[static_cast<size_t>(r * dv + c)];
        }
        for (int64_t c = 0; c < d; ++c) {
          want_dq[static_cast<size_t>((t * heads + h) * d + c)] =
              n.dq[static_cast<size_t>(r * d + c)];
          want_dk[static_cast<size_t>((t * key_heads + h / 2) * d + c)] +=
              n.dk[static_cast<size_t>(r * d + c)];
        }
        // A document's statistics lie together, [heads, its tokens, 8].
        const auto place = static_cast<size_t>((first * heads + h * (last - first) + r) * 8);
        std::fill_n(
            want_max.begin() + static_cast<int64_t>(place), 8, n.maximum[static_cast<size_t>(r)]);
        std::fill_n(
            want_sum.begin() + static_cast<int64_t>(place), 8, n.sum[static_cast<size_t>(r)]);
      }
    }
  const Ints ends{70, 170};
  Outcome o;
  if (!backward) {
    o.answer = RUN(FlashAttentionVarLenScore,
                   q,
                   k,
                   v,
                   kNone,
                   kNone,
                   kNone,
                   mask,
                   kNoInts,
                   ends,
                   ends,
                   scale,
                   1.0,
                   i64{2147483647},
                   i64{0},
                   heads,
                   "TND",
                   i64{0},
                   i64{3},
                   maximum,
                   sum,
                   kNone,
                   y);
    o.add(y.values(), want_y);
    o.add(maximum.values(), want_max);
    o.add(sum.values(), want_sum);
    return o;
  }
  Device given_y({tokens, heads, dv}, kF32, want_y), given_max({tokens, heads, 8}, kF32, want_max),
      given_sum({tokens, heads, 8}, kF32, want_sum);
  o.answer = RUN(FlashAttentionUnpaddingScoreGrad,
                 q,
                 k,
                 v,
                 dy,
                 kNone,
                 kNone,
                 kNone,
                 mask,
                 given_max,
                 given_sum,
                 kNone,
                 given_y,
                 kNoInts,
                 ends,
                 ends,
                 scale,
                 1.0,
                 i64{2147483647},
                 i64{0},
                 heads,
                 "TND",
                 i64{0},
                 i64{3},
                 dq,
                 dk,
                 dvs,
                 kNone);
  o.add(dq.values(), want_dq);
  o.add(dk.values(), want_dk);
  o.add(dvs.values(), want_dv);
  return o;
}

/// One batch in BNSD, 80 queries and keys, a full mask.
Outcome dense(bool backward) {
  const int64_t s = 80, d = 16;
  Values hidden(6400, 0);
  for (size_t i = 0; i < 80; ++i)
    for (size_t j = i + 1; j < 80; ++j) hidden[i * 80 + j] = 1;
  Device q = random({1, 1, s, d}, 1), k = random({1, 1, s, d}, 2), v = random({1, 1, s, d}, 3),
         dy = random({1, 1, s, d}, 4), mask({s, s}, ACL_UINT8, hidden), y({1, 1, s, d}, kF32),
         maximum({1, 1, s, 8}, kF32), sum({1, 1, s, 8}, kF32), dq({1, 1, s, d}, kF32),
         dk({1, 1, s, d}, kF32), dv({1, 1, s, d}, kF32);
  const NaiveAttention n = naive_attention(
      q.values(), k.values(), v.values(), dy.values(), d, d, 0.5, [](int64_t i) { return i + 1; });
  Outcome o;
  if (!backward) {
    o.answer = RUN(FlashAttentionScore,
                   q,
                   k,
                   v,
                   kNone,
                   kNone,
                   kNone,
                   mask,
                   kNoInts,
                   0.5,
                   1.0,
                   i64{65536},
                   i64{65536},
                   i64{1},
                   "BNSD",
                   i64{0},
                   i64{1},
                   maximum,
                   sum,
                   kNone,
                   y);
    o.add(y.values(), n.y);
    return o;
  }
  Values m8, s8;
  for (size_t i = 0; i < 80; ++i)
    for (int c = 0; c < 8; ++c) {
      m8.push_back(n.maximum[i]);
      s8.push_back(n.sum[i]);
    }
  Device gy({1, 1, s, d}, kF32, n.y), gm({1, 1, s, 8}, kF32, m8), gs({1, 1, s, 8}, kF32, s8);
  o.answer = RUN(FlashAttentionScoreGrad,
                 q,
                 k,
                 v,
                 dy,
                 kNone,
                 kNone,
                 kNone,
                 mask,
                 gm,
                 gs,
                 kNone,
                 gy,
                 kNoInts,
                 0.5,
                 1.0,
                 i64{65536},
                 i64{65536},
                 i64{1},
                 "BNSD",
                 i64{0},
                 i64{1},
                 dq,
                 dk,
                 dv,
                 kNone);
  o.add(dq.values(), n.dq);
  o.add(dk.values(), n.dk);
  o.add(dv.values(), n.dv);
  return o;
}

/// BNSD in bfloat16, 4 queries at the end of 140 keys, causal from the lower right.
Outcome fused_v2() {
  const int64_t heads = 2, sq = 4, sk = 140, d = 32;
  Device q = random({1, heads, sq, d}, 1, kBf16), k = random({1, heads, sk, d}, 2, kBf16),
         v = random({1, heads, sk, d}, 3, kBf16), y({1, heads, sq, d}, kBf16),
         mask({2048, 2048}, ACL_BOOL, causal_mask());
  const List ks({k.given()}), vs({v.given()});
  Outcome o{RUN(FusedInferAttentionScoreV2,
                q,
                ks,
                vs,
                kNone,
                mask,
                kNoInts,
                kNoInts,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNoInts,
                heads,
                0.9,
                i64{2147483647},
                i64{2147483647},
                "BNSD",
                heads,
                i64{3},
                i64{0},
                i64{0},
                i64{0},
                false,
                i64{0},
                i64{0},
                y,
                kNone),
            {},
            {}};
  const Values vq = q.values(), vk = k.values(), vv = v.values();
  Values expected;
  for (int64_t h = 0; h < heads; ++h) {
    const auto part = [&](const Values& x, int64_t n) {
      return Values(x.begin() + h * n * d, x.begin() + (h + 1) * n * d);
    };
    const NaiveAttention n =
        naive_attention(part(vq, sq), part(vk, sk), part(vv, sk), {}, d, d, 0.9, [&](int64_t i) {
          return sk - sq + i + 1;
        });
    expected.insert(expected.end(), n.y.begin(), n.y.end());
  }
  o.add(y.values(), expected);
  return o;
}

/// MLA's absorbed form: D 512 + 64, one key head, blocks of 16, `queries` last queries of sequences
/// of 70 and 35 keys. Cache memory that no table names stays NaN.
Outcome fused_mla(int64_t queries) {
  const int64_t heads = 2, blocks = 9;
  const std::vector<int64_t> lengths = {70, 35};
  const std::vector<std::vector<int64_t>> table = {{3, 1, 7, 0, 8}, {5, 2, 6, 0, 0}};
  const Values cache = numbers(105 * 512, 1), ropes = numbers(105 * 64, 2);
  Values paged(static_cast<size_t>(blocks * 16 * 512), std::numeric_limits<double>::quiet_NaN());
  Values paged_rope(static_cast<size_t>(blocks * 16 * 64),
                    std::numeric_limits<double>::quiet_NaN());
  for (int64_t b = 0, token = 0; b < 2; ++b)
    for (int64_t j = 0; j < lengths[static_cast<size_t>(b)]; ++j, ++token) {
      const int64_t slot = table[static_cast<size_t>(b)][static_cast<size_t>(j / 16)] * 16 + j % 16;
      std::copy_n(cache.begin() + token * 512, 512, paged.begin() + slot * 512);
      std::copy_n(ropes.begin() + token * 64, 64, paged_rope.begin() + slot * 64);
    }
  Values lines;
  for (const auto& line : table) lines.insert(lines.end(), line.begin(), line.end());
  Device q = random({2, heads, queries, 512}, 3, kBf16),
         qr = random({2, heads, queries, 64}, 4, kBf16), k({blocks, 1, 16, 512}, kBf16, paged),
         kr({blocks, 1, 16, 64}, kBf16, paged_rope), tables({2, 5}, kI32, lines),
         y({2, heads, queries, 512}, kBf16), lse({2, heads, queries, 1}, kF32),
         mask({2048, 2048}, ACL_BOOL, causal_mask());
  const List ks({k.given()}), vs({k.given()});
  const Ints key_lengths{70, 35};
  const double scale = 0.05;
  const bool several = queries > 1;
  Outcome o{RUN(FusedInferAttentionScoreV3,
                q,
                ks,
                vs,
                kNone,
                several ? T(mask) : kNone,
                kNoInts,
                key_lengths,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                tables,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNoInts,
                qr,
                kr,
                kNone,
                heads,
                scale,
                i64{2147483647},
                i64{2147483647},
                "BNSD",
                i64{1},
                i64{several ? 3 : 0},
                i64{0},
                i64{16},
                i64{0},
                true,
                i64{0},
                i64{0},
                y,
                lse),
            {},
            {}};
  const Values vq = q.values(), vr = qr.values();
  const auto rounded = [](double x) {
    return double{decode(encode_bf16(static_cast<float>(x), false))};
  };
  Values expected, want_lse;
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t n = lengths[static_cast<size_t>(b)], start = b == 0 ? 0 : 70;
      Values query, keys, vals;
      for (int64_t i = 0; i < queries; ++i) {
        const int64_t row = (b * heads + h) * queries + i;
        query.insert(query.end(), vq.begin() + row * 512, vq.begin() + (row + 1) * 512);
        query.insert(query.end(), vr.begin() + row * 64, vr.begin() + (row + 1) * 64);
      }
      for (int64_t j = start; j < start + n; ++j) {
        for (int64_t c = 0; c < 512; ++c) {
          vals.push_back(rounded(cache[static_cast<size_t>(j * 512 + c)]));
          keys.push_back(vals.back());
        }
        for (int64_t c = 0; c < 64; ++c)
          keys.push_back(rounded(ropes[static_cast<size_t>(j * 64 + c)]));
      }
      const NaiveAttention a = naive_attention(
          query, keys, vals, {}, 576, 512, scale, [&](int64_t i) { return n - queries + i + 1; });
      expected.insert(expected.end(), a.y.begin(), a.y.end());
      for (size_t i = 0; i < a.sum.size(); ++i)
        want_lse.push_back(a.maximum[i] + std::log(a.sum[i]));
    }
  o.add(y.values(), expected);
  o.add(lse.values(), want_lse);
  return o;
}

/// SBH with 3 queries less than keys; sparse modes 2 (from the upper left), 3 and 4 (a band of 5
/// keys before and 1 behind, from the lower right).
Outcome sparse(i64 mode) {
  const int64_t sq = 20, sk = 23, d = 8;
  Device q = random({sq, 1, d}, 1), k = random({sk, 1, d}, 2), v = random({sk, 1, d}, 3),
         mask({2048, 2048}, ACL_UINT8, causal_mask()), y({sq, 1, d}, kF32),
         maximum({1, 1, sq, 8}, kF32), sum({1, 1, sq, 8}, kF32);
  Outcome o;
  o.answer = RUN(FlashAttentionScore,
                 q,
                 k,
                 v,
                 kNone,
                 kNone,
                 kNone,
                 mask,
                 kNoInts,
                 0.8,
                 1.0,
                 i64{5},
                 i64{1},
                 i64{1},
                 "SBH",
                 i64{0},
                 mode,
                 maximum,
                 sum,
                 kNone,
                 y);
  const int64_t corner = mode == 2 ? 0 : sk - sq, ahead = mode == 4 ? 1 : 0;
  const NaiveAttention n = naive_attention(
      q.values(),
      k.values(),
      v.values(),
      {},
      d,
      d,
      0.8,
      [&](int64_t i) { return std::min(i + corner + ahead + 1, sk); },
      [&](int64_t i) { return mode == 4 ? std::max<int64_t>(i + corner - 5, 0) : 0; });
  o.add(y.values(), n.y);
  return o;
}

/// TND with 192 for queries and keys, 128 for values: the expanded MLA's prefill, two sequences.
Outcome fused_packed() {
  const int64_t heads = 2, d = 192, dv = 128;
  Device q = random({9, heads, d}, 1, kBf16), k = random({30, heads, d}, 2, kBf16),
         v = random({30, heads, dv}, 3, kBf16), y({9, heads, dv}, kBf16), lse({9, heads, 1}, kF32),
         mask({2048, 2048}, ACL_BOOL, causal_mask());
  const List ks({k.given()}), vs({v.given()});
  const Ints q_ends{4, 9}, k_ends{10, 30};
  Outcome o{RUN(FusedInferAttentionScoreV3,
                q,
                ks,
                vs,
                kNone,
                mask,
                q_ends,
                k_ends,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNoInts,
                kNone,
                kNone,
                kNone,
                heads,
                0.1,
                i64{2147483647},
                i64{2147483647},
                "TND",
                heads,
                i64{3},
                i64{0},
                i64{0},
                i64{0},
                true,
                i64{0},
                i64{0},
                y,
                lse),
            {},
            {}};
  const Values vq = q.values(), vk = k.values(), vv = v.values();
  Values expected(static_cast<size_t>(9 * heads * dv)), want_lse(static_cast<size_t>(9 * heads));
  for (int64_t s = 0; s < 2; ++s)
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t q0 = s * 4, q1 = s == 0 ? 4 : 9, k0 = s * 10, k1 = s == 0 ? 10 : 30;
      const NaiveAttention n =
          naive_attention(head_of(vq, heads, d, h, q0, q1),
                          head_of(vk, heads, d, h, k0, k1),
                          head_of(vv, heads, dv, h, k0, k1),
                          {},
                          d,
                          dv,
                          0.1,
                          [&](int64_t i) { return (k1 - k0) - (q1 - q0) + i + 1; });
      for (int64_t i = q0; i < q1; ++i) {
        const auto r = static_cast<size_t>(i - q0);
        want_lse[static_cast<size_t>(i * heads + h)] = n.maximum[r] + std::log(n.sum[r]);
        for (int64_t c = 0; c < dv; ++c)
          expected[static_cast<size_t>((i * heads + h) * dv + c)] =
              n.y[r * static_cast<size_t>(dv) + static_cast<size_t>(c)];
      }
    }
  o.add(y.values(), expected);
  o.add(lse.values(), want_lse);
  return o;
}

const std::vector<Scenario>& scenarios() {
  constexpr double kTight = 2e-5, kCoarse = 4e-3;  // of the largest expected value
  static const std::vector<Scenario> all = {
      {"Mm", kTight, [] { return mm(kF32, 33, 21, 150, false); }},
      {"Mm", kTight, [] { return mm(kF32, 5, 40, 17, true); }},
      {"Mm", kCoarse, [] { return mm(kBf16, 9, 65, 300, true); }},
      {"BatchMatMul", kTight, batch_matmul},
      {"Matmul", kTight, matmul},
      {"Cast", 1e-9, cast},
      {"Add", kTight, add},
      {"InplaceAdd", kTight, inplace_add},
      {"Mul", kTight, mul},
      {"Exp", kTight, exponential},
      {"SWhere", kTight, where},
      {"Muls", kTight, muls},
      {"Sqrt", kTight, square_root},
      {"GtScalar", kTight, greater},
      {"Triu", kTight, triangle},
      {"Sort", kTight, sort},
      {"InplaceCopy", kTight, inplace_copy},
      {"Permute", kTight, permute},
      {"Cat", kTight, cat},
      {"Slice", kTight, slice_and_repeat},
      {"RmsNorm", kTight, rms_norm},
      {"RmsNormGrad", kTight, rms_norm_grad},
      {"SwiGlu", kTight, swiglu},
      {"SwiGluGrad", kTight, swiglu_grad},
      {"RotaryPositionEmbedding", kTight, [] { return rope(0, false); }},
      {"RotaryPositionEmbedding", kTight, [] { return rope(1, false); }},
      {"RotaryPositionEmbeddingGrad", kTight, [] { return rope(0, true); }},
      {"RotaryPositionEmbeddingGrad", kTight, [] { return rope(1, true); }},
      {"Embedding", kTight, embedding},
      {"EmbeddingDenseBackward", kTight, embedding_grad},
      {"IndexSelect", kTight, [] { return index_ops("IndexSelect"); }},
      {"Gather", kTight, [] { return index_ops("Gather"); }},
      {"IndexAdd", kTight, [] { return index_ops("IndexAdd"); }},
      {"InplaceIndexCopy", kTight, [] { return index_ops("InplaceIndexCopy"); }},
      {"ReduceSum", kTight, reduce_sum},
      {"ArgMax", kTight, argmax},
      {"Cumsum", kTight, cumsum},
      {"LinalgVectorNorm", kTight, vector_norm},
      {"Topk", kTight, topk},
      {"Argsort", kTight, argsort},
      {"Softmax", kTight, [] { return softmaxes("Softmax"); }},
      {"SoftmaxBackward", kTight, [] { return softmaxes("SoftmaxBackward"); }},
      {"LogSoftmax", kTight, [] { return softmaxes("LogSoftmax"); }},
      {"LogSoftmaxBackward", kTight, [] { return softmaxes("LogSoftmaxBackward"); }},
      {"NLLLoss", kTight, nll_loss},
      {"ApplyAdamWV2", kTight, adamw},
      {"GroupedMatmulV5", kTight, [] { return grouped_forward(true); }},
      {"GroupedMatmulV5", kTight, [] { return grouped_forward(false); }},
      {"GroupedMatmulV5", kTight, grouped_gradient},
      {"MoeGatingTopK", kTight, [] { return gating(1); }},
      {"MoeGatingTopK", kTight, [] { return gating(0); }},
      {"MoeInitRoutingV2", kTight, init_routing},
      {"MoeInitRoutingV2Grad", kTight, [] { return routing_grad(false); }},
      {"MoeFinalizeRoutingV2", kTight, [] { return combine(false); }},
      {"MoeFinalizeRoutingV2Grad", kTight, [] { return combine_grad(false); }},
      {"MoeTokenPermute", kTight, permute_tokens},
      {"MoeTokenPermuteGrad", kTight, [] { return routing_grad(true); }},
      {"MoeTokenUnpermute", kTight, [] { return combine(true); }},
      {"MoeTokenUnpermuteGrad", kTight, [] { return combine_grad(true); }},
      {"FlashAttentionVarLenScore", kTight, [] { return varlen(false); }},
      {"FlashAttentionUnpaddingScoreGrad", kTight, [] { return varlen(true); }},
      {"FlashAttentionScore", kTight, [] { return dense(false); }},
      {"FlashAttentionScoreGrad", kTight, [] { return dense(true); }},
      {"FlashAttentionScore", kTight, [] { return sparse(2); }},
      {"FlashAttentionScore", kTight, [] { return sparse(3); }},
      {"FlashAttentionScore", kTight, [] { return sparse(4); }},
      {"FusedInferAttentionScoreV2", kCoarse, fused_v2},
      {"FusedInferAttentionScoreV3", kCoarse, fused_packed},
      {"FusedInferAttentionScoreV3", kCoarse, [] { return fused_mla(1); }},
      {"FusedInferAttentionScoreV3", kCoarse, [] { return fused_mla(3); }},
  };
  return all;
}

/// The largest distance, as a share of the largest expected value; infinite where something is no
/// number.
double distance(const Outcome& o) {
  double most = 1e-30, worst = 0;
  for (double e : o.expected) most = std::max(most, std::abs(e));
  for (size_t i = 0; i < o.got.size(); ++i) {
    const double d = std::abs(o.got[i] - o.expected[i]);
    if (!(d <= worst)) worst = std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
  return worst / most;
}

TEST(Ops, DoWhatTheirFormulasSay) {
  const Simulation simulation;
  ASSERT_TRUE(simulation.started());
  for (const Scenario& s : scenarios()) {
    const Outcome o = s.run();
    ASSERT_EQ(o.answer, 0) << s.op << ": " << last_message();
    ASSERT_FALSE(o.got.empty()) << s.op;
    ASSERT_EQ(o.got.size(), o.expected.size()) << s.op;
    EXPECT_LE(distance(o), s.tolerance) << s.op;
  }
}

/// The first two of the fields of each line of a list.
std::vector<std::pair<std::string, std::string>> list_of(const char* what) {
  std::vector<std::pair<std::string, std::string>> out;
  std::istringstream lines(ferrySoftwareAscendList(what));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::pair<std::string, std::string> one;
    std::getline(fields, one.first, '\t');
    std::getline(fields, one.second, '\t');
    out.push_back(one);
  }
  return out;
}

/// Defects (name, op) that belong to an op of this library; the runtime has its own tests. Without
/// the conditional ones: the calls of these scenarios do not meet their conditions.
std::vector<std::pair<std::string, std::string>> defects_of_ops() {
  const auto ops = list_of("ops");
  const auto conditional = list_of("conditional");
  auto all = list_of("defects");
  std::erase_if(all, [&](const auto& d) {
    if (std::count(conditional.begin(), conditional.end(), d) > 0) return true;
    return std::none_of(
        ops.begin(), ops.end(), [&](const auto& op) { return op.first == d.second; });
  });
  return all;
}

TEST(Ops, EachDefectMovesWhatItsFormulaJudges) {
  const auto defects = defects_of_ops();
  EXPECT_GE(defects.size(), 20u);
  EXPECT_GE(list_of("conditional").size(), 40u);
  for (const auto& [name, op] : defects) {
    const Simulation simulation({{"DEFECT", name.c_str()}});
    bool tried = false, seen = false;
    for (const Scenario& s : scenarios()) {
      if (s.op != op) continue;
      tried = true;
      const Outcome o = s.run();
      seen |= o.answer != 0 || distance(o) > 3 * s.tolerance;
    }
    EXPECT_TRUE(tried) << name << ": no scenario calls " << op;
    EXPECT_TRUE(seen) << name << " changes nothing that " << op << "'s scenarios see";
  }
}

TEST(Ops, OneTermLessMovesWhatTheirFormulasJudge) {
  std::map<std::string, bool> seen;
  for (const auto& [mutant, op] : list_of("mutants")) {
    if (mutant != op + ":k_minus_1") continue;
    const Simulation simulation({{"MUTANT", mutant.c_str()}});
    for (const Scenario& s : scenarios())
      if (s.op == op && s.tolerance < 1e-3)  // bfloat16 hides one term of 576
        seen[op] |= distance(s.run()) > 3 * s.tolerance;
  }
  EXPECT_GE(seen.size(), 12u);
  for (const auto& [op, moved] : seen) EXPECT_TRUE(moved) << op;
}

TEST(Ops, OneRowHasTheSameBitsAloneAtLevelThree) {
  const Simulation simulation;
  const auto product_of = [](int level, int64_t rows) {
    aclrtCtxSetSysParamOpt(0, level);
    Device a({rows, 700}, kF32, numbers(700 * rows, 1)), b = random({700, 33}, 2),
                                                         c({rows, 33}, kF32);
    EXPECT_EQ(RUN(Mm, a, b, c, i8{0}), 0);
    const Values v = c.values();
    return Values(v.begin(), v.begin() + 33);
  };
  EXPECT_EQ(product_of(3, 1), product_of(3, 20));
  EXPECT_NE(product_of(1, 1), product_of(1, 20));
  EXPECT_EQ(product_of(1, 20), product_of(1, 20));
  bool varies = false;
  for (int i = 0; i < 5; ++i) varies |= product_of(0, 20) != product_of(0, 20);
  EXPECT_TRUE(varies);
}

TEST(Ops, Hf32IsCoarserAndOnlyWhenAsked) {
  const Simulation simulation;
  Device a = random({8, 64}, 1), b = random({64, 8}, 2), fine({8, 8}, kF32), coarse({8, 8}, kF32);
  ASSERT_EQ(RUN(Mm, a, b, fine, i8{0}), 0);
  ASSERT_EQ(RUN(Mm, a, b, coarse, i8{1}), 0);
  const Values want = naive_product(a.values(), b.values(), 8, 8, 64);
  double worst_fine = 0, worst_coarse = 0;
  const Values f = fine.values(), c = coarse.values();
  for (size_t i = 0; i < want.size(); ++i) {
    worst_fine = std::max(worst_fine, std::abs(f[i] - want[i]));
    worst_coarse = std::max(worst_coarse, std::abs(c[i] - want[i]));
  }
  EXPECT_LT(worst_fine, 1e-5);
  EXPECT_GT(worst_coarse, 1e-4);
  EXPECT_LT(worst_coarse, 1e-2);
}

TEST(Ops, RefuseWhatTheDocumentsRefuse) {
  const Simulation simulation;
  Device f = random({4, 8}, 1), h = random({8, 4}, 2, kBf16), y({4, 4}, kF32), y16({4, 4}, kBf16);
  EXPECT_EQ(RUN(Mm, f, h, y, i8{0}), code::kInvalid) << "mixed types";
  EXPECT_EQ(RUN(Mm, h, f, y16, i8{2}), code::kInvalid);
  EXPECT_EQ(RUN(Mm, f, kNone, y, i8{0}), code::kNullptr);
  EXPECT_EQ(RUN(Mm, f, f, y, i8{0}), code::kInvalid) << "sizes";
  EXPECT_EQ(RUN(Mm, f, f, y, i8{9}), code::kInvalid);

  Device x = random({2, 3, 7}, 1), angle = random({2, 1, 7}, 2), rx({2, 3, 7}, kF32);
  EXPECT_EQ(RUN(RotaryPositionEmbedding, x, angle, angle, i64{0}, rx), code::kInvalid) << "odd D";
  Device even = random({2, 3, 8}, 1), full = random({2, 3, 8}, 2), ry({2, 3, 8}, kF32);
  EXPECT_EQ(RUN(RotaryPositionEmbedding, even, full, full, i64{1}, ry), code::kInvalid)
      << "TND in mode 1";
  EXPECT_EQ(RUN(RotaryPositionEmbedding, even, full, full, i64{2}, ry), code::kInvalid) << "mode 2";

  Device v({4, 2}, kF32), at({4, 2}, kI64);
  EXPECT_EQ(RUN(Topk, f, i64{2}, i64{1}, true, false, v, at), code::kInvalid) << "unsorted";

  Device w = random({4, 8}, 1), m = random({4, 8}, 2, kBf16), step({1}, kI64, {1});
  EXPECT_EQ(RUN(ApplyAdamWV2, w, m, w, kNone, f, step, 1.f, .9f, .9f, 0.f, 1.f, false, false),
            code::kInvalid);

  Device q = random({1, 1, 1, 512}, 1, kBf16), k = random({1, 1, 16, 512}, 1, kBf16),
         o({1, 1, 1, 512}, kBf16);
  const List ks({k.given()}), vs({k.given()});
  EXPECT_EQ(RUN(FusedInferAttentionScoreV3,
                q,
                ks,
                vs,
                kNone,
                kNone,
                kNoInts,
                kNoInts,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNone,
                kNoInts,
                kNone,
                kNone,
                kNone,
                i64{1},
                1.0,
                i64{0},
                i64{0},
                "BNSD",
                i64{1},
                i64{0},
                i64{0},
                i64{0},
                i64{0},
                false,
                i64{0},
                i64{0},
                o,
                kNone),
            code::kInvalid)
      << "D 512 without rope and blocks";

  Device gx = random({4, 8}, 1), gw = random({4, 8}, 2), gy({1, 4, 8}, kF32), list({1}, kI64, {4});
  const List xs({gx.given()}), ws({gw.given()}), ys({gy.given()});
  EXPECT_EQ(RUN(GroupedMatmulV5,
                xs,
                ws,
                kNoList,
                kNoList,
                kNoList,
                kNoList,
                kNoList,
                kNoList,
                list,
                kNoList,
                kNoList,
                kNoList,
                i64{3},
                i64{2},
                i64{0},
                i64{0},
                kNoInts,
                ys,
                kNoList,
                kNoList),
            code::kInvalid)
      << "groupType 2 without a transposed x";
}

TEST(Ops, OldChipsLackBfloat16AndTraining) {
  const Simulation simulation({{"CHIP", "Ascend310P3"}});
  ASSERT_TRUE(simulation.started());
  Device h = random({4, 4}, 2, kBf16), y({4, 4}, kBf16), f = random({4, 4}, 1), z({4, 4}, kF32);
  EXPECT_EQ(RUN(Mm, h, h, y, i8{0}), code::kInvalid);
  EXPECT_EQ(RUN(Mm, f, f, z, i8{0}), code::kInvalid) << "float32 needs cubeMathType other than 0";
  EXPECT_EQ(RUN(Mm, f, f, z, i8{1}), 0);
  Device x = random({2, 3, 8}, 1), a = random({2, 1, 8}, 2), ry({2, 3, 8}, kF32);
  EXPECT_EQ(RUN(RotaryPositionEmbedding, x, a, a, i64{0}, ry), code::kInvalid);
}

TEST(Ops, AnIndexOutOfRangeEndsInADeviceFault) {
  const Simulation simulation;
  Device w = random({5, 3}, 1), ids({2}, kI64, {0, 5}), y({2, 3}, kF32);
  EXPECT_EQ(RUN(Embedding, w, ids, y), code::kVectorCoreException);
}

}  // namespace
}  // namespace ascend_sim_test
