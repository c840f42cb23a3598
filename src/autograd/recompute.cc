#include "autograd/recompute.h"

#include "autograd/tape.h"
#include "base/check.h"

namespace ferry {
namespace {

thread_local bool t_recomputing = false;

/// Also when the forward function throws.
struct Recomputing {
  Recomputing() { t_recomputing = true; }
  ~Recomputing() { t_recomputing = false; }
  Recomputing(const Recomputing&) = delete;
  Recomputing& operator=(const Recomputing&) = delete;
};

}  // namespace

std::vector<Tensor> recompute(
    std::vector<Tensor> inputs,
    std::function<std::vector<Tensor>(const std::vector<Tensor>&)> forward) {
  Tape* tape = Tape::current();
  if (tape == nullptr) return forward(inputs);
  std::vector<Tensor> outputs;
  {
    const Tape::Recording pause(nullptr);
    outputs = forward(inputs);
  }
  std::vector<Tensor> named;
  for (const Tensor& t : outputs) named.push_back(t.without_memory());
  tape->record_always("recompute",
                      inputs,
                      outputs,
                      [tape, inputs, outputs = std::move(named), forward](Grads& grads) {
                        std::vector<Tensor> again;
                        {
                          const Tape::Recording recording(tape);
                          const Recomputing marked;
                          again = forward(inputs);
                        }
                        check(again.size() == outputs.size(),
                              "recompute: {} outputs, then {}",
                              outputs.size(),
                              again.size());
                        for (size_t i = 0; i < outputs.size(); ++i)
                          if (grads.has(outputs[i])) grads.add(again[i], grads.of(outputs[i]));
                      });
  return outputs;
}

bool recomputing() { return t_recomputing; }

}  // namespace ferry
