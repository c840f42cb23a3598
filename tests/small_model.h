// The small models that the model tests share: a configuration in which every part of DeepSeek V3
// occurs, one for each other architecture, weights drawn from a seed, a few documents, and what the
// tests do with them on any device.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "models/deepseek_v3/model.h"

namespace ferry {

models::deepseek_v3::Config small_config();

/// Matrices normal with variance 1 / inputs, norms about 1, small selection biases.
std::unique_ptr<models::deepseek_v3::Model> random_model(const models::deepseek_v3::Config& c,
                                                         DType compute,
                                                         Device& device);

/// The same with the parts of each architecture: "deepseek_v3" (small_config), "llama", "qwen2".
std::unique_ptr<models::TrainableLm> small_model(const std::string& architecture,
                                                 DType compute,
                                                 Device& device);

/// Each small model in each type: what most tests of models run over.
struct SmallModel {
  const char* architecture;
  DType compute;
};
std::vector<SmallModel> small_models();
std::string name_of(const SmallModel& m);  // "qwen2_bf16"

/// Token ids of four documents, one of them of one token.
std::vector<std::vector<int32_t>> small_documents();

struct Packed {
  models::TokenBatch batch;
  int labels = 0, mtp_labels = 0;
};
Packed pack(const std::vector<std::vector<int32_t>>& documents, Device& device);

std::vector<char> bytes_of(const Tensor& t);

/// The logits of every row of what forward returned.
Tensor all_logits(models::CausalLm& model, const Tensor& hidden);

inline constexpr float kMtpWeight = 0.3f;
inline constexpr double kBalanceAlpha = 0.1;  // large, so that its gradient shows

/// The losses, and every trained weight's gradient by name.
std::map<std::string, Tensor> gradients(models::TrainableLm& model,
                                        const Packed& p,
                                        models::LossOptions options,
                                        models::Losses* losses);

/// The logits' bytes of each document, computed through a cache: the documents share passes, each
/// with up to `chunk` of its tokens, until all are through.
std::vector<std::vector<char>> cached_logits(models::CausalLm& model,
                                             const std::vector<std::vector<int32_t>>& documents,
                                             int64_t chunk);

}  // namespace ferry
