// What rounding a model's weights to codes costs on a text: how far its distributions move, and
// which layers move them most.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/causal_lm.h"

namespace ferry::probe {

struct QuantisationCostOptions {
  int64_t context = 512;       // tokens of a window; windows do not overlap
  int64_t layer_tokens = 256;  // by which each layer is judged alone; 0: none is
};

struct LayerCost {
  int layer = 0;  // as Weight::layer numbers them: blocks from 1
  double kl = 0;  // of the model with this layer's codes and all others' numbers
};

struct QuantisationCost {
  int64_t tokens = 0;             // whose next one was predicted
  double kl = 0;                  // mean KL divergence, nats: Σ p log(p / q), p the source's
  double kl_largest = 0;          // of a token
  double nats = 0;                // mean -log p of the text's own next token, the source's
  double nats_quantised = 0;      // the same of the quantised model
  double same_choice = 0;         // part of tokens where both have the same most probable next one
  std::vector<LayerCost> layers;  // the worst first
};

/// How far the comparison is: tokens of the text that were compared, and then layers that were judged alone.
struct CostProgress {
  int64_t tokens = 0, tokens_total = 0;
  int64_t layers = 0, layers_total = 0;
};

/// Compares two models of one architecture, of which the second holds codes where the first holds
/// numbers. The source's weights are exchanged while layers are judged, and are back afterwards. `progress` is told
/// behind each window, and behind each layer, of how many.
/// check: the same weights in the same order. Needs two tokens at least.
QuantisationCost quantisation_cost(models::CausalLm& source,
                                   models::CausalLm& quantised,
                                   std::span<const int32_t> tokens,
                                   const QuantisationCostOptions& options,
                                   const std::function<void(const CostProgress&)>& progress);

}  // namespace ferry::probe
