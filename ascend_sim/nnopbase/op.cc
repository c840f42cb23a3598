#include "nnopbase/op.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

#include "nnopbase/conditional.h"
#include "nnopbase/deviations.h"
#include "nnopbase/mutants.h"
#include "nnopbase/objects.h"
#include "runtime/error.h"
#include "runtime/mutant_kinds.h"
#include "runtime/runtime.h"
#include "runtime/settings.h"

using namespace ascend_sim;

/// The plan of one call, between its two phases.
struct aclOpExecutor {
  std::string op;
  std::shared_ptr<Plan> plan;
  int determinism = 0;
};

namespace ascend_sim {
namespace {

ASCEND_DEFECT(determinism_ignored, "any", "sums in another order at each call, whatever the level")
ASCEND_DEFECT(bit_flip, "any", "flips one bit of an op's output, once in 10,000 launches")
ASCEND_DEFECT(workspace_reused_early,
              "any",
              "an op whose workspace was the previous one's is overwritten by what that one left")
constexpr const char* kDefectsOfAnyOp[] = {
    "determinism_ignored", "bit_flip", "workspace_reused_early"};

/// Ends a first phase.
struct Refusal {
  int code;
  std::string why;
};

/// Ends a device function.
struct DeviceFault {
  int code;
  std::string why;
};

/// Executors between their phases. Dead ones keep their addresses for a while, so that a second use
/// is told from the first use of another one.
struct Executors {
  std::mutex mutex;
  std::map<const aclOpExecutor*, std::unique_ptr<aclOpExecutor>> alive;
  std::deque<std::unique_ptr<aclOpExecutor>> dead;
};

Executors& executors() {
  static Executors& all = *std::make_unique<Executors>().release();
  return all;
}

/// Takes the executor from the living: phase 2 ends its life, whatever comes of it.
std::shared_ptr<Plan> take_plan(const std::string& op,
                                const aclOpExecutor* executor,
                                int& determinism) {
  constexpr size_t kDeadKept = 4096;
  const std::lock_guard lock(executors().mutex);
  const auto it = executors().alive.find(executor);
  if (it == executors().alive.end())
    violation("aclnn" + op + " is given an executor that was used before, or never made");
  if (it->second->op != op)
    violation("aclnn" + op + " is given an executor of aclnn" + it->second->op);
  std::shared_ptr<Plan> plan = std::move(it->second->plan);
  determinism = it->second->determinism;
  executors().dead.push_back(std::move(it->second));
  executors().alive.erase(it);
  if (executors().dead.size() > kDeadKept) executors().dead.pop_front();
  return plan;
}

/// The bytes between a view's first and last element.
Range extent(const Tensor& t) {
  if (t.elements() == 0) return range_of(t.data, 0);
  int64_t last = t.offset;
  for (size_t i = 0; i < t.shape.size(); ++i) last += (t.shape[i] - 1) * t.strides[i];
  const size_t size = size_of(t.dtype);
  return {reinterpret_cast<uintptr_t>(t.data) + static_cast<size_t>(t.offset) * size,
          static_cast<size_t>(last - t.offset + 1) * size};
}

uint64_t signature_of(const std::string& op,
                      const std::vector<Tensor>& inputs,
                      const std::vector<Tensor>& outputs) {
  uint64_t hash = std::hash<std::string>{}(op);
  for (const std::vector<Tensor>* list : {&inputs, &outputs})
    for (const Tensor& t : *list) {
      hash = mix(hash, reinterpret_cast<uintptr_t>(t.data), static_cast<uint64_t>(t.offset));
      for (const int64_t d : t.shape) hash = mix(hash, static_cast<uint64_t>(d));
    }
  return hash;
}

/// One bit in the upper half of an element's fraction, or the lowest of an integer.
void flip_bit(const Tensor& t, uint64_t draw) {
  const int64_t elements = t.elements();
  if (elements == 0) return;
  std::vector<unsigned char> bits = load_bits(t);
  const size_t size = size_of(t.dtype);
  const size_t element = static_cast<size_t>(draw % static_cast<uint64_t>(elements));
  const size_t bit = is_float(t.dtype) ? 8 * size - 10 : 0;
  bits[element * size + bit / 8] ^= static_cast<unsigned char>(1u << (bit % 8));
  store_bits(t, bits);
}

/// The first bytes of an output become what the previous owner of the workspace left there.
void overwrite(const Tensor& t, const unsigned char* workspace, size_t size) {
  std::vector<unsigned char> bits = load_bits(t);
  std::copy_n(workspace, std::min({bits.size(), size, size_t{64}}), bits.begin());
  store_bits(t, bits);
}

}  // namespace

/// Runs a plan on the stream; the only one who sees inside Plan and Launch.
struct Launcher {
  static std::unique_ptr<Plan> make_plan(const char* op) {
    return std::unique_ptr<Plan>(new Plan(op));
  }

