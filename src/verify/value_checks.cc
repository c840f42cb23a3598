// Values that ordinary numbers do not reach: zeros of both signs, the smallest and the largest,
// infinities, NaN, gates that saturate, sums that float16 could not hold, scores that are equal, all
// negative, or dominated by one key. Each call is judged by the CPU with the same inputs.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "autograd/tape.h"
#include "ops/adamw/adamw.h"
#include "ops/add/add.h"
#include "ops/add_bias/add_bias.h"
#include "ops/attention/attention.h"
#include "ops/cast/cast.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/linear/linear.h"
#include "ops/matmul/matmul.h"
#include "ops/quantized_linear/quantized_linear.h"
#include "ops/quantized_linear/quantized_weight.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/router/router.h"
#include "ops/scale/scale.h"
#include "ops/spec_check.h"
#include "ops/sum_squares/sum_squares.h"
#include "ops/swiglu/swiglu.h"
#include "ops/token_log_probs/token_log_probs.h"
#include "verify/call_judge.h"
#include "verify/checks.h"
#include "verify/sized_ops.h"

namespace ferry::doctor {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Tensor of(const std::vector<float>& values, const Shape& shape, DType dtype, Device& device) {
  Tensor t = Tensor::empty(shape, dtype, device);
  t.assign_f32(values);
  return t;
}

/// All pairs of special numbers.
struct Pairs {
  std::vector<float> a, b;
};
Pairs pairs_of(const std::vector<float>& values) {
  Pairs p;
  for (const float x : values)
    for (const float y : values) {
      p.a.push_back(x);
      p.b.push_back(y);
    }
  return p;
}

const std::vector<float>& specials() {
  static const std::vector<float> all = {0.0f,
                                         -0.0f,
                                         1e-40f,
                                         0x1p-126f,
                                         1e-30f,
                                         1.0f,
                                         -1.0f,
                                         65504.0f,
                                         65536.0f,
                                         -1e5f,
                                         1e30f,
                                         kLargest / 4,
                                         kInfinity,
                                         -kInfinity,
                                         kNan,
                                         -3.0f};
  return all;
}

void elementwise(Maker& m) {
  const Pairs p = pairs_of(specials());
  const Shape shape = {static_cast<int64_t>(specials().size()),
                       static_cast<int64_t>(specials().size())};
  const Tensor a = of(p.a, shape, m.dtype(), m.device()), b = of(p.b, shape, m.dtype(), m.device());
  static_cast<void>(ops::add(a, b));
  static_cast<void>(ops::scale(a, 0.75f));
  static_cast<void>(ops::cast(a, m.dtype() == DType::kF32 ? DType::kBF16 : DType::kF32));
  const Tensor sum = of(p.a, shape, DType::kF32, m.device());
  ops::accumulate(sum, of(p.b, shape, DType::kF32, m.device()));
}

void gates(Maker& m) {
  // What a saturated gate lets through is less than the smallest normal number, also times these.
  const std::vector<float> gate_values = {0.0f,
                                          -0.0f,
                                          1e-30f,
                                          1.0f,
                                          -1.0f,
                                          20.0f,
                                          -20.0f,
                                          60.0f,
                                          -60.0f,
                                          85.0f,
                                          -85.0f,
                                          100.0f,
                                          -100.0f,
                                          1e4f,
                                          -1e4f,
                                          kNan};
  const std::vector<float> up_values = {0.0f, -0.0f, 1.0f, -1.0f, 20.0f, -20.0f, 1e-30f, kNan};
  Pairs p;
  for (const float g : gate_values)
    for (const float u : up_values) {
      p.a.push_back(g);
      p.b.push_back(u);
    }
  const Shape shape = {16, 8};
  Tensor gate = of(p.a, shape, m.dtype(), m.device()), up = of(p.b, shape, m.dtype(), m.device());
  gate.set_needs_grad(true);
  up.set_needs_grad(true);
  static_cast<void>(ops::swiglu(gate, up));
  // Backward without NaN: a step with one is refused before it gets there.
  std::vector<float> finite = p.a;
  for (float& v : finite)
    if (!std::isfinite(v)) v = 2;
  Tensor g = of(finite, shape, m.dtype(), m.device()).set_needs_grad(true);
  Tensor u = m.activations(shape);
  m.differentiate([&] { return std::vector<Tensor>{ops::swiglu(g, u)}; });
}

/// Rows of zeros, of the smallest, of large numbers; and one with a NaN, which is that row's alone.
void rows_of_norms(Maker& m) {
  constexpr int64_t kHidden = 40;
  const std::vector<float> sizes = {0.0f, 1e-20f, 1e-6f, 1.0f, 300.0f, 1e5f, 1e15f, kNan, 1.0f};
  std::vector<float> v;
  for (const float size : sizes)
    for (int64_t i = 0; i < kHidden; ++i)
      v.push_back(std::isnan(size) ? (i == 3 ? kNan : 1.0f)
                                   : size * static_cast<float>(i % 7 - 3) * 0.5f);
  const Tensor x = of(v, {std::ssize(sizes), kHidden}, m.dtype(), m.device());
  static_cast<void>(ops::rms_norm(x, m.weight({kHidden}, 1), 1e-6f));
}

/// Sums that cancel, that float16 could not hold, of zeros, with an infinity, and with a NaN: each
/// in its own row.
void sums(Maker& m) {
  constexpr int64_t kDepth = 48, kRows = 7;
  std::vector<float> a;
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t k = 0; k < kDepth; ++k) {
      const float alternating = k % 2 == 0 ? 1.0f : -1.0f;
      a.push_back(r == 0   ? 0.0f
                  : r == 1 ? 300.0f
                  : r == 2 ? -2048.0f
                  : r == 3 ? 1e4f * alternating
                  : r == 4 ? 1e15f
                  : r == 5 ? (k == 5 ? kInfinity : 1.0f)
                           : (k == 7 ? kNan : 1.0f));
    }
  const Tensor x = of(a, {kRows, kDepth}, m.dtype(), m.device());
  const Tensor b = of(std::vector<float>(static_cast<size_t>(kDepth * 24), 64.0f),
                      {kDepth, 24},
                      m.dtype(),
                      m.device());
  static_cast<void>(ops::matmul(x, b));
  static_cast<void>(ops::matmul(x, b, {.out = DType::kF32}));
  static_cast<void>(ops::linear(x, m.weight({24, kDepth}, 1)));
}

