// The doctor on devices that are broken on purpose: an observer that spoils a kernel's output plays
// the chip, a shell script the crashing driver.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "autograd/tape.h"
#include "base/cpu_tier.h"
#include "device/cpu/cpu_device.h"
#include "ops/add/add.h"
#include "ops/add_bias/add_bias.h"
#include "ops/attention/attention.h"
#include "ops/cpu/gemm.h"
#include "ops/dispatch.h"
#include "ops/linear/linear.h"
#include "ops/matmul/matmul.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rope/rope.h"
#include "ops/router/router.h"
#include "ops/scale/scale.h"
#include "ops/token_log_probs/token_log_probs.h"
#include "tensor/bf16.h"
#include "verify/call_judge.h"
#include "verify/doctor_process.h"
#include "verify/report_html.h"

namespace ferry::doctor {
namespace {

/// Spoils outputs of one kernel from its n-th call on, every `every` calls.
class Broken final : public ops::Observer {
 public:
  enum class How { kScaled, kBitFlip, kStale, kFault };
  Broken(std::string kernel, How how, int every = 1)
      : kernel_(std::move(kernel)), how_(how), every_(every) {}

  void after(const ops::OpCall& call) override {
    if (kernel_ != call.op || ++calls_ % every_ != 0) return;
    for (const ops::NamedView& out : call.outputs) spoil(out.view);
  }

 private:
  void spoil(const View& v) const {
    if (how_ == How::kFault)
      throw DeviceError("cpu", 507015, fmt::format("cpu: 507015 AICORE_EXCEPTION in {}", kernel_));
    if (v.count() == 0) return;
    if (how_ == How::kBitFlip) {
      static_cast<unsigned char*>(v.data)[0] ^= 1;
      return;
    }
    if (how_ == How::kStale) {  // the last dimension's first row is what an earlier call left
      std::memset(v.data, 0, size_of(v.dtype) * static_cast<size_t>(v.shape[v.rank - 1]));
      return;
    }
    if (v.dtype != DType::kF32) return;
    float* values = v.as<float>();
    for (int64_t i = 0; i < (v.rank == 1 ? v.shape[0] : 1); ++i) values[i] *= 1 + 0x1p-6f;
    if (v.rank == 2)
      for (int64_t r = 0; r < v.shape[0]; ++r)
        for (int64_t c = 0; c < v.shape[1]; ++c) values[r * v.stride[0] + c] *= 1 + 0x1p-6f;
  }

  std::string kernel_;
  How how_;
  int every_;
  int calls_ = 0;
};

struct Quiet final : Listener {};

/// Examines the CPU in this process, the subjects named alone, as `broken` lets it appear.
Report examine_here(ops::Observer* broken,
                    const std::vector<std::string>& subjects,
                    double soak_s = 0) {
  Options options{.quick = true, .soak_s = soak_s};
  Quiet quiet;
  Report report{.device = "cpu"};
  for (const Check& check : make_checks(options)) {
    if (std::find(subjects.begin(), subjects.end(), check.head.subject) == subjects.end()) continue;
    bool lost = false;
    if (broken != nullptr) {
      const ops::Observing observing(*broken);
      report.outcomes.push_back(run_check(check, cpu_device(), options, quiet, &lost));
    } else {
      report.outcomes.push_back(run_check(check, cpu_device(), options, quiet, &lost));
    }
  }
  conclude(report);
  return report;
}

TEST(Doctor, FindsNothingOnASoundDevice) {
  const Report report = examine_here(
      nullptr,
      {"copies", "memory", "streams", "rms_norm", "linear", "swiglu", "router", "soak"},
      1);
  EXPECT_EQ(report.verdict, Verdict::kFitToTrain) << summary_json(report).dump();
  EXPECT_TRUE(report.culprits.empty());
  EXPECT_EQ(problem_count(report), 0u);
  EXPECT_GT(report.outcomes.size(), 40u);
}

TEST(Doctor, NamesAKernelOfTheBackwardPassAndLetsTheChipServe) {
  Broken broken("rms_norm_backward", Broken::How::kScaled);
  const Report report = examine_here(&broken, {"rms_norm", "swiglu", "rope"});
  ASSERT_EQ(report.culprits.size(), 1u) << summary_json(report).dump();
  EXPECT_EQ(report.culprits[0].op, "rms_norm");
  EXPECT_EQ(report.culprits[0].kernel, "rms_norm_backward");
  EXPECT_EQ(report.verdict, Verdict::kFitToServe);
}

TEST(Doctor, NamesTheKernelThatSeveralOpsShare) {
  Broken broken("matmul", Broken::How::kScaled);
  const Report report = examine_here(&broken, {"linear", "cross_entropy", "matmul", "rms_norm"});
  ASSERT_FALSE(report.culprits.empty());
  EXPECT_EQ(report.culprits[0].op, "matmul");
  EXPECT_EQ(report.culprits[0].kernel, "matmul");
  EXPECT_EQ(report.verdict, Verdict::kUnfit);
}

TEST(Doctor, FindsAFaultThatComesAndGoes) {
  Broken broken("swiglu", Broken::How::kBitFlip, 30);
  const Report report = examine_here(&broken, {"swiglu", "rope", "streams", "soak"}, 1);
  ASSERT_FALSE(report.culprits.empty());
  EXPECT_EQ(report.culprits[0].op, "swiglu");
  EXPECT_EQ(report.verdict, Verdict::kUnfit);
}

TEST(Doctor, ADeviceFaultIsAFindingWithItsKernel) {
  Broken broken("rope", Broken::How::kFault, 5);
  const Report report = examine_here(&broken, {"rope", "add"});
  ASSERT_FALSE(report.culprits.empty());
  EXPECT_EQ(report.culprits[0].kernel, "rope");
  EXPECT_NE(report.culprits[0].because.find("507015"), std::string::npos);
}

Outcome outcome(const char* name,
                Level level,
                const std::vector<KernelUse>& used,
                const char* property = nullptr) {
  Outcome o{.head = {.name = name, .subject = name, .level = level}, .used = used};
  if (property != nullptr) o.problems.push_back({property, "somewhere"});
  return o;
}

TEST(Culprits, TheLowestLevelHasThem) {
  const std::vector<Culprit> found =
      find_culprits({outcome("copies", Level::kRuntime, {}, "late"),
                     outcome("rope", Level::kOp, {{"rope", {}}}, "reference")});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].op, "copies");
}

