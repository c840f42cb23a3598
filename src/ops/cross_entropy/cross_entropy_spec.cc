// What cross_entropy promises, on every device.
#include "ops/cross_entropy/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

#include "base/math.h"
#include "device/cpu/cpu_device.h"
#include "ops/call_check.h"
#include "ops/cross_entropy/cross_entropy_reference.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct HeadShape {
  int64_t tokens, inputs, vocab;
  double logit_scale = 1;  // standard deviation of the logits
  bool weighted = false;
};

OpCase loss_case(
    DType dtype, const HeadShape& s, bool with_loss, bool gradient, bool benchmark = false) {
  const float scale = 0.25f;
  OpCase c;
  c.name = fmt::format("{} [{}, {}] vocab {} logits {:g}{}{}{}",
                       to_string(dtype),
                       s.tokens,
                       s.inputs,
                       s.vocab,
                       s.logit_scale,
                       s.weighted ? " weighted" : "",
                       with_loss ? "" : " token losses",
                       with_loss && !gradient ? " no gradient" : "");
  std::vector<double> labels(static_cast<size_t>(s.tokens));
  for (size_t t = 0; t < labels.size();
       ++t)  // every fifth is ignored; the first and last columns occur
    labels[t] = t % 5 == 3 ? -1
                           : static_cast<double>(t % 2 == 0 ? t * 7 % static_cast<size_t>(s.vocab)
                                                            : static_cast<size_t>(s.vocab) - 1);
  c.inputs = {{.name = "hidden",
               .shape = {s.tokens, s.inputs},
               .dtype = dtype,
               .gradient = gradient,
               .rows = true},
              bf16_exact_input("head",
                               {s.vocab, s.inputs},
                               DType::kF32,
                               11,
                               s.logit_scale / std::sqrt(static_cast<double>(s.inputs))),
              {.name = "labels",
               .shape = {s.tokens},
               .dtype = DType::kI32,
               .fill = InputSpec::Fill::kGiven,
               .rows = true,
               .given = labels}};
  c.inputs[1].gradient = gradient;
  if (s.weighted) c.inputs.push_back({.name = "weights", .shape = {s.tokens}, .rows = true});
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Weight head{.name = "head", .global_shape = in[1].shape(), .shard = {}, .value = in[1]};
    const CrossEntropy y = cross_entropy(in[0], head, in[2], scale, s.weighted ? in[3] : Tensor{});
    if (!with_loss) return {y.token_losses};
    return {y.loss, y.token_losses};
  };
  c.reference = [=](const auto& in) {
    auto y = cross_entropy_reference(in[0],
                                     in[1],
                                     value_of(in[2]),
                                     static_cast<double>(scale),
                                     s.weighted ? value_of(in[3]) : RefTensor{});
    if (!with_loss) y.erase(y.begin());
    return y;
  };
  const auto tolerance = [=](int64_t roundings) {
    return [=](int output,
               const std::vector<RefTensor>& in,
               const RefTensor& y) -> std::vector<double> {
      std::vector<double> bounds = cross_entropy_token_bounds(in[0], in[1], in[2], roundings);
      if (!with_loss || output == 1) return bounds;
      // Terms of either sign may cancel: what is added is off by its size, not by the sum's.
      double size = s.weighted ? 0 : std::abs(y[0]), bound = 0;
      const std::vector<double> losses = cross_entropy_reference(in[0], in[1], in[2], 1)[1].values;
      for (size_t t = 0; t < bounds.size(); ++t) {
        const double weight =
            static_cast<double>(scale) * (s.weighted ? std::abs(in[3].values[t]) : 1);
        bound += weight * bounds[t];
        if (s.weighted) size += weight * losses[t];
      }
      const double additions = static_cast<double>(s.tokens) / 16 + 7;
      return {bound + additions * 0x1p-24 * size + kLeastNormal};
    };
  };
  c.tolerance = tolerance(s.inputs);
  if (dtype == DType::kBF16) c.tensor_tolerance = tolerance(tensor_roundings(s.inputs));
  c.differentiable_outputs = 1;
  c.row_independent = !with_loss;
  c.flops = 2.0 * static_cast<double>(s.tokens * s.inputs * s.vocab);
  c.bytes = static_cast<double>(s.tokens * s.inputs) * static_cast<double>(size_of(dtype)) +
            4.0 * static_cast<double>(s.vocab * s.inputs);
  c.benchmark = benchmark;
  return c;
}

constexpr int64_t kChunk = 256;  // tokens whose logits a judge holds at a time
constexpr double kUp =
    0x1p40;  // bounds on small d_logits pass through products in f32, which flush

Tensor f32_on_cpu(const double* values, const Shape& shape) {
  return Tensor::from_f32(std::vector<float>(values, values + shape.count()), shape, cpu_device());
}

