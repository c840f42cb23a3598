// What a run learns from, as far as its files and its model know of it: texts of a dataset, or tasks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "text/tokenizer.h"

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

  static RunData of(const std::shared_ptr<const data::Dataset>& dataset);
};

}  // namespace ferry