TEST(Culprits, TheCallThatOnlyFailingKernelsMake) {
  const std::vector<Culprit> found =
      find_culprits({outcome("a", Level::kOp, {{"router", {"aclnnTopk", "aclnnMul"}}}, "reference"),
                     outcome("b", Level::kOp, {{"scale", {"aclnnMul"}}}),
                     outcome("c", Level::kOp, {{"swiglu", {"aclnnMul", "aclnnSwiGlu"}}})});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].kernel, "router");
  EXPECT_EQ(found[0].call, "aclnnTopk");
}

TEST(Culprits, AFailingCallExplainsTheOpsThatMakeIt) {
  const std::vector<Culprit> found =
      find_culprits({outcome("aclnnMul", Level::kPrimitive, {}, "reference"),
                     outcome("a", Level::kOp, {{"scale", {"aclnnMul"}}}, "reference"),
                     outcome("b", Level::kOp, {{"cast", {"aclnnCast"}}}, "reference")});
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].call, "aclnnMul");
  EXPECT_EQ(found[1].kernel, "cast");
}

TEST(Culprits, ManyOpsThatFailOnlyTogetherAreTheStreams) {
  std::vector<Outcome> outcomes;
  for (const char* op : {"add", "rope", "scale", "cast"})
    outcomes.push_back(outcome(op, Level::kLoad, {{op, {}}}, "back to back"));
  const std::vector<Culprit> found = find_culprits(outcomes);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].op, "streams");
}

TEST(DoctorReport, GoesThroughJsonAndIntoOnePage) {
  Outcome o = outcome("a <b> & \"c\"", Level::kOp, {{"rope", {"aclnnX"}}}, "reference");
  o.seconds = 1.5;
  const Outcome again = outcome_from_json(to_json(o));
  EXPECT_EQ(to_json(again), to_json(o));
  Report report{.device = "cpu", .description = "a chip", .started_unix_ms = 1763800000000};
  report.outcomes = {o};
  report.measurements = {{"matmul bf16", "GFLOP/s", 50, 100}};
  conclude(report);
  const std::string page = to_html(report);
  EXPECT_NE(page.find("a &lt;b&gt; &amp; &quot;c&quot;"), std::string::npos);
  EXPECT_NE(page.find("unfit"), std::string::npos);
  EXPECT_NE(page.find("50 %"), std::string::npos);
  EXPECT_NE(page.find("2025-11-22"), std::string::npos);
  for (const char* outside : {"http:", "https:", "<script", "<link", "src="})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
}

/// A child in shell: it writes these lines to descriptor 3, then does `last`.
Command shell(const std::vector<std::string>& scripts) {
  return {.program = "/bin/sh", .arguments = [scripts](size_t from) {
            return std::vector<std::string>{"-c", scripts.at(std::min(from, scripts.size() - 1))};
          }};
}

std::string say(const std::string& event, const std::string& content) {
  return "echo '{\"event\":\"" + event + "\",\"content\":" + content + "}' >&3; ";
}

std::string began(int index, double limit_s = 20) {
  const CheckHead head{
      .name = fmt::format("check {}", index), .subject = "add", .limit_s = limit_s};
  return say("began", fmt::format(R"({{"index":{},"head":{}}})", index, to_json(head).dump())) +
         say("launched", "\"add\"");
}

std::string ended(int index, bool cut_short = false) {
  const Outcome o{.head = {.name = fmt::format("check {}", index), .subject = "add"},
                  .cut_short = cut_short};
  return say("ended", to_json(o).dump());
}

std::string opened() {
  return say("started", R"({"device":"cpu","description":"script"})") + say("planned", "3");
}

Result<Report> follow(const Command& command) {
  Options options;
  Quiet quiet;
  return examine_in_child(options, command, system_clock(), quiet);
}

TEST(DoctorProcess, ACrashIsAFindingAndTheExaminationGoesOn) {
  const Result<Report> report =
      follow(shell({opened() + began(0) + ended(0) + began(1) + "kill -SEGV $$",
                    "exit 9",
                    opened() + began(2) + ended(2)}));
  ASSERT_TRUE(report.has_value()) << report.error().message;
  ASSERT_EQ(report->outcomes.size(), 3u);
  EXPECT_TRUE(report->outcomes[0].problems.empty());
  ASSERT_EQ(report->outcomes[1].problems.size(), 1u);
  EXPECT_EQ(report->outcomes[1].problems[0].property, "crash");
  EXPECT_NE(report->outcomes[1].problems[0].detail.find("signal 11"), std::string::npos);
  EXPECT_TRUE(report->outcomes[2].problems.empty());
  EXPECT_TRUE(report->whole);
  ASSERT_EQ(report->culprits.size(), 1u);
  EXPECT_EQ(report->culprits[0].kernel, "add");
}

TEST(DoctorProcess, AHangIsBounded) {
  const Result<Report> report =
      follow(shell({opened() + began(0, 0.3) + "exec sleep 60", opened() + began(1) + ended(1)}));
  ASSERT_TRUE(report.has_value()) << report.error().message;
  ASSERT_EQ(report->outcomes.size(), 2u);
  EXPECT_EQ(report->outcomes[0].problems.at(0).property, "hang");
  EXPECT_LT(report->seconds, 20);
}

TEST(DoctorProcess, ALostDeviceIsOpenedAgain) {
  const Result<Report> report = follow(shell({opened() + began(0) + ended(0) + "exit 4",
                                              opened() + began(1) + ended(1) + "exit 4",
                                              opened() + began(2) + ended(2)}));
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_EQ(report->outcomes.size(), 3u);
  EXPECT_EQ(report->verdict, Verdict::kFitToTrain);
}

TEST(DoctorProcess, WhatCannotBeginIsAnError) {
  const Result<Report> report =
      follow(shell({say("failed", R"({"code":3,"message":"no Ascend here"})") + "exit 3"}));
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().message, "no Ascend here");
  EXPECT_FALSE(follow(shell({"echo nonsense >&3"})).has_value());
}

TEST(DoctorProcess, ADeviceThatTakesEveryChildIsGivenUp) {
  const Result<Report> report = follow(shell({opened() + began(0) + "kill -9 $$"}));
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_EQ(report->outcomes.size(), 12u);
  EXPECT_FALSE(report->whole);
  EXPECT_EQ(report->verdict, Verdict::kUnfit);
  EXPECT_NE(report->notes.at(0).find("given up"), std::string::npos);
}

