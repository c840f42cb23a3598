// What ranks tell each other when one of them has a successor: where each stands, which model it is, and what the
// loop carries from step to step beside weights and the optimizer's state.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "checkpoint/model_texts.h"
#include "comm/communicator.h"
#include "train/held_out.h"
#include "train/recovery_plan.h"
#include "train/run_state.h"

namespace ferry {

/// One rank's word.
struct RankWord {
  Standing standing;
  int64_t saved_step = -1;    // of rank 0: the last checkpoint that is whole
  bool saved_figure = false;  // and that it has its evaluation
  /// After step standing.done; not finite where that was found, or where it is not known any more.
  std::optional<HeldOutLoss> held_out;
  int64_t rewinds = 0, rewound_to = 0;  // Rewinds::count and to
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

// All of these are called by every rank, and throw comm::LinkError. Errors: of what reads the words.

/// Everybody's word, by rank.
Result<std::vector<RankWord>> exchange_words(comm::Communicator& ranks,
                                             const RankWord& mine,
                                             double patience_s);
/// What the plan's teller says, for who has nothing yet; nothing for the others. Only the teller is asked for it.
Result<std::optional<ModelWord>> hand_model(comm::Communicator& ranks,
                                            const RecoveryPlan& plan,
                                            const std::function<ModelWord()>& mine,
                                            double patience_s);
Result<std::optional<Carried>> hand_carried(comm::Communicator& ranks,
                                            const RecoveryPlan& plan,
                                            const std::function<Carried()>& mine,
                                            double patience_s);

}  // namespace ferry
