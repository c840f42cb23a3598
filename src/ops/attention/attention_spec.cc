// What attention promises, on every device.
#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/math.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "ops/attention/attention.h"
#include "ops/attention/attention_reference.h"
#include "ops/call_check.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct Sizes {
  std::vector<int32_t> lengths;  // of documents
  int64_t heads, key_heads, d_qk, d_v;
  double spread = 1;    // of q: 30 gives scores whose e^score would overflow
  bool shared = false;  // v is the first d_v columns of k, as in MLA's absorbed form
  bool benchmark = false;
  enum class Scores { kAny, kNegative, kEqual, kOneDominates } scores = Scores::kAny;
  bool paged = false;  // keys lie in pages of a cache, in an order of their own; no gradient
  bool apart = false;  // in pages, shared: the keys' columns after the first d_v lie elsewhere
};

template <class T>
RefArray<T> first_columns(const RefArray<T>& x, int64_t columns) {
  const int64_t whole = x.shape[2];
  RefArray<T> out({x.shape[0], x.shape[1], columns});
  for (int64_t i = 0; i < out.shape.count(); ++i) out[i] = x[i / columns * whole + i % columns];
  return out;
}

/// Rows of a, each followed by that of b.
template <class T>
RefArray<T> side_by_side(const RefArray<T>& a, const RefArray<T>& b) {
  const int64_t first = a.shape[2], whole = first + b.shape[2];
  RefArray<T> out({a.shape[0], a.shape[1], whole});
  for (int64_t i = 0; i < out.shape.count(); ++i) {
    const int64_t row = i / whole, column = i % whole;
    out[i] = column < first ? a[row * first + column] : b[row * b.shape[2] + column - first];
  }
  return out;
}

double largest_norm(const RefTensor& x) {
  double largest = 0;
  const int64_t depth = x.shape[2];
  for (int64_t row = 0; row < x.shape.count() / depth; ++row) {
    double squares = 0;
    for (int64_t d = 0; d < depth; ++d) squares += x[row * depth + d] * x[row * depth + d];
    largest = std::max(largest, squares);
  }
  return std::sqrt(largest);
}

/// Bound on the relative error of a weight. A score is a sum of d_qk terms; an error of it is a
/// relative error of its weight, both above and below the line; so are the rounding of
/// scale * qk - top (at most 88 where the weight is not zero), e^x (2 ulp), the factors of later
/// tiles and, for bf16, the rounding of the weight.
double weight_error(DType dtype, int64_t depth, double largest_score, int64_t longest) {
  constexpr double u = 0x1p-24;
  const auto d_qk = static_cast<double>(depth), keys = static_cast<double>(longest);
  const double score = (d_qk + 1) * u * largest_score + std::min(88.0, 2 * largest_score) * u;
  return 2 * score + (6 + keys / 64 * 6) * u + (dtype == DType::kBF16 ? unit_roundoff(dtype) : 0);
}

/// The weighted sum adds one rounding for each key. All this times the sum of weight * |v|; then
/// y's rounding.
std::vector<double> error_bound(
    DType dtype, double weight, const RefTensor& magnitude, const RefTensor& y, int64_t longest) {
  const double sum = 2 * weight + (2 * static_cast<double>(longest) + 4) * 0x1p-24;
  std::vector<double> bound(y.values.size());
  for (size_t i = 0; i < bound.size(); ++i)
    bound[i] = sum * (1 + 1e-3) * magnitude.values[i] +
               unit_roundoff(dtype) * std::abs(y.values[i]) + kLeastNormal;
  return bound;
}

