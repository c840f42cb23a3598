// What attention promises, on every device.
#include <algorithm>
#include <cmath>
#include <string_view>

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
};

RefTensor first_columns(const RefTensor& x, int64_t columns) {
  const int64_t whole = x.shape[2];
  RefTensor out({x.shape[0], x.shape[1], columns});
  for (int64_t i = 0; i < out.shape.count(); ++i) out[i] = x[i / columns * whole + i % columns];
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
               unit_roundoff(dtype) * std::abs(y.values[i]) + 0x1p-126;
  return bound;
}

/// The same for a call that was watched, where keys may lie in a cache of which only some rows are
/// in use: device and reference (in f32) may both be off.
std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const RefTensor &q = facts.input("q"), &k = facts.input("k");
  const RefTensor &position = facts.input("position"), &begin = facts.input("key_begin");
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
        largest_k = std::max(largest_k, norm(k, last * key_heads + h));
      continue;
    }
    for (int64_t row = first * key_heads; row < (last + 1) * key_heads; ++row)
      largest_k = std::max(largest_k, norm(k, row));
  }
  const DType dtype = facts.type("q");
  const double score = facts.number("scale") * largest_q * largest_k;
  const auto longest = static_cast<int64_t>(facts.number("longest"));
  const double weight = weight_error(dtype, q.shape[2], score, longest) +
                        weight_error(DType::kF32, q.shape[2], score, longest);
  if (std::string_view(output) != "lse")
    return error_bound(dtype, weight, facts.magnitudes({"v"}, output), y, 2 * longest);
  std::vector<double> bound(y.values.size());  // a logarithm turns relative into absolute errors
  for (size_t i = 0; i < bound.size(); ++i)
    bound[i] = weight + 8 * 0x1p-24 * (1 + std::abs(y.values[i]));
  return bound;
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
  const float scale = 1 / std::sqrt(static_cast<float>(z.d_qk));
  OpCase c;
  c.name = fmt::format("{} {} documents of up to {} heads {}/{} sizes {}/{}{}{}",
                       to_string(dtype),
                       z.lengths.size(),
                       longest,
                       z.heads,
                       z.key_heads,
                       z.d_qk,
                       z.d_v,
                       z.shared ? " shared" : "",
                       z.spread > 1 ? " large scores" : "");
  c.inputs = {
      {.name = "q",
       .shape = {tokens, z.heads, z.d_qk},
       .dtype = dtype,
       .scale = z.spread,
       .gradient = true},
      {.name = "k", .shape = {tokens, z.key_heads, z.d_qk}, .dtype = dtype, .gradient = true}};
  if (!z.shared)
    c.inputs.push_back(
        {.name = "v", .shape = {tokens, z.key_heads, z.d_v}, .dtype = dtype, .gradient = true});
  c.run = [z, scale](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Segments segments = Segments::packed(z.lengths, in[0].device());
    return {attention(in[0], in[1], z.shared ? in[1].slice(2, 0, z.d_v) : in[2], segments, scale)};
  };
  const auto reference = [=](const std::vector<RefTensor>& in, bool magnitude) {
    RefTensor v = z.shared ? first_columns(in[1], z.d_v) : in[2];
    if (magnitude)
      for (double& x : v.values) x = std::abs(x);
    return attention_reference(in[0], in[1], v, position, key_begin, static_cast<double>(scale));
  };
  c.reference = [reference](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {reference(in, false)};
  };
  c.tolerance = [=](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    const double score = static_cast<double>(scale) * largest_norm(in[0]) * largest_norm(in[1]);
    return error_bound(
        dtype, weight_error(dtype, z.d_qk, score, longest), reference(in, true), y, longest);
  };
  // bf16: P, dS and out (in D) are rounded, and so are the gradients; f32: scores' errors. With
  // large scores one key has nearly all the weight, dP - D cancels there and out's rounding is what
  // is left.
  c.gradient_tolerance = dtype == DType::kBF16 ? (z.spread > 1 ? 0.25 : 0x1p-6) : 2e-5 * z.spread;
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
              .calls = {{.kernel = "attention", .bound = call_bound}}};
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
    add({std::vector<int32_t>(8, 512), 8, 8, 48, 32, 1, false, true});
    add({std::vector<int32_t>(8, 1024), 12, 12, 96, 64, 1, false, true});
    add({std::vector<int32_t>(4, 512), 16, 1, 576, 512, 1, true, true});
  }
  return spec;
}

}  // namespace ferry::ops
