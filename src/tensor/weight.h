// Weight: one parameter of a model. Models name it, say what it is for, and pass it to ops; how it
// is stored and packed for a chip is the business of the ops that read it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tensor/tensor.h"

namespace ferry {

/// What a weight is for, as its model says. Optimizers, files and reports go by this, never by
/// names, which are the checkpoint's.
enum class WeightRole : uint8_t {
  kProjection,     // a matrix [outputs, inputs]
  kExperts,        // a stack of them, one for each expert
  kRouter,         // a matrix: scores of experts
  kEmbedding,      // [vocab, hidden]: rows for token ids
  kHead,           // [vocab, hidden]: hidden state to logits
  kVector,         // of a norm, or added
  kSelectionBias,  // of a router; no gradient, no optimizer
};

/// The part of the global tensor that this process holds: [begin, end) of dimension `dim`.
struct Shard {
  int dim = 0;
  int64_t begin = 0;
  int64_t end = 0;
};

/// Made by an op for its kernel (panels, scales); valid while `version` is the weight's.
struct PackedWeight {
  uint64_t version = 0;
  int layout = 0;               // the op's own numbering
  const Storage* of = nullptr;  // the memory that was packed
  Tensor panels;
};

struct Weight {
  std::string name;  // as in the checkpoint: "model.layers.0.mlp.gate_proj.weight"
  WeightRole role = WeightRole::kProjection;
  int layer =
      0;  // 0 the embedding, then the blocks from 1, the last norm and the head, MTP modules
  Shape global_shape;
  Shard shard;           // the whole tensor unless several ranks share it
  Tensor value;          // f32 (the master copy while training) or bf16
  uint64_t version = 0;  // raised by whoever changes value; packings of older versions are stale
  mutable std::shared_ptr<PackedWeight> packed;

  int64_t dim(int d) const { return value.dim(d); }
  bool trained() const { return role != WeightRole::kSelectionBias; }
  /// Whether it is one matrix or more: what is stored narrow, decays and is drawn at random.
  bool matrix() const { return trained() && role != WeightRole::kVector; }
  void changed() { ++version; }
};

}  // namespace ferry
