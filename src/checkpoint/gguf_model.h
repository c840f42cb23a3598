// A GGUF file as a model directory would have it: config.json, tokenizer.json and the rest from its
// header, tensors under their Hugging Face names and in their order of rows.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/gguf.h"
#include "checkpoint/model_source.h"
#include "tensor/tensor.h"

namespace ferry {

/// Thread rule: one thread at a time.
class GgufModel final : public ModelSource {
 public:
  /// Errors: as GgufFile::open; kInvalidInput, naming the value or tensor: an architecture that
  /// Ferry does not run (it runs llama, qwen2 and deepseek2), values that are missing or contradict tensors.
  static Result<GgufModel> open(const std::string& path);
  static Result<GgufModel> of(GgufFile file);

  const std::string& path() const override { return file_.path(); }
  std::string path_of(const std::string& file_name) const override;
  const std::string& config_json() const override { return config_json_; }
  std::vector<std::string> names() const override;
  std::optional<StoredTensor> stored(std::string_view name) const override;
  /// As the file calls the type of one of names(): "Q4_1".
  const char* type_of(std::string_view name) const;
  Result<Tensor> load(std::string_view name, Device& device, DType want) override;
  Result<Tensor> load_rows(
      std::string_view name, int64_t first, int64_t rows, Device& device, DType want) override;
  std::optional<WeightCodes> codes(std::string_view name) const override;
  Result<void> take_codes(std::string_view name, PanelsInMaking& panels, int64_t matrix) override;
  Result<Tensor> load_stacked(std::string_view name_with_star,
                              int64_t experts,
                              Device& device,
                              DType want) override;
  /// tokenizer.json and tokenizer_config.json.
  Result<std::optional<std::string>> optional_text(const std::string& file_name) override;
  Result<std::vector<std::string>> texts_in(const std::string&) const override {
    return std::vector<std::string>{};
  }
  Result<std::vector<std::string>> reading_notes() const override;
  bool vouched_for() const override { return false; }
  Result<std::string> weights_root(const HashedBytes& hashed) const override;

 private:
  /// Where a tensor of the hub lies.
  struct Place {
    const GgufTensor* tensor = nullptr;
    int64_t matrix = 0;  // of a stack of experts
    int64_t turned_heads =
        0;  // above 0: rows of so many heads lie in the order that turned pairs have
    const GgufTensor* values = nullptr;  // kv_b_proj in two: `tensor` has its keys, this the values
  };
  struct Rows {
    int64_t count, columns;
  };

  Result<Place> place_of(std::string_view name) const;
  static Rows rows_of(const Place& place);
  static Shape shape_of(const Place& place);
  /// The bytes of a row as the hub counts them.
  std::span<const std::byte> row(const Place& place, int64_t to) const;
  std::span<const std::byte> row_of_file(const GgufTensor& t, int64_t row, int64_t columns) const;
  /// Rows from `first` on; of kv_b_proj in two.
  void decode_rows(const Place& place, int64_t first, std::span<float> values) const;
  void decode_latent(const Place& place, int64_t first, std::span<float> values) const;
  /// Fills a tensor with rows from `first` on.
  std::optional<size_t> copy_rows(const Place& place,
                                  DType stored,
                                  int64_t first,
                                  const Tensor& to) const;
  Result<void> decode(const Place& place, int64_t first, const Tensor& to) const;
  Result<std::string> tokenizer_config_json() const;
  Result<void> read_config();
  Result<void> place_tensors();
  Result<void> add_place(const std::string& hub_name, Place place);
  Result<void> check_turned(const Place& place, const std::string& name) const;
  Result<void> check_latent(const Place& place, const std::string& name) const;

  GgufFile file_;
  std::string config_json_;
  int64_t layers_ = 0;  // of the model
  int64_t blocks_ =
      0;  // of the file: those behind the layers predict further tokens, and are left out
  int64_t experts_ = 0, turned_heads_ = 0, turned_kv_heads_ = 0;
  std::map<std::string, Place, std::less<>> places_;
};

/// Whether the file begins as GGUF files do, whatever its name. Errors: kNotFound, kUnavailable.
Result<bool> is_gguf(const std::string& path);

}  // namespace ferry