  static bool complete(const Plan& plan) { return plan.device_function_ != nullptr; }
  static uint64_t workspace_of(const Plan& plan) { return plan.workspace_bytes_; }

  static void check_handles(const Plan& plan) {
    for (const auto& [handle, life] : plan.handles_)
      if (life_of(handle) != life)
        violation("an argument of aclnn" + plan.op_ + " was destroyed before its second phase");
  }

  static OpLaunch prepare(const std::shared_ptr<Plan>& plan, int determinism, void* workspace) {
    OpLaunch out;
    out.op = plan->op_;
    for (const Tensor& t : plan->inputs_) out.reads.push_back(extent(t));
    for (const Tensor& t : plan->outputs_) out.writes.push_back(extent(t));
    if (plan->workspace_bytes_ > 0)
      out.writes.push_back(range_of(workspace, plan->workspace_bytes_));
    out.signature = signature_of(plan->op_, plan->inputs_, plan->outputs_);
    static std::atomic<uint64_t> calls{0};
    const uint64_t call = ++calls;
    out.run = [plan, determinism, call, workspace] {
      return run(*plan, determinism, call, workspace);
    };
    return out;
  }

  static Outcome run(const Plan& plan, int determinism, uint64_t call, void* workspace) {
    const std::string mutant = mutant_of(plan.op_);
    Launch launch;
    launch.level_ = determinism;
    launch.call_ = call;
    launch.workspace_ = plan.workspace_bytes_ > 0 ? alias(workspace) : nullptr;
    try {
      const std::optional<RightOutputs> right = right_outputs(plan, launch, mutant);
      if (defect("determinism_ignored")) launch.level_ = 0;
      launch.one_less_ = mutant == "k_minus_1";
      poison(plan, launch);
      if (mutant.empty() || launch.one_less_)
        plan.device_function_(launch);
      else
        run_mutant(mutant, plan.outputs_, [&] { plan.device_function_(launch); });
      poison(plan, launch);
      spoil_conditionally(plan.op_, plan.inputs_, plan.outputs_);
      spoil(plan, launch);
      if (writes_deviations()) note_deviations(plan, right, mutant == "late_copy");
    } catch (const DeviceFault& fault) {
      return {fault.code, "aclnn" + plan.op_ + ": " + fault.why};
    }
    return {};
  }

 private:
  static void poison(const Plan& plan, const Launch& launch) {
    if (launch.workspace_) std::memset(launch.workspace_, 0xFF, plan.workspace_bytes_);
  }

  /// What the launch gives when nothing is planted; nothing if nothing is that may spoil this op,
  /// or nobody asks.
  static std::optional<RightOutputs> right_outputs(const Plan& plan,
                                                   Launch& launch,
                                                   const std::string& mutant) {
    const bool any = std::any_of(std::begin(kDefectsOfAnyOp),
                                 std::end(kDefectsOfAnyOp),
                                 [](const char* name) { return defect(name); });
    if (!writes_deviations() || (mutant.empty() && !any)) return std::nullopt;
    poison(plan, launch);
    return std::optional<RightOutputs>(
        std::in_place, plan.outputs_, [&] { plan.device_function_(launch); });
  }

  /// Writes how far the outputs are from the right ones. What lands late is wrong for the next task
  /// alone, and only if this one meets it.
  static void note_deviations(const Plan& plan,
                              const std::optional<RightOutputs>& right,
                              bool late) {
    for (const Tensor& t : plan.outputs_) write_deviation(plan.op_, {&t});
    if (!right) return;
    for (const Deviation& d : right->compare()) {
      if (!late) {
        write_deviation(plan.op_, d);
        continue;
      }
      land_after_next_task([op = plan.op_, tensor = *d.tensor, relative = d.relative](
                               const std::vector<Range>& met) {
        const Range own = extent(tensor);
        if (std::any_of(met.begin(), met.end(), [&](const Range& r) { return r.overlaps(own); }))
          write_deviation(op, {&tensor, relative});
      });
    }
  }

