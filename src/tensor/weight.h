// Weight: one parameter of a model. Models name it and pass it to ops; how it is stored and packed
// for a chip is the business of the ops that read it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tensor/tensor.h"

namespace ferry {

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
  Shape global_shape;
  Shard shard;           // the whole tensor unless several ranks share it
  Tensor value;          // f32 (the master copy while training) or bf16
  bool trained = true;   // false: no gradient, no optimizer (the router's selection bias)
  uint64_t version = 0;  // raised by whoever changes value; packings of older versions are stale
  mutable std::shared_ptr<PackedWeight> packed;

  int64_t dim(int d) const { return value.dim(d); }
  void changed() { ++version; }
};

}  // namespace ferry
