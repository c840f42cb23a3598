// Fills a model's weights from its directory layer by layer, as a forward pass gets there: so a
// model may be larger than memory.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/model_source.h"
#include "models/causal_lm.h"

namespace ferry::probe {

struct LayerWeightsOptions {
  /// The type of matrices in memory; vectors are f32. Nothing: as whatever generates keeps them: as they
  /// are stored, float8 codes and their scales too, or as the device's products read them; whole
  /// numbers become f32.
  std::optional<DType> matrices = DType::kF32;
  bool keep = true;  // keep a layer's weights for the next pass; false: one at a time
};

/// For models made without memory for their weights. Each weight is read back from the device and
/// compared with what was sent.
/// Owner: whoever runs the passes, inside run(). One thread.
class LayerWeights final {
 public:
  /// Errors: kInvalidInput (the directory lacks a weight, or has it in another shape), kCorrupt.
  static Result<LayerWeights> create(ModelSource& from,
                                     models::CausalLm& model,
                                     const LayerWeightsOptions& options);

  /// Runs passes of the model, whose layers ask for their weights as they begin. Errors: of loading
  /// a weight, kCorrupt above all; then the passes were broken off. Throws what `passes` throws.
  Result<void> run(const std::function<void()>& passes);

  /// Names of weights that the device gave back otherwise than they were sent.
  const std::vector<std::string>& altered() const { return altered_; }

 private:
  struct Place {
    Weight* weight;
    std::vector<int> layers;  // that use it
  };
  LayerWeights(ModelSource& from, models::CausalLm& model, const LayerWeightsOptions& options)
      : dir_(&from), model_(&model), options_(options) {}
  Result<void> load(Weight& weight);
  Tensor on_device(const Tensor& host, bool& altered) const;
  void enter(int layer);

  ModelSource* dir_;
  models::CausalLm* model_;
  LayerWeightsOptions options_;
  bool tied_ = false;  // the embedding is the head
  std::vector<Place> places_;
  std::vector<std::string> altered_;
};

}  // namespace ferry::probe
