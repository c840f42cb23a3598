#include "verify/rehearsal.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/check.h"
#include "ops/segments.h"

namespace ferry::doctor {
namespace {

/// The named views and numbers of a call.
class Named {
 public:
  explicit Named(const ops::OpCall& call) : call_(call) {}

  const View& operator[](std::string_view name) const {
    for (const std::vector<ops::NamedView>* views : {&call_.inputs, &call_.outputs})
      for (const ops::NamedView& v : *views)
        if (name == v.name) return v.view;
    check(false, "doctor: {} has no {}", call_.op, name);
    return call_.outputs.front().view;
  }
  bool has(std::string_view name) const {
    return std::any_of(call_.inputs.begin(), call_.inputs.end(), [&](const ops::NamedView& v) {
      return name == v.name;
    });
  }
  double value(std::string_view name) const {
    for (const ops::NamedNumber& n : call_.numbers)
      if (name == n.name) return n.value;
    check(false, "doctor: {} has no number {}", call_.op, name);
    return 0;
  }
  int64_t number(std::string_view name) const { return static_cast<int64_t>(value(name)); }

 private:
  const ops::OpCall& call_;
};

int64_t width_of(const View& v) { return v.rank == 0 ? 1 : v.shape[v.rank - 1]; }
int64_t rows_of(const View& v) { return v.count() / std::max<int64_t>(1, width_of(v)); }

double type_of(const View& v) { return static_cast<double>(v.dtype); }

/// What earlier calls told that later ones of the same layer do not repeat.
struct Before {
  int64_t experts = 1;  // of the plan that was made last
  Choices router;       // of the router that chose last
};

/// The sized op that does what this call does; nothing for kernels that run in another's gradient,
/// whose sizes its forward pass has told.
std::optional<RunCall> seen_as(const ops::OpCall& call, Before& before) {
  const Named v(call);
  const std::string_view op = call.op;
  if (op == "matmul") {
    const View &a = v["a"], &c = v["c"];
    const int64_t ta = v.number("transpose_a"), tb = v.number("transpose_b");
    return RunCall{"matmul",
                   {c.rank == 3 ? c.shape[0] : 1,
                    c.shape[c.rank - 2],
                    a.shape[ta != 0 ? a.rank - 2 : a.rank - 1],
                    width_of(c),
                    ta,
                    tb},
                   a.dtype,
                   {{"b", type_of(v["b"])},
                    {"c", type_of(c)},
                    {"bf16", static_cast<double>(v.number("bf16"))}}};
  }
  if (op == "pack_panels") {  // for products of a few rows, which only a linear map packs for
    const View& w = v["weight"];
    const Choices type = {{"weight", type_of(w)}};
    if (w.rank == 3)
      return RunCall{
          "grouped_linear", {w.shape[0], w.shape[0], w.shape[2], w.shape[1]}, DType::kBF16, type};
    return RunCall{"linear", {1, w.shape[1], w.shape[0]}, DType::kBF16, type};
  }
  if (op == "pair_linear") {
    const View& x = v["x"];
    const int64_t inner = width_of(x), outer = width_of(v["y"]);
    if (v.has("offsets"))
      return RunCall{"grouped_linear",
                     {x.shape[0], v["panels"].shape[0], inner, outer},
                     DType::kBF16,
                     {{"pairs", 1}}};
    return RunCall{"linear",
                   {x.shape[0], inner, outer},
                   DType::kBF16,
                   {{"pairs", 1}, {"out", type_of(v["y"])}}};
  }
  if (op == "pair_rows" && v.has("ids"))
    return RunCall{"embedding",
                   {v["ids"].shape[0], v.number("rows"), width_of(v["y"])},
                   v["y"].dtype,
                   {{"pairs", 1}}};
  if (op == "grouped_matmul") {
    if (v.number("product") != 0) return std::nullopt;
    const View &a = v["a"], &b = v["b"];
    return RunCall{"grouped_linear",
                   {a.shape[0], b.shape[0], b.shape[2], b.shape[1]},
                   a.dtype,
                   {{"weight", type_of(b)}}};
  }
  if (op == "attention") {
    const View &q = v["q"], &k = v["k"], &value = v["v"];
    const int64_t tokens = q.shape[0], heads = q.shape[1], longest = v.number("longest");
    const int64_t d_qk = q.shape[2], d_v = value.shape[2];
    const bool shared = k.data == value.data;
    const int64_t key_heads = k.shape[1], group = heads / key_heads;
    const Choices scale = {{"scale", v.value("scale")}};
    // Sequences of a cache: nearly as many as their pages hold of the longest one.
    const int64_t own = (longest + ops::kPageRows - 1) / ops::kPageRows;
    const int64_t slots =
        v.has("pages")
            ? std::clamp<int64_t>(v["pages"].shape[0] / own, 1, std::max<int64_t>(1, tokens))
            : std::max<int64_t>(1, tokens / longest);
    const int64_t queries = std::min((tokens + slots - 1) / slots, longest);
    if (v.has("k_tail"))
      return RunCall{
          "attention, cached", {longest, queries, slots, heads, d_v, d_qk - d_v}, q.dtype, scale};
    if (v.has("pages"))
      return RunCall{"attention, grouped cached",
                     {longest, queries, slots, key_heads, group, d_qk},
                     q.dtype,
                     scale};
    const int64_t documents = std::max<int64_t>(1, tokens / std::max<int64_t>(1, longest));
    if (shared)
      return RunCall{
          "attention, absorbed", {tokens, documents, heads, d_v, d_qk - d_v}, q.dtype, scale};
    if (group > 1)
      return RunCall{"attention, grouped packed",
                     {tokens, documents, key_heads, group, d_qk, d_v},
                     q.dtype,
                     scale};
    return RunCall{"attention, packed", {tokens, documents, heads, d_qk, d_v}, q.dtype, scale};
  }
  if (op == "rms_norm")
    return RunCall{"rms_norm",
                   {rows_of(v["x"]), width_of(v["x"])},
                   v["x"].dtype,
                   {{"weight", type_of(v["weight"])}, {"eps", v.value("eps")}}};
  if (op == "swiglu") return RunCall{"swiglu", {rows_of(v["y"]), width_of(v["y"])}, v["y"].dtype};
  if (op == "rope") {
    const View &x = v["x"], &cos = v["cos"];
    return RunCall{"rope",
                   {x.shape[0], x.rank == 3 ? x.shape[1] : 1, cos.shape[1], cos.shape[0]},
                   x.dtype,
                   {{"begin", static_cast<double>(v.number("begin"))},
                    {"interleaved", static_cast<double>(v.number("interleaved"))},
                    {"rank", static_cast<double>(x.rank)}}};
  }
  if (op == "router") {
    before.router = {{"bias", v.has("bias") ? 1 : 0}};
    for (const ops::NamedNumber& n : call.numbers) before.router[n.name] = n.value;
    return RunCall{"router",
                   {v["logits"].shape[0], v["logits"].shape[1], v["weights"].shape[1]},
                   DType::kF32,
                   before.router};
  }
  if (op == "balance_loss")
    return RunCall{
        "balance_loss",
        {v["scores"].shape[0], v["scores"].shape[1], v["experts"].shape[1], v["share"].shape[0]},
        DType::kF32,
        before.router};
  if (op == "expert_counts")  // also where there is no balance loss; it is tried with it
    return RunCall{"balance_loss",
                   {v["chosen"].shape[0], v["counts"].count(), v["chosen"].shape[1], 1},
                   DType::kF32,
                   before.router};
  if (op == "plan_experts") {
    before.experts = v["offsets"].shape[0] - 1;
    return std::nullopt;
  }
  if (op == "permute") {
    const View &x = v["x"], &slots = v["row_of_slot"];
    return RunCall{
        "moe_permute", {x.shape[0], width_of(slots), before.experts, width_of(x)}, x.dtype};
  }
  if (op == "add" || op == "scale" || op == "axpby" || op == "cast") {
    // A cast is tried both ways.
    const bool bf16 =
        v[op == "add" ? "a" : "x"].dtype == DType::kBF16 || v["y"].dtype == DType::kBF16;
    return RunCall{
        "elementwise", {rows_of(v["y"]), width_of(v["y"])}, bf16 ? DType::kBF16 : DType::kF32};
  }
  if (op == "add_bias")
    return RunCall{"add_bias", {v["x"].shape[0], v["x"].shape[1]}, v["y"].dtype};
  if (op == "quantized_linear") {
    const View &x = v["x"], &y = v["y"];
    return RunCall{"quantized_linear",
                   {x.shape[0], v["panels"].shape[0], x.shape[1], y.shape[1]},
                   x.dtype,
                   {{"codes", v.value("codes")}, {"out", type_of(y)}}};
  }
  if (op == "token_log_probs")
    return RunCall{"token_log_probs",
                   {v["logits"].shape[0], v["logits"].shape[1], v["ids"].shape[1]},
                   DType::kF32};
  if (op == "copy") return RunCall{"copy", {rows_of(v["to"]), width_of(v["to"])}, v["to"].dtype};
  if (op == "dequantize")
    return RunCall{"dequantize", {rows_of(v["y"]), width_of(v["y"])}, v["y"].dtype};
  if (op == "unit_norm") {
    const View& x = v["x"];
    const int64_t matrices = x.rank == 3 ? x.shape[0] : 1;
    return RunCall{"unit_norm", {matrices, rows_of(x) / matrices, width_of(x)}, DType::kF32};
  }
  if (op == "concat")
    return RunCall{"concat", {rows_of(v["a"]), width_of(v["a"]), width_of(v["b"])}, v["a"].dtype};
  if (op == "embedding")
    return RunCall{"embedding",
                   {v["ids"].shape[0], v["weight"].shape[0], v["weight"].shape[1]},
                   v["y"].dtype,
                   {{"weight", type_of(v["weight"])}}};
  if (op == "cross_entropy")
    return RunCall{"cross_entropy",
                   {v["hidden"].shape[0], v["hidden"].shape[1], v["head"].shape[0]},
                   v["hidden"].dtype,
                   {{"head", type_of(v["head"])}}};
  if (op == "mla_expand") {
    const View &kv = v["kv"], &k_pe = v["k_pe"], &k = v["k"];
    const int64_t rope = width_of(k_pe), nope = width_of(k) - rope;
    return RunCall{
        "mla_expand", {kv.shape[0], kv.shape[1], nope, width_of(kv) - nope, rope}, kv.dtype};
  }
  if (op == "adamw") return RunCall{"adamw", {v["p"].count()}, DType::kF32};
  if (op == "sum_squares") return RunCall{"sum_squares", {v["x"].count()}, DType::kF32};
  return std::nullopt;
}

}  // namespace

/// Takes calls down and lets none of the stand-in's be launched.
class Rehearsal::Watch final : public ops::Observer {
 public:
  explicit Watch(const Device& device) : device_(device) {}

