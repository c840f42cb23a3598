#include "verify/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <span>
#include <string_view>

#include "base/check.h"
#include "base/stopping.h"
#include "base/threads.h"
#include "ops/dispatch.h"
#include "ops/library_specs.h"
#include "ops/spec_check.h"
#include "verify/call_judge.h"
#include "verify/checked_specs.h"
#include "verify/library_watch.h"

namespace ferry::doctor {
namespace {

/// Writes down which kernels a check runs, and which calls of the vendor's library they make.
class Recorder final : public ops::Observer {
 public:
  Recorder(Outcome& outcome, Listener& listener, Device& device)
      : outcome_(outcome),
        listener_(listener),
        watch_(device, [this](const char* call) { called(call); }) {}

  void before(const ops::OpCall& call) override {
    const auto same = [&](const KernelUse& u) { return u.kernel == call.op; };
    auto use = std::find_if(outcome_.used.begin(), outcome_.used.end(), same);
    if (use == outcome_.used.end()) use = outcome_.used.insert(use, {call.op, {}});
    running_ = static_cast<int>(use - outcome_.used.begin());
    if (last_ != call.op) listener_.launched(call.op);
    last_ = call.op;
  }
  void after(const ops::OpCall&) override { running_ = -1; }

 private:
  void called(const char* call) {
    if (running_ < 0) return;  // a copy of the check's own
    std::vector<std::string>& calls = outcome_.used[static_cast<size_t>(running_)].calls;
    if (std::find(calls.begin(), calls.end(), call) == calls.end()) calls.push_back(call);
  }

