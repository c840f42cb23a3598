// Runs an op's spec on a device and says what it found.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/spec.h"

namespace ferry::ops {

struct Finding {
  std::string property;  // "reference", "gradient", "guard bytes", "repeatability", "rows", "tier",
                         // "threads"
  std::string detail;    // worst element, expected, got, bound
};

struct SpecOptions {
  bool forward = true;            // reference, guard bytes, repeatability, rows
  bool gradients = true;          // every element against the reference, accumulation
  bool tiers_and_threads = true;  // CPU only: every tier, 1 to 3 threads give the same bits
  int repeats = 3;
  uint64_t seed = 1;
};

/// The inputs of a case on the device, as `seed` makes them.
std::vector<Tensor> make_inputs(const OpCase& c, Device& device, uint64_t seed);

/// Whether the device has the kernel.
bool has_kernel(const KernelRow& row, DeviceKind device);

/// Whether an input of the case has a gradient to compare.
bool has_gradient(const OpCase& c);

/// A cotangent for each output that is differentiable (undefined for the others), on its device.
std::vector<Tensor> make_cotangents(const OpCase& c,
                                    const std::vector<Tensor>& outputs,
                                    uint64_t seed);

/// The case's outputs, then the gradients of its inputs. Launches and waits for nothing itself.
std::vector<Tensor> run_with_gradients(const OpCase& c,
                                       std::vector<Tensor>& inputs,
                                       const std::vector<Tensor>& cotangents);

/// Compares outputs and gradients of one case with the reference, any number of times for the price
/// of one: the reference and its bounds are computed once.
class CaseJudge {
 public:
  CaseJudge(const OpCase& c, Device& device, uint64_t seed);
  ~CaseJudge();
  CaseJudge(const CaseJudge&) = delete;
  CaseJudge& operator=(const CaseJudge&) = delete;
  /// Runs the case, in memory that was full of NaN, and says what left its bounds.
  std::vector<Finding> once();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Everything that the case promises; empty if all holds.
std::vector<Finding> check_case(const OpCase& c, Device& device, const SpecOptions& options = {});

}  // namespace ferry::ops
