// Backward kernels have call rules: each call of every spec's way back is judged and found right,
// and named when one of its outputs is spoiled.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "base/cpu_tier.h"
#include "base/threads.h"
#include "device/cpu/cpu_device.h"
#include "ops/add/add.h"
#include "ops/attention/attention.h"
#include "ops/call_check.h"
#include "ops/cpu/gemm.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/dispatch.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/scale/scale.h"
#include "ops/spec_check.h"
#include "ops/test_support.h"

namespace ferry::ops {
namespace {

/// Judges every call; spoils what `spoiled` names before it is judged.
class Judge final : public Observer {
 public:
  explicit Judge(std::string spoiled) : spoiled_(std::move(spoiled)) {}

  void before(const OpCall& call) override {
    recorded_.emplace(call, [](const View&) { return false; });
  }
  void after(const OpCall& call) override {
    const NamedView& first = call.outputs[0];
    // A number that no rule takes for right, whatever the first element is.
    if (spoiled_ == call.op && first.view.dtype == DType::kF32 && first.view.count() > 0) {
      float* const x = first.view.as<float>();
      kept_ = x[0];
      x[0] = x[0] * 0.5f + 1;
    }
    recorded_->launched(call);
    recorded_->fetch();
    const CallVerdict verdict = CallRules::all().judge(*recorded_);
    seen.insert(call.op);
    if (!verdict.judged) unjudged.insert(call.op);
    if (verdict.finding) findings.push_back(describe(*verdict.finding));
    if (spoiled_ == call.op && first.view.dtype == DType::kF32 && first.view.count() > 0)
      first.view.as<float>()[0] = kept_;
  }

  std::set<std::string> seen, unjudged;
  std::vector<std::string> findings;

 private:
  std::string spoiled_;
  float kept_ = 0;
  std::optional<RecordedCall> recorded_;
};

/// Runs the case, there and back, under the judge.
void run(const OpCase& c, uint64_t seed, Judge& judge) {
  const FlushDenormals flush;
  std::vector<Tensor> inputs = make_inputs(c, cpu_device(), seed);
  std::vector<Tensor> cotangents;
  if (has_gradient(c)) cotangents = make_cotangents(c, c.run(inputs), seed);
  const Observing observing(judge);
  if (has_gradient(c))
    run_with_gradients(c, inputs, cotangents);
  else
    c.run(inputs);
}

TEST(CallRules, EveryKernelHasOneAndNoHealthyCallBreaksIt) {
  std::set<std::string> seen;
  for (const OpSpec& spec : all_op_specs())
    for (const OpCase& c : spec.cases) {
      if (c.benchmark) continue;
      Judge judge("");
      run(c, 1, judge);
      seen.insert(judge.seen.begin(), judge.seen.end());
      for (const std::string& kernel : judge.unjudged)
        ADD_FAILURE() << "no rule for " << kernel << " (" << spec.op << ", " << c.name << ")";
      for (const std::string& finding : judge.findings)
        ADD_FAILURE() << spec.op << ", " << c.name << ": " << finding;
    }
  for (const KernelRow& row : all_kernel_rows())
    EXPECT_TRUE(seen.contains(row.kernel) ||
                (std::string(row.kernel) == "pack_panels" && !gemm_takes_panels(1, true)))
        << "no spec runs " << row.kernel;
}

TEST(CallRules, ASpoiledGradientIsFoundAndItsKernelNamed) {
  std::map<std::string, bool> found;
  for (const OpSpec& spec : all_op_specs())
    for (const OpCase& c : spec.cases) {
      if (c.benchmark || !has_gradient(c)) continue;
      for (const KernelRow& row : spec.kernels) {
        if (!std::string(row.kernel).ends_with("_backward") || found[row.kernel]) continue;
        Judge judge(row.kernel);
        run(c, 1, judge);
        for (const std::string& finding : judge.findings)
          if (finding.starts_with(std::string(row.kernel) + ":")) found[row.kernel] = true;
      }
    }
  EXPECT_GE(found.size(), 9u);
  for (const auto& [kernel, told] : found) EXPECT_TRUE(told) << kernel;
}

/// Judges packed panels in every tier but that which made them.
class PanelJudge final : public Observer {
 public:
  void before(const OpCall& call) override {
    call_.reset();
    if (std::string(call.op) == "pack_panels")
      call_.emplace(call, [](const View&) { return false; });
  }
  void after(const OpCall& call) override {
    if (!call_) return;
    call_->launched(call);
    call_->fetch();
    const CpuTier tier = cpu_tier();
    for (const CpuTier t : kCpuTiers) {
      if (!cpu_has(t)) continue;
      set_cpu_tier(t);
      const CallVerdict verdict = CallRules::all().judge(*call_);
      EXPECT_TRUE(verdict.judged);
      if (verdict.finding)
        ADD_FAILURE() << "packed by " << to_string(tier) << ", judged by " << to_string(t) << ": "
                      << describe(*verdict.finding);
    }
    set_cpu_tier(tier);
    ++judged;
  }
  int judged = 0;

