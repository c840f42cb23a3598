#include "cli/open_model.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "checkpoint/weights.h"

namespace ferry::cli {

Result<OpenedModel> open_model(const OpenOptions& o) {
  TRY_ASSIGN(Device * device, open_device(o.device));
  if (!o.dtype.empty() && o.dtype != "f32" && o.dtype != "bf16")
    return fail(Code::kInvalidInput, "--dtype {}: must be f32 or bf16", o.dtype);
  const DType compute = o.dtype == "f32" ? DType::kF32 : DType::kBF16;
  TRY_ASSIGN(ModelDir dir, ModelDir::open(o.directory));
  OpenedModel m;
  // Weights stay f32 here: computing in bf16 rounds them as training did, so the bits are
  // training's.
  TRY_ASSIGN(
      m.model,
      models::make_model(
          dir.config_json(), join_path(o.directory, kConfigName), *device, compute, DType::kF32));
  TRY(load_weights(dir, m.model->weights(), m.model->weight_aliases()));
  const auto config = nlohmann::json::parse(dir.config_json(), nullptr, false);
  if (const auto it = config.find("bos_token_id"); it != config.end() && it->is_number_integer())
    m.bos = it->get<int32_t>();
  if (!o.tokenizer) return m;
  TRY_ASSIGN(const std::string text, dir.text("tokenizer.json"));
  TRY_ASSIGN(text::Tokenizer tokenizer,
             text::Tokenizer::parse(text, join_path(o.directory, "tokenizer.json")));
  m.tokenizer = std::make_unique<text::Tokenizer>(std::move(tokenizer));
  if (m.tokenizer->vocab_size() > m.model->vocab_size())
    return fail(Code::kInvalidInput,
                "{}: the tokenizer has {} ids, the model {}",
                o.directory,
                m.tokenizer->vocab_size(),
                m.model->vocab_size());
  return m;
}

}  // namespace ferry::cli