/// Rows that are rounded by the largest of them: of zeros, of the smallest, of large ones; of what no code can tell.
void rounded_rows(Maker& m) {
  constexpr int64_t kInner = 64, kOuter = 24;
  const Shape shape = {kOuter, kInner};
  const CodePanels layout{WeightCodes::kInt8, kOuter, kInner};
  std::vector<int32_t> codes = m.indices(shape.count(), layout.largest() - layout.least() + 1);
  for (int32_t& code : codes) code += layout.least();
  const Shape of_scales = {kOuter, layout.groups()};
  Tensor scales = Tensor::empty(of_scales, code_scales_dtype(layout.codes), m.device());
  scales.assign_f32(std::vector<float>(static_cast<size_t>(of_scales.count()), 0.25f));
  const Weight w = ops::quantized_weight(
      layout.codes, shape, Tensor::from_i32(codes, {shape.count()}, m.device()), scales);
  const std::vector<float> sizes = {0.0f, 1e-30f, 1.0f, 300.0f, 1e15f, kInfinity, kNan, 1.0f};
  std::vector<float> v;
  for (const float size : sizes)
    for (int64_t i = 0; i < kInner; ++i)
      v.push_back(std::isfinite(size) ? size * static_cast<float>(i % 7 - 3)
                  : i == 3            ? size
                                      : 1.0f);
  static_cast<void>(ops::quantized_linear(
      of(v, {std::ssize(sizes), kInner}, m.dtype(), m.device()), w, {}, DType::kF32));
}