/// Device and reference round the operands alike. A logit is off by its sum of products; that and
/// the roundings of e^x, its sum, the quotient and (in bf16) of d_logits themselves move each
/// d_logit = scale (p - [label]) in proportion to p, and to what is subtracted.
class LossBounds {
 public:
  explicit LossBounds(CallFacts& facts)
      : facts_(facts),
        hidden_(facts.input("hidden")),
        head_(facts.input("head")),
        labels_(facts.input("labels")),
        weights_(facts.has("weights") ? facts.input("weights").values : std::vector<double>()),
        tokens_(hidden_.shape[0]),
        inputs_(hidden_.shape[1]),
        vocab_(head_.shape[0]),
        scale_(std::abs(facts.number("scale"))) {}

  std::vector<double> bound(const char* output, const RefTensor& y) {
    const std::string_view which = output;
    if (which == "loss" && facts_.tensor_cores()) return {0};  // settle_loss
    std::vector<double> bound(y.values.size());
    const bool losses = which == "token_losses" || which == "loss";
    const Tensor head = f32_on_cpu(head_.values.data(), head_.shape);
    const Tensor size = losses ? Tensor() : f32_on_cpu(absolute(head_).values.data(), head_.shape);
    for (int64_t begin = 0; begin < tokens_; begin += kChunk) {
      const int64_t end = std::min(tokens_, begin + kChunk);
      const Shape rows{end - begin, inputs_};
      const Tensor h = f32_on_cpu(hidden_.values.data() + begin * inputs_, rows);
      std::vector<float> logits = matmul(h, head, {.transpose_b = true}).to_f32();
      for (int64_t t = begin; t < end; ++t) {
        const double loss = token(logits.data() + (t - begin) * vocab_, t, which == "d_head");
        if (which == "token_losses") bound[static_cast<size_t>(t)] = loss;
        if (which == "loss") {
          bound[0] += scale_of(t) * loss;
          size_ += scale_of(t) * loss_;
        }
      }
      if (losses) continue;
      const Tensor errors = Tensor::from_f32(logits, {end - begin, vocab_}, cpu_device());
      const bool of_head = which == "d_head";
      const std::vector<double> h_size = sizes(hidden_, begin * inputs_, end * inputs_);
      const std::vector<float> sums =
          (of_head ? matmul(errors, f32_on_cpu(h_size.data(), rows), {.transpose_a = true})
                   : matmul(errors, size))
              .to_f32();
      const auto at = of_head ? size_t{0} : static_cast<size_t>(begin * inputs_);
      for (size_t i = 0; i < sums.size(); ++i) bound[at + i] += static_cast<double>(sums[i]) / kUp;
    }
    const std::vector<double> rounding = rule_elementwise(facts_, output, y, 0);
    for (size_t i = 0; i < bound.size(); ++i) {
      const double additions =
          which == "loss" ? 2 * (static_cast<double>(tokens_) / 8 + 8) * 0x1p-24 * size_
          : losses        ? 0
                   : static_cast<double>(which == "d_head" ? tokens_ : vocab_) * kLeastNormal;
      bound[i] = 1.01 * (bound[i] + additions) + rounding[i];
    }
    return bound;
  }

 private:
  static std::vector<double> sizes(const RefTensor& x, int64_t begin, int64_t end) {
    std::vector<double> out(x.values.begin() + begin, x.values.begin() + end);
    for (double& v : out) v = std::abs(v);
    return out;
  }

  double scale_of(int64_t t) const {
    return weights_.empty() ? scale_ : scale_ * std::abs(weights_[static_cast<size_t>(t)]);
  }

  double head_norm() {
    if (head_norm_ > 0) return head_norm_;
    for (int64_t v = 0; v < vocab_; ++v) head_norm_ = std::max(head_norm_, norm(head_, v));
    return head_norm_ = std::max(head_norm_, 1e-300);
  }
  double norm(const RefTensor& x, int64_t row) const {
    const double* values = x.values.data() + row * inputs_;
    return std::sqrt(dot(values, 1, values, 1, inputs_));
  }

