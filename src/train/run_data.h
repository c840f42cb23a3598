// What a run learns from, as far as its files and its model know of it: texts of a dataset, or tasks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/model_texts.h"
#include "data/dataset.h"
#include "text/tokenizer.h"
#include "train/config.h"

namespace ferry {

struct RunData {
  std::string place;                         // what messages call it: a folder, a file
  std::string setting;                       // that names it: "data.dir"
  std::string fingerprint;                   // equal ones give equal batches
  int32_t vocab_size = 0, bos = 0, eos = 0;  // as a dataset's manifest has them
  std::string tokenizer_json;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  /// Its prompts are written as the model's own files say, which say the same of the model that comes of it.
  bool asked_as_before = false;
  std::string chat_template_blake2b = {};  // of conversations, the template that wrote them
  /// Of texts that are not trained on, their first inputs: what a passport asks the model.
  std::vector<std::vector<int32_t>> held_out = {};
  /// Of tasks: those that the score is measured on, and the files of rl.program_folder; empty: there are none.
  std::string held_out_fingerprint = {}, program_fingerprint = {};

  static RunData of(const std::shared_ptr<const data::Dataset>& dataset);
  /// What a dataset's manifest says of the model that learns from it; none of its texts is read. Errors: as of
  /// reading a manifest.
  static Result<RunData> announced(const std::string& folder);
};

/// What a model's own files say of text, for a run that learns from what is written as they say. Place, setting,
/// fingerprint and what is held out are still to be named.
struct AskedData {
  std::string directory;  // the model's
  ModelTexts texts;       // with checkpoint.chat_template, if that is given
  RunData data;
};

/// Of the checkpoint that the run goes on from, else of model.init, which may be gone by then. Errors: kInvalidInput,
/// kNotFound (no tokenizer, no end token), those of reading them.
Result<AskedData> data_as_asked(const Settings& settings, bool resume);

}  // namespace ferry
