// A model's weights into and out of a model directory.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/model_source.h"
#include "checkpoint/safetensors.h"
#include "tensor/weight.h"

namespace ferry {

/// A second name under which checkpoints store a weight (DeepSeek's MTP layers repeat the embedding
/// and the head). Written again; when read, its values must equal the weight's.
using WeightAlias = std::pair<std::string, const Weight*>;

/// How weights come into memory.
struct WeightLoading {
  std::set<std::string> unused = {};  // tensors that are left alone
  /// Weights without memory that are stored as numbers, or as other codes, and become codes
  /// (takes_codes) are rounded to these, some rows after the other: the model is never in memory as
  /// numbers. So is the head, or the embedding that is it, to int8: of the bytes that a token of a
  /// small model reads it is a large part.
  std::optional<WeightCodes> quantise = {};
  /// Projections, experts and the head without memory hold the codes that they are stored in; on the
  /// CPU, of GGUF files (ModelSource::codes), the embedding, too. Without it: numbers, exactly what
  /// these codes stand for.
  bool keep_codes = true;
  /// What remains numbers of projections, experts, routers and the head, or the embedding that is it, and has no
  /// memory becomes panels of pairs of bf16 numbers, rounded if need be: for models that compute in
  /// bf16 and do not train (ops::pairs_wanted).
  bool pairs = false;
};

/// Whether the weight is one that codes are made of: a projection, or a stack of experts. The
/// embedding, the head, routers, vectors and small matrices stay numbers.
bool takes_codes(const Weight& weight);
/// Whether it is one that products read as pairs. `tied`: the embedding is the head.
bool takes_pairs(const Weight& weight, bool tied);

/// Whether what is stored is the model's: each weight's parts and scales are there in their shapes,
/// no tensor is beside them (those in `unused` aside), and what stands under a second name has the
/// values of its weight. Whoever reads or copies a model asks this first, so that all of them refuse
/// the same. Weights need no memory.
/// Errors: kInvalidInput naming the tensor; kCorrupt: of reading an alias.
Result<void> check_stored_weights(ModelSource& from,
                                  const std::vector<Weight*>& weights,
                                  const std::vector<WeightAlias>& aliases,
                                  const std::set<std::string>& unused = {});

/// Fills every weight from a directory or file. One that has memory is converted to its type; one
/// that has none is kept on the device as the file stores it: bf16, or float8 codes with the scales
/// of 128 x 128 blocks that DeepSeek stores beside them, or int8 or int4 codes with theirs, or the
/// codes of a GGUF file (docs/directories.md); f16 and vectors become f32. Beside the weights, some
/// MiB are in use meanwhile.
/// Errors: kInvalidInput naming the tensor: missing, of another shape or type, or one that the
/// model does not have; kCorrupt: an alias that differs from its weight, a checksum, a scale that
/// is no positive number; kExhausted: weights without memory are larger than what is free; int8 and
/// int4 for another device than the CPU are kInvalidInput.
Result<void> load_weights(ModelSource& from,
                          Device& device,
                          const std::vector<Weight*>& weights,
                          const std::vector<WeightAlias>& aliases,
                          const WeightLoading& loading = {});

/// Gives weights without memory the memory that load_weights() would fill, unfilled: for rehearsing what
/// a run computes. Errors: kInvalidInput, as load_weights, of names, shapes and the device.
Result<void> make_room_for_weights(const ModelSource& from,
                                   Device& device,
                                   const std::vector<Weight*>& weights,
                                   const std::vector<WeightAlias>& aliases,
                                   const WeightLoading& loading = {});

/// What the weights without memory will take of the device's.
double bytes_of_weights(const ModelSource& from,
                        const Device& device,
                        const std::vector<Weight*>& weights,
                        const WeightLoading& loading);

/// The same for one of them. `tied`: the embedding is the head.
Result<void> load_weight(ModelSource& from,
                         Device& device,
                         Weight& weight,
                         bool tied = false,
                         const WeightLoading& loading = {});

/// Whether a weight of the directory or file is stored as int8 or int4 codes: then its name.
std::optional<std::string> stored_as_codes(const ModelSource& from);
/// As which codes, if so.
std::optional<WeightCodes> stored_codes(const ModelSource& from);

/// What a model directory is to hold, in the weights' order; matrices stored as `matrices` (f32 or
/// bf16), vectors (norms, selection biases) always in f32.
std::vector<NamedTensor> stored_weights(const std::vector<Weight*>& weights,
                                        const std::vector<WeightAlias>& aliases,
                                        DType matrices);

/// The same of a model that lies in `from`, each loaded when it is written and then let go: a model
/// need not fit into memory. Weights give names and shapes, and need no memory. `loaded` is called
/// after each. `from` and the weights must outlive the result, and check_stored_weights() must have
/// passed: a tensor that is no weight's is not looked at. Errors when written: as load_weights.
std::vector<NamedTensor> weights_to_convert(ModelSource& from,
                                            const std::vector<Weight*>& weights,
                                            const std::vector<WeightAlias>& aliases,
                                            DType matrices,
                                            const std::function<void()>& loaded);

/// Calls take(first, rows) for one matrix, piece by piece: some MiB of it as numbers. Pieces begin
/// where blocks of float8 and panels do.
Result<void> for_each_piece_of_rows(const Shape& matrix,
                                    const std::function<Result<void>(int64_t, int64_t)>& take);
/// Such rows of a matrix as numbers, f32 on the host, all finite, whatever they are stored as. Errors: kCorrupt.
Result<std::vector<float>> load_numbers(
    ModelSource& from, const std::string& name, int64_t first, int64_t rows, int64_t columns);

/// The same with codes for the weights that take them (takes_codes), as docs/directories.md lays
/// them out, and the others as weights_to_convert has them in bf16.
std::vector<NamedTensor> weights_to_quantise(ModelSource& from,
                                             const std::vector<Weight*>& weights,
                                             WeightCodes codes,
                                             const std::function<void()>& loaded);

}  // namespace ferry
