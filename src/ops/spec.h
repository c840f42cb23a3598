// OpSpec: what an op promises, stated once. From it come, for every device: comparison with the
// float64 reference, every element of every gradient, guard bytes, repeatability, row
// independence, equality of tiers and thread counts, and a benchmark row. `doctor` and the tests
// run the same specs (ops/spec_check.h).
#pragma once

#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "ops/kernel_table.h"
#include "ops/reference_tape.h"
#include "tensor/tensor.h"

namespace ferry::ops {

/// An op in float64: from numbers to numbers. Made from a function that takes and gives
/// std::vector<RefArray<T>> for any T, so that its gradients can be recorded; one for doubles alone
/// does for an op without gradients.
class Reference {
 public:
  Reference() = default;
  template <class F>
  requires(std::is_invocable_v<const F&, const std::vector<RefTensor>&>) Reference(F f)
      : plain_(f) {
    if constexpr (std::is_invocable_v<const F&, const std::vector<RealTensor>&>) recorded_ = f;
  }
  std::vector<RefTensor> operator()(const std::vector<RefTensor>& in) const { return plain_(in); }
  std::vector<RealTensor> operator()(const std::vector<RealTensor>& in) const {
    return recorded_(in);
  }
  bool records() const { return recorded_ != nullptr; }

 private:
  std::function<std::vector<RefTensor>(const std::vector<RefTensor>&)> plain_;
  std::function<std::vector<RealTensor>(const std::vector<RealTensor>&)> recorded_;
};

/// How an input is filled. The values are rounded to the dtype; the reference sees the rounded
/// ones.
struct InputSpec {
  enum class Fill { kNormal, kUniform, kIndex, kGiven };
  std::string name;
  Shape shape;
  DType dtype = DType::kF32;
  Fill fill = Fill::kNormal;
  double scale = 1;       // standard deviation; half width; exclusive upper bound of indices
  double offset = 0;      // added
  bool gradient = false;  // compare this input's gradient
  bool rows = false;      // dimension 0 is tokens: may be cut for row independence
  std::vector<double> given = {};  // kGiven: the values, row by row
  /// kGiven, of inputs that may be large: makes the values when they are wanted. Every list of the specs
  /// holds all inputs, of benchmark shapes too.
  std::function<std::vector<double>()> make_given = {};
};

/// What numbers can be besides ordinary: zeros of both signs, below the smallest normal, the largest
/// that bf16 holds, infinities, NaN, beyond float16, with ordinary numbers between them.
std::vector<double> special_values(int64_t count);

struct OpCase {
  std::string name;  // "bf16 [7, 129]"
  std::vector<InputSpec> inputs;
  /// The op through its public function. Inputs arrive in order, on the device.
  std::function<std::vector<Tensor>(const std::vector<Tensor>&)> run;
  /// The same in float64, from the values that the device saw.
  Reference reference;
  /// Largest error allowed of one output, from sizes and the type's roundoff: called with the
  /// output's index, the inputs and the reference's output; returns one bound for each element (or
  /// one for all).
  std::function<std::vector<double>(int output, const std::vector<RefTensor>&, const RefTensor&)>
      tolerance;
  /// The same where tensor cores sum the op's products of bf16 numbers (tensor_roundings), on a device
  /// with tensor_products(device): nothing but what they round is wider. Empty: they sum nothing in it.
  std::function<std::vector<double>(int output, const std::vector<RefTensor>&, const RefTensor&)>
      tensor_tolerance = {};
  bool row_independent = true;  // outputs have tokens in dimension 0 and row t needs row t alone
  int differentiable_outputs = -1;  // the first so many outputs get gradients; -1: all
  double flops = 0;                 // of the forward pass
  double bytes = 0;                 // least memory traffic of the forward pass
  bool benchmark = false;           // a shape worth a row in the benchmark table
  /// A kernel that the case is about: where a device has none (its table says why), the case is not
  /// tried.
  const char* needs = nullptr;
};

/// Whether the device has the kernel that the case needs.
bool can_run(const OpCase& c, DeviceKind device);

class CallFacts;  // ops/call_check.h

/// How one call of a kernel, seen by an observer, is judged: the CPU's kernel is given the same
/// inputs (and works in f32), and the results may differ by so much.
struct CallRule {
  const char* kernel;
  /// Largest error of the judged output: one bound for each element, or one for all. As
  /// OpCase::tolerance, but for sizes and types that the call has.
  std::function<std::vector<double>(CallFacts&, const char* output, const RefTensor& expected)>
      bound;
  /// Puts another answer that is just as right (a near tie decided otherwise) in place of what was
  /// expected. Optional.
  std::function<void(CallFacts&, std::vector<RefTensor>& expected, const std::vector<RefTensor>&)>
      settle = {};
  bool mixed_types = false;  // the CPU's kernel takes bf16 inputs and gives f32
  /// Whether a device with tensor_products(device) sums products of the call on tensor cores. Empty:
  /// never.
  std::function<bool(const CallFacts&)> on_tensor_cores = {};
};

/// The case with special values in all its inputs of numbers, and no gradient.
OpCase special_case(OpCase c);

struct OpSpec {
  std::string op;
  std::vector<KernelRow> kernels;
  std::vector<OpCase> cases;
  std::vector<CallRule> calls = {};
};

/// Every op, by its folder, and how its spec is made: specs hold the inputs of their cases, which
/// takes time and memory where only one is asked for. In alphabetical order; the list is made by
/// CMake from the folders of src/ops.
struct OpSpecMaker {
  const char* op;
  OpSpec (*make)();
};
std::span<const OpSpecMaker> op_spec_makers();
std::vector<OpSpec> all_op_specs();

/// How many times its bound an error is: what is right gives 1 at most. Nothing is within a bound
/// that is no number.
double error_ratio(double got, double expected, double bound);

/// Bound for one rounding to `dtype` of a value computed with relative error `relative`: for
/// outputs of elementwise ops. Adds the type's smallest normal number.
std::function<std::vector<double>(int, const std::vector<RefTensor>&, const RefTensor&)>
elementwise_tolerance(DType dtype, double relative);

}  // namespace ferry::ops