/// Where a script says that it is ready to be stopped.
std::string ready() { return testing::TempDir() + "/ready"; }
std::string says_ready() { return ": >'" + ready() + "'; "; }
/// Follows a script that is stopped as soon as it is ready.
Result<Report> stopped(const std::vector<std::string>& scripts) {
  std::remove(ready().c_str());
  Command command = shell(scripts);
  command.stop = [] { return ::access(ready().c_str(), F_OK) == 0 ? SIGINT : 0; };
  return follow(command);
}

TEST(DoctorProcess, StoppedItIsNoVerdictAndSaysWhatItFound) {
  // The check at hand ends, no other begins.
  const Result<Report> report =
      stopped({opened() + began(0) + ended(0) + began(1) + "last=$(cat <<'END'\n" + ended(1) +
               "\nEND\n); trap 'sleep 0.3; eval \"$last\"; exit 5' TERM; " + says_ready() +
               "while :; do sleep 0.05; done"});
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_EQ(report->outcomes.size(), 2u);
  EXPECT_FALSE(report->whole);
  EXPECT_EQ(report->stopped, "SIGINT");
  EXPECT_EQ(report->verdict, Verdict::kNothingFound);
  EXPECT_EQ(report->reasons.at(0),
            "2 checks, nothing found; stopped by SIGINT: no verdict on the device");
  EXPECT_EQ(report->notes.at(0), "stopped by SIGINT: 2 of 3 checks were made");
  EXPECT_EQ(summary_json(*report).at("stopped"), "SIGINT");
  // What dies of it before it can answer has no finding.
  const Result<Report> died =
      stopped({opened() + began(0) + ended(0) + began(1) + says_ready() + "exec sleep 60"});
  ASSERT_TRUE(died.has_value()) << died.error().message;
  EXPECT_EQ(died->outcomes.size(), 1u);
  EXPECT_EQ(problem_count(*died), 0u);
  EXPECT_LT(died->seconds, 20);
  // A finding stands, and nothing is begun after it.
  const Result<Report> broken = stopped({opened() + began(0) + "trap 'kill -SEGV $$' TERM; " +
                                             says_ready() + "while :; do sleep 0.05; done",
                                         opened() + began(1) + ended(1)});
  ASSERT_TRUE(broken.has_value()) << broken.error().message;
  ASSERT_EQ(broken->outcomes.size(), 1u);
  EXPECT_EQ(broken->outcomes[0].problems.at(0).property, "crash");
  EXPECT_FALSE(passed(broken->verdict));
  EXPECT_EQ(broken->reasons.back(),
            "stopped by SIGINT before everything was tried: what was found stands, and is not all "
            "that may be");
}

TEST(DoctorProcess, StoppedInTheLastCheckItIsWhole) {
  // As far as that was made to its end. The child says that it was stopped where a signal cut the check short.
  for (const bool cut_short : {false, true}) {
    const Result<Report> report = stopped(
        {opened() + began(0) + ended(0) + began(1) + ended(1) + began(2) + "last=$(cat <<'END'\n" +
         ended(2, cut_short) + "\nEND\n); trap 'eval \"$last\"; exit " + (cut_short ? "5" : "0") +
         "' TERM; " + says_ready() + "while :; do sleep 0.05; done"});
    ASSERT_TRUE(report.has_value()) << report.error().message;
    EXPECT_EQ(report->outcomes.size(), 3u);
    EXPECT_EQ(report->stopped, cut_short ? "SIGINT" : "");
    EXPECT_EQ(report->whole, !cut_short);
    EXPECT_EQ(report->verdict, cut_short ? Verdict::kNothingFound : Verdict::kFitToTrain);
    EXPECT_EQ(to_json(report->outcomes[2]).contains("cut_short"), cut_short);
  }
}

/// Spoils the last row of a kernel's first output, but only of more than so many rows.
class BrokenBeyond final : public ops::Observer {
 public:
  BrokenBeyond(std::string kernel, int64_t rows) : kernel_(std::move(kernel)), rows_(rows) {}
  void after(const ops::OpCall& call) override {
    const View& v = call.outputs.front().view;
    if (kernel_ != call.op || v.shape[0] <= rows_ || v.rank < 2) return;
    auto* last = static_cast<unsigned char*>(v.data) +
                 static_cast<size_t>((v.shape[0] - 1) * v.stride[0]) * size_of(v.dtype);
    std::memset(last, 0, size_of(v.dtype) * static_cast<size_t>(v.shape[v.rank - 1]));
  }

 private:
  std::string kernel_;
  int64_t rows_;
};

TEST(Doctor, ADefectBeyondASizeIsFoundAndNamed) {
  for (const auto& [kernel, subject] : {std::pair("rms_norm", "rms_norm"),
                                        std::pair("swiglu", "swiglu"),
                                        std::pair("rope", "rope")}) {
    BrokenBeyond broken(kernel, 1000);
    const Report report = examine_here(&broken, {subject});
    EXPECT_EQ(report.verdict, Verdict::kUnfit) << kernel;  // generating needs it
    ASSERT_FALSE(report.culprits.empty()) << kernel;
    EXPECT_EQ(report.culprits.front().kernel, kernel);
  }
}

TEST(Doctor, AForwardKernelSpoiltUnderATapeIsNotFitToServe) {
  Report report{.device = "cpu"};
  Outcome o = outcome("swiglu, gradient", Level::kOp, {{"swiglu", {}}, {"swiglu_backward", {}}});
  o.problems = {{"gradient", "", "", "swiglu"}};
  report.outcomes = {o};
  conclude(report);
  EXPECT_EQ(report.verdict, Verdict::kUnfit);
  report.outcomes.front().problems = {{"gradient", "", "", "swiglu_backward"}};
  conclude(report);
  EXPECT_EQ(report.verdict, Verdict::kFitToServe);
}

TEST(Doctor, OneSubjectAloneIsNoVerdictOnTheDevice) {
  Report report{.device = "cpu", .only = "swiglu"};
  report.outcomes = {outcome("swiglu, gradient", Level::kOp, {{"swiglu_backward", {}}})};
  conclude(report);
  EXPECT_STREQ(to_string(report.verdict), "nothing found");
  EXPECT_TRUE(passed(report.verdict));
  EXPECT_EQ(summary_json(report).at("only"), "swiglu");
  EXPECT_EQ(report.reasons,
            std::vector<std::string>{
                "1 check, nothing found; swiglu alone was examined: no verdict on the device"});
  report.outcomes.front().problems = {{"gradient", "", "", "swiglu_backward"}};
  conclude(report);
  EXPECT_STREQ(to_string(report.verdict), "unfit to train");
  EXPECT_FALSE(passed(report.verdict));
  report.only.clear();
  conclude(report);
  EXPECT_EQ(report.verdict, Verdict::kFitToServe);
  EXPECT_FALSE(summary_json(report).contains("only"));
}

