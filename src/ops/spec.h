// OpSpec: what an op promises, stated once. From it come, for every device: comparison with the
// float64 reference, gradients against finite differences, guard bytes, repeatability, row
// independence, equality of tiers and thread counts, and a benchmark row. `doctor` and the tests
// run the same specs (ops/spec_check.h).
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ops/kernel_table.h"
#include "tensor/tensor.h"

namespace ferry::ops {

/// A tensor in float64 on the host: what references compute with.
struct RefTensor {
  Shape shape;
  std::vector<double> values;

  RefTensor() = default;
  explicit RefTensor(const Shape& s) : shape(s), values(static_cast<size_t>(s.count())) {}
  double& operator[](int64_t i) { return values[static_cast<size_t>(i)]; }
  double operator[](int64_t i) const { return values[static_cast<size_t>(i)]; }
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
};

struct OpCase {
  std::string name;  // "bf16 [7, 129]"
  std::vector<InputSpec> inputs;
  /// The op through its public function. Inputs arrive in order, on the device.
  std::function<std::vector<Tensor>(const std::vector<Tensor>&)> run;
  /// The same in float64, from the values that the device saw.
  std::function<std::vector<RefTensor>(const std::vector<RefTensor>&)> reference;
  /// Largest error allowed of one output, from sizes and the type's roundoff: called with the
  /// output's index, the inputs and the reference's output; returns one bound for each element (or
  /// one for all).
  std::function<std::vector<double>(int output, const std::vector<RefTensor>&, const RefTensor&)>
      tolerance;
  /// Bound on |<analytic, direction> - finite difference| relative to the sum of |products|.
  double gradient_tolerance = 1e-4;
  bool row_independent = true;  // outputs have tokens in dimension 0 and row t needs row t alone
  int differentiable_outputs = -1;  // the first so many outputs get gradients; -1: all
  double flops = 0;                 // of the forward pass
  double bytes = 0;                 // least memory traffic of the forward pass
  bool benchmark = false;           // a shape worth a row in the benchmark table
};

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
};

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

/// Bound for one rounding to `dtype` of a value computed with relative error `relative`: for
/// outputs of elementwise ops. Adds the type's smallest normal number.
std::function<std::vector<double>(int, const std::vector<RefTensor>&, const RefTensor&)>
elementwise_tolerance(DType dtype, double relative);

}  // namespace ferry::ops
