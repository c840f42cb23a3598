// Every op at sizes that can be chosen: what the specs try at a few shapes, a ladder of sizes and
// a run's own shapes try at all of them. A sized op makes its inputs and calls the public functions,
// forward and backward; who judges the calls is call_judge.h.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::doctor {

/// One size of a sized op.
struct Dimension {
  const char* name;  // "tokens"
  int64_t small;     // what it is while another size is looked at
  int64_t most;      // the ladder's last rung
  bool cut = true;   // may be less than a run has where another is whole: not what picks a kernel
};

using Sizes = std::vector<int64_t>;  // in the order of the dimensions

/// What a call is told beside its sizes, by name: flags, types, small numbers.
using Choices = std::map<std::string, double>;

/// Makes inputs, a function of the seed and of how many were made before.
class Maker {
 public:
  /// `choices`: those of a call that was recorded; others are made by the seed.
  Maker(Device& device, DType dtype, uint64_t seed, Choices choices = {})
      : device_(device), dtype_(dtype), seed_(seed), choices_(std::move(choices)) {}

  Device& device() const { return device_; }
  DType dtype() const { return dtype_; }  // of activations
  /// A number below n, for choices of the case's own.
  uint64_t pick(uint64_t n) {
    return Random(seed_, RandomPurpose::kTest, 900 + made_++).below(0, n);
  }

  double given(const std::string& name, double otherwise) const {
    const auto it = choices_.find(name);
    return it == choices_.end() ? otherwise : it->second;
  }
  DType type(const std::string& name, DType otherwise) const {
    return static_cast<DType>(static_cast<int>(given(name, static_cast<double>(otherwise))));
  }
  /// A flag: as recorded, or one or the other by the seed.
  bool flag(const std::string& name) {
    const bool drawn = pick(2) != 0;
    return given(name, drawn ? 1 : 0) != 0;
  }

  Tensor normal(const Shape& shape, DType dtype, double scale = 1);
  Tensor activations(const Shape& shape) { return normal(shape, dtype_).set_needs_grad(true); }
  /// f32, as masters are, or of the type chosen as `type_name`; needs a gradient.
  Weight weight(const Shape& shape, double scale, const std::string& type_name = "");
  std::vector<int32_t> indices(int64_t count, int64_t below);
  /// [tokens, top_k] ids of experts, different ones for each token.
  Tensor chosen(int64_t tokens, int64_t top_k, int64_t experts);

  /// Runs `forward` while a tape records, and plays it back from random cotangents for its outputs.
  void differentiate(const std::function<std::vector<Tensor>()>& forward);

  /// Where a result that no call of a kernel shows was wrong: (kernel, what), in order.
  void found(const char* kernel, std::string what) { wrong_.emplace_back(kernel, std::move(what)); }
  const std::vector<std::pair<std::string, std::string>>& wrong() const { return wrong_; }

 private:
  Device& device_;
  DType dtype_;
  uint64_t seed_;
  Choices choices_;
  uint64_t made_ = 0;
  std::vector<std::pair<std::string, std::string>> wrong_;
};

struct SizedOp {
  std::string name;  // "attention, packed"; unique
  std::string op;    // the folder of the op
  std::vector<Dimension> dims;
  bool bf16 = true;  // activations may be bf16
  /// About how many operations and elements it takes: what a budget is spent on.
  std::function<double(const Sizes&)> work;
  std::function<void(Maker&, const Sizes&)> run;
  /// Kernels of tables whose sizes it chooses, its own first: a device that lacks that one cannot run it.
  std::vector<const char*> kernels = {};
};

/// All of them. Made once.
const std::vector<SizedOp>& sized_ops();
const SizedOp& sized_op(const std::string& name);
/// Whether a device of this kind has its kernel.
bool runs_on(const SizedOp& op, DeviceKind device);
/// Whether a sized op chooses the sizes of this kernel.
bool has_sized_op(std::string_view kernel);

/// "tokens 8192, inner 512".
std::string describe(const SizedOp& op, const Sizes& sizes);

/// The sizes themselves if they take no more than `budget`; otherwise some that do, in each of
/// which one size is whole (or the most that the budget allows) and the others are cut.
std::vector<Sizes> affordable(const SizedOp& op, const Sizes& sizes, double budget);

}  // namespace ferry::doctor
