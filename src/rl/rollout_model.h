// The model that draws answers where that is another device's work than the one that trains: a copy, brought up to date
// before each step's answers are drawn.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "models/trainable_lm.h"

namespace ferry::rl {

struct WeightTransfer {
  int64_t weights = 0;  // that travelled
  uint64_t bytes = 0;   // of them
};

/// Owner: the loop. One thread. What is trained must outlive it.
///
/// A weight travels whole, and only where its hash says that it is not the one that was sent last: what an optimizer
/// has touched has changed in nearly every number, so a delta would be as large, and what it has not touched (a base
/// under an adapter) stays where it is. It is read back, and its hash compared: a copy that came otherwise would look
/// like a mismatch of sums for as long as the run goes on.
class RolloutModel {
 public:
  /// Errors: of models::make_model.
  static Result<std::unique_ptr<RolloutModel>> make(models::TrainableLm& trained, Device& device);

  models::TrainableLm& model() { return *model_; }
  /// Errors: kVerdict, naming the weight and the device, that gave back other bytes than it was sent.
  Result<WeightTransfer> renew();

 private:
  RolloutModel(models::TrainableLm& trained, std::unique_ptr<models::TrainableLm> model)
      : trained_(trained), model_(std::move(model)) {}

  models::TrainableLm& trained_;
  std::unique_ptr<models::TrainableLm> model_;
  std::vector<std::string> there_;  // the hash of each weight that was sent
};

}  // namespace ferry::rl
