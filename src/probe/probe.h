// Probes: fixed prompts, what a model answers to them, and how far another answer is away. Training
// writes the answers of the CPU reference into the passport; `ferry verify` asks another device.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/passport.h"
#include "models/causal_lm.h"

namespace ferry::probe {

struct Prompt {
  std::string name;
  std::vector<int32_t> tokens;
};

struct RecordOptions {
  int64_t text_tokens = 16;  // of greedy text for each prompt; fewer if the model has no positions
  int64_t top = 8;           // logits kept for each position
};

/// Prompts that need no text: ids from all of the vocabulary. They reach experts and rows of the
/// embedding that ordinary text may not.
std::vector<Prompt> synthetic_prompts(const models::CausalLm& model);

/// A prompt of `tokens` ids from all of the vocabulary, a function of `number`.
Prompt random_prompt(std::string name,
                     uint64_t number,
                     int64_t tokens,
                     const models::CausalLm& model);

/// What a model gave for all probes in one batch, on the host.
struct Answers {
  int64_t tokens = 0;
  std::vector<std::vector<float>> layers;     // each block, then the last norm: [tokens, hidden]
  std::vector<std::vector<int32_t>> experts;  // of each MoE layer: [tokens, top_k]
  std::vector<std::vector<float>> logits;     // [vocab] for each position, probe by probe
};

/// The documents of probes, and of which tokens logits are wanted.
struct Batch {
  std::vector<int32_t> tokens;
  std::vector<int32_t> lengths;
  std::vector<int64_t> positions;  // rows of the batch, probe by probe

  static Batch of(const Probes& probes);
};

/// One forward pass. `given`: the experts of each MoE layer, to be used instead of a choice.
Answers ask(models::CausalLm& model,
            const Batch& batch,
            const std::vector<std::vector<int32_t>>* given,
            int64_t top_k);

/// The answers of `model`, whose rounding is measured by what `other` answers: the same weights,
/// computing in f32 if the model computes in bf16, and in bf16 if it computes in f32.
Probes record(models::CausalLm& model,
              models::CausalLm& other,
              const std::vector<Prompt>& prompts,
              const RecordOptions& options);

/// The model on `device` with the same config, computing in `compute`, sharing the weights' memory.
/// check: the device is the model's.
Result<std::unique_ptr<models::CausalLm>> sibling(models::CausalLm& model, DType compute);

/// A layer's activations, `tokens` rows, summed up.
LayerSummary summarise(std::span<const float> rows, int64_t tokens);

/// The relative distance between what a summary was made of and these rows, over all tokens.
double distance(const LayerSummary& summary, std::span<const float> rows, int64_t tokens);

/// The most probable token; the lower id of equals.
int32_t best(std::span<const float> logits);
float log_sum_exp(std::span<const float> logits);

/// The experts of each MoE layer, for all probes together: what ask() may be given.
std::vector<std::vector<int32_t>> reference_experts(const Probes& probes);

/// How many times the noise an answer may be away: twice if its own rounding is like the
/// reference's (the two add up at worst), and once more because noise is itself a measurement.
constexpr double kNoiseFactor = 3;

}  // namespace ferry::probe