TEST(Doctor, OpsOfTrainingAloneLetTheChipServe) {
  // Muon's; no token is made with it.
  Broken broken("unit_norm", Broken::How::kScaled);
  const Report report = examine_here(&broken, {"unit_norm"});
  ASSERT_FALSE(report.culprits.empty());
  EXPECT_EQ(report.culprits.front().kernel, "unit_norm");
  EXPECT_EQ(report.verdict, Verdict::kFitToServe);
}

/// The outcome of the check of many calls, which the quick list leaves out.
Outcome many_calls_with(ops::Observer& broken) {
  Options options{.only = "many calls"};
  Quiet quiet;
  const std::vector<Check> checks = make_checks(options);
  EXPECT_EQ(checks.size(), 1u);
  bool lost = false;
  const ops::Observing observing(broken);
  return run_check(checks.at(0), cpu_device(), options, quiet, &lost);
}

TEST(Doctor, OneWrongCallOfManyIsTold) {
  class Once final : public ops::Observer {
   public:
    /// A bit of the exponent, where the output has one: which op is called the list of ops decides,
    /// and what follows in it (a sum in f64 that becomes f32) may round a low bit away.
    void after(const ops::OpCall& call) override {
      const View& view = call.outputs.front().view;
      if (++calls_ == 512) static_cast<unsigned char*>(view.data)[size_of(view.dtype) - 1] ^= 1;
    }

   private:
    int calls_ = 0;
  } once;
  const Outcome o = many_calls_with(once);
  ASSERT_EQ(o.problems.size(), 1u);
  EXPECT_EQ(o.problems.front().property, "many calls");
  EXPECT_NE(o.problems.front().detail.find("call "), std::string::npos);
}

TEST(Doctor, ACallsPrecisionAndLeanAreMeasured) {
  ops::RefTensor expected({4000}), got({4000});
  for (int64_t i = 0; i < 4000; ++i) {
    expected[i] = (i % 2 == 0 ? 1 : -1) * (1 + 0.001 * static_cast<double>(i));
    got[i] = expected[i] * (1 + (i % 4 < 2 ? 0.01 : -0.01));
  }
  EXPECT_NEAR(precision_of(got, expected, DType::kF32).rms, 0.01, 1e-4);
  EXPECT_LT(std::abs(precision_of(got, expected, DType::kF32).bias), 1);
  for (int64_t i = 0; i < 4000; ++i) got[i] = expected[i] * 0.99;
  EXPECT_LT(precision_of(got, expected, DType::kF32).bias, -50);
}

TEST(Doctor, ARehearsalTellsARunsSizesWithoutItsMemory) {
  Rehearsal rehearsal(DeviceKind::kCpu);
  {
    constexpr int64_t kHuge = 1 << 20;  // a weight of 4 TiB
    const Tensor x = Tensor::empty({4096, kHuge}, DType::kBF16, rehearsal.device());
    Weight w{.name = "w", .global_shape = {kHuge, kHuge}, .shard = {}};
    w.value = Tensor::empty({kHuge, kHuge}, DType::kF32, rehearsal.device());
    static_cast<void>(ops::matmul(x, w.value, {.transpose_b = true}));
    static_cast<void>(ops::matmul(x, w.value, {.transpose_b = true}));
  }
  const RunCalls calls = rehearsal.take("huge");
  ASSERT_EQ(calls.calls.size(), 1u);
  EXPECT_EQ(calls.calls[0].sized_op, "matmul");
  EXPECT_EQ(calls.calls[0].sizes, (Sizes{1, 4096, 1 << 20, 1 << 20, 0, 1}));
  EXPECT_EQ(calls.calls[0].dtype, DType::kBF16);
  EXPECT_EQ(calls.calls[0].choices,
            (Choices{{"b", static_cast<double>(DType::kF32)},
                     {"c", static_cast<double>(DType::kBF16)},
                     {"bf16", 1}}));
  const std::vector<Sizes> parts = affordable(sized_op("matmul"), calls.calls[0].sizes, 1e9);
  ASSERT_EQ(parts.size(), 3u);  // rows, depth, columns
  EXPECT_EQ(parts[0][1], 4096);
  for (const Sizes& s : parts) EXPECT_LE(sized_op("matmul").work(s), 1e9);
}

/// Kernel, types and numbers of every call, as text.
class Calls final : public ops::Observer {
 public:
  void after(const ops::OpCall& call) override {
    std::string text = fmt::format("{} {}", call.op, call.inputs.front().view.rank);
    for (const ops::NamedView& in : call.inputs)
      text += fmt::format(" {}:{}", in.name, to_string(in.view.dtype));
    for (const ops::NamedView& out : call.outputs)
      text += fmt::format(" {}:{}", out.name, to_string(out.view.dtype));
    for (const ops::NamedNumber& n : call.numbers) text += fmt::format(" {}={}", n.name, n.value);
    seen.insert(text);
  }
  std::set<std::string> seen;
};