/// The same for a call that was watched, where keys may lie in a cache of which only some rows are
/// in use: device and reference (in f32) may both be off.
std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const RefTensor& q = facts.input("q");
  const RefTensor k = facts.has("k_tail") ? side_by_side(facts.input("k"), facts.input("k_tail"))
                                          : facts.input("k");
  const RefTensor &position = facts.input("position"), &begin = facts.input("key_begin");
  const RefTensor* const pages = facts.has("pages") ? &facts.input("pages") : nullptr;
  const auto lies_at = [&](int64_t row) {
    return pages == nullptr
               ? row
               : static_cast<int64_t>((*pages)[row / kPageRows]) * kPageRows + row % kPageRows;
  };
  const auto norm = [](const RefTensor& x, int64_t row) {
    double squares = 0;
    for (int64_t d = 0; d < x.shape[2]; ++d)
      squares += x[row * x.shape[2] + d] * x[row * x.shape[2] + d];
    return std::sqrt(squares);
  };
  double largest_q = 0, largest_k = 0;
  const int64_t heads = q.shape[1], key_heads = k.shape[1];
  for (int64_t row = 0; row < q.shape[0] * heads; ++row)
    largest_q = std::max(largest_q, norm(q, row));
  for (int64_t t = 0; t < q.shape[0]; ++t) {
    const auto first = static_cast<int64_t>(begin[t]),
               last = first + static_cast<int64_t>(position[t]);
    if (t > 0 && begin[t] == begin[t - 1] && position[t] == position[t - 1] + 1) {
      for (int64_t h = 0; h < key_heads; ++h)
        largest_k = std::max(largest_k, norm(k, lies_at(last) * key_heads + h));
      continue;
    }
    for (int64_t row = first; row <= last; ++row)
      for (int64_t h = 0; h < key_heads; ++h)
        largest_k = std::max(largest_k, norm(k, lies_at(row) * key_heads + h));
  }
  const DType dtype = facts.type("q");
  const double score = facts.number("scale") * largest_q * largest_k;
  const auto longest = static_cast<int64_t>(facts.number("longest"));
  const double in_f32 = weight_error(DType::kF32, q.shape[2], score, longest);
  if (std::string_view(output) != "lse")
    return error_bound(dtype,
                       weight_error(dtype, q.shape[2], score, longest) + in_f32,
                       facts.magnitudes({"v"}, output),
                       y,
                       2 * longest);
  // Weights are summed before they are rounded to the type of q. A logarithm turns relative into
  // absolute errors.
  std::vector<double> bound(y.values.size());
  for (size_t i = 0; i < bound.size(); ++i)
    bound[i] = 2 * in_f32 + 8 * 0x1p-24 * (1 + std::abs(y.values[i]));
  return bound;
}

/// What a query's row of the gradient's matrices may be off by, the device's and the reference's:
/// P = e^(scale q k - lse) and dS = P (dP - D), with dP = d_out v and D = d_out out. In bf16 both
/// may be rounded to it as operands of products.
class BackwardBounds {
 public:
  explicit BackwardBounds(CallFacts& facts)
      : q_(facts.input("q")),
        k_(facts.input("k")),
        v_(facts.input("v")),
        position_(facts.input("position")),
        begin_(facts.input("key_begin")),
        out_(facts.input("out")),
        lse_(facts.input("lse")),
        d_out_(facts.input("d_out")),
        scale_(facts.number("scale")),
        rounding_(facts.type("q") == DType::kBF16 ? unit_roundoff(DType::kBF16) : 0),
        joint_(facts.shape("d_k")[2] >= facts.shape("v")[2] && !facts.has_output("d_v")) {}

  /// Bounds on d_q, d_k or d_v before their own rounding.
  std::vector<double> of(std::string_view output) {
    const RefTensor& like = output == "d_q" ? q_ : output == "d_k" ? k_ : v_;
    std::vector<double> bound(like.values.size());
    cpu_pool().parallel_for(k_.shape[1], [&](int64_t g, int) {
      const int64_t group = q_.shape[1] / k_.shape[1];
      for (int64_t t = 0; t < q_.shape[0]; ++t)
        for (int64_t h = g * group; h < (g + 1) * group; ++h) query(output, t, h, g, bound);
    });
    return bound;
  }