/// Queries and keys of which the scores are as wanted; without a tape as a server, and with one. Scores that are not
/// finite are of some rows alone, and are only answered: what sees them is NaN, and nobody else. (A step whose loss is
/// NaN is refused before its gradients are taken.)
void scores(Maker& m) {
  constexpr int64_t kTokens = 80, kDepth = 16;
  const ops::Segments segments = ops::Segments::packed(std::vector<int32_t>{80}, m.device());
  using Of = std::function<float(int64_t)>;  // a token
  const auto attend = [&](const Of& query, const Of& key, bool finite = true) {
    std::vector<float> q, k;
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t i = 0; i < kDepth; ++i) {
        q.push_back(query(t));
        k.push_back(key(t));
      }
    const Shape shape = {kTokens, 1, kDepth};
    Tensor a = of(q, shape, m.dtype(), m.device()).set_needs_grad(true);
    Tensor b = of(k, shape, m.dtype(), m.device()).set_needs_grad(true);
    const Tensor v = m.activations(shape);
    const auto forward = [&] {
      return std::vector<Tensor>{ops::attention(a, b, v, segments, 0.25f)};
    };
    forward();
    if (finite) m.differentiate(forward);
  };
  const auto all = [](float value) { return [value](int64_t) { return value; }; };
  const auto but = [](int64_t token, float special, float value) {
    return [=](int64_t t) { return t == token ? special : value; };
  };
  attend(all(0), all(1));  // all equal, 0
  attend(all(1), all(2));  // all equal
  attend(all(-2), [](int64_t t) { return 2 + 0.125f * static_cast<float>(t % 8); });  // negative
  attend(all(-8), all(4));                                                            // far below 0
  attend(all(4), but(37, 8.0f, 0.25f));         // one key dominates
  attend(but(41, kNan, 1), all(0.25f), false);  // of one token alone
  attend(all(1), but(37, kNan, 0.25f), false);  // of all that see the key
  attend(all(1), but(70, kInfinity, 0.25f), false);
  attend(all(1), but(70, -kInfinity, 0.25f), false);  // a key that counts for nothing
}

/// The same in the pages of a cache, as a model with MLA answers: a query that is NaN, then a key.
void cached_scores(Maker& m) {
  constexpr int64_t kQueries = 4, kHeads = 2, kLatent = 512, kRotary = 64, kLength = 80;
  std::vector<int32_t> position;
  for (int32_t i = 0; i < kQueries; ++i)
    position.push_back(static_cast<int32_t>(kLength - kQueries) + i);
  const ops::Segments segments = ops::Segments::paged(
      position, std::vector<int32_t>(kQueries, 0), std::vector<int32_t>{0}, m.device());
  const Shape queries = {kQueries, kHeads, kLatent + kRotary};
  const Tensor k_pe = m.normal({ops::kPageRows, 1, kRotary}, m.dtype());
  for (const bool of_key : {false, true}) {
    std::vector<float> q(static_cast<size_t>(queries.count()), 0.5f),
        k(static_cast<size_t>(ops::kPageRows * kLatent), 0.25f);
    (of_key ? k
            : q)[(of_key ? 37 : 1) * static_cast<size_t>(of_key ? kLatent : kHeads * queries[2])] =
        kNan;
    const Tensor keys = of(k, {ops::kPageRows, 1, kLatent}, m.dtype(), m.device());
    static_cast<void>(
        ops::attention(of(q, queries, m.dtype(), m.device()), keys, keys, segments, 0.04f, k_pe));
  }
}

