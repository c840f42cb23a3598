#include "train/run_data.h"

#include <algorithm>

#include "base/file.h"
#include "checkpoint/checkpoints.h"
#include "checkpoint/model_chat.h"
#include "checkpoint/model_source.h"

namespace ferry {
namespace {

// A passport's prompts. The first is longer than attention's tile of keys, so that its text needs more
// than one.
constexpr int64_t kTokensOf[] = {80, 24};

}  // namespace

RunData RunData::of(const std::shared_ptr<const data::Dataset>& dataset) {
  const data::Manifest& m = dataset->manifest();
  RunData run{.place = dataset->folder(),
              .setting = "data.dir",
              .fingerprint = m.fingerprint(),
              .vocab_size = m.vocab_size,
              .bos = m.bos,
              .eos = m.eos,
              .tokenizer_json = dataset->tokenizer_json(),
              .tokenizer = {dataset, &dataset->tokenizer()}};
  if (m.conversations()) run.chat_template_blake2b = m.chat_template_blake2b;
  const data::Documents& held_out = dataset->held_out();
  for (int64_t d = 0; d < std::min(std::ssize(kTokensOf), held_out.size()); ++d) {
    const data::Documents::Document document = held_out[d];
    std::vector<int32_t>& inputs = run.held_out.emplace_back();
    for (int64_t t = 0; t < std::min(dataset->places(document), kTokensOf[d] + 1); ++t)
      inputs.push_back(dataset->input(document, t));
  }
  return run;
}

Result<RunData> RunData::announced(const std::string& folder) {
  const std::string path = join_path(folder, data::kManifestFile);
  TRY_ASSIGN(const std::string text, read_file(path));
  TRY_ASSIGN(const data::Manifest m, data::Manifest::parse(text, path));
  return RunData{.place = folder,
                 .setting = "data.dir",
                 .fingerprint = m.fingerprint(),
                 .vocab_size = m.vocab_size,
                 .bos = m.bos,
                 .eos = m.eos};
}

Result<AskedData> data_as_asked(const Settings& settings, bool resume) {
  TRY_ASSIGN(const CheckpointList there, list_checkpoints(settings.checkpoint.dir));
  // An adapter has no texts of its own.
  const bool goes_on = resume && !there.complete.empty() && settings.lora.rank == 0;
  AskedData asked;
  asked.directory = goes_on ? there.complete.back().path : settings.model.init;
  TRY_ASSIGN(const std::unique_ptr<ModelSource> source, open_model_source(asked.directory));
  TRY_ASSIGN(asked.texts, read_model_texts(*source));
  if (const auto& given = settings.checkpoint.chat_template_text; given && !given->empty())
    use_chat_template(asked.texts, *given);
  TRY_ASSIGN(const std::shared_ptr<text::Tokenizer> tokenizer,
             require_tokenizer(*source, asked.texts));
  if (asked.texts.eos.empty())
    return fail(
        Code::kInvalidInput, "{}: names no end token: no answer would end", asked.directory);
  RunData& data = asked.data;
  data.vocab_size = tokenizer->vocab_size();
  data.eos = asked.texts.eos.front();
  data.bos = asked.texts.bos.value_or(data.eos);
  data.tokenizer = tokenizer;
  data.asked_as_before = true;
  TRY_ASSIGN(const std::optional<std::string> json, source->optional_text(kTokenizerName));
  data.tokenizer_json = json.value_or("");
  return asked;
}

}  // namespace ferry
