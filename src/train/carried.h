// What ranks tell each other when one of them has a successor: where each stands, which model it is, and what the
// loop carries from step to step beside weights and the optimizer's state.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "checkpoint/model_texts.h"
#include "train/held_out.h"
#include "train/recovery_plan.h"
#include "train/run_state.h"

namespace ferry {

/// One rank's word.
struct RankWord {
  Standing standing;
  int64_t saved_step = -1;  // of rank 0: the last checkpoint that is whole
  /// After step standing.done; not finite where that was found, or where it is not known any more.
  std::optional<HeldOutLoss> held_out;
};
std::string to_text(const RankWord& word);
/// Errors: kCorrupt, naming the rank.
Result<RankWord> rank_word_of(const std::string& text, int rank);

/// What a successor makes its model by; of an adapter, of its base.
struct ModelWord {
  std::string config_json;
  std::optional<ModelTexts>
      texts;  // without what nobody writes a checkpoint from: tokenizer, notes
};
std::string to_text(const ModelWord& word);
/// Errors: kCorrupt.
Result<ModelWord> model_word_of(const std::string& text);

/// What a step's speed is measured against: rank 0 found it out at the beginning.
struct Figures {
  double flops_step = 0, flops_mtp_step = 0, peak_flops_per_s = 0;
};

struct Carried {
  std::string state;  // its document (train/run_state.h)
  std::optional<double> last_loss;
  int64_t refusals_of = 0, refusals_in_a_row = 0;
  Figures figures;
  std::string last_record;  // of metrics.jsonl; empty: of the step under way there is none yet
};
std::string to_text(const Carried& carried);
/// Errors: kCorrupt.
Result<Carried> carried_of(const std::string& text);

}  // namespace ferry