 private:
  void query(std::string_view output, int64_t t, int64_t h, int64_t g, std::vector<double>& bound) {
    constexpr double u = 0x1p-24;
    const int64_t d_qk = q_.shape[2], d_v = v_.shape[2], key_heads = k_.shape[1];
    const int64_t row = t * q_.shape[1] + h;
    const double* q = q_.values.data() + row * d_qk;
    const double* d_out = d_out_.values.data() + row * d_v;
    const double* out = out_.values.data() + row * d_v;
    double delta = 0, delta_size = 0;
    for (int64_t d = 0; d < d_v; ++d) {
      delta += d_out[d] * out[d];
      delta_size += std::abs(d_out[d] * out[d]);
    }
    const auto first = static_cast<int64_t>(begin_[t]),
               keys = static_cast<int64_t>(position_[t]) + 1;
    // A row of d_k or d_v sums over the queries that see the key, in any order.
    const double terms =
        static_cast<double>(output == "d_q" ? keys : q_.shape[0] * q_.shape[1] / key_heads);
    for (int64_t key = first; key < first + keys; ++key) {
      const double* k = k_.values.data() + (key * key_heads + g) * d_qk;
      const double* v = v_.values.data() + (key * key_heads + g) * d_v;
      double score = 0, score_size = 0, d_p = 0, d_p_size = 0;
      for (int64_t d = 0; d < d_qk; ++d) {
        score += scale_ * q[d] * k[d];
        score_size += scale_ * std::abs(q[d] * k[d]);
      }
      for (int64_t d = 0; d < d_v; ++d) {
        d_p += d_out[d] * v[d];
        d_p_size += std::abs(d_out[d] * v[d]);
      }
      const double p = math::exp(score - lse_[row]);
      const double relative = 2 * u *
                                  (static_cast<double>(d_qk + 1) * score_size + std::abs(score) +
                                   std::abs(lse_[row]) + 8) +
                              rounding_ + 2 * u * terms;
      // Below the least normal number p, dS and what the scale makes of it may be zero, or not.
      const double p_error = p * relative + kLeastNormal;
      const double d_s_error = p * 2 * u * static_cast<double>(d_v + 2) * (d_p_size + delta_size) +
                               std::abs(d_p - delta) * (p_error + p * (rounding_ + 4 * u)) +
                               kLeastNormal;
      const double scaled_error = scale_ * d_s_error + kLeastNormal;
      if (output == "d_q")
        for (int64_t d = 0; d < d_qk; ++d)
          bound[static_cast<size_t>(row * d_qk + d)] += scaled_error * std::abs(k[d]);
      if (output == "d_k")
        for (int64_t d = 0; d < d_qk; ++d)
          bound[static_cast<size_t>((key * key_heads + g) * d_qk + d)] +=
              scaled_error * std::abs(q[d]) +
              (joint_ && d < d_v ? p_error * std::abs(d_out[d]) : 0);
      if (output == "d_v")
        for (int64_t d = 0; d < d_v; ++d)
          bound[static_cast<size_t>((key * key_heads + g) * d_v + d)] +=
              p_error * std::abs(d_out[d]);
    }
  }

  const RefTensor &q_, &k_, &v_, &position_, &begin_, &out_, &lse_, &d_out_;
  double scale_, rounding_;
  bool joint_;
};

std::vector<double> backward_call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  std::vector<double> bound = rule_elementwise(facts, output, y, 0x1p-22);
  const std::vector<double> off = BackwardBounds(facts).of(output);
  for (size_t i = 0; i < bound.size(); ++i) bound[i] += 1.01 * off[i];
  return bound;
}

/// Pages for documents of these lengths, the last first: where they lie is nobody's concern.
struct PagedKeys {
  std::vector<int32_t> key_begin, pages;
  int64_t rows = 0;

  explicit PagedKeys(const std::vector<int32_t>& lengths) {
    int32_t count = 0;
    for (const int32_t length : lengths) {
      key_begin.insert(
          key_begin.end(), static_cast<size_t>(length), count * static_cast<int32_t>(kPageRows));
      count += static_cast<int32_t>((length + kPageRows - 1) / kPageRows);
    }
    for (int32_t i = 0; i < count; ++i) pages.push_back(count - 1 - i);
    rows = count * kPageRows;
  }
};