/// Of logits that are infinite, too; and of a token whose logits are NaN experts that there are, for what comes next
/// reads memory by their numbers.
void choices(Maker& m) {
  ops::RouterConfig config;
  config.experts = 16;
  config.top_k = 4;
  std::vector<float> logits;
  constexpr int64_t kRows = 7;
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t e = 0; e < 16; ++e)
      logits.push_back(r == 0   ? 0.0f
                       : r == 1 ? -50.0f - static_cast<float>(e)
                       : r == 2 ? 12.0f + 0.25f * static_cast<float>(e)
                       : r == 3 ? (e == 9 ? 8.0f : -8.0f)
                       : r == 4 ? static_cast<float>(e % 4)
                       : r == 6 ? (e % 5 == 0 ? -kInfinity : static_cast<float>(e % 3))
                                : -3.0f + 0.5f * static_cast<float>(e));
  for (const bool sigmoid : {true, false}) {
    config.sigmoid = sigmoid;
    config.normalize = sigmoid;
    const Tensor x = of(logits, {kRows, 16}, DType::kF32, m.device());
    static_cast<void>(ops::route(x, {}, config));
    // Given the choice, as in a replay: devices have another way for it.
    static_cast<void>(ops::route(x, {}, config, m.chosen(kRows, 4, 16)));
    const Tensor nan = of(std::vector<float>(2 * 16, kNan), {2, 16}, DType::kF32, m.device());
    static_cast<void>(ops::route(nan, {}, config, m.chosen(2, 4, 16)));
    const ops::Unobserved unjudged;  // which experts is nobody's promise
    const ops::Routing r = ops::route(nan, {}, config);
    for (const int32_t e : r.experts.to_i32())
      if (e < 0 || e >= config.experts)
        m.found("router",
                fmt::format("of logits that are NaN: expert {} of {}", e, config.experts));
  }
}

void losses(Maker& m) {
  const Weight head = m.weight({70, 24}, 1);
  for (const float size : {0.0f, 1.0f, 40.0f}) {
    const Tensor hidden =
        m.normal({6, 24}, m.dtype(), static_cast<double>(size)).set_needs_grad(true);
    const Tensor labels =
        Tensor::from_i32(std::vector<int32_t>{0, 69, -1, 3, 0, 12}, {6}, m.device());
    m.differentiate([&] {
      return std::vector<Tensor>{ops::cross_entropy(hidden, head, labels, 1.0f / 6).loss};
    });
  }
  // A token that is not finite has no loss, and so has the sum; the others' are their own.
  for (const float special : {kNan, kInfinity}) {
    std::vector<float> hidden(4 * 24, 0.5f);
    hidden[24 + 3] = special;
    const Tensor labels = Tensor::from_i32(std::vector<int32_t>{0, 69, 3, -1}, {4}, m.device());
    static_cast<void>(
        ops::cross_entropy(of(hidden, {4, 24}, m.dtype(), m.device()), head, labels, 0.25f));
  }
}

/// Of the likeliest token, of one that cannot come, and of none; at temperatures that single one token out, that level
/// all, and that are none. A logit that is not finite is its row's alone.
void log_probs(Maker& m) {
  constexpr int64_t kVocab = 70, kIds = 5;
  std::vector<float> logits, temperatures;
  std::vector<int32_t> ids;
  const auto row = [&](const std::function<float(int64_t)>& logit, float temperature = 1) {
    for (int64_t i = 0; i < kVocab; ++i) logits.push_back(logit(i));
    temperatures.push_back(temperature);
    ids.insert(ids.end(), {0, kVocab - 1, 33, -1, kVocab});
  };
  const auto slope = [](int64_t i) { return 0.25f * static_cast<float>(i % 16) - 2; };
  row([](int64_t) { return 0.0f; });
  row([](int64_t) { return -kLargest; });
  row([](int64_t i) { return i == 33 ? 1e30f : -1e30f; });
  row([](int64_t i) { return i == 0 ? 60.0f : -60.0f; });
  row([&](int64_t i) { return i % 3 == 0 ? -kInfinity : slope(i); });
  for (const float special : {kInfinity, kNan})
    row([&](int64_t i) { return i == 40 ? special : slope(i); });
  for (const float temperature : {1e-3f, 1e3f, 1e30f, 0.0f, -1.0f, kNan}) row(slope, temperature);
  const auto rows = std::ssize(temperatures);
  static_cast<void>(ops::token_log_probs(of(logits, {rows, kVocab}, DType::kF32, m.device()),
                                         Tensor::from_i32(ids, {rows, kIds}, m.device()),
                                         of(temperatures, {rows}, DType::kF32, m.device())));
}