TEST(Doctor, ARunsCallsAreMadeWithItsTypesAndFlags) {
  Calls rehearsed, made;
  Options options{.quick = true};
  {
    Rehearsal rehearsal(DeviceKind::kCpu);
    const ops::Observing observing(rehearsed);
    Device& device = rehearsal.device();
    const auto of = [&](const Shape& shape, DType dtype) {
      return Tensor::empty(shape, dtype, device);
    };
    // A gradient of float32 logits: products in bfloat16 of what is float32.
    Weight w{.name = "w", .global_shape = {24, 16}, .shard = {}};
    w.value = of({24, 16}, DType::kF32).set_needs_grad(true);
    Tape tape(&ops::accumulate);
    Tensor y;
    {
      const Tape::Recording recording(&tape);
      y = ops::linear(of({10, 16}, DType::kBF16).set_needs_grad(true), w, {.out = DType::kF32});
    }
    tape.backward({{y, of({10, 24}, DType::kF32)}});
    const ops::Segments segments = ops::Segments::packed(std::vector<int32_t>{10}, device);
    const ops::RopeTable table = ops::make_rope_table({.dim = 8}, 16, device);
    for (const bool interleaved : {false, true})
      static_cast<void>(ops::rope(of({10, 2, 12}, DType::kBF16), table, segments, 4, interleaved));
    static_cast<void>(ops::rope(of({10, 8}, DType::kBF16), table, segments, 0, true));
    Weight norm{.name = "norm", .global_shape = {24}, .shard = {}};
    norm.value = of({24}, DType::kF32);
    static_cast<void>(ops::rms_norm(of({10, 24}, DType::kBF16), norm, 3e-5f));
    const Tensor q = of({10, 2, 16}, DType::kBF16);
    static_cast<void>(ops::attention(q, q, of({10, 2, 8}, DType::kBF16), segments, 0.3f));
    ops::RouterConfig config;
    config.experts = 12;
    config.top_k = 3;
    config.groups = 4;
    config.groups_kept = 2;
    config.group_score = ops::GroupScore::kMax;
    config.scale = 1.25f;
    config.sigmoid = true;
    static_cast<void>(ops::route(of({10, 12}, DType::kF32), {}, config));
    for (const DType out : {DType::kF32, DType::kBF16}) {  // the gradient is a sum over all tokens
      Weight bias{.name = "bias", .global_shape = {24}, .shard = {}};
      bias.value = of({24}, DType::kF32).set_needs_grad(true);
      Tape biased(&ops::accumulate);
      {
        const Tape::Recording recording(&biased);
        y = ops::add_bias(of({2048, 24}, DType::kF32), bias, out);
      }
      biased.backward({{y, of({2048, 24}, out)}});
    }
    Weight codes{.name = "codes", .global_shape = {40, 64}, .shard = {}};
    const CodePanels layout{WeightCodes::kInt4, 40, 64};
    codes.store_codes(layout.codes,
                      of({1, layout.panels(), layout.panel_bytes()}, DType::kU8),
                      of(code_scales_shape(layout, 1), DType::kBF16));
    static_cast<void>(ops::linear(of({10, 64}, DType::kBF16), codes, {.out = DType::kF32}));
    static_cast<void>(ops::token_log_probs(
        of({3, 5000}, DType::kF32), of({3, 2}, DType::kI32), of({3}, DType::kF32)));
    options.run = rehearsal.take("test");
  }
  EXPECT_TRUE(options.run.others.empty());
  Quiet quiet;
  for (const Check& check : run_checks(options)) {
    bool lost = false;
    const ops::Observing observing(made);
    const Outcome o = run_check(check, cpu_device(), options, quiet, &lost);
    EXPECT_TRUE(o.problems.empty()) << o.head.name << ": " << o.problems.front().detail;
  }
  for (const std::string& call : rehearsed.seen) EXPECT_TRUE(made.seen.contains(call)) << call;
  EXPECT_GE(rehearsed.seen.size(), 11u);
}

/// Kernels by name, of those that have a table.
class Launched final : public ops::Observer {
 public:
  void after(const ops::OpCall& call) override { kernels.insert(call.op); }
  std::set<std::string> kernels;
};

TEST(Doctor, EveryKernelHasASizedOpOrIsNamedAsNotTried) {
  Launched all;
  for (const SizedOp& op : sized_ops()) {
    Launched here;
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      if (dtype == DType::kBF16 && !op.bf16) continue;
      Sizes small;
      for (const Dimension& d : op.dims) small.push_back(d.small);
      Maker maker(cpu_device(), dtype, 1);
      const ops::Observing observing(here);
      op.run(maker, small);
      EXPECT_TRUE(maker.wrong().empty()) << op.name;
    }
    for (const char* const kernel : op.kernels)
      if (std::string_view(kernel) != "pack_panels" || ops::gemm_takes_panels(1, true)) {
        EXPECT_TRUE(here.kernels.contains(kernel)) << op.name << " does not launch " << kernel;
      }
    all.kernels.merge(here.kernels);
  }
  std::string said = "nothing: ";
  for (const std::string& line : not_tried({}))
    if (constexpr std::string_view kBegin = "sizes that can be chosen of ";
        line.starts_with(kBegin))
      said = line.substr(kBegin.size());
  said = ", " + said.substr(0, said.find(':')) + ", ";
  for (const ops::KernelRow& row : ops::all_kernel_rows()) {
    const bool named = said.find(fmt::format(", {}, ", row.kernel)) != std::string::npos;
    EXPECT_NE(has_sized_op(row.kernel), named) << row.kernel << " of:\n" << said;
    EXPECT_TRUE(has_sized_op(row.kernel) || !all.kernels.contains(row.kernel))
        << row.kernel << " is launched, and in no sized op's list";
  }
  for (const char* const kernel :
       {"add_bias", "add_bias_backward", "quantized_linear", "token_log_probs"})
    EXPECT_TRUE(all.kernels.contains(kernel)) << kernel;
}

TEST(Doctor, WhatARehearsalLeftOutIsNamed) {
  Options options{.for_run = "run.toml"};
  options.run = {.name = "run.toml", .left_out = {"[rl], prompts of other lengths"}};
  const std::vector<std::string> said = not_tried(options);
  EXPECT_NE(std::find(said.begin(), said.end(), "of run.toml: [rl], prompts of other lengths"),
            said.end());
}

TEST(Doctor, ADeviceIsAskedForNoKernelThatItLacks) {
  for (const SizedOp& op : sized_ops()) {
    EXPECT_TRUE(runs_on(op, DeviceKind::kCpu)) << op.name;
    for (const DeviceKind kind : {DeviceKind::kCuda, DeviceKind::kAscend})
      EXPECT_EQ(runs_on(op, kind), op.name != "quantized_linear") << op.name;
  }
  for (const Check& c : make_checks({.device = "ascend"}))
    EXPECT_FALSE(c.head.name.starts_with("quantized_linear") &&
                 c.head.name.find("sizes of") != std::string::npos)
        << c.head.name;
}

