// What is served, once it is loaded.
#pragma once

#include <algorithm>
#include <memory>

#include "engine/engine.h"
#include "models/causal_lm.h"
#include "serve/model_info.h"

namespace ferry::serve {

struct LoadedModel : ModelInfo {
  std::unique_ptr<models::CausalLm> model;  // the engine's alone
  engine::EngineOptions engine;

  /// Tokens that a request has room for, prompt and answer.
  int64_t context() const { return std::min(model->max_positions(), engine.cache_tokens); }
};

}  // namespace ferry::serve