  /// Defects that any op may have.
  static void spoil(const Plan& plan, const Launch& launch) {
    thread_local const unsigned char* last_workspace = nullptr;
    if (plan.outputs_.empty()) return;
    if (now_and_then("bit_flip", 10'000))
      flip_bit(plan.outputs_.front(), mix(settings().seed, launch.call_));
    const bool shared = launch.workspace_ && launch.workspace_ == last_workspace;
    if (shared && defect("workspace_reused_early"))
      overwrite(plan.outputs_.front(), launch.workspace_, plan.workspace_bytes_);
    last_workspace = launch.workspace_;
  }
};

uint64_t Launch::order(int64_t rows) const {
  if (level_ >= 3) return 0;
  if (level_ >= 1) return 1 + mix(1, static_cast<uint64_t>(rows)) % 1'000'000;
  return 1 + mix(settings().seed, call_, 2) % 1'000'000;
}

int64_t Launch::reduction(int64_t k) const { return one_less_ && k > 0 ? k - 1 : k; }

void Launch::fault(int code, const std::string& why) const { throw DeviceFault{code, why}; }

void Plan::use(const std::string& name, const void* handle) {
  const uint64_t life = life_of(handle);
  if (life == 0)
    violation("argument " + name + " of aclnn" + op_ + " was destroyed, or is no handle");
  handles_.emplace_back(handle, life);
}

Tensor Plan::take(const std::string& name, const aclTensor* t) {
  if (!t) throw Refusal{code::kNullptr, name + " is null"};
  use(name, t);
  const Tensor& value = t->value;
  require(size_of(value.dtype) > 0, name + " has " + to_string(value.dtype) + ", unknown here");
  if (value.elements() == 0 && !value.data) return value;
  if (!value.data) throw Refusal{code::kNullptr, "the data of " + name + " is null"};
  require(is_device_address(value.data), "the data of " + name + " is no device memory");
  require(reinterpret_cast<uintptr_t>(value.data) % 32 == 0,
          "the data of " + name + " is not aligned to 32 bytes");
  return value;
}

Tensor Plan::input(const char* name, const aclTensor* t) {
  return inputs_.emplace_back(take(name, t));
}

Tensor Plan::output(const char* name, const aclTensor* t) {
  return outputs_.emplace_back(take(name, t));
}

Tensor Plan::inout(const char* name, const aclTensor* t) {
  inputs_.push_back(take(name, t));
  return outputs_.emplace_back(inputs_.back());
}

std::vector<Tensor> Plan::inputs(const char* name, const aclTensorList* list) {
  require_pointer(list, name);
  use(name, list);
  std::vector<Tensor> out;
  for (const aclTensor* t : list->members)
    out.push_back(inputs_.emplace_back(take(name + ("[" + std::to_string(out.size()) + "]"), t)));
  return out;
}

std::vector<Tensor> Plan::outputs(const char* name, const aclTensorList* list) {
  require_pointer(list, name);
  use(name, list);
  std::vector<Tensor> out;
  for (const aclTensor* t : list->members)
    out.push_back(outputs_.emplace_back(take(name + ("[" + std::to_string(out.size()) + "]"), t)));
  return out;
}

double Plan::scalar(const char* name, const aclScalar* s) {
  require_pointer(s, name);
  use(name, s);
  return s->value;
}

std::vector<int64_t> Plan::ints(const char* name, const aclIntArray* a) {
  require_pointer(a, name);
  use(name, a);
  return a->values;
}

std::optional<Tensor> Plan::optional_input(const char* name, const aclTensor* t) {
  return t ? std::optional(input(name, t)) : std::nullopt;
}

std::optional<Tensor> Plan::optional_output(const char* name, const aclTensor* t) {
  return t ? std::optional(output(name, t)) : std::nullopt;
}

std::optional<std::vector<Tensor>> Plan::optional_inputs(const char* name,
                                                         const aclTensorList* list) {
  return list ? std::optional(inputs(name, list)) : std::nullopt;
}

std::optional<std::vector<int64_t>> Plan::optional_ints(const char* name, const aclIntArray* a) {
  return a ? std::optional(ints(name, a)) : std::nullopt;
}

void Plan::require(bool holds, const std::string& why) const {
  if (!holds) throw Refusal{code::kInvalid, why};
}

void Plan::refuse(const std::string& why) const { throw Refusal{code::kInvalid, why}; }

void Plan::require_pointer(const void* p, const char* name) const {
  if (!p) throw Refusal{code::kNullptr, std::string(name) + " is null"};
}

void Plan::require_type(const char* name,
                        const Tensor& t,
                        std::initializer_list<aclDataType> types) const {
  const bool known = std::find(types.begin(), types.end(), t.dtype) != types.end();
  require(known, std::string(name) + " may not be " + to_string(t.dtype));
  require(t.dtype != ACL_BF16 || chip().has_bf16(), chip().name + " has no BFLOAT16");
}

void Plan::require_shape(const char* name, const Tensor& t, const Shape& shape) const {
  require(t.shape == shape,
          std::string(name) + " is " + to_string(t.shape) + "; expected " + to_string(shape));
}

void Plan::require_rank(const char* name, const Tensor& t, int least, int most) const {
  require(t.rank() >= least && t.rank() <= most,
          std::string(name) + " has " + std::to_string(t.rank()) + " dimensions; allowed are " +
              std::to_string(least) + " to " + std::to_string(most));
}

void Plan::require_same_type(const char* a,
                             const Tensor& ta,
                             const char* b,
                             const Tensor& tb) const {
  require(ta.dtype == tb.dtype,
          std::string(a) + " is " + to_string(ta.dtype) + ", " + b + " " + to_string(tb.dtype));
}

void Plan::require_format(const char* name, const Tensor& t, aclFormat format) const {
  require(t.format == format,
          std::string(name) + " has format " + std::to_string(static_cast<int>(t.format)) +
              "; expected " + std::to_string(static_cast<int>(format)));
}

int Plan::axis(int64_t dim, int rank) const {
  const int64_t axis = dim < 0 ? dim + rank : dim;
  require(axis >= 0 && axis < rank,
          "dimension " + std::to_string(dim) + " of " + std::to_string(rank));
  return static_cast<int>(axis);
}

const Chip& Plan::chip() const { return *settings().chip; }

void Plan::workspace(uint64_t bytes) { workspace_bytes_ = bytes; }

void Plan::launch(std::function<void(Launch&)> device_function) {
  device_function_ = std::move(device_function);
}

aclnnStatus plan(const char* op,
                 uint64_t* workspace_size,
                 aclOpExecutor** executor,
                 const std::function<void(Plan&)>& check_and_launch) {
  static std::atomic<const Settings*> checked{nullptr};
  if (checked.exchange(&settings()) != &settings()) check_names_of_settings();
  const std::string call = "aclnn" + std::string(op) + "GetWorkspaceSize: ";
  if (!workspace_size || !executor)
    return explain(code::kNullptr, call + "a place for the answers");
  const std::optional<int> determinism = determinism_level();
  if (!determinism)
    return explain(code::kRuntimeError, call + "this thread has no context (107002)");
  std::shared_ptr<Plan> plan = Launcher::make_plan(op);
  try {
    check_and_launch(*plan);
  } catch (const Refusal& refusal) {
    return explain(refusal.code, call + refusal.why);
  }
  if (!Launcher::complete(*plan)) violation(call + "the op has no device function");
  *workspace_size = Launcher::workspace_of(*plan);
  auto made = std::make_unique<aclOpExecutor>();
  made->op = op;
  made->plan = std::move(plan);
  made->determinism = *determinism;
  *executor = made.get();
  const std::lock_guard lock(executors().mutex);
  executors().alive[*executor] = std::move(made);
  return 0;
}

aclnnStatus execute(const char* op,
                    void* workspace,
                    uint64_t workspace_size,
                    aclOpExecutor* executor,
                    aclrtStream stream) {
  const std::string call = "aclnn" + std::string(op) + ": ";
  if (!executor) return explain(code::kExecutorNull, call + "the executor");
  int determinism = 0;
  const std::shared_ptr<Plan> plan = take_plan(op, executor, determinism);
  Launcher::check_handles(*plan);
  const uint64_t needed = Launcher::workspace_of(*plan);
  if (needed > 0 && !workspace) return explain(code::kNullptr, call + "the workspace");
  if (workspace_size < needed)
    return explain(code::kInvalid,
                   call + "the workspace has " + std::to_string(workspace_size) + " of " +
                       std::to_string(needed) + " bytes");
  // A failure of the runtime stays what aclrtPeekAtLastError answers.
  if (launch_op(stream, Launcher::prepare(plan, determinism, workspace)) == 0) return 0;
  return explain(code::kRuntimeError, call + take_message());
}

}  // namespace ascend_sim

/// For an executor that never came to its second phase.
extern "C" ASCEND_SIM_EXPORT aclnnStatus aclDestroyAclOpExecutor(aclOpExecutor* executor) {
  if (!executor) return explain(code::kExecutorNull, "aclDestroyAclOpExecutor");
  const std::lock_guard lock(executors().mutex);
  const auto it = executors().alive.find(executor);
  if (it == executors().alive.end())
    violation("aclDestroyAclOpExecutor is given an executor that is gone");
  executors().dead.push_back(std::move(it->second));
  executors().alive.erase(it);
  return 0;
}
