#include "models/config_fields.h"

#include <fmt/core.h>

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

Result<void> check_parameters(double parameters, const std::string& path) {
  if (parameters <= kParametersMax) return {};
  return fail(Code::kInvalidInput,
              "{}: its sizes make {:.3g} parameters, more than {:.3g}; check them",
              path,
              parameters,
              kParametersMax);
}

}  // namespace ferry::models