/// Of every kind of whole numbers, one matrix and several, at rows that are no whole units.
TEST(Doctor, WeightsOfWholeNumbersHaveTheSizesThatAreChosen) {
  class Products final : public ops::Observer {
   public:
    void after(const ops::OpCall& call) override {
      if (std::string_view(call.op) != "quantized_linear") return;
      const View &x = call.inputs.front().view, &y = call.outputs.front().view;
      seen.insert(fmt::format(
          "{}: {} {} {} {}",
          to_string(static_cast<WeightCodes>(static_cast<int>(call.numbers.front().value))),
          x.shape[0],
          x.shape[1],
          y.shape[1],
          call.inputs[1].view.shape[0]));
    }
    std::set<std::string> seen;
  } products;
  for (const WeightCodes kind : kWeightCodes)
    for (const int64_t matrices : {1, 3}) {
      Maker maker(cpu_device(), DType::kBF16, 1, {{"codes", static_cast<double>(kind)}});
      const ops::Observing observing(products);
      sized_op("quantized_linear").run(maker, {7, matrices, 257, 33});
    }
  std::set<std::string> expected;
  for (const auto& [kind, inner] : {std::pair("int8", 257),
                                    {"int4", 257},
                                    {"Q8_0", 288},
                                    {"Q4_0", 288},
                                    {"Q4_1", 288},
                                    {"Q4_K", 512},
                                    {"Q6_K", 512}})
    for (const int matrices : {1, 3})
      expected.insert(fmt::format("{}: 7 {} 33 {}", kind, inner, matrices));
  EXPECT_EQ(products.seen, expected);
}

/// Kernels that run beside others at sizes of their own are tried at these.
TEST(Doctor, CopiesAndPanelsOfARunAreTried) {
  Rehearsal rehearsal(DeviceKind::kCpu);
  bool packs = false;  // which depends on the instruction set
  {
    Weight w{.name = "w", .global_shape = {512, 256}, .shard = {}};
    w.value = Tensor::empty({512, 256}, DType::kF32, rehearsal.device());
    const Tensor x = Tensor::empty({1, 256}, DType::kBF16, rehearsal.device());
    static_cast<void>(ops::linear(x, w));
    packs = w.packed != nullptr;
    const Tensor to = Tensor::empty({1, 256}, DType::kBF16, rehearsal.device());
    ops::copy(to.view(), x.view(), rehearsal.device());
  }
  std::set<std::string> tried;
  for (const RunCall& c : rehearsal.take("test").calls)
    tried.insert(fmt::format("{}: {}", c.sized_op, describe(sized_op(c.sized_op), c.sizes)));
  EXPECT_EQ(tried.contains("linear: tokens 1, inner 256, outer 512"), packs) << *tried.begin();
  EXPECT_TRUE(tried.contains("copy: rows 1, width 256"));
}

/// Grouped-query attention is tried as such: its key heads, and the keys of the whole context.
TEST(Doctor, GroupedHeadsOfARunAreTriedAsSuch) {
  Rehearsal rehearsal(DeviceKind::kCpu);
  {
    Device& device = rehearsal.device();
    const auto of = [&](const Shape& shape) { return Tensor::empty(shape, DType::kBF16, device); };
    static_cast<void>(ops::attention(of({10, 6, 16}),
                                     of({10, 2, 16}),
                                     of({10, 2, 8}),
                                     ops::Segments::packed(std::vector<int32_t>{4, 6}, device),
                                     0.3f));
    static_cast<void>(ops::attention(of({1, 6, 16}),
                                     of({3 * ops::kPageRows, 2, 16}),
                                     of({3 * ops::kPageRows, 2, 16}),
                                     ops::Segments::paged({300}, {0}, {2, 0, 1}, device),
                                     0.3f));
    static_cast<void>(
        ops::attention(of({3, 6, 16}),
                       of({9 * ops::kPageRows, 2, 16}),
                       of({9 * ops::kPageRows, 2, 16}),
                       ops::Segments::paged({300, 300, 300},
                                            {0, 3 * ops::kPageRows, 6 * ops::kPageRows},
                                            {0, 1, 2, 3, 4, 5, 6, 7, 8},
                                            device),
                       0.3f));
  }
  std::set<std::string> tried;
  for (const RunCall& c : rehearsal.take("test").calls)
    tried.insert(fmt::format("{}: {}", c.sized_op, describe(sized_op(c.sized_op), c.sizes)));
  EXPECT_TRUE(
      tried.contains("attention, grouped cached: keys 301, queries 1, slots 1, key heads 2, "
                     "heads of each 3, size 16"))
      << *tried.begin();
  EXPECT_TRUE(  // several sequences that answer at once
      tried.contains("attention, grouped cached: keys 301, queries 1, slots 3, key heads 2, "
                     "heads of each 3, size 16"));
  EXPECT_TRUE(
      tried.contains("attention, grouped packed: tokens 10, documents 1, key heads 2, heads "
                     "of each 3, d_qk 16, d_v 8"))
      << *tried.rbegin();
  // And a sized op makes calls of these shapes.
  class Shapes final : public ops::Observer {
   public:
    void before(const ops::OpCall& call) override {
      if (std::string_view(call.op) == "attention")
        seen.insert(fmt::format("{} {} {}",
                                call.inputs[0].view.shape[1],
                                call.inputs[1].view.shape[1],
                                call.inputs.size()));
    }
    std::set<std::string> seen;
  } shapes;
  Maker maker(cpu_device(), DType::kBF16, 1);
  const ops::Observing observing(shapes);
  sized_op("attention, grouped cached").run(maker, {301, 1, 1, 2, 3, 16});
  sized_op("attention, grouped packed").run(maker, {10, 1, 2, 3, 16, 8});
  EXPECT_EQ(shapes.seen, (std::set<std::string>{"6 2 6", "6 2 5"}));
}

TEST(Doctor, ADepthIsThatOfOneProductOfABatch) {
  class Depths final : public ops::Observer {
   public:
    void before(const ops::OpCall& call) override {
      if (std::string_view(call.op) != "matmul" && std::string_view(call.op) != "grouped_matmul")
        return;
      found.insert(depth_of(ops::RecordedCall(call, [](const View&) { return true; })));
    }
    std::set<double> found;
  } depths;
  Maker maker(cpu_device(), DType::kF32, 1);
  const ops::Observing observing(depths);
  for (const int64_t ta : {0, 1}) sized_op("matmul").run(maker, {9, 5, 24, 17, ta, 1});
  EXPECT_EQ(depths.found, (std::set<double>{24}));
  depths.found.clear();
  // Forward over the inner size, to the inputs over the outer, to the weights over the rows.
  sized_op("grouped_linear").run(maker, {40, 5, 24, 20});
  EXPECT_EQ(depths.found, (std::set<double>{20, 24, 40}));
}

