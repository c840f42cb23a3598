// Launches each kernel once more as it is called, on any device: between guard bytes, into memory
// full of NaN, elsewhere in memory. The result must be the same bits, the fences whole and the
// inputs as they were.
#pragma once

#include <string>
#include <vector>

#include "ops/call_check.h"
#include "ops/dispatch.h"

namespace ferry::ops {

/// Installed with Observing around what is to be watched; waits for each call.
class FencedReplay final : public Observer {
 public:
  void before(const OpCall& call) override;
  void after(const OpCall& call) override;

  /// "rms_norm_backward wrote beyond d_x"; each once for each kernel.
  const std::vector<std::string>& violations() const { return violations_; }

 private:
  /// Memory with a fence on either side, and the view that a kernel is given in it.
  struct Fenced {
    std::string name;
    View view;
    Tensor memory;             // not defined: the view lies inside another input's
    std::vector<char> filled;  // what was put there, fences included
    Extent from;               // where the call has it
  };
  Fenced fenced(const char* name, const View& view, Device& device, bool copy) const;
  void found(std::string violation);

  std::vector<Fenced> inputs_;
  std::vector<std::string> violations_;
};

}  // namespace ferry::ops
