// A computation gone through without being carried out: which calls a run makes, at which sizes, is
// told by running the very code on a device whose memory is only addresses. So a model of any size
// is rehearsed in moments.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "device/stand_in_device.h"
#include "ops/dispatch.h"
#include "verify/sized_ops.h"

namespace ferry::doctor {

/// A call at the sizes that a run has, as something that can be done alone.
struct RunCall {
  std::string sized_op;
  Sizes sizes;
  DType dtype = DType::kF32;
  Choices choices = {};  // what it was told beside them
};

/// What a run was seen to do.
struct RunCalls {
  std::string name;              // of the run: "v3", "configs/demo.toml"
  std::vector<RunCall> calls;    // different ones, in the order of first appearance
  std::vector<size_t> copies;    // bytes of what is sent to the device and copied on it, ascending
  std::set<std::string> others;  // kernels that no sized op stands for
  std::vector<std::string> left_out = {};  // what it does that was not gone through, for the report
};

/// While it lives, the device that it gives is a stand-in: allocations are addresses that read as
/// zeros and hold no memory, copies do nothing, and launches on this thread are only looked at.
/// Whatever is made on the device must be gone before it.
class Rehearsal {
 public:
  /// The stand-in is of this kind, and of this way to multiply (device/tensor_products.h), so that ops
  /// choose as they would on the device that it stands for.
  explicit Rehearsal(DeviceKind kind, bool tensor_products = false);
  ~Rehearsal();
  Rehearsal(const Rehearsal&) = delete;
  Rehearsal& operator=(const Rehearsal&) = delete;

  Device& device();
  /// What was seen so far.
  RunCalls take(const std::string& name);

 private:
  class Watch;
  std::unique_ptr<StandInDevice> device_;
  std::unique_ptr<Watch> watch_;
  std::unique_ptr<ops::Observing> observing_;
};

}  // namespace ferry::doctor