void biases(Maker& m) {
  const Pairs p = pairs_of(specials());
  const auto n = std::ssize(specials());
  Weight bias{.name = "examined", .global_shape = {n}, .shard = {}};
  bias.value = of(specials(), {n}, DType::kF32, m.device());
  static_cast<void>(ops::add_bias(of(p.a, {n, n}, DType::kF32, m.device()), bias, m.dtype()));
}

void norms_of_gradients(Maker& m) {
  const auto sum = [&](const std::vector<float>& values) {
    const std::vector<Tensor> all = {of(values, {std::ssize(values)}, DType::kF32, m.device())};
    return ops::total_of(read_together(std::vector<Tensor>{ops::sum_squares(all)})[0]);
  };
  if (const ops::SquareSum s = sum({300.0f, -300.0f, 4.0f});
      std::abs(s.sum - 180016) > 0.05 || !s.finite)
    m.found("sum_squares", fmt::format("of 300, -300 and 4: {:.9g}, expected 180016", s.sum));
  if (sum({1.0f, kInfinity}).finite) m.found("sum_squares", "an infinity counts as finite");
  if (sum({1.0f, kNan, 2.0f}).finite) m.found("sum_squares", "a NaN counts as finite");
  if (const ops::SquareSum s = sum({0.0f, -0.0f}); s.sum != 0 || !s.finite)
    m.found("sum_squares", fmt::format("of zeros: {:.9g}", s.sum));
}

struct Values {
  const char* name;
  const char* op;
  void (*run)(Maker&);
  bool bf16 = true;
};

constexpr Values kValues[] = {
    {"zeros, largest, infinities and NaN", "add", elementwise},
    {"gates that saturate", "swiglu", gates},
    {"rows of zeros, small, large and NaN", "rms_norm", rows_of_norms},
    {"sums beyond 65,504, infinities and NaN", "matmul", sums},
    {"rows of zeros, small, large, infinities and NaN", "quantized_linear", rounded_rows},
    {"equal, negative and dominating scores, infinities and NaN", "attention", scores},
    {"NaN in the pages of a cache", "attention", cached_scores},
    {"equal, extreme and infinite logits, and NaN", "router", choices, false},
    {"equal and large logits, infinities and NaN", "cross_entropy", losses},
    {"extreme logits, infinities and NaN, temperatures", "token_log_probs", log_probs, false},
    {"zeros, largest, infinities and NaN", "add_bias", biases},
    {"infinities and NaN in gradients", "sum_squares", norms_of_gradients, false},
};

}  // namespace

std::vector<Check> value_checks(const Options& options) {
  const DeviceKind device = kind_of(options.device);
  const std::vector<ops::KernelRow> rows = ops::all_kernel_rows();
  const auto lacking = [&](std::string_view op) {
    return std::any_of(rows.begin(), rows.end(), [&](const ops::KernelRow& row) {
      return row.kernel == op && !ops::has_kernel(row, device);
    });
  };
  std::vector<Check> checks;
  for (const Values& v : kValues) {
    if (lacking(v.op)) continue;
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      if (dtype == DType::kBF16 && !v.bf16) continue;
      checks.push_back({.head = {.name = fmt::format("{}, {}, {}", v.op, to_string(dtype), v.name),
                                 .subject = v.op,
                                 .level = Level::kOp,
                                 .training_only = training_kernel(v.op)},
                        .run = [&v, dtype](Running& r) {
                          judge_run(r, dtype, r.options.seed, "", [&](Maker& m) { v.run(m); });
                        }});
    }
  }
  return checks;
}

}  // namespace ferry::doctor
