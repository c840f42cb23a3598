// How an aclnn op is written: ASCEND_OP opens the first phase, which checks its arguments through a
// Plan and leaves a closure that later runs on the stream. README.md, "Adding an op", has an
// example.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "acl.h"
#include "nnopbase/tensor.h"
#include "runtime/chip.h"
#include "runtime/defects.h"

#pragma GCC visibility push(default)  // libopapi.so is written with these
namespace ascend_sim {

/// What the device function of an op may ask while it runs on the stream.
class Launch {
 public:
  /// A number for choosing an order of accumulation over a row that is computed beside `rows`
  /// others: the same always at determinism level 3, the same for equal `rows` at 1 and 2, and
  /// another one at each call at 0.
  uint64_t order(int64_t rows) const;
  /// k; k - 1 under the mutant OP:k_minus_1 (ops that are declared with ASCEND_REDUCES).
  int64_t reduction(int64_t k) const;
  /// As the stated workspace, on the sim's side; poisoned (0xFF) before and after each launch.
  unsigned char* workspace() const { return workspace_; }
  /// Ends the task in a device fault (e.g. code::kVectorCoreException for an index out of range).
  [[noreturn]] void fault(int code, const std::string& why) const;

 private:
  friend struct Launcher;
  int level_ = 0;
  uint64_t call_ = 0;
  bool one_less_ = false;
  unsigned char* workspace_ = nullptr;
};

/// The first phase of one call: reads arguments, refuses what the op does not take, says what is
/// needed, keeps the device function. A refusal ends the phase (by an exception that plan() turns
/// into the code and the text of aclGetRecentErrMsg).
class Plan {
 public:
  // Required arguments: a null pointer is 161001; data that is no device address, is not 32-byte
  // aligned or a type that the sim does not know is 161002.
  Tensor input(const char* name, const aclTensor* t);
  Tensor output(const char* name, const aclTensor* t);
  /// An argument that is read and written (selfRef, varRef, caches).
  Tensor inout(const char* name, const aclTensor* t);
  std::vector<Tensor> inputs(const char* name, const aclTensorList* list);
  std::vector<Tensor> outputs(const char* name, const aclTensorList* list);
  double scalar(const char* name, const aclScalar* s);
  std::vector<int64_t> ints(const char* name, const aclIntArray* a);
  // Optional ones: null is nothing.
  std::optional<Tensor> optional_input(const char* name, const aclTensor* t);
  std::optional<Tensor> optional_output(const char* name, const aclTensor* t);
  std::optional<std::vector<Tensor>> optional_inputs(const char* name, const aclTensorList* list);
  std::optional<std::vector<int64_t>> optional_ints(const char* name, const aclIntArray* a);

  /// 161002 with `why` unless `holds`.
  void require(bool holds, const std::string& why) const;
  /// 161001 unless p is there: for arguments that are no tensors.
  void require_pointer(const void* p, const char* name) const;
  void require_type(const char* name, const Tensor& t, std::initializer_list<aclDataType>) const;
  void require_shape(const char* name, const Tensor& t, const Shape& shape) const;
  void require_rank(const char* name, const Tensor& t, int least, int most) const;
  void require_same_type(const char* a, const Tensor& ta, const char* b, const Tensor& tb) const;
  void require_format(const char* name, const Tensor& t, aclFormat format) const;
  /// Dimension number of a possibly negative `dim`, 161002 if there is none such.
  int axis(int64_t dim, int rank) const;
  /// An argument of this kind is not supported here: 161002, for what is left out on purpose.
  [[noreturn]] void refuse(const std::string& why) const;

  /// The chip whose rules hold (FERRY_ASCEND_SIM_CHIP).
  const Chip& chip() const;

  /// How much workspace the caller must give; 0 if this is not called.
  void workspace(uint64_t bytes);
  /// The work. Called later, on the stream's thread: once, or once more before that to learn what
  /// is right (deviations.h), so it keeps nothing from one call to the next. It captures
  /// descriptors by value and nothing of the caller's (aclTensors and host arrays may be gone by
  /// then).
  void launch(std::function<void(Launch&)> device_function);

 private:
  friend struct Launcher;
  explicit Plan(std::string op) : op_(std::move(op)) {}
  Tensor take(const std::string& name, const aclTensor* t);
  /// Notes a handle that phase 2 must find alive; ends the program if it is none.
  void use(const std::string& name, const void* handle);

  std::string op_;
  std::vector<Tensor> inputs_, outputs_;
  std::vector<std::pair<const void*, uint64_t>> handles_;  // with their lives, for phase 2
  uint64_t workspace_bytes_ = 0;
  std::function<void(Launch&)> device_function_;
};

/// The frame of a first phase: what ASCEND_OP's function returns.
aclnnStatus plan(const char* op,
                 uint64_t* workspace_size,
                 aclOpExecutor** executor,
                 const std::function<void(Plan&)>& check_and_launch);
/// The whole of a second phase.
aclnnStatus execute(const char* op,
                    void* workspace,
                    uint64_t workspace_size,
                    aclOpExecutor* executor,
                    aclrtStream stream);

}  // namespace ascend_sim
#pragma GCC visibility pop

/// Opens aclnn<name>GetWorkspaceSize with the op's own parameters (workspace_size and executor are
/// added), defines aclnn<name>, and puts the op on the list.
#define ASCEND_OP(name, ...)                                                                   \
  static const ascend_sim::RegisteredOp registered_##name{#name};                              \
  extern "C" ASCEND_SIM_EXPORT aclnnStatus aclnn##name(                                        \
      void* workspace, uint64_t workspace_size, aclOpExecutor* executor, aclrtStream stream) { \
    return ascend_sim::execute(#name, workspace, workspace_size, executor, stream);            \
  }                                                                                            \
  extern "C" ASCEND_SIM_EXPORT aclnnStatus aclnn##name##GetWorkspaceSize(                      \
      __VA_ARGS__, uint64_t* workspace_size, aclOpExecutor** executor)
