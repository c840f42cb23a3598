// DeepSeek V3 in plain float64, written apart from the model and from the ops: one token after the
// other, naive attention, no tricks. For what Transformers does not compute: MTP, the balance loss.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "models/deepseek_v3/config.h"

namespace ferry {

using Values = std::vector<double>;

struct Float64Losses {
  double main = 0;     // mean over labels
  double mtp = 0;      // mean over MTP labels, unweighted
  double balance = 0;  // sum over MoE layers of sum_i f_i P_i, averaged over documents
};

/// Weights by the model's names (stacked experts under their starred name), flat, row-major.
struct Float64Model {
  models::deepseek_v3::Config config;
  std::map<std::string, Values> weights;

  /// Documents of token ids. Labels are the next tokens of a document; its last token has none.
  Float64Losses losses(const std::vector<std::vector<int32_t>>& documents) const;
};

}  // namespace ferry
