// How far what is planted moves the outputs of single launches, for FERRY_ASCEND_SIM_DEVIATIONS:
// each launch of a spoiled op is also done right, with the same inputs, and both results are
// compared.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "nnopbase/tensor.h"

namespace ascend_sim {

/// Whether deviations are asked for.
bool writes_deviations();

/// An output of a launch and how far it is from the right one.
struct Deviation {
  const Tensor* tensor;
  /// |spoiled - right| in units of the largest |right| of its row (last dimension), the largest of
  /// all rows. 0: the same values; infinity: a number for a NaN, or something where all is 0.
  double relative = 0;
};

/// What a launch gives when it is done right.
class RightOutputs {
 public:
  /// Runs `launch`, which writes `outputs`, keeps what it wrote and puts back what was there
  /// before. The tensors must outlive this.
  RightOutputs(const std::vector<Tensor>& outputs, const std::function<void()>& launch);

  /// How far the outputs, as they are in memory now, are from the right ones.
  std::vector<Deviation> compare() const;

 private:
  const std::vector<Tensor>& outputs_;
  std::vector<std::vector<unsigned char>> right_;
};

/// Appends "op<TAB>type<TAB>deviation" to the file if it is larger than what this process wrote for
/// the op and type before, or the first. A process that is killed loses nothing.
void write_deviation(const std::string& op, const Deviation& deviation);

}  // namespace ascend_sim
