// Model directories in the Hugging Face layout: the one thing that crosses from training to
// serving.
//   config.json  tokenizer.json  generation_config.json  tokenizer_config.json
//   model.safetensors, or model-00001-of-0000N.safetensors and model.safetensors.index.json
//   (quantised: quant_model_description.json, and quant_model_weights in place of model)
//   passport.json, checksums.json (Ferry's; directories from elsewhere have none and are read
//   without)
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/checksums.h"
#include "checkpoint/model_source.h"
#include "checkpoint/passport.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/staged_folder.h"
#include "tensor/tensor.h"

namespace ferry {

/// A model directory, opened. What was opened stays what it is, also if the directory is replaced.
/// Thread rule: one thread at a time.
class ModelDir final : public ModelSource {
 public:
  /// Checks the shards' headers, that the index and the shards say the same, and all sizes. A
  /// directory with a passport has each chunk of a file checked when it is first read; one without
  /// has whole files checked against checksums.json then. A directory that a killed replacement
  /// left without its name is put back first. The training state of a checkpoint may be left out as a
  /// whole. Errors: kNotFound, kUnavailable; kCorrupt and kInvalidInput, naming file, tensor and what
  /// to do.
  static Result<ModelDir> open(const std::string& path);

  const std::string& path() const override { return path_; }
  std::string path_of(const std::string& file_name) const override;
  const std::string& config_json() const override { return config_json_; }
  bool has_checksums() const { return sums_.has_value(); }
  /// What is to be known of the directory as a whole, for whoever vouches for it: that its training state was left out.
  std::vector<std::string> notes() const;
  const Passport* passport() const { return passport_.get(); }  // nullptr: none
  Result<std::vector<std::string>> reading_notes() const override {
    return std::vector<std::string>{};
  }
  bool vouched_for() const override { return has_checksums() || passport() != nullptr; }
  Result<std::string> weights_root(const HashedBytes& hashed) const override;
  std::vector<std::string> names() const override;
  std::optional<StoredTensor> stored(std::string_view name) const override;
  const TensorInfo* info(std::string_view name) const;  // nullptr: none

  Result<Tensor> load(std::string_view name, Device& device, DType want) override;
  Result<Tensor> load_rows(
      std::string_view name, int64_t first, int64_t rows, Device& device, DType want) override;
  std::optional<WeightCodes> codes(std::string_view) const override { return std::nullopt; }
  Result<void> take_codes(std::string_view name, PanelsInMaking&, int64_t) override;
  Result<Tensor> load_stacked(std::string_view name_with_star,
                              int64_t experts,
                              Device& device,
                              DType want) override;

  /// Another text file of the directory, such as tokenizer.json. Errors: kNotFound; kCorrupt, also
  /// for a file that the passport does not list.
  Result<std::string> text(const std::string& file_name);
  /// The same, but nothing if there is no such file. Errors: kCorrupt.
  Result<std::optional<std::string>> optional_text(const std::string& file_name) override;
  Result<std::vector<std::string>> texts_in(const std::string& folder) const override;

  /// Hashes every file. Errors: kCorrupt, also for a file that counts (files_that_count) and that
  /// the passport does not list; kNotFound if the directory has neither passport nor
  /// checksums.json; kUnavailable if it was replaced by another since it was opened.
  Result<void> verify();

 private:
  static Result<ModelDir> open_once(const std::string& path);
  /// `quantised`: a description says of its tensors what they are.
  Result<void> open_shards(bool quantised);
  Result<void> open_index(const std::string& index_name);
  Result<void> take_experts_apart();
  Result<void> add_shard(const std::string& name);
  Result<void> fill(const Tensor& tensor, std::string_view name, const Shape& whole, int64_t first);
  Result<void> open_passport();
  Result<void> check_all();
  Result<void> check_bytes(size_t shard, uint64_t begin, uint64_t end);
  std::string tensors_in(size_t shard, uint64_t first, uint64_t last) const;

  struct Place {
    size_t shard;
    const TensorInfo* info;
  };

  std::string path_, config_json_;
  std::optional<Checksums> sums_;
  std::shared_ptr<const Passport> passport_;
  std::optional<ChunkChecks> chunks_;  // if there is a passport
  std::vector<std::string> shard_names_;
  std::vector<std::unique_ptr<SafetensorsFile>> shards_;
  std::deque<TensorInfo> experts_;  // of tensors that hold a layer's experts together
  std::map<std::string, Place, std::less<>> places_;
  bool state_left_out_ = false;
};

/// A model, or an adapter of one.
struct ModelContents {
  /// In the order in which they shall fill the shards. A name with one '*' is a stack: "a.*.weight"
  /// [E, N, K] is stored as a.0.weight [N, K] ... a.(E-1).weight.
  std::vector<NamedTensor> tensors;
  /// By name, or FOLDER/NAME; config.json, or adapter_config.json of an adapter, must be among them.
  std::map<std::string, std::string> texts;
  /// Written with the hashes of the files above, if given.
  std::optional<Passport> passport = {};
  std::optional<KeyPair> key = {};  // signs it
  /// Written into verified.json: the devices that gave the passport's answers.
  std::vector<Verification> verified = {};
  uint64_t shard_bytes = uint64_t{4} << 30;  // larger models are split; a tensor never is
};

struct SaveReport {
  std::string path;
  uint64_t bytes = 0;
  std::vector<std::string> warnings;  // leftovers that could not be removed
};

/// Disk space that write_model takes, within a few KiB.
uint64_t bytes_needed(const ModelContents& contents);

/// Writes the model's files into a folder that is being made; the caller commits.
Result<void> write_model(StagedFolder& folder, const ModelContents& contents);

/// Writes, or replaces, a model directory as one unit. Errors: kExhausted (refused before starting
/// if the disk is short), kUnavailable, kInvalidInput (`path` is something else). What was at
/// `path` stays as it was unless the message says otherwise.
Result<SaveReport> write_model_dir(const std::string& path, const ModelContents& contents);

/// Commits, and says on failure what became of the destination. For write_model_dir and
/// checkpoints.
Result<SaveReport> commit_folder(StagedFolder& folder);

/// Finishes or rolls back a replacement that was interrupted (ModelDir::open does it, too), and
/// removes what dead writers left. Errors: kUnavailable.
Result<void> recover_model_dir(const std::string& path);

}  // namespace ferry
