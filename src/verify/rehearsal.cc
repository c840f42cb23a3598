#include "verify/rehearsal.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>

#include "base/check.h"

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
  int64_t number(std::string_view name) const {
    for (const ops::NamedNumber& n : call_.numbers)
      if (name == n.name) return static_cast<int64_t>(n.value);
    check(false, "doctor: {} has no number {}", call_.op, name);
    return 0;
  }

 private:
  const ops::OpCall& call_;
};

int64_t width_of(const View& v) { return v.rank == 0 ? 1 : v.shape[v.rank - 1]; }
int64_t rows_of(const View& v) { return v.count() / std::max<int64_t>(1, width_of(v)); }

struct Seen {
  std::string sized_op;
  Sizes sizes;
  DType dtype;
};

/// The sized op that does what this call does; nothing for kernels that run in another's gradient,
/// whose sizes its forward pass has told.
std::optional<Seen> seen_as(const ops::OpCall& call, int64_t* experts) {
  const Named v(call);
  const std::string_view op = call.op;
  if (op == "matmul") {
    const View &a = v["a"], &c = v["c"];
    const int64_t ta = v.number("transpose_a"), tb = v.number("transpose_b");
    return Seen{"matmul",
                {c.rank == 3 ? c.shape[0] : 1,
                 c.shape[c.rank - 2],
                 a.shape[ta != 0 ? a.rank - 2 : a.rank - 1],
                 width_of(c),
                 ta,
                 tb},
                a.dtype};
  }
  if (op == "grouped_matmul") {
    if (v.number("product") != 0) return std::nullopt;
    const View &a = v["a"], &b = v["b"];
    return Seen{"grouped_linear", {a.shape[0], b.shape[0], b.shape[2], b.shape[1]}, a.dtype};
  }
  if (op == "attention") {
    const View &q = v["q"], &k = v["k"], &value = v["v"];
    const int64_t tokens = q.shape[0], heads = q.shape[1], longest = v.number("longest");
    const int64_t d_qk = q.shape[2], d_v = value.shape[2];
    const bool shared = k.data == value.data;
    if (shared && (longest > tokens || k.shape[0] != tokens))
      return Seen{"attention, cached",
                  {longest,
                   std::min(tokens, longest),
                   std::max<int64_t>(1, tokens / longest),
                   heads,
                   d_v,
                   d_qk - d_v},
                  q.dtype};
    const int64_t documents = std::max<int64_t>(1, tokens / std::max<int64_t>(1, longest));
    if (shared)
      return Seen{"attention, absorbed", {tokens, documents, heads, d_v, d_qk - d_v}, q.dtype};
    return Seen{"attention, packed", {tokens, documents, heads, d_qk, d_v}, q.dtype};
  }
  if (op == "rms_norm") return Seen{"rms_norm", {rows_of(v["x"]), width_of(v["x"])}, v["x"].dtype};
  if (op == "swiglu") return Seen{"swiglu", {rows_of(v["y"]), width_of(v["y"])}, v["y"].dtype};
  if (op == "rope") {
    const View &x = v["x"], &cos = v["cos"];
    return Seen{
        "rope", {x.shape[0], x.rank == 3 ? x.shape[1] : 1, cos.shape[1], cos.shape[0]}, x.dtype};
  }
  if (op == "router")
    return Seen{
        "router", {v["logits"].shape[0], v["logits"].shape[1], v["weights"].shape[1]}, DType::kF32};
  if (op == "balance_loss")
    return Seen{
        "balance_loss",
        {v["scores"].shape[0], v["scores"].shape[1], v["experts"].shape[1], v["share"].shape[0]},
        DType::kF32};
  if (op == "plan_experts") {
    *experts = v["offsets"].shape[0] - 1;
    return std::nullopt;
  }
  if (op == "permute") {
    const View &x = v["x"], &slots = v["row_of_slot"];
    return Seen{"moe_permute", {x.shape[0], width_of(slots), *experts, width_of(x)}, x.dtype};
  }
  if (op == "add" || op == "scale" || op == "axpby" || op == "cast")
    return Seen{"elementwise", {rows_of(v["y"]), width_of(v["y"])}, v["y"].dtype};
  if (op == "concat")
    return Seen{"concat", {rows_of(v["a"]), width_of(v["a"]), width_of(v["b"])}, v["a"].dtype};
  if (op == "embedding")
    return Seen{
        "embedding", {v["ids"].shape[0], v["weight"].shape[0], v["weight"].shape[1]}, v["y"].dtype};
  if (op == "cross_entropy")
    return Seen{"cross_entropy",
                {v["hidden"].shape[0], v["hidden"].shape[1], v["head"].shape[0]},
                v["hidden"].dtype};
  if (op == "mla_expand") {
    const View &kv = v["kv"], &k_pe = v["k_pe"], &k = v["k"];
    const int64_t rope = width_of(k_pe), nope = width_of(k) - rope;
    return Seen{
        "mla_expand", {kv.shape[0], kv.shape[1], nope, width_of(kv) - nope, rope}, kv.dtype};
  }
  if (op == "adamw") return Seen{"adamw", {v["p"].count()}, DType::kF32};
  if (op == "sum_squares") return Seen{"sum_squares", {v["x"].count()}, DType::kF32};
  return std::nullopt;
}

/// Kernels whose sizes another call's sized op covers: what it runs in its gradient or beside it.
bool covered(std::string_view op) {
  static const std::set<std::string_view> kBeside = {"grouped_matmul",
                                                     "plan_experts",
                                                     "combine",
                                                     "copy",
                                                     "pack_panels",
                                                     "expert_counts",
                                                     "bias_update"};
  return op.ends_with("_backward") || kBeside.contains(op);
}

}  // namespace

/// Takes calls down and lets none of the stand-in's be launched.
class Rehearsal::Watch final : public ops::Observer {
 public:
  explicit Watch(const Device& device) : device_(device) {}

  bool launches(const ops::OpCall& call) override { return &call.device != &device_; }
  void before(const ops::OpCall& call) override {
    if (&call.device != &device_) return;
    const std::optional<Seen> seen = seen_as(call, &experts_);
    if (!seen) {
      if (!covered(call.op)) calls_.others.insert(call.op);
      return;
    }
    std::string key = fmt::format("{} {}", seen->sized_op, to_string(seen->dtype));
    for (const int64_t n : seen->sizes) key += fmt::format(" {}", n);
    const auto [it, fresh] = place_.emplace(key, calls_.calls.size());
    if (fresh)
      calls_.calls.push_back({seen->sized_op, seen->sizes, seen->dtype, 1});
    else
      ++calls_.calls[it->second].times;
  }
  RunCalls calls_;

 private:
  const Device& device_;
  int64_t experts_ = 1;  // of the plan that was made last
  std::map<std::string, size_t> place_;
};

Rehearsal::Rehearsal(DeviceKind kind)
    : device_(std::make_unique<StandInDevice>(kind)),
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