  Outcome& outcome_;
  Listener& listener_;
  std::string last_;
  int running_ = -1;
  LibraryWatch watch_;
};

/// A case forward and backward with each call judged by itself, which tells whose fault it is.
void judge_calls(Running& r, const ops::OpCase& c) {
  std::vector<Tensor> inputs = ops::make_inputs(c, r.device, r.options.seed);
  const std::vector<Tensor> cotangents = ops::make_cotangents(c, c.run(inputs), r.options.seed);
  CallJudge judge([&](const std::string& property, const ops::CallFinding& f) {
    if (of_an_element(property))
      r.outcome.problems.push_back({property, ops::describe(f), "", f.op});
  });
  const ops::Observing observing(judge);
  ops::run_with_gradients(c, inputs, cotangents);
}

/// The case lives as long as the process.
Check spec_check(const std::string& op,
                 const ops::OpCase& c,
                 Level level,
                 bool gradient,
                 const Options& options) {
  ops::SpecOptions spec;
  spec.forward = !gradient;
  spec.gradients = gradient;
  spec.tiers_and_threads = !options.quick;
  spec.seed = options.seed;
  Check check;
  check.head = {.name = fmt::format("{}, {}{}", op, c.name, gradient ? ", gradient" : ""),
                .subject = op,
                .level = level,
                .training_only = gradient || training_kernel(op)};
  check.run = [&c, spec, gradient](Running& r) {
    if (gradient) judge_calls(r, c);
    for (const ops::Finding& f : ops::check_case(c, r.device, spec))
      r.found(f.property.c_str(), "{}", f.detail);
  };
  return check;
}

/// The specs of the ops; small cases first, so that what fails fails soon.
std::vector<Check> spec_checks(const Options& options) {
  // DeepSeek's absorbed attention, whose op is another than that of small shapes, is among them;
  // its gradient would take long.
  constexpr int64_t kQuickForward = 400'000, kQuickGradient = 40'000;
  std::vector<Check> checks;
  for (const ops::OpSpec& spec : checked_specs()) {
    std::vector<const ops::OpCase*> cases;
    for (const ops::OpCase& c : spec.cases)
      if (ops::can_run(c, kind_of(options.device)) &&
          (!options.quick || elements_of(c) <= kQuickForward))
        cases.push_back(&c);
    std::stable_sort(cases.begin(), cases.end(), [](const auto* a, const auto* b) {
      return elements_of(*a) < elements_of(*b);
    });
    for (const bool gradient : {false, true})
      for (const ops::OpCase* c : cases)
        if (!gradient ||
            (ops::has_gradient(*c) && (!options.quick || elements_of(*c) <= kQuickGradient)))
          checks.push_back(spec_check(spec.op, *c, Level::kOp, gradient, options));
  }
  return checks;
}

/// Single calls of the vendor's library, where there is one.
std::vector<Check> library_checks(const Options& options) {
  std::vector<Check> checks;
  // They live as long as the process, which examines one device.
  static const std::vector<ops::OpSpec> specs = ops::library_specs(kind_of(options.device));
  for (const ops::OpSpec& spec : specs)
    for (const ops::OpCase& c : spec.cases)
      checks.push_back(spec_check(spec.op, c, Level::kPrimitive, false, options));
  return checks;
}

/// Whether the device still answers after an error: a call that it refused costs it nothing.
bool answers(Device& device) {
  try {
    const Tensor t = Tensor::zeros({64}, DType::kF32, device);
    const std::vector<float> values = t.to_f32();
    return std::all_of(values.begin(), values.end(), [](float v) { return v == 0; });
  } catch (const DeviceError&) {
    return false;
  }
}

/// Kernels of the device whose sizes are those of their specs alone.
std::vector<std::string> without_sized_op(DeviceKind device) {
  std::vector<std::string> out;
  for (const ops::KernelRow& row : ops::all_kernel_rows())
    if (ops::has_kernel(row, device) && !has_sized_op(row.kernel)) out.emplace_back(row.kernel);
  return out;
}

void append(std::vector<Check>& to, std::vector<Check> from) {
  for (Check& c : from) to.push_back(std::move(c));
}

}  // namespace

DeviceKind kind_of(std::string_view device) {
  for (const DeviceKind kind : {DeviceKind::kCuda, DeviceKind::kAscend})
    if (device.starts_with(to_string(kind))) return kind;
  return DeviceKind::kCpu;
}

const std::vector<ops::OpSpec>& checked_specs() {
  static const std::vector<ops::OpSpec> specs = [] {
    std::vector<ops::OpSpec> all = ops::all_op_specs();
    for (ops::OpSpec& spec : all)
      std::erase_if(spec.cases, [](const ops::OpCase& c) { return c.benchmark; });
    return all;
  }();
  return specs;
}

int64_t elements_of(const ops::OpCase& c) {
  int64_t n = 0;
  for (const ops::InputSpec& in : c.inputs) n += in.shape.count();
  return n;
}

std::vector<std::byte> bits_of(const Tensor& t) {
  if (t.contiguous()) {
    std::vector<std::byte> bits(t.bytes());
    t.copy_bytes_to(bits.data());
    return bits;
  }
  const std::vector<float> values = t.to_f32();
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

std::vector<Check> make_checks(const Options& options) {
  std::vector<Check> all;
  append(all, runtime_checks());
  append(all, large_copy_checks(options));
  append(all, first_checks());  // before what runs the same kernels
  append(all, library_checks(options));
  append(all, spec_checks(options));
  append(all, value_checks(options));
  append(all, ladder_checks(options));
  append(all, run_checks(options));
  append(all, state_checks(options));
  append(all, load_checks());
  append(all, measurements());
  append(all, soak_checks(options));
  if (!options.only.empty())
    std::erase_if(all, [&](const Check& c) { return c.head.subject != options.only; });
  for (Check& c : all) c.head.limit_s = options.limit_s;
  return all;
}

Outcome run_check(const Check& check,
                  Device& device,
                  const Options& options,
                  Listener& listener,
                  bool* device_lost) {
  const FlushDenormals flush;
  const Clock& clock = system_clock();
  const double begin_s = clock.monotonic_s();
  Outcome outcome{.head = check.head};
  Recorder recorder(outcome, listener, device);
  Running running{device, options, listener, outcome, clock};
  try {
    const ops::Observing observing(recorder);
    check.run(running);
    device.stream().synchronize();  // what the check left behind belongs to it
  } catch (const DeviceError& e) {
    outcome.problems.push_back({"device error", e.what()});
    *device_lost = !answers(device);
  } catch (const Bug& e) {
    outcome.problems.push_back({"bug in Ferry", e.what()});
  }
  outcome.seconds = clock.monotonic_s() - begin_s;
  return outcome;
}

std::vector<std::string> not_tried(const Options& options) {
  std::vector<std::string> out;
  if (!options.only.empty()) return {fmt::format("anything but {}", options.only)};
  if (options.quick)
    out.emplace_back(
        "every rung of the ladder of sizes and every length (a few by the seed; without --quick: "
        "all), the specs' larger shapes, copies beyond 4 MiB, one op 100,000 "
        "times, and on a CPU other instruction sets and numbers of threads");
  if (options.soak_s == 0) out.emplace_back("faults that come and go: --soak 10m looks for them");
  if (kind_of(options.device) == DeviceKind::kCpu && !has_other_tier())
    out.emplace_back(
        "whether single calls are right by another instruction set: this processor has the one "
        "that is examined alone, which is its own judge there");
  if (const auto fixed = without_sized_op(kind_of(options.device)); !fixed.empty())
    out.push_back(
        fmt::format("sizes that can be chosen of {}: beside their specs' shapes these kernels are "
                    "tried at those of a run alone (--for), if it is one of theirs",
                    fmt::join(fixed, ", ")));
  if (options.for_run.empty())
    out.emplace_back("the sizes of a run of yours: --for DIR, a file of settings, v3 or v2-lite");
  int64_t parts = 0;
  for (const RunCall& call : options.run.calls)
    if (run_parts(call, options).front() != call.sizes) ++parts;
  if (parts > 0)
    out.push_back(fmt::format(
        "{} of {}'s {} different calls whole: they would take too long, and were tried in parts, "
        "each with one size whole and the others cut",
        parts,
        options.run.name,
        options.run.calls.size()));
  for (const std::string& kernel : options.run.others)
    out.push_back(fmt::format("{} at the sizes of {}", kernel, options.run.name));
  for (const std::string& what : options.run.left_out)
    out.push_back(fmt::format("of {}: {}", options.run.name, what));
  out.emplace_back("sizes in all combinations: --soak 1h tries others with every second");
  return out;
}

Result<Examined> examine(const Options& options, size_t from, Listener& listener) {
  TRY_ASSIGN(Device * device, open_device(options.device));
  listener.started(device->name(), device->describe());
  const std::vector<Check> checks = make_checks(options);
  if (checks.empty())
    return fail(Code::kInvalidInput,
                "--only {}: there is no such subject; give an op (ferry ops), copies, memory, "
                "streams, links, speed or soak",
                options.only);
  listener.planned(checks.size());
  for (size_t i = from; i < checks.size(); ++i) {
    listener.began(i, checks[i].head);
    bool device_lost = false;
    const Outcome outcome = run_check(checks[i], *device, options, listener, &device_lost);
    listener.ended(outcome);
    if (device_lost) return Examined::kDeviceLost;
    const bool all = i + 1 == checks.size() && !outcome.cut_short;
    if (stop_signal() != 0 && !all) return Examined::kStopped;
  }
  for (const std::string& what : not_tried(options)) listener.noted("not tried: " + what);
  return Examined::kAll;
}

}  // namespace ferry::doctor
