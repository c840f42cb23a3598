// Judges every call of a kernel while it is installed, on the spot: the CPU gets the inputs that the
// device had. So any computation is a check, whatever its sizes, without a reference of its own.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "ops/call_check.h"

namespace ferry::doctor {

/// Properties that it finds: "call", an element beyond the bounds of the op's spec; "precision" and "bias", a whole
/// output that is coarser than its worst element tells, or leans; "float64", sums that are wrong on both devices;
/// "bits", within bounds, but not the bits that this device promises (ops::promises_cpu_bits).
/// Owner: the check that runs the computation, which may be on any device. One thread. Waits for
/// each call.
class CallJudge final : public ops::Observer {
 public:
  /// `found` hears of each call whose result is not what the CPU gives for the same inputs.
  explicit CallJudge(
      std::function<void(const std::string& property, const ops::CallFinding&)> found)
      : found_(std::move(found)) {}

  void before(const ops::OpCall& call) override;
  void after(const ops::OpCall& call) override;

  int64_t calls() const { return calls_; }
  /// Kernels without a rule: nothing was compared.
  const std::set<std::string>& unjudged() const { return unjudged_; }

 private:
  void judge_precision();
  void judge_sums();
  void judge_bits();

  std::function<void(const std::string&, const ops::CallFinding&)> found_;
  std::optional<ops::RecordedCall> call_;
  int64_t calls_ = 0;
  std::set<std::string> unjudged_;
};

/// Whether a property is known of one element, for numbers of any kind; how coarse a whole output may be is known for
/// normal numbers alone.
bool of_an_element(std::string_view property);

/// Whether a CPU that is examined can be judged by another instruction set than the one in use.
bool has_other_tier();

/// How many terms an element of a product's output sums; of groups the rows of the largest there
/// may be.
double depth_of(const ops::RecordedCall& product);

/// The worst of some of a matmul's elements beside their sums in float64: corners, both sides of tiles' edges, and
/// others. The CPU's kernel, by which everything else is judged, is judged by nothing else at a run's own sizes.
/// Nothing: all are within a bound on any order of summing. `product`: a fetched call of matmul.
std::optional<ops::CallFinding> beside_float64(const ops::RecordedCall& product);

/// How far a whole output is off: beside its worst element, which a sum's bound hides.
struct Precision {
  double rms = 0;   // of the error, relative to the output's RMS
  double bias = 0;  // mean error towards or away from zero, in standard errors, beside that of
                    // rounding to nearest: where all numbers share a factor, that leans, too
};
/// `type`: got's.
Precision precision_of(const ops::RefTensor& got, const ops::RefTensor& expected, DType type);

}  // namespace ferry::doctor