/// The outcome of one check of the quick list, on a CPU that is broken like this.
Outcome outcome_of(const std::string& name, ops::Observer& broken) {
  const Options options{.quick = true};
  Quiet quiet;
  for (const Check& check : make_checks(options))
    if (check.head.name.find(name) != std::string::npos) {
      bool lost = false;
      const ops::Observing observing(broken);
      return run_check(check, cpu_device(), options, quiet, &lost);
    }
  ADD_FAILURE() << "there is no check " << name;
  return {};
}

TEST(Doctor, WhatAKernelKeepsOfItsInputsPlaceIsFound) {
  // Gives for the memory that it saw before what it gave then.
  class Keeps final : public ops::Observer {
   public:
    explicit Keeps(std::string_view kernel) : kernel_(kernel) {}
    void after(const ops::OpCall& call) override {
      if (call.op != kernel_) return;
      const View& out = call.outputs.front().view;
      auto* bytes = static_cast<char*>(out.data);
      const size_t count = static_cast<size_t>(out.count()) * size_of(out.dtype);
      const auto [it, fresh] =
          kept_.emplace(call.inputs.front().view.data, std::vector<char>(bytes, bytes + count));
      if (!fresh && it->second.size() == count) std::copy_n(it->second.begin(), count, bytes);
    }

   private:
    std::string_view kernel_;
    std::map<const void*, std::vector<char>> kept_;
  };
  for (const bool gradient : {false, true}) {
    Keeps keeps(gradient ? "swiglu_backward" : "swiglu");
    const Outcome o = outcome_of(
        fmt::format("swiglu, F32 [3, 2, 33] scale 3, {}same buffers", gradient ? "gradient, " : ""),
        keeps);
    ASSERT_EQ(o.problems.size(), 1u);
    EXPECT_EQ(o.problems.front().property, "state");
    EXPECT_NE(o.problems.front().detail.find("B after A"), std::string::npos);
    EXPECT_EQ(o.head.training_only, gradient);
  }
}

TEST(Doctor, ANanThatBecomesANumberIsFound) {
  class Hides final : public ops::Observer {
   public:
    void after(const ops::OpCall& call) override {
      const View& out = call.outputs.front().view;
      if (std::string_view(call.op) != "add" || out.dtype != DType::kF32) return;
      for (int64_t i = 0; i < out.count(); ++i)
        if (std::isnan(out.as<float>()[i])) out.as<float>()[i] = 0;
    }
  } hides;
  const Outcome o = outcome_of("add, F32, zeros, largest, infinities and NaN", hides);
  ASSERT_FALSE(o.problems.empty());
  EXPECT_EQ(o.problems.front().kernel, "add");
}

/// What the judge of calls finds in this run when an observer changes results.
std::set<std::string> found_in(ops::Observer& changes,
                               DType dtype,
                               const std::function<void(Maker&)>& run) {
  std::set<std::string> found;
  CallJudge judge(
      [&](const std::string& property, const ops::CallFinding&) { found.insert(property); });
  Maker maker(cpu_device(), dtype, 1, {{"c", static_cast<double>(dtype)}});
  const CpuTier tier = cpu_tier();
  const ops::Observing changing(changes), judging(judge);  // the judge hears of it last
  run(maker);
  EXPECT_EQ(cpu_tier(), tier);
  return found;
}

TEST(Doctor, SumsInTooFewBitsAndRoundingToOneSideAreFound) {
  using Found = std::set<std::string>;
  const auto product = [](Maker& m) { sized_op("matmul").run(m, {1, 80, 512, 40, 0, 1}); };
  const auto scaled = [](Maker& m) {
    static_cast<void>(ops::scale(m.normal({80, 40}, DType::kBF16), 0.7137f));
  };
  // All are rounded down: the factor is less than half a unit in the last place above 1.
  const auto scaled_by_little = [](Maker& m) {
    static_cast<void>(ops::scale(m.normal({80, 40}, DType::kBF16), 1.0011f));
  };
  struct Nothing final : ops::Observer {
  } nothing;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    EXPECT_EQ(found_in(nothing, dtype, product), Found());
    EXPECT_EQ(found_in(nothing, dtype, scaled), Found());
    EXPECT_EQ(found_in(nothing, dtype, scaled_by_little), Found());
  }
  // To either side by 2^-15: each element is within the bound of a sum of 512 terms.
  struct Coarse final : ops::Observer {
    void after(const ops::OpCall& call) override {
      const View& c = call.outputs.front().view;
      for (int64_t i = 0; i < c.count(); ++i)
        c.as<float>()[i] *= 1 + (i % 2 == 0 ? 0x1p-15f : -0x1p-15f);
    }
  } coarse;
  EXPECT_EQ(found_in(coarse, DType::kF32, product), (Found{"bits", "float64", "precision"}));
  // Cut instead of rounded where that is within the bound of one rounding, which is up to twice as
  // wide for a mantissa near 2 as the half of a unit in the last place.
  struct Leans final : ops::Observer {
    void after(const ops::OpCall& call) override {
      const auto* const x = call.inputs[0].view.as<bf16_t>();
      auto* const y = call.outputs[0].view.as<bf16_t>();
      for (int64_t i = 0; i < call.outputs[0].view.count(); ++i) {
        const float exact = bf16_to_f32(x[i]) * 0.7137f;
        const auto bits = std::bit_cast<uint32_t>(exact);
        const double behind = static_cast<double>(bits & 0xffff) / 0x1p16;
        const double mantissa = 1 + static_cast<double>(bits & 0x7fffff) / 0x1p23;
        if (behind > 0.5 && behind < 0.5 * mantissa - 0.05)
          y[i] = f32_to_bf16(std::bit_cast<float>(bits & 0xffff0000));
      }
    }
  } leans;
  EXPECT_EQ(found_in(leans, DType::kBF16, scaled), (Found{"bias", "bits"}));
  // One bit of one element, far within any bound: another bit than every CPU has.
  struct OneBit final : ops::Observer {
    void after(const ops::OpCall& call) override {
      const View& c = call.outputs.front().view;
      const int64_t last = c.count() - 1;
      c.as<uint32_t>()[last] ^= 1;
    }
  } one_bit;
  EXPECT_EQ(found_in(one_bit, DType::kF32, product), Found{"bits"});
}