 private:
  std::optional<RecordedCall> call_;
};

/// Also of tiers whose products take none: whether a run packs is its processor's matter, what
/// packing writes is not.
TEST(CallRules, AnyTierJudgesThePanelsThatOneMade) {
  PanelJudge judge;
  const FlushDenormals flush;
  const Observing observing(judge);
  const CpuTier tier = cpu_tier();
  int made = 0;
  for (const CpuTier maker : kCpuTiers) {
    if (!cpu_has(maker)) continue;
    set_cpu_tier(maker);
    for (const DType dtype : {DType::kF32, DType::kBF16})
      for (const Shape& shape : {Shape{1, 1}, Shape{33, 7}, Shape{64, 130}, Shape{3, 40, 5}}) {
        const Tensor w = normal(shape, dtype, 1);
        const Tensor panels =
            Tensor::empty({w.rank() == 3 ? w.dim(0) : 1, PairPanels{w.dim(-2), w.dim(-1)}.count()},
                          DType::kI32,
                          cpu_device());
        dispatch(kPackPanels, {w.view(), panels.view()}, cpu_device());
        ++made;
      }
  }
  set_cpu_tier(tier);
  EXPECT_GE(made, 8);
  EXPECT_EQ(judge.judged, made);
}

/// Writes a number over the first element of an op's output, before its call is judged.
class Overwriting final : public Observer {
 public:
  Overwriting(std::string op, size_t output, float number)
      : op_(std::move(op)), output_(output), number_(number) {}
  void before(const OpCall& call) override {
    if (op_ == call.op) call_.emplace(call, [](const View&) { return false; });
  }
  void after(const OpCall& call) override {
    if (op_ != call.op) return;
    const View& out = call.outputs[output_].view;
    if (out.dtype == DType::kBF16)
      out.as<bf16_t>()[0] = f32_to_bf16(number_);
    else
      out.as<float>()[0] = number_;
    call_->launched(call);
    call_->fetch();
    verdict = CallRules::all().judge(*call_);
  }
  CallVerdict verdict;

 private:
  std::string op_;
  size_t output_;
  float number_;
  std::optional<RecordedCall> call_;
};

TEST(CallRules, ANumberInPlaceOfNaNIsFound) {
  Overwriting overwriting("add", 0, 1);
  const Tensor x = Tensor::from_f32(std::vector<float>{NAN}, {1}, cpu_device());
  const Observing observing(overwriting);
  add(x, x);
  ASSERT_TRUE(overwriting.verdict.finding);
  EXPECT_TRUE(std::isnan(overwriting.verdict.finding->expected));
  EXPECT_TRUE(std::isnan(overwriting.verdict.finding->ulps));
}

TEST(CallRules, ADeviceMayKeepNumbersThatTheCpuTakesForZero) {
  const float kept = 0x1.8p-127f;  // the CPU's kernel gives 0
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Tensor x = Tensor::empty({2}, dtype, cpu_device());
    x.assign_f32(std::vector<float>{kept, 1});
    if (dtype == DType::kBF16)
      x.view().as<bf16_t>()[0] = 0x0060;  // the same, which no conversion of ours keeps
    const auto judge = [&](float device) {
      Overwriting overwriting("scale", 0, device);
      const Observing observing(overwriting);
      scale(x, 3);
      return overwriting.verdict;
    };
    EXPECT_FALSE(judge(0).finding) << to_string(dtype);
    EXPECT_FALSE(judge(3 * kept).finding) << to_string(dtype);
    EXPECT_TRUE(judge(0x1p-123f).finding) << to_string(dtype);
  }
}

TEST(CallRules, ADeviceMayKeepWeightsOfAttentionThatTheCpuTakesForZero) {
  // The second token gives the first key e^-87.5, just below the least normal number.
  const auto column = [](std::vector<float> x) {
    return Tensor::from_f32(x, {2, 1, 1}, cpu_device());
  };
  const double weight = 0x1.b4p-127;  // about e^-87.5
  const auto judge = [&](double device) {
    Overwriting overwriting("attention_backward", 2, static_cast<float>(device));
    OpCase c;
    for (const char* name : {"q", "k", "v"}) c.inputs.push_back({.name = name, .gradient = true});
    c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
      const int32_t lengths[] = {2};
      return {attention(in[0], in[1], in[2], Segments::packed(lengths, cpu_device()), 1)};
    };
    std::vector<Tensor> in = {column({0, 87.5f}), column({0, 1}), column({1, 1})};
    const Observing observing(overwriting);
    run_with_gradients(c, in, {column({0, 2})});
    return overwriting.verdict;
  };
  EXPECT_TRUE(judge(0).judged);
  EXPECT_FALSE(judge(0).finding);
  EXPECT_FALSE(judge(2 * weight).finding);
  EXPECT_TRUE(judge(0x1p-122).finding);
}