  bool launches(const ops::OpCall& call) override { return &call.device != &device_; }
  void before(const ops::OpCall& call) override {
    if (&call.device != &device_) return;
    std::optional<RunCall> seen = seen_as(call, before_);
    if (!seen) {
      // What a sized op launches in its gradient or beside its own kernel has the sizes that this one's call told.
      if (!has_sized_op(call.op)) calls_.others.insert(call.op);
      return;
    }
    std::string key = fmt::format("{} {}", seen->sized_op, to_string(seen->dtype));
    for (const int64_t n : seen->sizes) key += fmt::format(" {}", n);
    for (const auto& [name, value] : seen->choices) key += fmt::format(" {} {}", name, value);
    if (known_.insert(key).second) calls_.calls.push_back(*std::move(seen));
  }
  RunCalls calls_;

 private:
  const Device& device_;
  Before before_;
  std::set<std::string> known_;
};

Rehearsal::Rehearsal(DeviceKind kind, bool tensor_products)
    : device_(std::make_unique<StandInDevice>(kind, kAnyMemory, tensor_products)),
      watch_(std::make_unique<Watch>(*device_)),
      observing_(std::make_unique<ops::Observing>(*watch_)) {}

Rehearsal::~Rehearsal() = default;

Device& Rehearsal::device() { return *device_; }

RunCalls Rehearsal::take(const std::string& name) {
  RunCalls calls = watch_->calls_;
  calls.name = name;
  calls.copies.assign(device_->copies().begin(), device_->copies().end());
  return calls;
}

}  // namespace ferry::doctor
