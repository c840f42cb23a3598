// What training needs beyond the model to go on: optimizer moments, master weights and a document
// (step, position in the data, seeds, settings). Lies in the folder state/ of a checkpoint:
//   state.json               the document, as it was given
//   tensors.json             of each tensor: type, global shape, and which file holds which rows
//   part-00000.safetensors   rows of tensors; one file for each process that wrote
// Rows are addressed globally (dimension 0), so any number of processes can load what any other
// wrote. The folder changes no answer, so the model beside it is whole without it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/checksums.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/staged_folder.h"
#include "tensor/tensor.h"

namespace ferry {

constexpr const char* kStateFolder = "state";
constexpr const char* kStateDocument = "state/state.json";
/// Of a checkpoint that somebody keeps without the folder.
constexpr const char* kStateLeftOut =
    "its training state (the folder state/) was left out: that changes no answer, but training "
    "cannot go on from here";

/// Rows [begin, begin + value.dim(0)) of a tensor of global_shape, rank 1 to 4.
struct StatePiece {
  std::string name;
  Shape global_shape;
  int64_t begin = 0;
  Tensor value;  // contiguous; stored as it is

  static StatePiece whole(std::string name, const Tensor& value) {
    return {std::move(name), value.shape(), 0, value};
  }
};

struct TrainingStateContents {
  /// A JSON object. "step" (integer) must be the checkpoint's; "held_out_loss" (number) is what
  /// keep_best compares, and may be absent.
  std::string document;
  /// One file each. Together the pieces of a name cover its rows once.
  std::vector<std::vector<StatePiece>> parts;
};

/// The checksums of a checkpoint that training can go on from, so far as they tell: every listed file is there with its
/// size, those of the state among them. Errors: kNotFound, with what to do (a model that was saved without state, or
/// whose state was left out); Checksums'.
Result<Checksums> checksums_with_state(const std::string& checkpoint);

/// Disk space that write_training_state takes, within a few KiB.
uint64_t bytes_needed(const TrainingStateContents& contents);

/// check: pieces of a name agree in type and shape, and tile it. Errors: kExhausted, kUnavailable.
Result<void> write_training_state(StagedFolder& folder, const TrainingStateContents& contents);

struct StateTensor {
  DType dtype;
  Shape shape;  // global
};

/// Thread rule: one thread at a time.
class TrainingStateReader {
 public:
  /// `checkpoint` is the folder that holds state/. Contents are checked against checksums.json: the
  /// JSON files now, parts when first read. Errors: kNotFound (a model directory without state),
  /// kCorrupt.
  static Result<TrainingStateReader> open(const std::string& checkpoint);

  const std::string& document() const { return document_; }
  std::vector<std::string> names() const;                // sorted
  const StateTensor* info(std::string_view name) const;  // nullptr: none

  /// Rows [begin, end), wherever they were written. Errors: kNotFound (no such tensor), kCorrupt.
  /// check: the range lies in the tensor. Throws DeviceError when out of memory.
  Result<Tensor> load_range(std::string_view name, int64_t begin, int64_t end, Device& device);
  Result<Tensor> load(std::string_view name, Device& device);

 private:
  struct Piece {
    int64_t begin, end;
    size_t part;
    const TensorInfo* info;
  };
  struct Entry {
    StateTensor tensor;
    std::vector<Piece> pieces;  // ascending; they tile dimension 0
  };
  Result<void> read_tensors(const std::string& text, const std::string& path);

  std::string path_, document_;
  std::unique_ptr<Checksums> sums_;
  std::vector<std::string> part_names_;
  std::vector<std::unique_ptr<SafetensorsFile>> parts_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace ferry
