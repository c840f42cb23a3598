// Judges single calls of kernels, as an observer saw them on any device: the CPU's kernel gets
// copies of the very inputs and the results are compared within the bounds of the op's spec.
// `verify` finds the first op that goes wrong with it, and `doctor` what a chip did in a run.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/dispatch.h"
#include "ops/spec.h"

namespace ferry::ops {

/// Memory of a view, from its first element to its last, gaps included.
struct Extent {
  const std::byte* begin = nullptr;
  size_t bytes = 0;
};
Extent extent_of(const View& view);

/// Calls f(place in the extent, place in row order) for every element.
template <typename F>
void for_each_element(const View& v, F&& f) {
  int64_t index[kRankMax] = {};
  const int64_t count = v.count();
  for (int64_t i = 0; i < count; ++i) {
    int64_t at = 0;
    for (int d = 0; d < v.rank; ++d) at += index[d] * v.stride[d];
    f(at, i);
    for (int d = v.rank - 1; d >= 0 && ++index[d] == v.shape[d]; --d) index[d] = 0;
  }
}

/// A view and a copy of its extent: on the call's device until fetch(), then on the host.
struct KeptView {
  std::string name;
  View view;    // as the call had it; its memory may be gone
  Tensor copy;  // the extent's bytes; not defined: the memory stays what it is until fetch()

  /// The elements of a fetched copy.
  View here() const;
};

/// One call with copies of all that it read and wrote. Copies are enqueued on the device's stream,
/// so recording does not make the host wait.
class RecordedCall {
 public:
  /// Before the launch. `stays`: memory that nobody writes before fetch() (weights) is not copied.
  RecordedCall(const OpCall& call, const std::function<bool(const View&)>& stays);
  /// After it.
  void launched(const OpCall& call);
  /// Waits for the stream and brings the copies to the host. Once.
  void fetch();

  const std::string& op() const { return op_; }
  const Device& device() const { return *device_; }
  const std::vector<KeptView>& inputs() const { return inputs_; }
  const std::vector<KeptView>& outputs() const { return outputs_; }

 private:
  friend class CallFacts;
  std::string op_;
  Device* device_;
  std::vector<KeptView> inputs_, outputs_;
  std::vector<NamedNumber> numbers_;
  std::function<void(Device&, const OpCall::Place&)> relaunch_;
};

/// The worst element of a call that left its bounds.
struct CallFinding {
  std::string op;
  std::string output;
  std::string shapes;            // "x [7, 192] BF16, weight [192] F32 -> y [7, 192] BF16"
  std::vector<int64_t> element;  // of the output
  double got = 0, expected = 0, bound = 0;
  double ulps = 0;           // |got - expected| in the output's units in the last place
  int64_t elements_out = 0;  // how many elements leave their bounds
};

/// What a CallRule may ask of a fetched call.
class CallFacts {
 public:
  CallFacts(const RecordedCall& call, bool mixed_types) : call_(call), mixed_(mixed_types) {}

  bool has(const std::string& input) const { return find(call_.inputs_, input) != nullptr; }
  bool has_output(const std::string& output) const {
    return find(call_.outputs_, output) != nullptr;
  }
  DType type(const std::string& input_or_output) const;  // as the device had it
  Shape shape(const std::string& input_or_output) const;
  double number(const std::string& name) const;
  /// Whether tensor cores summed products of the call.
  bool tensor_cores() const;
  /// How many roundings of float32, each of a number as large as all its terms together, part a sum of
  /// k products on the device and on the CPU at most: either may be off by k, tensor cores by
  /// tensor_roundings(k).
  int64_t roundings(int64_t k) const;
  const RefTensor& input(const std::string& name);  // in float64, row by row

  /// What the CPU's kernel gives, in f32 where the call has bf16: in the order of the outputs.
  /// Elements that the kernel left alone are marked by unwritten().
  std::vector<RefTensor> expected() const { return run(nullptr); }
  /// By how much a device that keeps numbers below the least normal one may be off these values, for which the CPU's
  /// kernels take such inputs for zero: as far as the outputs move when each is the least normal number. Empty where
  /// no input holds one; none for integers.
  std::vector<RefTensor> slack_of_denormals(const std::vector<RefTensor>& expected) const;
  /// The named output for the absolute values of the named inputs: what errors are relative to.
  RefTensor magnitudes(std::initializer_list<std::string> inputs, const std::string& output) const;
  std::vector<RefTensor> written() const;  // what the device gave
  /// The first element that is not, to the bit, what the CPU's kernel gives in the call's own types. NaNs are equal,
  /// whose payloads are no part of the numerics, and so is what the kernel leaves alone.
  std::optional<CallFinding> other_bits() const;

  static bool unwritten(double value);

 private:
  static const KeptView* find(const std::vector<KeptView>& in, const std::string& name);
  const KeptView& any(const std::string& name) const;
  /// `change`: what becomes of an input's copy first; null: nothing.
  std::vector<RefTensor> run(
      const std::function<void(std::string_view, const View&)>& change) const;

  const RecordedCall& call_;
  bool mixed_;
  std::map<std::string, RefTensor> values_;
};

/// "rms_norm: y [3, 17]: got 1.25, the reference gives 1.5 (bound 0.002; 64 ulp; 12 elements)"
std::string describe(const CallFinding& finding);

struct CallVerdict {
  bool judged = false;  // false: no rule for this kernel
  double worst = 0;     // error in bounds, of the worst element
  std::optional<CallFinding> finding;
};

/// All rules of all specs, by kernel.
class CallRules {
 public:
  /// Made at the first use: specs make their cases, too, which takes a second or so.
  static const CallRules& all();
  CallVerdict judge(const RecordedCall& fetched) const;
  /// Of a kernel; null if there is none.
  const CallRule* find(const std::string& kernel) const;

 private:
  CallRules();
  std::map<std::string, CallRule> rules_;
};

/// Whether a device's kernels give the bits of the CPU's, whichever tier those run on (docs/numerics.md): to be within
/// bounds is not enough there. Of a fetched call: not so where products were summed on tensor cores.
bool promises_cpu_bits(const RecordedCall& call);
/// Whether tensor cores summed products of the call.
bool on_tensor_cores(const RecordedCall& call);

/// Pieces of which rules are made.
std::vector<double> rule_exact(CallFacts&, const char*, const RefTensor&);
/// One rounding to the output's type of a value with this relative error.
std::vector<double> rule_elementwise(CallFacts& facts,
                                     const char* output,
                                     const RefTensor& expected,
                                     double relative);

}  // namespace ferry::ops