TEST(Doctor, SumsAreJudgedByFloat64BesideTheCpusKernel) {
  // A kernel that is wrong alike wherever it runs: the last element loses a term.
  struct Spoils final : ops::Observer {
    void before(const ops::OpCall& call) override {
      recorded.emplace(call, [](const View&) { return false; });
    }
    void after(const ops::OpCall& call) override {
      const View& c = call.outputs.front().view;
      if (spoils) {
        if (c.dtype == DType::kF32)
          c.as<float>()[c.count() - 1] += 1;
        else
          c.as<bf16_t>()[c.count() - 1] ^= 0x40;
      }
      recorded->launched(call);
      recorded->fetch();
      found = beside_float64(*recorded);
    }
    bool spoils = false;
    std::optional<ops::RecordedCall> recorded;
    std::optional<ops::CallFinding> found;
  } judge;
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const int transposed : {0, 1, 2, 3})
      for (const int64_t batch : {1, 3}) {
        const bool a_too = transposed > 1, b_too = transposed % 2 > 0;
        const int64_t m = 130, n = 67, k = 300;
        Maker maker(cpu_device(), dtype, 1, {});
        const auto of = [&](int64_t rows, int64_t columns) {
          return maker.normal(batch > 1 ? Shape{batch, rows, columns} : Shape{rows, columns},
                              dtype);
        };
        const Tensor a = a_too ? of(k, m) : of(m, k), b = b_too ? of(n, k) : of(k, n);
        for (const bool spoils : {false, true}) {
          judge.spoils = spoils;
          const ops::Observing observing(judge);
          static_cast<void>(ops::matmul(a, b, {.transpose_a = a_too, .transpose_b = b_too}));
          ASSERT_EQ(judge.found.has_value(), spoils) << transposed << " " << batch;
          EXPECT_EQ(judge.found ? judge.found->element.back() : n - 1, n - 1);
        }
      }
}

/// What float64 says of [m, depth] [depth, n] from a kernel that leaves out the last terms.
std::optional<ops::CallFinding> beside_float64_of(int64_t depth,
                                                  DType dtype,
                                                  const std::vector<float>& values,
                                                  int64_t lost) {
  constexpr int64_t m = 9, n = 8;
  struct Records final : ops::Observer {
    void before(const ops::OpCall& call) override {
      recorded.emplace(call, [](const View&) { return false; });
    }
    void after(const ops::OpCall& call) override {
      recorded->launched(call);
      recorded->fetch();
    }
    std::optional<ops::RecordedCall> recorded;
  } whole;
  struct Replaces final : ops::Observer {
    void after(const ops::OpCall& call) override {
      const View& c = call.outputs.front().view;
      std::memcpy(c.data, with.data(), static_cast<size_t>(c.count()) * size_of(c.dtype));
    }
    std::vector<char> with;
  } replaces;
  const auto of = [&](int64_t rows, int64_t columns, bool cut, size_t from) {
    std::vector<float> v;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        v.push_back(cut && c >= depth - lost
                        ? 0.0f
                        : values[(from + static_cast<size_t>(r * columns + c)) % values.size()]);
    Tensor t = Tensor::empty({rows, columns}, dtype, cpu_device());
    t.assign_f32(v);
    return t;
  };
  const Tensor a = of(m, depth, false, 0), b = of(n, depth, false, 7);
  const Tensor less =
      ops::matmul(of(m, depth, true, 0), b, {.transpose_b = true, .out = DType::kF32});
  replaces.with.resize(less.bytes());
  less.copy_bytes_to(replaces.with.data());
  const ops::Observing replacing(replaces), recording(whole);  // the last one hears of it last
  static_cast<void>(ops::matmul(a, b, {.transpose_b = true, .out = DType::kF32}));
  return beside_float64(*whole.recorded);
}

TEST(Doctor, ALostTermOfADeepSumIsFoundAndTinyTermsAreNone) {
  std::vector<float> normal;
  const Random random(3, RandomPurpose::kTest, 0x0F64);
  for (uint64_t i = 0; i < 99'991; ++i) normal.push_back(static_cast<float>(random.normal(i)));
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const int64_t depth : {300, 7168, 18432}) {
      EXPECT_FALSE(beside_float64_of(depth, dtype, normal, 0)) << depth;
      EXPECT_TRUE(beside_float64_of(depth, dtype, normal, 1)) << depth;
      // Products below the smallest normal number are flushed, each by itself.
      for (const float tiny : {1e-19f, 9e-20f, 1e-20f})
        EXPECT_FALSE(beside_float64_of(depth, dtype, {tiny}, 0)) << depth << " of " << tiny;
      EXPECT_FALSE(beside_float64_of(depth, dtype, {1.0f, 3.0f, 2.5f}, 0)) << depth;
    }
}

TEST(Doctor, SpecialNumbersAndWhatIsLeftAloneAreNoOtherBits) {
  struct Bits final : ops::Observer {
    void before(const ops::OpCall& call) override {
      recorded.emplace(call, [](const View&) { return false; });
    }
    void after(const ops::OpCall& call) override {
      if (change) change(call.outputs.front().view);
      recorded->launched(call);
      recorded->fetch();
      found = ops::CallFacts(*recorded, true).other_bits();
    }
    std::function<void(const View&)> change;
    std::optional<ops::RecordedCall> recorded;
    std::optional<ops::CallFinding> found;
  } bits;
  const Tensor x = Tensor::from_f32(
      std::vector<float>{1.0f, -INFINITY, NAN, -0.0f, 3.0f, 4.0f}, {2, 3}, cpu_device());
  const auto scaled = [&] {
    const ops::Observing observing(bits);
    static_cast<void>(ops::scale(x, 0.5f));
    return bits.found;
  };
  EXPECT_FALSE(scaled());
  bits.change = [](const View& y) { y.as<uint32_t>()[2] ^= 1; };  // another NaN
  EXPECT_FALSE(scaled());
  bits.change = [](const View& y) { y.as<uint32_t>()[3] = 0x80800000; };  // lifted by rounding
  EXPECT_FALSE(scaled());
  bits.change = [](const View& y) { y.as<uint32_t>()[3] ^= 0x80000000; };  // 0 for -0
  const std::optional<ops::CallFinding> zero = scaled();
  ASSERT_TRUE(zero);
  EXPECT_EQ(zero->element, (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(zero->elements_out, 1);
  bits.change = [](const View& y) {
    for (const int i : {4, 5}) y.as<uint32_t>()[i] += 1;
  };
  const std::optional<ops::CallFinding> two = scaled();
  ASSERT_TRUE(two);
  EXPECT_EQ(two->element, (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(two->elements_out, 2);
}

}  // namespace
}  // namespace ferry::doctor