/// Rows of x in the order of their numbers, which a tape records side by side: a product with them is one record then.
template <class T>
RefArray<T> in_order(const RefArray<T>& x, const std::vector<int32_t>& pages) {
  if (pages.empty()) return x;
  RefArray<T> out(x.shape);
  const int64_t width = x.shape[1] * x.shape[2];
  for (int64_t i = 0; i < out.shape.count(); ++i) {
    const int64_t row = i / width;
    out[i] = copied(
        x[(pages[static_cast<size_t>(row / kPageRows)] * kPageRows + row % kPageRows) * width +
          i % width]);
  }
  return out;
}

OpCase attention_case(DType dtype, const Sizes& z) {
  int32_t tokens = 0, longest = 0;
  std::vector<int32_t> position, key_begin;
  for (const int32_t length : z.lengths) {
    for (int32_t i = 0; i < length; ++i) {
      position.push_back(i);
      key_begin.push_back(tokens);
    }
    tokens += length;
    longest = std::max(longest, length);
  }
  int64_t key_rows = tokens;
  std::vector<int32_t> pages;
  if (z.paged) {
    PagedKeys keys(z.lengths);
    key_begin = std::move(keys.key_begin);
    pages = std::move(keys.pages);
    key_rows = keys.rows;
  }
  const float scale = 1 / std::sqrt(static_cast<float>(z.d_qk));
  OpCase c;
  c.name = fmt::format("{} {} documents of up to {} heads {}/{} sizes {}/{}{}{}{}",
                       to_string(dtype),
                       z.lengths.size(),
                       longest,
                       z.heads,
                       z.key_heads,
                       z.d_qk,
                       z.d_v,
                       z.shared ? " shared" : "",
                       z.spread > 1 ? " large scores" : "",
                       z.apart   ? " in pages, keys in two parts"
                       : z.paged ? " in pages"
                                 : "");
  c.inputs = {{.name = "q",
               .shape = {tokens, z.heads, z.d_qk},
               .dtype = dtype,
               .scale = z.spread,
               .gradient = !z.paged},
              {.name = "k",
               .shape = {key_rows, z.key_heads, z.apart ? z.d_v : z.d_qk},
               .dtype = dtype,
               .gradient = !z.paged}};
  if (z.apart)
    c.inputs.push_back({.name = "k_tail",
                        .shape = {key_rows, z.key_heads, z.d_qk - z.d_v},
                        .dtype = dtype,
                        .gradient = false});
  if (!z.shared)
    c.inputs.push_back({.name = "v",
                        .shape = {key_rows, z.key_heads, z.d_v},
                        .dtype = dtype,
                        .gradient = !z.paged});
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Segments segments = Segments::paged(position, key_begin, pages, in[0].device());
    if (z.apart) return {attention(in[0], in[1], in[1], segments, scale, in[2])};
    return {attention(in[0], in[1], z.shared ? in[1].slice(2, 0, z.d_v) : in[2], segments, scale)};
  };
  switch (z.scores) {
    case Sizes::Scores::kAny: break;
    case Sizes::Scores::kNegative:  // q and k point away from each other
      c.name += " negative scores";
      c.inputs[0].scale = c.inputs[1].scale = 0.25;
      c.inputs[0].offset = 2, c.inputs[1].offset = -2;
      break;
    case Sizes::Scores::kEqual:
      c.name += " equal scores";
      c.inputs[0].scale = 0;
      break;
    case Sizes::Scores::kOneDominates: {  // the second key of each document, by e^40 and more
      c.name += " one key dominates";
      c.inputs[0].scale = 0.1, c.inputs[0].offset = 2;
      c.inputs[1].fill = InputSpec::Fill::kGiven;
      const Random random(7, RandomPurpose::kTest, 3);
      const int64_t row = z.key_heads * z.d_qk;
      for (int64_t i = 0; i < tokens * row; ++i)
        c.inputs[1].given.push_back(position[static_cast<size_t>(i / row)] == 1
                                        ? 25 / std::sqrt(static_cast<double>(z.d_qk))
                                        : random.normal(static_cast<uint64_t>(i)) / 8);
      break;
    }
  }
  const auto keys = [=](const auto& in) {
    return in_order(z.apart ? side_by_side(in[1], in[2]) : in[1], pages);
  };
  const auto values = [=](const auto& in) {
    return in_order(z.shared ? first_columns(in[1], z.d_v) : in[2], pages);
  };
  const auto magnitudes = [=](const std::vector<RefTensor>& in) {
    return attention_reference(
        in[0], keys(in), absolute(values(in)), position, key_begin, static_cast<double>(scale));
  };
  c.reference = [=](const auto& in) {
    return std::vector{attention_reference(
        in[0], keys(in), values(in), position, key_begin, static_cast<double>(scale))};
  };
  c.tolerance = [=](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    const double score = static_cast<double>(scale) * largest_norm(in[0]) * largest_norm(keys(in));
    return error_bound(
        dtype, weight_error(dtype, z.d_qk, score, longest), magnitudes(in), y, longest);
  };
  c.row_independent = false;  // a row needs its document's keys: attention_test.cc
  double pairs = 0;
  for (const int32_t length : z.lengths) pairs += 0.5 * length * (length + 1.0);
  c.flops = 2.0 * pairs * static_cast<double>(z.heads * (z.d_qk + z.d_v));
  c.bytes = static_cast<double>(tokens * (z.heads + z.key_heads) * (z.d_qk + z.d_v)) *
            static_cast<double>(size_of(dtype));
  c.benchmark = z.benchmark;
  return c;
}

}  // namespace

