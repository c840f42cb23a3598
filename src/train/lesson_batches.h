// Lessons, whole, as micro-batches whose labels are weighted: packed, scored by a pass without gradient, and
// weighed. What rewards and preferences are learnt by.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "text/lesson.h"
#include "train/train_step.h"

namespace ferry {

/// A micro-batch: whole lessons, one after the other. Labels are what is learnt of them.
struct LessonBatch {
  struct Place {
    size_t lesson;            // its number
    size_t row = 0, end = 0;  // of the batch
  };
  WeightedBatch weighted;
  std::vector<Place> places;

  /// Of each lesson that is here, the log-probabilities of what is learnt, from the losses of each row.
  void take_log_probs(std::span<const float> token_losses,
                      std::vector<std::vector<float>>& of_lessons) const;
  /// Sets the weights; weight(lesson, n) is that of its n-th token that is learnt.
  void weigh(const std::function<double(size_t lesson, size_t n)>& weight);
};

/// In their order, in micro-batches of at most so many tokens, or of one lesson that is longer. A lesson of which
/// nothing is learnt is left out. Check: the first token of none is learnt, since nothing predicts it.
std::vector<LessonBatch> pack_lessons(std::span<const text::Lesson* const> lessons,
                                      int64_t micro_batch_tokens);

struct LessonScores {
  std::vector<std::vector<float>> log_probs;  // of what is learnt of each lesson
  std::vector<std::vector<Tensor>>
      experts;  // of each micro-batch, in layer order, if they are kept
};

struct ScoreManner {
  models::MlaForm mla_form = models::MlaForm::kAbsorbed;
  bool given_experts = false;   // the batches' own; else routers choose
  bool keep_experts = false;    // those that were chosen
  std::function<void()> alive;  // called after each pass
};

/// `lessons`: how many they were. A log-probability has the bits that TrainStep's has in this form.
LessonScores score_lessons(models::CausalLm& by,
                           std::span<const LessonBatch> batches,
                           size_t lessons,
                           const ScoreManner& manner);

}  // namespace ferry
