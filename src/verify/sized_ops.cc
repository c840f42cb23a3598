#include "verify/sized_ops.h"

#include <algorithm>
#include <cmath>

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/adamw/adamw.h"
#include "ops/add/add.h"
#include "ops/add_bias/add_bias.h"
#include "ops/attention/attention.h"
#include "ops/axpby/axpby.h"
#include "ops/balance_loss/balance_loss.h"
#include "ops/cast/cast.h"
#include "ops/concat/concat.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/dequantize/dequantize.h"
#include "ops/dispatch.h"
#include "ops/embedding/embedding.h"
#include "ops/grouped_linear/grouped_linear.h"
#include "ops/head_linear/head_linear.h"
#include "ops/linear/linear.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/mla_expand/mla_expand.h"
#include "ops/moe_permute/moe_permute.h"
#include "ops/pair_linear/paired_weight.h"
#include "ops/quantized_linear/quantized_linear.h"
#include "ops/quantized_linear/quantized_weight.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rope/rope.h"
#include "ops/router/router.h"
#include "ops/scale/scale.h"
#include "ops/spec_check.h"
#include "ops/sum_squares/sum_squares.h"
#include "ops/swiglu/swiglu.h"
#include "ops/token_log_probs/token_log_probs.h"
#include "ops/unit_norm/unit_norm.h"