OpSpec attention_spec() {
  OpSpec spec{.op = "attention",
              .kernels = kernel_rows({"attention", "attention_backward"}),
              .cases = {},
              .calls = {{.kernel = "attention", .bound = call_bound},
                        {.kernel = "attention_backward", .bound = backward_call_bound}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    const auto add = [&](const Sizes& z) { spec.cases.push_back(attention_case(t, z)); };
    add({{1}, 1, 1, 1, 1});
    add({{5, 1, 1, 17, 2}, 3, 1, 7, 5});       // odd sizes, documents of one token
    add({{67}, 2, 2, 24, 16});                 // one key past a tile
    add({{130, 3}, 4, 2, 16, 24});             // three tiles; Dv > Dqk
    add({{9, 20}, 6, 3, 17, 33});              // odd and no multiple of a vector
    add({{40, 30}, 5, 5, 48, 32});             // the small model's
    add({{70}, 2, 1, 16, 16, 30});             // scores far beyond e^88
    add({{11, 6}, 2, 2, 192, 128});            // DeepSeek V3, expanded
    add({{5, 7}, 3, 1, 576, 512, 1, true});    // and absorbed: v lies inside k
    add({{2, 131}, 2, 1, 576, 512, 1, true});  // the same where heads are a power of two
    add({{300}, 2, 2, 16, 8});                 // beyond one tile of 256 keys
    add({{3, 1, 40}, 4, 2, 32, 16});           // sizes in sixteens
    add({{66}, 2, 1, 18, 10, 1, true});
    add({.lengths = {5, 300}, .heads = 4, .key_heads = 2, .d_qk = 24, .d_v = 16, .paged = true});
    for (const int64_t heads : {int64_t{2}, int64_t{3}})  // of which Ascend's fused op takes two
      add({.lengths = {150, 5},
           .heads = heads,
           .key_heads = 1,
           .d_qk = 576,
           .d_v = 512,
           .shared = true,
           .paged = true,
           .apart = true});
    for (const bool apart : {false, true})
      add({.lengths = {70, 130},
           .heads = 3,
           .key_heads = 1,
           .d_qk = 21,
           .d_v = 18,
           .shared = true,
           .paged = true,
           .apart = apart});
    for (const Sizes::Scores s :
         {Sizes::Scores::kNegative, Sizes::Scores::kEqual, Sizes::Scores::kOneDominates})
      add({.lengths = {20, 7}, .heads = 2, .key_heads = 1, .d_qk = 24, .d_v = 16, .scores = s});
    add({std::vector<int32_t>(8, 512), 8, 8, 48, 32, 1, false, true});
    add({std::vector<int32_t>(8, 1024), 12, 12, 96, 64, 1, false, true});
    add({std::vector<int32_t>(4, 512), 16, 1, 576, 512, 1, true, true});
  }
  return spec;
}

}  // namespace ferry::ops
