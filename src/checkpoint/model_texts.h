// What a model directory says about text: its tokenizer, where documents begin and end, how it is
// asked to generate and to chat. Several files say so, and not always the same: here, and nowhere
// else, it is decided what a directory says; all its files are written from that decision.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/model_source.h"
#include "text/tokenizer.h"

namespace ferry {

constexpr const char* kTokenizerName = "tokenizer.json";
constexpr const char* kTokenizerConfigName = "tokenizer_config.json";
constexpr const char* kGenerationConfigName = "generation_config.json";
constexpr const char* kSpecialTokensName = "special_tokens_map.json";

/// The texts of special tokens by the names that a chat template knows them by ("eos_token", "image_token"), as
/// Transformers' tokenizers find them: in tokenizer_config.json, then in special_tokens_map.json, but not in the
/// latter where the former has an added_tokens_decoder. std::nullopt: said to be null, or not said.
using NamedTokens = std::map<std::string, std::optional<std::string>>;

/// The chat templates of a file's text, of tokenizer_config.json or chat_template.json, that are not empty, by their
/// names. One without a name is the "default".
std::map<std::string, std::string> templates_by_name(const std::string& json);

/// What the files say together. An id is absent if none of them states it.
/// - The begin token is config.json's, else generation_config.json's, else tokenizer_config.json's.
/// - The end tokens are all that any of config.json, generation_config.json, tokenizer_config.json
///   and special_tokens_map.json names, in this order: generation stops at each of them. Ids that
///   the model does not have are left out.
/// - A text begins with the begin token if tokenizer.json's post_processor puts it there, which is what Transformers 5
///   goes by, or if tokenizer_config.json says so (add_bos_token): Transformers 4's Llama tokenizers, which DeepSeek's
///   releases name, added it then, and distilled models of DeepSeek's have it nowhere else.
/// - A chat template is given the texts of named_tokens: bos_token and eos_token of which a tokenizer_config.json is
///   silent are nothing, as in Transformers, unless it names a class that has some of its own. In place of those, of
///   those that the tokenizer does not have, and where there is no such file, it is given the begin token, and the
///   first end token, from above.
/// Where the files contradict each other a note says so and what was decided.
struct ModelTexts {
  std::optional<int32_t> bos;
  bool begins = false;                         // each text with bos
  std::vector<int32_t> eos;                    // no id twice
  std::shared_ptr<text::Tokenizer> tokenizer;  // nullptr: the directory has none
  NamedTokens named_tokens;
  /// What was read, byte for byte, by name: JSON may be Python's (base/python_json.h). tokenizer.json is not kept.
  std::map<std::string, std::string> files;
  std::map<std::string, Status> unread;  // files that could not be, and need not; with a note
  std::vector<std::string> notes;

  /// From which token the first one of a document is predicted: the begin token, else the end of
  /// the document before. Errors: kInvalidInput, naming `directory`, if there is neither.
  Result<int32_t> context_of_first(const std::string& directory) const;
  /// The ids of a text, after the begin token, if texts begin so (which is not doubled where the text
  /// itself has it). Check: there is a tokenizer.
  std::vector<int32_t> text_ids(std::string_view text, text::Tokenizer::Specials specials) const;
  /// The same of a text that is to be gone on with: for nothing, the token that a text is predicted
  /// from. Errors: context_of_first's.
  Result<std::vector<int32_t>> prompt(std::string_view text,
                                      text::Tokenizer::Specials specials,
                                      const std::string& directory) const;
};

/// What a chat template is given of special tokens; std::nullopt: nothing. By their ids: what it would be given if no
/// file named any.
NamedTokens template_tokens(const ModelTexts& texts);
NamedTokens template_tokens_by_id(const ModelTexts& texts);

/// Reads them all. Errors: kCorrupt, kInvalidInput, naming the file: one that says something about ids
/// and cannot be read (of a directory with passport or checksums: any that cannot).
Result<ModelTexts> read_model_texts(ModelSource& from);

/// Whether a tokenizer is there only as tokenizer.model or vocab.json and merges.txt, which are not read.
bool has_older_tokenizer(const ModelTexts& texts);

/// The tokenizer, for whoever cannot do without. Errors: kNotFound, saying what the directory has
/// instead.
Result<std::shared_ptr<text::Tokenizer>> require_tokenizer(const ModelSource& from,
                                                           const ModelTexts& texts);

/// How a command that prepares text is given this model's tokenizer: "--tokenizer DIR/tokenizer.json"; of a
/// GGUF file, after the command that makes a directory of it.
std::string tokenizer_option(const std::string& model);

/// What a new model's files are to say: the tokens of the data that it was trained on.
struct TextFacts {
  std::string tokenizer_json;
  bool puts_bos = false;     // whether the tokenizer by itself puts bos before a text
  int32_t bos = 0, eos = 0;  // equal: the tokenizer has no begin token
  std::string bos_text, eos_text;
  std::string chat_template;  // in place of those that came along; empty: they stay
  int64_t positions = 0;
  /// It learnt from what it answered to prompts that were written as `from` says: all of that stays true,
  /// and nothing is said of begin and end beside it.
  bool as_before = false;
};

/// The files of a model directory beside config.json and the weights, by name. `from`, if there is
/// one, is what the model was trained on from: its settings, its chat templates and its other end
/// tokens go along; where it says something else about begin and end, `facts` are right. Check: as_before
/// has something before.
std::map<std::string, std::string> model_text_files(const TextFacts& facts, const ModelTexts* from);

}  // namespace ferry
