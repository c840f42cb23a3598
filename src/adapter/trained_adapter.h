// An adapter while it is trained. The model computes with weights that the factors are merged into, so it is, to
// the bit, the model that answers later with the adapter; and the model needs to know nothing of it. Gradients of
// those weights are taken to the factors one by one, as soon as each is complete, and forgotten.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/adapter.h"
#include "checkpoint/safetensors.h"
#include "tensor/weight.h"

namespace ferry {

/// Owner: the run. The model's weights outlive it. Thread rule: one thread.
class TrainedAdapter {
 public:
  /// Of a model whose f32 weights are its base's, with `blocks` blocks: what comes behind them (MTP modules) is
  /// not adapted, nor, where there are routed experts, any MLP. A is drawn from `seed` and its name, uniform
  /// within 1 / sqrt(in), B is zero, as PEFT begins. The weights that are adapted are told to need gradients,
  /// all others that they need none. config.targets become the names that were found.
  /// Errors: kInvalidInput: a target that the model does not have, or a rank above both sides of a matrix.
  static Result<TrainedAdapter> create(AdapterConfig config,
                                       BaseIdentity base,
                                       const std::vector<Weight*>& weights,
                                       int64_t blocks,
                                       uint64_t seed);

  const AdapterConfig& config() const { return config_; }
  const BaseIdentity& base() const { return base_; }

  /// A and B of each adapted weight, in the model's order, under PEFT's names: what is trained.
  std::vector<Weight*> factors();
  std::vector<std::string> adapted_names() const;  // of the weights that they are added to
  int64_t parameters() const;                      // of the factors
  int64_t adapted() const;                         // elements of the weights that they are added to
  int64_t largest() const;                         // of the largest of them

  /// Takes the gradient of an adapted weight to its factors: add is called with each of the two.
  void take(const Tensor& weight,
            const Tensor& gradient,
            const std::function<void(const Tensor& factor, Tensor gradient)>& add) const;

  /// The factors have changed: the model's weights follow.
  void merge();

  /// As PEFT stores them.
  std::vector<NamedTensor> tensors() const;
  /// The factors of an adapter that was saved, and merges. Errors: kInvalidInput (it adapts other weights).
  Result<void> restore(const Adapter& from);

 private:
  struct Adapted {
    Weight* weight;
    Tensor base;  // the weight's values as they were
    Weight a, b;
  };

  TrainedAdapter(AdapterConfig config, BaseIdentity base)
      : config_(std::move(config)), base_(std::move(base)) {}

  AdapterConfig config_;
  BaseIdentity base_;
  std::vector<std::unique_ptr<Adapted>> adapted_;
  std::unordered_map<const Storage*, const Adapted*> by_storage_;
};

/// For people: what is trained of it.
std::string describe(const TrainedAdapter& adapter);

}  // namespace ferry
