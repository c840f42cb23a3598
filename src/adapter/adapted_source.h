// A model with an adapter, as one model: what is read of it are the weights with the adapter's factors added. So
// whatever reads a model (answers, scores, converts, quantises) reads this one, and what `ferry convert` writes of
// it is the merged model.
#pragma once

#include <memory>
#include <string>

#include "checkpoint/adapter.h"
#include "checkpoint/model_source.h"
#include "tensor/dtype.h"

namespace ferry {

/// Thread rule: one thread at a time.
class AdaptedSource final : public ModelSource {
 public:
  /// `compute`: in bf16, weights that the base stores as bf16 are rounded to it once merged, which is what
  /// computing would make of them, and half the memory; else merged weights are f32.
  /// Errors: of Adapter::check_fits.
  static Result<AdaptedSource> create(std::unique_ptr<ModelSource> base,
                                      Adapter adapter,
                                      DType compute);

  const ModelSource& base() const { return *base_; }
  const Adapter& adapter() const { return adapter_; }

  const std::string& path() const override { return base_->path(); }
  std::string path_of(const std::string& file_name) const override {
    return base_->path_of(file_name);
  }
  const std::string& config_json() const override { return base_->config_json(); }
  std::vector<std::string> names() const override { return base_->names(); }
  std::optional<StoredTensor> stored(std::string_view name) const override;
  Result<Tensor> load(std::string_view name, Device& device, DType want) override;
  Result<Tensor> load_rows(
      std::string_view name, int64_t first, int64_t rows, Device& device, DType want) override;
  std::optional<WeightCodes> codes(std::string_view name) const override;
  Result<void> take_codes(std::string_view name, PanelsInMaking& panels, int64_t matrix) override {
    return base_->take_codes(name, panels, matrix);
  }
  Result<Tensor> load_stacked(std::string_view name_with_star,
                              int64_t experts,
                              Device& device,
                              DType want) override;
  /// The base's. Errors: also kInvalidInput, if its tokenizer is another than the adapter learnt by.
  Result<std::optional<std::string>> optional_text(const std::string& file_name) override;
  Result<std::vector<std::string>> texts_in(const std::string& folder) const override {
    return base_->texts_in(folder);
  }
  Result<std::vector<std::string>> reading_notes() const override { return base_->reading_notes(); }
  bool vouched_for() const override { return base_->vouched_for(); }
  Result<std::string> weights_root(const HashedBytes& hashed) const override {
    return base_->weights_root(hashed);
  }

 private:
  AdaptedSource(std::unique_ptr<ModelSource> base, Adapter adapter, DType compute)
      : base_(std::move(base)), adapter_(std::move(adapter)), compute_(compute) {}

  std::unique_ptr<ModelSource> base_;
  Adapter adapter_;
  DType compute_;
};

/// The model at `path`, with the adapter at `adapter` unless that is empty: a bad adapter is refused before
/// anything of the model's weights is read. Errors: of open_model_source, Adapter::open, check_fits.
Result<std::unique_ptr<ModelSource>> open_adapted(const std::string& path,
                                                  const std::string& adapter,
                                                  DType compute);

}  // namespace ferry
