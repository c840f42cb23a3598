// Weight: one parameter of a model. Models name it, say what it is for, and pass it to ops; how it
// is stored and packed for a chip is the business of the ops that read it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "tensor/code_panels.h"
#include "tensor/pair_panels.h"
#include "tensor/tensor.h"

namespace ferry {

/// What a weight is for, as its model says. Optimizers, files and reports go by this, never by
/// names, which are the checkpoint's.
enum class WeightRole : uint8_t {
  kProjection,  // a matrix [outputs, inputs]
  kFine,        // one that stays numbers where projections become codes: small, or read otherwise
  kExperts,     // a stack of them, one for each expert
  kRouter,      // a matrix: scores of experts
  kEmbedding,   // [vocab, hidden]: rows for token ids
  kHead,        // [vocab, hidden]: hidden state to logits
  kVector,      // of a norm: multiplied
  kBias,        // added
  kSelectionBias,  // of a router; no gradient, no optimizer
};

/// The part of the global tensor that this process holds: [begin, end) of dimension `dim`.
struct Shard {
  int dim = 0;
  int64_t begin = 0;
  int64_t end = 0;
};

/// One scale for so many rows and columns of a matrix whose elements are stored as codes.
struct ScaleBlocks {
  int64_t rows = 0;  // 0: no scales, the elements are numbers
  int64_t columns = 0;
  bool operator==(const ScaleBlocks&) const = default;
  /// The shape of the scales of codes [.., rows, columns]; blocks at the edges may be cut.
  Shape scales_of(const Shape& codes) const;
};
inline constexpr ScaleBlocks kF8Blocks{128, 128};  // DeepSeek-V3's float8 e4m3

/// Made by an op for its kernel (panels, scales); valid while `version` is the weight's.
struct PackedWeight {
  uint64_t version = 0;
  int layout = 0;               // the op's own numbering
  const Storage* of = nullptr;  // the memory that was packed
  Tensor panels;
};

/// How the codes of so many matrices are a tensor: bytes [matrices, panels, bytes of a panel].
DType code_panels_dtype(const CodePanels& layout);
Shape code_panels_shape(const CodePanels& layout, int64_t matrices);
/// How the scales of so many matrices of codes are a tensor: of int8 and int4 numbers [matrices,
/// panels, groups, 16], 1 for rows past the matrix; of the kinds of GGUF files bytes [matrices,
/// panels, bytes of a panel's scales].
DType code_scales_dtype(WeightCodes codes);
Shape code_scales_shape(const CodePanels& layout, int64_t matrices);

struct Weight {
  std::string name;  // as in the checkpoint: "model.layers.0.mlp.gate_proj.weight"
  WeightRole role = WeightRole::kProjection;
  /// 0 the embedding, then the blocks from 1, the last norm and the head, MTP modules.
  int layer = 0;
  Shape global_shape;
  Shard shard;         // the whole tensor unless several ranks share it
  Tensor value;        // f32 (the master copy while training) or bf16; or codes; or panels of pairs
  Tensor scales;       // of codes
  ScaleBlocks blocks;  // how scales lie over value
  std::optional<WeightCodes> coded = {};  // value is panels of whole numbers, of this kind
  bool paired = false;                    // value is panels of pairs of bf16 numbers
  uint64_t version = 0;  // raised by whoever changes value; packings of older versions are stale
  mutable std::shared_ptr<PackedWeight> packed;

  /// What is stored here, in elements: panels have a shape of their own.
  Shape shape() const { return codes() || paired ? global_shape : value.shape(); }
  int64_t dim(int d) const { return value.dim(d); }
  bool trained() const { return role != WeightRole::kSelectionBias; }
  /// Whether it is one matrix or more: what is stored narrow, decays and is drawn at random.
  bool matrix() const {
    return trained() && role != WeightRole::kVector && role != WeightRole::kBias;
  }
  void changed() { ++version; }

  bool scaled() const { return blocks.rows > 0; }
  /// Of whole numbers; nothing: numbers, or float8 codes, which stand for numbers.
  std::optional<WeightCodes> codes() const { return coded; }
  /// Stores numbers, or codes with their scales; what was stored goes.
  void store(Tensor codes, Tensor codes_scales = {}, const ScaleBlocks& of_scales = {});
  /// Stores panels of whole numbers (tensor/code_panels.h), one after the other for each matrix of a
  /// stack: bytes [matrices, panels, bytes of a panel], and scales of code_scales_shape().
  void store_codes(WeightCodes kind, Tensor panels, Tensor panel_scales);
  /// The panels of one matrix.
  CodePanels panels() const;
  /// Stores panels of bf16 numbers (tensor/pair_panels.h): i32 [matrices, pairs of one's panels]. For
  /// who multiplies in bf16 and does not train.
  void store_pairs(Tensor pairs);
  /// The panels of one matrix.
  PairPanels pair_panels() const;
  /// How many matrices it is: those of a stack, or one.
  int64_t matrices() const { return global_shape.rank() == 3 ? global_shape[0] : 1; }
  /// Shares what another weight of the same shape stores.
  void store_as(const Weight& other);
  /// check: types, blocks and shapes go together. The ways to store a weight are listed here and
  /// in ops::weight_values, which reads them; no op knows them.
  void check_stored() const;
};

}  // namespace ferry