namespace ferry::doctor {
namespace {

constexpr int64_t kElements = 1 << 20;  // of a ladder's vectors

double d(int64_t n) { return static_cast<double>(n); }

Tensor integers(Maker& m, int64_t count, int64_t below) {
  return Tensor::from_i32(m.indices(count, below), {count}, m.device());
}

/// So many documents of nearly equal lengths.
std::vector<int32_t> lengths_of(int64_t tokens, int64_t documents) {
  documents = std::clamp<int64_t>(documents, 1, tokens);
  std::vector<int32_t> lengths;
  for (int64_t i = 0; i < documents; ++i)
    lengths.push_back(static_cast<int32_t>(tokens * (i + 1) / documents - tokens * i / documents));
  return lengths;
}

float score_scale(const Maker& m, int64_t depth) {
  return static_cast<float>(m.given("scale", 1 / std::sqrt(d(depth))));
}

/// Sorted from 0 to rows; some experts have none.
Tensor group_offsets(Maker& m, int64_t rows, int64_t experts) {
  std::vector<int32_t> offsets = m.indices(experts + 1, rows + 1);
  offsets.front() = 0;
  offsets.back() = static_cast<int32_t>(rows);
  std::sort(offsets.begin(), offsets.end());
  return Tensor::from_i32(offsets, {experts + 1}, m.device());
}

void run_matmul(Maker& m, const Sizes& s) {
  const int64_t batch = s[0], rows = s[1], depth = s[2], columns = s[3];
  const bool ta = s[4] != 0, tb = s[5] != 0;
  const auto shape = [&](int64_t r, int64_t c, bool transposed) {
    if (transposed) std::swap(r, c);
    return batch > 1 ? Shape{batch, r, c} : Shape{r, c};
  };
  const Tensor a = m.normal(shape(rows, depth, ta), m.dtype());
  const Tensor b = m.normal(shape(depth, columns, tb), m.type("b", m.dtype()));
  const DType out = m.type("c", m.pick(2) == 0 ? DType::kF32 : m.dtype());
  const Tensor c = Tensor::empty(shape(rows, columns, false), out, m.device());
  // Not by ops::matmul: gradients multiply in another type than a's.
  const bool bf16 = m.given("bf16", m.dtype() == DType::kBF16 ? 1 : 0) != 0;
  ops::dispatch_matmul({a.view(), b.view(), c.view(), ta, tb, bf16 ? DType::kBF16 : DType::kF32},
                       m.device());
}

void run_linear(Maker& m, const Sizes& s) {
  const Tensor x = m.activations({s[0], s[1]});
  const Weight w = m.weight({s[2], s[1]}, 1 / std::sqrt(d(s[1])), "weight");
  if (m.given("pairs", 0) != 0)  // of a model that only answers
    return static_cast<void>(
        ops::linear(x, ops::paired_weight("w", w.value), {.out = m.type("out", m.dtype())}));
  static_cast<void>(ops::linear(x, w));  // as it is when nothing is recorded: the packed weight
  m.differentiate([&] { return std::vector<Tensor>{ops::linear(x, w)}; });
}

void run_grouped(Maker& m, const Sizes& s) {
  const Tensor x = m.activations({s[0], s[2]});
  const Weight w = m.weight({s[1], s[3], s[2]}, 1 / std::sqrt(d(s[2])), "weight");
  const Tensor offsets = group_offsets(m, s[0], s[1]);
  if (m.given("pairs", 0) != 0)
    return static_cast<void>(ops::grouped_linear(x, ops::paired_weight("w", w.value), offsets));
  static_cast<void>(ops::grouped_linear(x, w, offsets));  // the packed weights
  m.differentiate([&] { return std::vector<Tensor>{ops::grouped_linear(x, w, offsets)}; });
}

/// As in MLA: queries to the latent, and from it to the values.
void run_head_linear(Maker& m, const Sizes& s) {
  const int64_t tokens = s[0], heads = s[1], rows = s[2], latent = s[3];
  const Weight w = m.weight({heads * 2 * rows, latent}, 1 / std::sqrt(d(latent)));
  const Tensor x = m.activations({tokens, heads, rows}), z = m.activations({tokens, heads, latent});
  const ops::HeadLinear up{.rows_per_head = 2 * rows, .begin = 0, .rows = rows, .transpose = false};
  const ops::HeadLinear down{
      .rows_per_head = 2 * rows, .begin = rows, .rows = rows, .transpose = true};
  m.differentiate([&] {
    return std::vector<Tensor>{ops::head_linear(x, w, up), ops::head_linear(z, w, down)};
  });
}

/// Grouped-query attention over packed documents: `group` heads read each key head.
void attend_packed(Maker& m,
                   int64_t tokens,
                   int64_t documents,
                   int64_t key_heads,
                   int64_t group,
                   int64_t d_qk,
                   int64_t d_v) {
  const ops::Segments segments = ops::Segments::packed(lengths_of(tokens, documents), m.device());
  const Tensor q = m.activations({tokens, key_heads * group, d_qk}),
               k = m.activations({tokens, key_heads, d_qk}),
               v = m.activations({tokens, key_heads, d_v});
  const auto forward = [&] {
    return std::vector<Tensor>{ops::attention(q, k, v, segments, score_scale(m, d_qk))};
  };
  forward();
  m.differentiate(forward);
}

void run_attention(Maker& m, const Sizes& s) { attend_packed(m, s[0], s[1], s[2], 1, s[3], s[4]); }

void run_grouped_attention(Maker& m, const Sizes& s) {
  attend_packed(m, s[0], s[1], s[2], s[3], s[4], s[5]);
}

/// MLA's absorbed form: all heads share one key, whose first columns are the value.
void run_absorbed(Maker& m, const Sizes& s) {
  const int64_t tokens = s[0], heads = s[2], latent = s[3], width = latent + s[4];
  const ops::Segments segments = ops::Segments::packed(lengths_of(tokens, s[1]), m.device());
  const Tensor q = m.activations({tokens, heads, width}), k = m.activations({tokens, 1, width});
  const auto forward = [&] {
    return std::vector<Tensor>{
        ops::attention(q, k, k.slice(2, 0, latent), segments, score_scale(m, width))};
  };
  forward();
  m.differentiate(forward);
}

/// The last `queries` tokens of `slots` sequences that lie in pages of a cache, as a server meets
/// them: the first is of `keys` tokens, the others are shorter.
ops::Segments last_of_cached(Maker& m, int64_t keys, int64_t queries, int64_t slots) {
  const int64_t own = (keys + ops::kPageRows - 1) / ops::kPageRows;  // pages of a sequence
  std::vector<int32_t> position, key_begin, pages;
  for (int64_t page = slots * own; page-- > 0;) pages.push_back(static_cast<int32_t>(page));
  for (int64_t slot = 0; slot < slots; ++slot) {
    const int64_t length =
        slot == 0 ? keys : 1 + static_cast<int64_t>(m.pick(static_cast<uint64_t>(keys)));
    for (int64_t i = 0; i < std::min(queries, length); ++i) {
      position.push_back(static_cast<int32_t>(length - std::min(queries, length) + i));
      key_begin.push_back(static_cast<int32_t>(slot * own * ops::kPageRows));
    }
  }
  return ops::Segments::paged(position, key_begin, pages, m.device());
}

int64_t rows_of_pages(const ops::Segments& segments) {
  return std::ssize(segments.host->pages) * ops::kPageRows;
}

/// MLA: one key for all heads in two parts, the first of which is the value.
void run_cached(Maker& m, const Sizes& s) {
  const int64_t heads = s[3], latent = s[4], width = latent + s[5];
  const ops::Segments segments = last_of_cached(m, s[0], std::min(s[1], s[0]), s[2]);
  const Tensor q = m.normal({segments.tokens(), heads, width}, m.dtype()),
               k = m.normal({rows_of_pages(segments), 1, latent}, m.dtype()),
               k_pe = m.normal({rows_of_pages(segments), 1, width - latent}, m.dtype());
  static_cast<void>(ops::attention(q, k, k, segments, score_scale(m, width), k_pe));
}

void run_grouped_cached(Maker& m, const Sizes& s) {
  const int64_t key_heads = s[3], group = s[4], size = s[5];
  const ops::Segments segments = last_of_cached(m, s[0], std::min(s[1], s[0]), s[2]);
  const Tensor q = m.normal({segments.tokens(), key_heads * group, size}, m.dtype()),
               k = m.normal({rows_of_pages(segments), key_heads, size}, m.dtype()),
               v = m.normal({rows_of_pages(segments), key_heads, size}, m.dtype());
  static_cast<void>(ops::attention(q, k, v, segments, score_scale(m, size)));
}

void run_rms_norm(Maker& m, const Sizes& s) {
  const Tensor x = m.activations({s[0], s[1]});
  const Weight w = m.weight({s[1]}, 1, "weight");
  const auto eps = static_cast<float>(m.given("eps", 1e-6));
  m.differentiate([&] { return std::vector<Tensor>{ops::rms_norm(x, w, eps)}; });
}

void run_rope(Maker& m, const Sizes& s) {
  const int64_t tokens = s[0], heads = s[1], dim = 2 * s[2], positions = s[3];
  const auto begin = static_cast<int64_t>(m.given("begin", 8));
  const ops::RopeTable table = ops::make_rope_table({.dim = dim}, positions, m.device());
  std::vector<int32_t> position = m.indices(tokens, positions);
  position.back() = static_cast<int32_t>(positions - 1);
  std::vector<int32_t> first_keys(position.size(), 0);
  const ops::Segments segments =
      ops::Segments::cached(std::move(position), std::move(first_keys), m.device());
  const bool flat = heads == 1 && m.given("rank", 3) == 2;  // a key that all heads share
  const Tensor x =
      m.activations(flat ? Shape{tokens, begin + dim} : Shape{tokens, heads, begin + dim});
  const bool interleaved = m.flag("interleaved");
  m.differentiate(
      [&] { return std::vector<Tensor>{ops::rope(x, table, segments, begin, interleaved)}; });
}

ops::RouterConfig router_of(Maker& m, int64_t experts, int64_t top_k) {
  ops::RouterConfig r;
  r.experts = static_cast<int>(experts);
  r.top_k = static_cast<int>(std::min(top_k, experts));
  r.sigmoid = m.flag("sigmoid");
  r.groups = static_cast<int>(m.given("groups", 8));
  r.groups_kept = static_cast<int>(m.given("groups_kept", 4));
  r.group_score = m.given("top2_sum", r.sigmoid ? 1 : 0) != 0 ? ops::GroupScore::kTop2Sum
                                                              : ops::GroupScore::kMax;
  if (ops::problem_of(r) != nullptr) r.groups = r.groups_kept = 1;  // too few experts for them
  r.normalize = m.given("normalize", r.sigmoid ? 1 : 0) != 0;
  r.scale = static_cast<float>(m.given("scale", 2.5));
  return r;
}

void run_router(Maker& m, const Sizes& s) {
  const ops::RouterConfig config = router_of(m, s[1], s[2]);
  const Tensor logits = m.normal({s[0], s[1]}, DType::kF32).set_needs_grad(true);
  const bool biased = m.given("bias", config.sigmoid ? 1 : 0) != 0;
  const Tensor bias = biased ? m.normal({s[1]}, DType::kF32, 0.1) : Tensor{};
  m.differentiate([&] {
    const ops::Routing r = ops::route(logits, bias, config);
    return std::vector<Tensor>{r.weights, r.scores};
  });
}

void run_balance(Maker& m, const Sizes& s) {
  const ops::RouterConfig config = router_of(m, s[1], s[2]);
  const Tensor logits = m.normal({s[0], s[1]}, DType::kF32).set_needs_grad(true);
  const ops::Segments segments = ops::Segments::packed(lengths_of(s[0], s[3]), m.device());
  Tensor experts;
  m.differentiate([&] {
    const ops::Routing r = ops::route(logits, {}, config);
    experts = r.experts;
    return std::vector<Tensor>{ops::balance_loss(r, segments, 0.01f)};
  });
  const Tensor counts = ops::expert_counts(experts, config.experts);
  ops::add_expert_counts(experts, counts);
  Weight bias = m.weight({s[1]}, 0.1);
  ops::bias_update(bias, counts, 0.001f);
}

void run_permute(Maker& m, const Sizes& s) {
  const int64_t tokens = s[0], experts = s[2], top_k = std::min(s[1], experts);
  const Tensor chosen = m.chosen(tokens, top_k, experts);
  const Tensor x = m.activations({tokens, s[3]});
  const Tensor weights = m.normal({tokens, top_k}, DType::kF32).set_needs_grad(true);
  m.differentiate([&] {
    const ops::ExpertPlan plan = ops::plan_experts(chosen, static_cast<int>(experts));
    return std::vector<Tensor>{ops::combine(ops::permute(x, plan), weights, plan)};
  });
}

void run_swiglu(Maker& m, const Sizes& s) {
  const Tensor gate = m.activations({s[0], s[1]}), up = m.activations({s[0], s[1]});
  m.differentiate([&] { return std::vector<Tensor>{ops::swiglu(gate, up)}; });
}

/// Sums, products by a number, and changes of type, as the residual stream and the gradient tree
/// make them.
void run_elementwise(Maker& m, const Sizes& s) {
  const Shape shape{s[0], s[1]};
  const Tensor a = m.activations(shape), b = m.activations(shape);
  m.differentiate([&] { return std::vector<Tensor>{ops::scale(ops::add(a, b), 0.75f)}; });
  static_cast<void>(ops::scale_by(a, m.normal({1}, DType::kF32)));
  const Tensor sum = m.normal(shape, DType::kF32), more = m.normal(shape, DType::kF32);
  ops::accumulate(sum, more);
  ops::axpby(0.5f, more, 0.25f, sum);
  static_cast<void>(ops::cast(sum, DType::kBF16));
  static_cast<void>(ops::cast(a, DType::kF32));
}

void run_concat(Maker& m, const Sizes& s) {
  const Tensor a = m.activations({s[0], s[1]}), b = m.activations({s[0], s[2]});
  m.differentiate([&] { return std::vector<Tensor>{ops::concat(a, b)}; });
}

void run_embedding(Maker& m, const Sizes& s) {
  const Tensor ids = integers(m, s[0], s[1]);
  const Weight w = m.weight({s[1], s[2]}, 1, "weight");
  if (m.given("pairs", 0) != 0)
    return static_cast<void>(ops::embedding(ids, ops::paired_weight("w", w.value), m.dtype()));
  m.differentiate([&] { return std::vector<Tensor>{ops::embedding(ids, w, m.dtype())}; });
}

void run_cross_entropy(Maker& m, const Sizes& s) {
  const Tensor hidden = m.activations({s[0], s[1]});
  const Weight head = m.weight({s[2], s[1]}, 1 / std::sqrt(d(s[1])), "head");
  std::vector<int32_t> labels = m.indices(s[0], s[2]);
  for (size_t i = 6; i < labels.size(); i += 7) labels[i] = -1;
  const Tensor targets = Tensor::from_i32(labels, {s[0]}, m.device());
  m.differentiate([&] {
    return std::vector<Tensor>{
        ops::cross_entropy(hidden, head, targets, 1 / static_cast<float>(s[0])).loss};
  });
}

void run_mla_expand(Maker& m, const Sizes& s) {
  const Tensor kv = m.activations({s[0], s[1], s[2] + s[3]}), k_pe = m.activations({s[0], s[4]});
  m.differentiate([&] {
    const ops::Expanded e = ops::mla_expand(kv, k_pe, s[2]);
    return std::vector<Tensor>{e.k, e.v};
  });
}

void run_adamw(Maker& m, const Sizes& s) {
  Weight w = m.weight({s[0]}, 1);
  w.value.set_needs_grad(false);
  const Tensor moment = m.normal({s[0]}, DType::kF32, 0.1), grad = m.normal({s[0]}, DType::kF32);
  const Tensor second = m.normal({s[0]}, DType::kF32);
  ops::axpby(0, second, 0, second);
  ops::adamw_update(
      w, moment, second, grad, {.lr = 1e-3, .step = 1 + static_cast<int64_t>(m.pick(1000))}, 0.5f);
  ops::adamw_update(w, moment, second, grad, {.lr = 1e-3, .step = 2000}, 0.5f);
}

void run_sum_squares(Maker& m, const Sizes& s) {
  const std::vector<Tensor> tensors = {m.normal({s[0]}, DType::kF32), m.normal({7}, DType::kF32)};
  const ops::SquareSum got =
      ops::total_of(read_together(std::vector<Tensor>{ops::sum_squares(tensors)})[0]);
  double expected = 0;
  for (const Tensor& t : tensors)
    for (const float v : t.to_f32()) expected += static_cast<double>(v) * static_cast<double>(v);
  // Squares do not cancel: in float32 one rounding for each term at the most.
  const double bound = (d(s[0]) + 8) * 0x1p-24 * expected;
  if (!got.finite || !(std::abs(got.sum - expected) <= bound))
    m.found("sum_squares", fmt::format("{:.9g}, expected {:.9g}", got.sum, expected));
}

/// Rows of memory from one place to another, as caches and the head's rows are moved.
void run_copy(Maker& m, const Sizes& s) {
  const Tensor from = m.normal({s[0], s[1]}, m.dtype());
  const Tensor to = Tensor::empty(from.shape(), m.dtype(), m.device());
  ops::copy(to.view(), from.view(), m.device());
}

void run_dequantize(Maker& m, const Sizes& s) {
  const ScaleBlocks blocks = kF8Blocks;
  const std::vector<int32_t> drawn = m.indices(s[0] * s[1], 254);  // any code but those of NaN
  std::vector<uint8_t> codes;
  for (const int32_t code : drawn)
    codes.push_back(static_cast<uint8_t>(code < 127 ? code : code + 1));
  Tensor f8 = Tensor::empty({s[0], s[1]}, DType::kF8E4M3, m.device());
  f8.copy_bytes_from(codes.data());
  const Tensor scales = m.normal(blocks.scales_of(f8.shape()), DType::kF32);
  static_cast<void>(ops::dequantize(f8, scales, blocks, m.dtype()));
}

void run_unit_norm(Maker& m, const Sizes& s) {
  static_cast<void>(ops::unit_norm(m.normal({s[0], s[1], s[2]}, DType::kF32)));
}

void run_add_bias(Maker& m, const Sizes& s) {
  const Tensor x = m.normal({s[0], s[1]}, DType::kF32).set_needs_grad(true);
  const Weight bias = m.weight({s[1]}, 1);
  m.differentiate([&] { return std::vector<Tensor>{ops::add_bias(x, bias, m.dtype())}; });
}

/// A weight of any kind of whole numbers. Of GGUF files' kinds a row is of whole units: it has as many as hold the
/// inner size.
void run_quantized_linear(Maker& m, const Sizes& s) {
  const auto drawn = static_cast<double>(m.pick(std::size(kWeightCodes)));
  const auto kind = static_cast<WeightCodes>(static_cast<int>(m.given("codes", drawn)));
  const bool whole_units = code_scales_dtype(kind) == DType::kU8, stack = s[1] > 1;
  const int64_t unit = whole_units ? scale_unit(kind).columns : 1;
  const int64_t matrices = s[1], inner = (s[2] + unit - 1) / unit * unit, outer = s[3];
  const Shape shape = stack ? Shape{matrices, outer, inner} : Shape{outer, inner};
  const CodePanels layout{kind, outer, inner};
  std::vector<int32_t> codes = m.indices(shape.count(), layout.largest() - layout.least() + 1);
  for (int32_t& code : codes) code += layout.least();
  const Shape of_rows{matrices * outer, whole_units ? layout.row_scale_bytes() : layout.groups()};
  Tensor scales;
  if (whole_units) {
    std::vector<int32_t> bytes;
    for (const double byte : ops::scales_input(kind, shape).make_given())
      bytes.push_back(static_cast<int32_t>(byte));
    scales = Tensor::from_i32(bytes, of_rows, m.device());
  } else {
    std::vector<float> sizes;
    for (const int32_t n : m.indices(of_rows.count(), 256))
      sizes.push_back(0.1f + static_cast<float>(n) / 1024);
    scales = Tensor::empty(of_rows, code_scales_dtype(kind), m.device());
    scales.assign_f32(sizes);
  }
  const Weight w = ops::quantized_weight(
      kind, shape, Tensor::from_i32(codes, {shape.count()}, m.device()), scales);
  const Tensor x = m.normal({s[0], inner}, m.dtype());
  const Tensor offsets = stack ? group_offsets(m, s[0], matrices) : Tensor{};
  static_cast<void>(ops::quantized_linear(x, w, offsets, m.type("out", m.dtype())));
}

/// Of the first token, of the last, of any, and of none; at temperatures about 1.
void run_token_log_probs(Maker& m, const Sizes& s) {
  const Tensor logits = m.normal({s[0], s[1]}, DType::kF32, 3);
  std::vector<int32_t> ids = m.indices(s[0] * s[2], s[1]);
  for (size_t i = 4; i < ids.size(); i += 5) ids[i] = -1;
  std::vector<float> temperatures;
  for (const int32_t n : m.indices(s[0], 256))
    temperatures.push_back(0.5f + static_cast<float>(n) / 128);
  static_cast<void>(ops::token_log_probs(logits,
                                         Tensor::from_i32(ids, {s[0], s[2]}, m.device()),
                                         Tensor::from_f32(temperatures, {s[0]}, m.device())));
}

/// What a size may be cut to while another is whole.
int64_t least(const Dimension& dim) { return std::clamp<int64_t>(dim.small, 1, 8); }

double product(const Sizes& s) {
  double p = 1;
  for (const int64_t n : s) p *= d(n);
  return p;
}

std::vector<SizedOp> all_sized_ops() {
  std::vector<SizedOp> all;
  const auto add = [&](SizedOp op) { all.push_back(std::move(op)); };
  add({.name = "matmul",
       .op = "matmul",
       .dims = {{"batch", 1, 65},
                {"rows", 5, 8193},
                {"depth", 24, 8193},
                {"columns", 17, 8193},
                {"transposed a", 0, 1},
                {"transposed b", 0, 1}},
       .work =
           [](const Sizes& s) {
             return 2 * d(s[0]) * d(s[1]) * d(s[2]) * d(s[3]) +
                    32 * d(s[0]) * (d(s[1]) * d(s[2]) + d(s[2]) * d(s[3]) + d(s[1]) * d(s[3]));
           },
       .run = run_matmul,
       .kernels = {"matmul"}});
  add({.name = "linear",
       .op = "linear",
       .dims = {{"tokens", 6, 8193}, {"inner", 48, 8193}, {"outer", 33, 8193}},
       .work =
           [](const Sizes& s) {
             return 8 * product(s) +
                    96 * (d(s[0]) * d(s[1]) + d(s[1]) * d(s[2]) + d(s[0]) * d(s[2]));
           },
       .run = run_linear,
       .kernels = {"matmul", "pack_panels"}});
  add({.name = "grouped_linear",
       .op = "grouped_linear",
       .dims = {{"rows", 40, 8193}, {"experts", 5, 257}, {"inner", 24, 4097}, {"outer", 20, 4097}},
       .work =
           [](const Sizes& s) {
             return 6 * d(s[0]) * d(s[2]) * d(s[3]) +
                    96 * (d(s[0]) * d(s[2]) + d(s[1]) * d(s[2]) * d(s[3]) + d(s[0]) * d(s[3]));
           },
       .run = run_grouped,
       .kernels = {"grouped_matmul"}});
  add({.name = "head_linear",
       .op = "head_linear",
       .dims = {{"tokens", 5, 8193}, {"heads", 3, 129}, {"rows", 16, 257}, {"latent", 24, 1025}},
       .work =
           [](const Sizes& s) {
             return 12 * product(s) +
                    96 * (d(s[0]) * d(s[1]) * d(s[2] + s[3]) + 2 * d(s[1]) * d(s[2]) * d(s[3]));
           },
       .run = run_head_linear,
       .kernels = {"matmul"}});
  const auto attention_work = [](double tokens, double documents, double heads, double depth) {
    return 12 * tokens * tokens / documents * heads * depth + 128 * tokens * heads * depth;
  };
  add({.name = "attention, packed",
       .op = "attention",
       .dims = {{"tokens", 70, 4097},
                {"documents", 2, 513},
                {"heads", 2, 129},
                {"d_qk", 32, 257, false},
                {"d_v", 16, 257, false}},
       .work =
           [=](const Sizes& s) {
             return attention_work(d(s[0]), d(s[1]), d(s[2]), d(s[3] + s[4]));
           },
       .run = run_attention,
       .kernels = {"attention", "attention_backward"}});
  add({.name = "attention, grouped packed",
       .op = "attention",
       .dims = {{"tokens", 70, 2049},
                {"documents", 2, 513},
                {"key heads", 2, 33},
                {"heads of each", 3, 17},
                {"d_qk", 32, 257, false},
                {"d_v", 16, 257, false}},
       .work =
           [=](const Sizes& s) {
             return attention_work(d(s[0]), d(s[1]), d(s[2] * s[3]), d(s[4] + s[5]));
           },
       .run = run_grouped_attention,
       .kernels = {"attention", "attention_backward"}});
  add({.name = "attention, absorbed",
       .op = "attention",
       .dims = {{"tokens", 70, 4097},
                {"documents", 2, 513},
                {"heads", 2, 129},
                {"latent", 32, 513, false},
                {"rope", 8, 65, false}},
       .work =
           [=](const Sizes& s) {
             return attention_work(d(s[0]), d(s[1]), d(s[2]), 2 * d(s[3] + s[4]));
           },
       .run = run_absorbed,
       .kernels = {"attention", "attention_backward"}});
  const auto cached_work = [](const Sizes& s) {
    return d(s[2]) * d(s[4] + s[5]) *
           (4 * d(s[0]) * d(s[1]) * d(s[3]) + 64 * d(s[0]) + 64 * d(s[1]) * d(s[3]));
  };
  add({.name = "attention, cached",
       .op = "attention",
       .dims = {{"keys", 70, 16385},
                {"queries", 1, 1025},
                {"slots", 2, 65},
                {"heads", 2, 129},
                {"latent", 32, 513, false},
                {"rope", 8, 65, false}},
       .work = cached_work,
       .run = run_cached,
       .kernels = {"attention"}});
  add({.name = "attention, grouped cached",
       .op = "attention",
       .dims = {{"keys", 70, 8193},
                {"queries", 1, 1025},
                {"slots", 2, 65},
                {"key heads", 2, 33},
                {"heads of each", 3, 17},
                {"size", 32, 257, false}},
       .work =
           [](const Sizes& s) {
             return d(s[2]) * d(s[3]) * d(s[5]) *
                    (8 * d(s[0]) * d(s[1]) * d(s[4]) + 64 * d(s[0]) + 64 * d(s[1]) * d(s[4]));
           },
       .run = run_grouped_cached,
       .kernels = {"attention"}});
  // What DeepSeek's models have: devices have a kernel of its own for it.
  add({.name = "attention, MLA cached",
       .op = "attention",
       .dims = {{"keys", 70, 16385},
                {"queries", 1, 513},
                {"slots", 2, 65},
                {"heads", 2, 128},
                {"latent", 512, 512, false},
                {"rope", 64, 64, false}},
       .work = cached_work,
       .run = run_cached,
       .kernels = {"attention"}});
  add({.name = "rms_norm",
       .op = "rms_norm",
       .dims = {{"tokens", 5, 8193}, {"hidden", 48, 8193}},
       .work = [](const Sizes& s) { return 128 * product(s); },
       .run = run_rms_norm,
       .kernels = {"rms_norm", "rms_norm_backward"}});
  add({.name = "rope",
       .op = "rope",
       .dims =
           {{"tokens", 5, 8193}, {"heads", 2, 129}, {"pairs", 4, 129}, {"positions", 64, 65537}},
       .work =
           [](const Sizes& s) {
             return 128 * d(s[0]) * d(s[1]) * (8 + 2 * d(s[2])) + 32 * d(s[2]) * d(s[3]);
           },
       .run = run_rope,
       .kernels = {"rope"}});
  add({.name = "router",
       .op = "router",
       .dims = {{"tokens", 5, 8193}, {"experts", 16, 1024}, {"top_k", 3, 17}},
       .bf16 = false,
       .work = [](const Sizes& s) { return 192 * d(s[0]) * d(s[1]); },
       .run = run_router,
       .kernels = {"router", "router_backward"}});
  add({.name = "balance_loss",
       .op = "balance_loss",
       .dims =
           {{"tokens", 24, 8193}, {"experts", 16, 1024}, {"top_k", 3, 17}, {"documents", 3, 65}},
       .bf16 = false,
       .work = [](const Sizes& s) { return 256 * d(s[0]) * d(s[1]); },
       .run = run_balance,
       .kernels = {"balance_loss", "balance_loss_backward", "expert_counts", "bias_update"}});
  add({.name = "moe_permute",
       .op = "moe_permute",
       .dims = {{"tokens", 9, 8193}, {"top_k", 3, 17}, {"experts", 8, 1024}, {"hidden", 20, 8193}},
       .work = [](const Sizes& s) { return 192 * d(s[0]) * d(s[1]) * d(s[3]); },
       .run = run_permute,
       .kernels = {"permute", "plan_experts", "combine", "combine_backward"}});
  add({.name = "swiglu",
       .op = "swiglu",
       .dims = {{"tokens", 5, 8193}, {"inner", 40, 20481}},
       .work = [](const Sizes& s) { return 192 * product(s); },
       .run = run_swiglu,
       .kernels = {"swiglu", "swiglu_backward"}});
  add({.name = "elementwise",
       .op = "add",
       .dims = {{"tokens", 5, 8193}, {"width", 40, 20481}},
       .work = [](const Sizes& s) { return 320 * product(s); },
       .run = run_elementwise,
       .kernels = {"add", "scale", "axpby", "cast"}});
  add({.name = "concat",
       .op = "concat",
       .dims = {{"tokens", 5, 8193}, {"first", 24, 8193}, {"second", 10, 8193}},
       .work = [](const Sizes& s) { return 128 * d(s[0]) * d(s[1] + s[2]); },
       .run = run_concat,
       .kernels = {"concat"}});
  add({.name = "embedding",
       .op = "embedding",
       .dims = {{"tokens", 12, 8193}, {"vocab", 50, 131'073}, {"hidden", 20, 8193}},
       .work = [](const Sizes& s) { return 64 * d(s[1]) * d(s[2]) + 128 * d(s[0]) * d(s[2]); },
       .run = run_embedding,
       .kernels = {"embedding", "embedding_backward"}});
  add({.name = "cross_entropy",
       .op = "cross_entropy",
       .dims = {{"tokens", 6, 4097}, {"hidden", 24, 4097}, {"vocab", 70, 131'073}},
       .work =
           [](const Sizes& s) {
             return 8 * product(s) + 96 * (d(s[0]) * d(s[2]) + d(s[1]) * d(s[2]));
           },
       .run = run_cross_entropy,
       .kernels = {"cross_entropy", "cross_entropy_backward"}});
  add({.name = "mla_expand",
       .op = "mla_expand",
       .dims = {{"tokens", 5, 8193},
                {"heads", 3, 129},
                {"nope", 16, 257},
                {"value", 16, 257},
                {"rope", 8, 129}},
       .work = [](const Sizes& s) { return 128 * d(s[0]) * d(s[1]) * d(s[2] + s[3] + s[4]); },
       .run = run_mla_expand,
       .kernels = {"mla_expand", "mla_expand_backward"}});
  add({.name = "adamw",
       .op = "adamw",
       .dims = {{"elements", 200, kElements + 1}},
       .bf16 = false,
       .work = [](const Sizes& s) { return 512 * d(s[0]); },
       .run = run_adamw,
       .kernels = {"adamw"}});
  add({.name = "copy",
       .op = "copy",
       .dims = {{"rows", 5, 8193}, {"width", 40, 20481}},
       .work = [](const Sizes& s) { return 64 * product(s); },
       .run = run_copy});
  add({.name = "dequantize",
       .op = "dequantize",
       .dims = {{"rows", 40, 8193}, {"columns", 70, 20481}},
       .work = [](const Sizes& s) { return 64 * product(s); },
       .run = run_dequantize,
       .kernels = {"dequantize"}});
  add({.name = "unit_norm",
       .op = "unit_norm",
       .dims = {{"matrices", 2, 257}, {"rows", 24, 8193}, {"columns", 40, 8193}},
       .bf16 = false,
       .work = [](const Sizes& s) { return 64 * product(s); },
       .run = run_unit_norm,
       .kernels = {"unit_norm"}});
  add({.name = "sum_squares",
       .op = "sum_squares",
       .dims = {{"elements", 200, kElements + 1}},
       .bf16 = false,
       .work = [](const Sizes& s) { return 64 * d(s[0]); },
       .run = run_sum_squares,
       .kernels = {"sum_squares"}});
  add({.name = "add_bias",
       .op = "add_bias",
       .dims = {{"tokens", 5, 8193}, {"columns", 40, 20481}},
       .work = [](const Sizes& s) { return 96 * product(s); },
       .run = run_add_bias,
       .kernels = {"add_bias", "add_bias_backward"}});
  add({.name = "quantized_linear",
       .op = "quantized_linear",
       .dims = {{"rows", 6, 4097}, {"matrices", 1, 65}, {"inner", 96, 4097}, {"outer", 40, 8193}},
       .work =
           [](const Sizes& s) {
             // A matrix is drawn and laid out code by code.
             return 2 * d(s[0]) * d(s[2]) * d(s[3]) + 192 * d(s[1]) * d(s[2]) * d(s[3]) +
                    96 * (d(s[0]) * d(s[2]) + d(s[0]) * d(s[3]));
           },
       .run = run_quantized_linear,
       .kernels = {"quantized_linear"}});
  add({.name = "token_log_probs",
       .op = "token_log_probs",
       .dims = {{"rows", 5, 1025}, {"vocab", 70, 163'841}, {"ids", 3, 257}},
       .bf16 = false,
       .work = [](const Sizes& s) { return 64 * d(s[0]) * (d(s[1]) + d(s[2])); },
       .run = run_token_log_probs,
       .kernels = {"token_log_probs"}});
  return all;
}

}  // namespace

Tensor Maker::normal(const Shape& shape, DType dtype, double scale) {
  const Random random(seed_, RandomPurpose::kTest, 100 + made_++);
  std::vector<float> v(static_cast<size_t>(shape.count()));
  // Box-Muller for a few thousand of them, and these again in another order: making the numbers
  // would take longer than the ops do.
  constexpr size_t kDrawn = 4093;  // a prime: no row repeats its neighbour
  std::vector<float> drawn(std::min(v.size(), kDrawn));
  for (size_t i = 0; i < drawn.size(); ++i) drawn[i] = static_cast<float>(scale * random.normal(i));
  for (size_t i = 0; i < v.size(); ++i) v[i] = drawn[(i + i / kDrawn * 1021) % drawn.size()];
  Tensor t = Tensor::empty(shape, dtype, device_);
  t.assign_f32(v);
  return t;
}

Weight Maker::weight(const Shape& shape, double scale, const std::string& type_name) {
  Weight w{.name = "examined", .global_shape = shape, .shard = {}};
  w.value = normal(shape, type(type_name, DType::kF32), scale);
  w.value.set_needs_grad(true);
  return w;
}

std::vector<int32_t> Maker::indices(int64_t count, int64_t below) {
  const Random random(seed_, RandomPurpose::kTest, 100 + made_++);
  std::vector<int32_t> v(static_cast<size_t>(count));
  for (size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<int32_t>(random.below(i, static_cast<uint64_t>(below)));
  if (v.size() > 3) {  // the ends, and 0 in the middle
    v[1] = static_cast<int32_t>(below - 1);
    v[v.size() / 2] = 0;
  }
  return v;
}

Tensor Maker::chosen(int64_t tokens, int64_t top_k, int64_t experts) {
  const std::vector<int32_t> first = indices(tokens, experts);
  const int64_t step = std::max<int64_t>(1, experts / std::max<int64_t>(1, top_k));
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t k = 0; k < top_k; ++k)
      ids.push_back(static_cast<int32_t>((first[static_cast<size_t>(t)] + k * step) % experts));
  return Tensor::from_i32(ids, {tokens, top_k}, device_);
}

void Maker::differentiate(const std::function<std::vector<Tensor>()>& forward) {
  Tape tape(&ops::accumulate);
  std::vector<Tensor> outputs;
  {
    const Tape::Recording recording(&tape);
    outputs = forward();
  }
  std::vector<std::pair<Tensor, Tensor>> seeds;
  for (const Tensor& o : outputs) seeds.emplace_back(o, normal(o.shape(), o.dtype()));
  tape.backward(std::move(seeds));
}

const std::vector<SizedOp>& sized_ops() {
  static const std::vector<SizedOp> all = all_sized_ops();
  return all;
}

const SizedOp& sized_op(const std::string& name) {
  const auto it = std::find_if(
      sized_ops().begin(), sized_ops().end(), [&](const SizedOp& o) { return o.name == name; });
  check(it != sized_ops().end(), "doctor: there is no sized op {}", name);
  return *it;
}

bool runs_on(const SizedOp& op, DeviceKind device) {
  return op.kernels.empty() || ops::has_kernel(ops::kernel_rows({op.kernels.front()})[0], device);
}

bool has_sized_op(std::string_view kernel) {
  return std::any_of(sized_ops().begin(), sized_ops().end(), [&](const SizedOp& op) {
    return std::find(op.kernels.begin(), op.kernels.end(), kernel) != op.kernels.end();
  });
}

std::string describe(const SizedOp& op, const Sizes& sizes) {
  std::string text;
  for (size_t i = 0; i < sizes.size(); ++i)
    text += fmt::format("{}{} {}", i == 0 ? "" : ", ", op.dims[i].name, sizes[i]);
  return text;
}

std::vector<Sizes> affordable(const SizedOp& op, const Sizes& sizes, double budget) {
  if (op.work(sizes) <= budget) return {sizes};
  std::vector<Sizes> out;
  for (size_t whole = 0; whole < sizes.size(); ++whole) {
    if (sizes[whole] <= op.dims[whole].small || op.dims[whole].most == 1) continue;
    Sizes s = sizes;
    while (op.work(s) > budget) {
      // The one that is the furthest beyond what it is when another is looked at.
      size_t most = whole;
      double excess = 1;
      for (size_t i = 0; i < s.size(); ++i) {
        const double e = d(s[i]) / d(least(op.dims[i]));
        if (i != whole && op.dims[i].most > 1 && op.dims[i].cut && e > excess) {
          excess = e;
          most = i;
        }
      }
      if (most == whole && s[whole] <= 1) break;
      s[most] = std::max<int64_t>(most == whole ? 1 : least(op.dims[most]), (s[most] + 1) / 2);
    }
    if (std::find(out.begin(), out.end(), s) == out.end()) out.push_back(std::move(s));
  }
  return out;
}

}  // namespace ferry::doctor