TEST(CallRules, ADeviceMayKeepGradientsOfLogitsThatTheCpuTakesForZero) {
  // A probability of e^-83.5 is a normal number, 1/64 of it is none.
  const double kept = 83.5 * 0x1.73p-121 / 64;
  const auto judge = [&](double device) {
    Overwriting overwriting("cross_entropy", 3, static_cast<float>(device));
    OpCase c;
    for (const char* name : {"hidden", "head"})
      c.inputs.push_back({.name = name, .gradient = true});
    c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
      const Weight head{.name = "head", .global_shape = {2, 1}, .shard = {}, .value = in[1]};
      const Tensor labels = Tensor::from_i32(std::vector<int32_t>{1}, {1}, cpu_device());
      return {cross_entropy(in[0], head, labels, 1.0f / 64).loss};
    };
    std::vector<Tensor> in = {Tensor::from_f32(std::vector<float>{83.5f}, {1, 1}, cpu_device()),
                              Tensor::from_f32(std::vector<float>{-1, 0}, {2, 1}, cpu_device())};
    const Observing observing(overwriting);
    run_with_gradients(c, in, {Tensor::from_f32(std::vector<float>{1}, {1}, cpu_device())});
    return overwriting.verdict;
  };
  EXPECT_TRUE(judge(0).judged);
  EXPECT_FALSE(judge(0).finding);
  EXPECT_FALSE(judge(kept).finding);
  EXPECT_TRUE(judge(3 * kept).finding);
}

TEST(Spec, ABoundThatIsNoNumberAllowsNothing) {
  OpCase c;
  c.name = "doubled";
  c.inputs = {{.name = "x", .shape = {3, 5}}};
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> { return {add(in[0], in[0])}; };
  c.reference = [](const std::vector<RefTensor>& in) -> std::vector<RefTensor> { return in; };
  for (const double bound : {double{NAN}, -1.0, 0.0}) {
    c.tolerance = [=](int, const std::vector<RefTensor>&, const RefTensor&) {
      return std::vector<double>{bound};
    };
    const std::vector<Finding> findings = check_case(c, cpu_device());
    ASSERT_EQ(findings.size(), 1u) << bound;
    EXPECT_EQ(findings[0].property, "reference");
  }
}

/// The sums of two tensors, cut instead of rounded.
std::vector<Tensor> cut_sums(const std::vector<Tensor>& in) {
  const std::vector<float> a = in[0].to_f32(), b = in[1].to_f32();
  std::vector<float> y(a.size());
  for (size_t i = 0; i < y.size(); ++i) {
    const double sum = static_cast<double>(a[i]) + static_cast<double>(b[i]);
    const uint64_t dropped = in[0].dtype() == DType::kBF16 ? (uint64_t{1} << 45) - 1 : 0x1FFFFFFF;
    y[i] = static_cast<float>(std::bit_cast<double>(std::bit_cast<uint64_t>(sum) & ~dropped));
  }
  Tensor out = Tensor::empty(in[0].shape(), in[0].dtype(), in[0].device());
  out.assign_f32(y);
  return {out};
}

TEST(Spec, CuttingInsteadOfRoundingIsFoundInEitherType) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    OpCase c;
    c.name = "cut";
    c.inputs = {{.name = "a", .shape = {30, 40}, .dtype = dtype},
                {.name = "b", .shape = {30, 40}, .dtype = dtype}};
    c.run = cut_sums;
    c.reference = [](const auto& in) {
      auto y = in[0];
      for (int64_t i = 0; i < y.shape.count(); ++i) y[i] = in[0][i] + in[1][i];
      return std::vector{y};
    };
    c.tolerance = elementwise_tolerance(dtype, 2 * unit_roundoff(dtype));
    const std::vector<Finding> findings = check_case(c, cpu_device());
    ASSERT_EQ(findings.size(), 1u) << to_string(dtype);
    EXPECT_NE(findings[0].detail.find("towards zero"), std::string::npos) << findings[0].detail;
  }
}

}  // namespace
}  // namespace ferry::ops