  /// The logits of a token become bounds on what its d_logits are off by, their share in sums of
  /// products included. Returns the bound on its loss.
  double token(float* x, int64_t t, bool of_head) {
    constexpr double u = 0x1p-24;
    const auto label = static_cast<int64_t>(labels_[t]);
    loss_ = 0;
    if (label < 0 || label >= vocab_) {
      std::fill_n(x, vocab_, 0.0f);
      return 0;
    }
    const double top = static_cast<double>(*std::max_element(x, x + vocab_));
    double sum = 0;
    for (int64_t v = 0; v < vocab_; ++v) sum += math::exp(static_cast<double>(x[v]) - top);
    const double logit =
        static_cast<double>(facts_.roundings(inputs_) + 2) * u * norm(hidden_, t) * head_norm();
    const double at_label = static_cast<double>(x[label]),
                 size = std::abs(top) + math::log(sum) + 1;
    loss_ = std::max(0.0, top - at_label + math::log(sum));
    const double loss =
        2 * logit + u * (static_cast<double>(vocab_) / 8 + 32 + 16 * size + 8 * (top - at_label));
    const double relative =
        4 * logit + u * (static_cast<double>(vocab_) / 8 + 48 + 4 * size + 4 * (top - at_label)) +
        2 * (facts_.type("hidden") == DType::kBF16 ? unit_roundoff(DType::kBF16) : 0) +
        static_cast<double>(facts_.roundings(of_head ? tokens_ : vocab_)) * u;
    for (int64_t v = 0; v < vocab_; ++v) {
      const double p = math::exp(static_cast<double>(x[v]) - top) / sum;
      // Below the least normal number e^x, p and the d_logit may each be kept or taken for zero, and so may their
      // products with what d_logits are multiplied by.
      x[v] = static_cast<float>(kUp * (scale_of(t) * relative * (v == label ? 1 + p : p) +
                                       (2 * scale_of(t) + 1) * kLeastNormal));
    }
    return loss;
  }

  CallFacts& facts_;
  const RefTensor &hidden_, &head_, &labels_;
  std::vector<double> weights_;  // empty: each 1
  int64_t tokens_, inputs_, vocab_;
  double scale_, head_norm_ = 0;
  double loss_ = 0;  // of the token that was looked at last
  double size_ = 0;  // of all that the loss adds up
};

std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  return LossBounds(facts).bound(output, y);
}

/// Where the logits are those of tensor cores, token losses are near the CPU's. What is made of them is
/// not on tensor cores: of the token losses that are there, the loss is the CPU's to the bit.
void settle_loss(CallFacts& facts,
                 std::vector<RefTensor>& expected,
                 const std::vector<RefTensor>& got) {
  if (!facts.tensor_cores()) return;
  constexpr size_t kTokenLosses = 0, kLoss = 1;  // as CrossEntropyArgs lists them
  constexpr size_t kLanes = 16;
  const std::vector<double>& losses = got[kTokenLosses].values;
  float lanes[kLanes] = {};
  for (size_t t = 0; t < losses.size(); ++t) {
    const auto loss = static_cast<float>(losses[t]);
    lanes[t % kLanes] +=
        facts.has("weights") ? loss * static_cast<float>(facts.input("weights").values[t]) : loss;
  }
  for (size_t width = kLanes / 2; width >= 1; width /= 2)
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  const auto scale = static_cast<float>(facts.number("scale"));
  expected[kLoss].values[0] = static_cast<double>(scale * lanes[0]);
}

}  // namespace

OpSpec cross_entropy_spec() {
  OpSpec spec{
      .op = "cross_entropy",
      .kernels = kernel_rows({"cross_entropy", "cross_entropy_backward"}),
      .cases = {},
      .calls = {{.kernel = "cross_entropy",
                 .bound = call_bound,
                 .settle = settle_loss,
                 .mixed_types = true,
                 .on_tensor_cores =
                     [](const CallFacts& facts) { return facts.type("hidden") == DType::kBF16; }},
                {.kernel = "cross_entropy_backward",
                 .bound = [](CallFacts& facts, const char* output, const RefTensor& y) {
                   return rule_elementwise(facts, output, y, 0x1p-23);
                 }}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(loss_case(t, {.tokens = 1, .inputs = 1, .vocab = 1}, true, true));
    spec.cases.push_back(
        loss_case(t, {.tokens = 7, .inputs = 33, .vocab = 129, .logit_scale = 3}, true, true));
    spec.cases.push_back(loss_case(
        t, {.tokens = 21, .inputs = 16, .vocab = 1500}, true, true));  // two vocabulary tiles
    spec.cases.push_back(loss_case(t,
                                   {.tokens = 40, .inputs = 24, .vocab = 70, .logit_scale = 20},
                                   true,
                                   true));  // near certainty
    spec.cases.push_back(
        loss_case(t, {.tokens = 1201, .inputs = 8, .vocab = 64}, true, true));  // several chunks
    spec.cases.push_back(
        loss_case(t,
                  {.tokens = 1203, .inputs = 16, .vocab = 90, .logit_scale = 2, .weighted = true},
                  true,
                  true));
    spec.cases.push_back(loss_case(t, {.tokens = 17, .inputs = 65, .vocab = 200}, false, false));
    spec.cases.push_back(loss_case(t,
                                   {.tokens = 9, .inputs = 16, .vocab = 70, .logit_scale = 60},
                                   false,
                                   false));  // beyond the logarithm of the largest float
    spec.cases.push_back(
        loss_case(t, {.tokens = 8192, .inputs = 768, .vocab = 8192}, true, true, true));
  }
  return spec;
}

}  // namespace ferry::ops
