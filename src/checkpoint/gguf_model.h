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
  /// Ferry does not run (it runs llama and qwen2), values that are missing or contradict tensors.
  static Result<GgufModel> open(const std::string& path);
  static Result<GgufModel> of(GgufFile file);

  const std::string& path() const override { return file_.path(); }
  std::string path_of(const std::string& file_name) const override;
  const std::string& config_json() const override { return config_json_; }
  std::vector<std::string> names() const override;
  std::optional<StoredTensor> stored(std::string_view name) const override;
  Result<Tensor> load(std::string_view name, Device& device, DType want) override;
  Result<Tensor> load_stacked(std::string_view name_with_star,
                              int64_t experts,
                              Device& device,
                              DType want) override;
  /// tokenizer.json and tokenizer_config.json.
  Result<std::optional<std::string>> optional_text(const std::string& file_name) override;
  Result<std::vector<std::string>> texts_in(const std::string&) const override {
    return std::vector<std::string>{};
  }
  bool vouched_for() const override { return false; }

 private:
  struct Place {
    const GgufTensor* tensor;
    int64_t turned_heads;  // above 0: rows of so many heads lie in the order that turned pairs have
  };

  Result<std::string> tokenizer_config_json() const;
  Result<void> read_config();
  Result<void> place_tensors();

  GgufFile file_;
  std::string config_json_;
  int64_t heads_ = 0, kv_heads_ = 0, layers_ = 0;
  std::map<std::string, Place, std::less<>> places_;
};

/// Whether the file begins as GGUF files do, whatever its name. Errors: kNotFound, kUnavailable.
Result<bool> is_gguf(const std::string& path);

}  // namespace ferry
