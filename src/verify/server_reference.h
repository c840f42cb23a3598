// The CPU's model beside a server: what it thinks of given tokens, and what it would think of them if
// it were computed otherwise, so that whatever explains a server's numbers best can be told by name.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/model_source.h"
#include "checkpoint/model_texts.h"
#include "models/causal_lm.h"
#include "tensor/weight.h"

namespace ferry::verify {

/// Tokens of one text, and of which of its rows what is wanted.
struct Question {
  struct Row {
    int64_t at = 0;            // the token after which
    std::vector<int32_t> ids;  // these are thought about
  };
  std::vector<int32_t> tokens;
  std::vector<Row> rows;
};

/// What servers make of a temperature of 1 by default, where a model's generation_config.json says so.
constexpr double kCoolTemperature = 0.7;

/// What a model thinks comes after a row.
struct Thought {
  std::vector<double> log_probs;  // of the ids that were asked for
  int32_t best = 0;               // the most probable token
  double best_log_prob = 0;
  double mean_log_prob = 0, variance = 0;  // of a token that is drawn from it
  double cool_log_prob = 0;  // the mean where it is drawn at kCoolTemperature: still at 1
};

/// How the model is computed otherwise than its files say.
struct Variant {
  std::string config_json;                // empty: its own
  std::optional<WeightCodes> codes = {};  // weights as such codes
  DType compute = DType::kF32;
  bool operator==(const Variant&) const = default;
};

/// One thread.
class Reference {
 public:
  /// The directory's model in f32, with its tokenizer. Errors: of open_model_source, model_of,
  /// read_model_texts, require_tokenizer.
  static Result<Reference> open(const std::string& directory);

  /// What the variant thinks: for each question, for each of its rows. The model itself and its bf16
  /// form stay in memory; another variant is loaded and let go. Errors: of loading.
  Result<std::vector<std::vector<Thought>>> ask(const Variant& variant,
                                                std::span<const Question> questions);

  const std::string& directory() const { return source_->path(); }
  const ModelSource& source() const { return *source_; }
  const ModelTexts& texts() const { return texts_; }
  const text::Tokenizer& tokenizer() const { return *texts_.tokenizer; }
  const models::CausalLm& model() const { return *model_; }
  const std::vector<std::string>& notes() const { return notes_; }

  /// The same model with its positions turned otherwise, in words: scaling that config.json asks for
  /// left out, or scaling and bases that it does not ask for.
  std::vector<std::pair<std::string, Variant>> other_rope() const;

 private:
  Reference() = default;
  std::unique_ptr<ModelSource> source_;
  ModelTexts texts_;
  std::unique_ptr<models::CausalLm> model_, rounded_;
  std::vector<std::string> notes_;
};

/// The ids of a text as the server is asked to read it: the begin token if the model wants one, and
/// no text of a special token taken for one.
std::vector<int32_t> prompt_ids(const Reference& reference, const std::string& text);

}  // namespace ferry::verify
