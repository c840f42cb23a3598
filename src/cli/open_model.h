// Opening a model directory for looking at the model: the model, its tokenizer, its device.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "checkpoint/model_source.h"
#include "checkpoint/model_texts.h"
#include "models/causal_lm.h"
#include "text/tokenizer.h"

namespace ferry::cli {

struct OpenOptions {
  std::string directory;
  std::string adapter;  // a LoRA adapter's folder; empty: none
  std::string device = "cpu";
  std::string dtype;     // "f32", "bf16"; empty: bf16
  std::string quantize;  // "int8", "int4", "none": numbers; empty: weights as they are stored
  bool tokenizer = true;
};

struct OpenedModel {
  std::unique_ptr<models::CausalLm> model;
  ModelTexts texts;                            // read if the tokenizer was asked for
  std::shared_ptr<text::Tokenizer> tokenizer;  // the texts', then not nullptr
};

/// In which type to compute. Errors: kInvalidInput.
Result<DType> compute_of(const OpenOptions& options);

/// What the model is read from, its adapter's factors added. Errors: of open_adapted, compute_of.
Result<std::unique_ptr<ModelSource>> open_source(const OpenOptions& options);

/// Errors: kNotFound, kCorrupt, kInvalidInput, kUnavailable (the device).
Result<OpenedModel> open_model(const OpenOptions& options);

}  // namespace ferry::cli
