#include "train/spoiled_step.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/fault.h"
#include "base/random.h"

namespace ferry {

void spoil_labels(data::Batch& batch, int32_t vocab_size) {
  if (fault_point("spoil.labels") == 0) return;
  const Random random(1, RandomPurpose::kTest, static_cast<uint64_t>(batch.end));
  for (size_t i = 0; i < batch.labels.size(); ++i)
    if (batch.labels[i] >= 0)
      batch.labels[i] = static_cast<int32_t>(random.below(i, static_cast<uint64_t>(vocab_size)));
}

void spoil_loss(StepGradients& step) {
  if (fault_point("spoil.loss") == 0) return;
  step.loss = std::numeric_limits<double>::quiet_NaN();
  step.finite = false;
}

bool spoil_weights(models::CausalLm& model) {
  if (fault_point("spoil.weights") == 0) return false;
  const std::vector<Weight*> weights = model.weights();
  const auto found = std::find_if(weights.begin(), weights.end(), [](const Weight* each) {
    return each->name == "model.norm.weight";
  });
  if (found == weights.end()) return false;
  Weight& w = **found;
  std::vector<float> values = w.value.to_f32();
  for (float& v : values) v *= 1000;
  w.value.assign_f32(values);
  w.changed();
  return true;
}

}  // namespace ferry
