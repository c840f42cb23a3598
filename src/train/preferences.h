// Learning from pairs of answers (DPO): the pairs in the order in which they are learnt, what the reference gave
// them, the gradients of a step, and how many of those held out are preferred rightly.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "train/config.h"
#include "train/dpo_loss.h"
#include "train/lesson_batches.h"
#include "train/preference_pairs.h"

namespace ferry {

struct PreferenceStep {
  StepGradients of;  // its loss is that of the pairs
  PreferenceFigures figures;
  /// Log-probabilities of tokens, and how many of them the pass that gives the gradient computed with other bits
  /// than the one that said what they weigh.
  int64_t compared = 0, mismatches = 0;
};

/// Owner: the loop. One thread.
class Preferences {
 public:
  Preferences(const DpoSettings& dpo,
              const TrainSettings& train,
              std::vector<PreferencePair> pairs,
              std::vector<PreferencePair> held_out);
  /// The settings' files; say() is told what was left out. go_on() is asked all the time. Errors: of
  /// read_preference_pairs.
  static Result<Preferences> read(const Settings& settings,
                                  const ModelTexts& texts,
                                  const std::string& directory,
                                  const std::function<void(const std::string&)>& say,
                                  const std::function<bool()>& go_on);

  const std::vector<PreferencePair>& pairs() const { return pairs_; }
  const std::vector<PreferencePair>& held_out() const { return held_out_; }
  /// Of every token that is read or learnt, and which it is.
  std::string fingerprint() const;
  /// Of all pairs, those held out too.
  int64_t tokens() const;
  /// Of a step on the average, rounded up.
  int64_t tokens_per_step() const { return tokens_per_step_; }

  /// Adds to `log_probs`, of the first answers, those of the others under the model as it is, chosen before rejected,
  /// pairs before those held out: the run's reference, if that is what it begins with. go_on(pairs done) is asked
  /// before each pass; false: it ended this. The bits do not depend on where it was begun.
  bool add_reference(models::CausalLm& model,
                     std::vector<float>& log_probs,
                     const std::function<bool(int64_t)>& go_on) const;
  /// f32 [answers], from now on. Check: there are as many.
  void set_reference(const Tensor& log_probs);
  int64_t answers() const { return 2 * (std::ssize(pairs_) + std::ssize(held_out_)); }

  /// Gradients of the step whose first pair has this place in the order of pairs; each epoch has an order of its
  /// own. alive() is called after each pass of the model.
  PreferenceStep gradients(models::TrainableLm& model,
                           TrainStep& step,
                           int64_t position,
                           const std::function<void()>& alive) const;

  /// Of the first pairs held out, of so many tokens together, at least of one; go_on as above. Nothing if none
  /// are held out.
  std::optional<DpoLoss> evaluate(models::CausalLm& model,
                                  int64_t tokens_max,
                                  const std::function<bool(int64_t)>& go_on) const;

 private:
  struct Part;
  const PreferencePair& pair(size_t number) const {
    return number < pairs_.size() ? pairs_[number] : held_out_[number - pairs_.size()];
  }
  Part part(std::vector<size_t> numbers) const;
  LessonScores score(models::CausalLm& model,
                     const Part& part,
                     const std::function<void()>& alive) const;
  std::optional<std::vector<AnswerLogProb>> scored(models::CausalLm& model,
                                                   size_t begin,
                                                   size_t end,
                                                   const std::function<bool(int64_t)>& go_on) const;
  DpoLoss loss_of(std::span<const size_t> numbers, std::vector<AnswerLogProb> answers) const;

  DpoLossSettings loss_;
  int64_t pairs_per_step_, micro_batch_tokens_, tokens_per_step_ = 0;
  uint64_t seed_;
  models::MlaForm mla_form_;
  std::vector<PreferencePair> pairs_, held_out_;  // numbered one after the other
  std::vector<float> reference_;                  // of each one's chosen and rejected answer
};

}  // namespace ferry
