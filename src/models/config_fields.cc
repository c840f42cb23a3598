#include "models/config_fields.h"

#include <fmt/core.h>

#include <algorithm>

#include <nlohmann/json.hpp>

namespace ferry::models {

const std::set<std::string>& ignored_fields() {
  static const std::set<std::string> names = {
      // Which program wrote it, and how that program is to run it.
      "_attn_implementation",
      "_attn_implementation_autoset",
      "_experts_implementation",
      "_name_or_path",
      "architectures",
      "attn_implementation",
      "auto_map",
      "chunk_size_feed_forward",
      "dtype",
      "ep_size",
      "experts_implementation",
      "model_type",
      "output_attentions",
      "output_hidden_states",
      "output_router_logits",
      "pretraining_tp",
      "return_dict",
      "tokenizer_class",
      "torch_dtype",
      "torchscript",
      "transformers.js_config",
      "transformers_version",
      "unsloth_fixed",
      "unsloth_version",
      "use_bfloat16",
      "use_cache",
      // Of the original's training: losses, dropout.
      "attention_dropout",
      "aux_loss_alpha",
      "router_aux_loss_coef",
      "seq_aux",
      // Of kinds of models that this is none of.
      "add_cross_attention",
      "cross_attention_hidden_size",
      "decoder_start_token_id",
      "encoder_no_repeat_ngram_size",
      "finetuning_task",
      "id2label",
      "is_decoder",
      "is_encoder_decoder",
      "label2id",
      "num_labels",
      "prefix",
      "problem_type",
      "sep_token_id",
      "task_specific_params",
      "tf_legacy_loss",
      "tie_encoder_decoder",
      // Of generation: what is done with logits, not what they are. (The end tokens are read below,
      // and in generation_config.json.)
      "bad_words_ids",
      "begin_suppress_tokens",
      "diversity_penalty",
      "do_sample",
      "early_stopping",
      "exponential_decay_length_penalty",
      "forced_bos_token_id",
      "forced_eos_token_id",
      "length_penalty",
      "max_length",
      "min_length",
      "no_repeat_ngram_size",
      "num_beam_groups",
      "num_beams",
      "num_return_sequences",
      "output_scores",
      "pad_token_id",
      "remove_invalid_values",
      "repetition_penalty",
      "return_dict_in_generate",
      "suppress_tokens",
      "temperature",
      "top_k",
      "top_p",
      "typical_p"};
  return names;
}

std::string quantised_otherwise(const nlohmann::json& quantization_config) {
  const nlohmann::json& q = quantization_config;
  const auto method = q.is_object() ? q.find("quant_method") : q.end();
  if (!q.is_object() || method == q.end() || !method->is_string())
    return "is not supported; convert the weights to bf16 first";
  const auto& name = method->get_ref<const std::string&>();
  return fmt::format(
      "is that of {}, which is not read for this model; fetch the model that it was made from{}",
      printable(name),
      name == "bitsandbytes"
          ? ", or load it with Transformers, call dequantize() and save it in bf16"
          : "");
}

TextIds read_text_ids(JsonFields& f) {
  TextIds ids;
  if (f.has("bos_token_id")) ids.bos = f.integer("bos_token_id", 0, kSizeMax);
  ids.eos = f.ids("eos_token_id", kSizeMax);
  return ids;
}

void write_text_ids(const TextIds& ids, nlohmann::ordered_json& j) {
  j["bos_token_id"] = nullptr;
  if (ids.bos) j["bos_token_id"] = *ids.bos;
  j["eos_token_id"] = ids.eos;
  if (ids.eos.size() == 1) j["eos_token_id"] = ids.eos[0];
  if (ids.eos.empty()) j["eos_token_id"] = nullptr;
}

Result<void> check_text_ids(const TextIds& ids, int64_t vocab_size, const std::string& path) {
  const auto exists = [&](int64_t id) { return id < vocab_size; };
  if (exists(ids.bos.value_or(0)) && std::all_of(ids.eos.begin(), ids.eos.end(), exists)) return {};
  return fail(
      Code::kInvalidInput, "{}: bos_token_id and eos_token_id must be below vocab_size", path);
}

Result<void> check_parameters(double parameters, const std::string& path) {
  if (parameters <= kParametersMax) return {};
  return fail(Code::kInvalidInput,
              "{}: its sizes make {:.3g} parameters, more than {:.3g}; check them",
              path,
              parameters,
              kParametersMax);
}

}  // namespace ferry::models
