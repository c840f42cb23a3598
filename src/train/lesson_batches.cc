#include "train/lesson_batches.h"

#include "base/check.h"

namespace ferry {

void LessonBatch::take_log_probs(std::span<const float> token_losses,
                                 std::vector<std::vector<float>>& of_lessons) const {
  const std::vector<int32_t>& labels = weighted.batch.labels;
  for (const Place& p : places)
    for (size_t row = p.row; row < p.end; ++row)
      if (labels[row] >= 0) of_lessons[p.lesson].push_back(-token_losses[row]);
}

void LessonBatch::weigh(const std::function<double(size_t lesson, size_t n)>& weight) {
  const std::vector<int32_t>& labels = weighted.batch.labels;
  weighted.weights.assign(labels.size(), 0);
  for (const Place& p : places) {
    size_t n = 0;
    for (size_t row = p.row; row < p.end; ++row)
      if (labels[row] >= 0) weighted.weights[row] = static_cast<float>(weight(p.lesson, n++));
  }
}

std::vector<LessonBatch> pack_lessons(std::span<const text::Lesson* const> lessons,
                                      int64_t micro_batch_tokens) {
  std::vector<LessonBatch> packed;
  for (size_t l = 0; l < lessons.size(); ++l) {
    const auto& [ids, learnt] = *lessons[l];
    bool any = false;
    for (const bool is : learnt) any = any || is;
    if (!any) continue;
    check(!learnt.front(), "lesson {}: its first token is learnt, which nothing predicts", l);
    const size_t length = ids.size() - 1;
    if (packed.empty() ||
        std::ssize(packed.back().weighted.batch.tokens) + static_cast<int64_t>(length) >
            micro_batch_tokens)
      packed.emplace_back();
    data::Batch& b = packed.back().weighted.batch;
    packed.back().places.push_back({l, b.tokens.size(), b.tokens.size() + length});
    b.tokens.insert(b.tokens.end(), ids.begin(), ids.end() - 1);
    for (size_t t = 1; t < ids.size(); ++t) b.labels.push_back(learnt[t] ? ids[t] : -1);
    b.segment_lengths.push_back(static_cast<int32_t>(length));
  }
  return packed;
}

LessonScores score_lessons(models::CausalLm& by,
                           std::span<const LessonBatch> batches,
                           size_t lessons,
                           const ScoreManner& manner) {
  LessonScores scores{.log_probs = std::vector<std::vector<float>>(lessons), .experts = {}};
  Device& device = by.device();
  for (const LessonBatch& l : batches) {
    const data::Batch& b = l.weighted.batch;
    const Shape shape = {std::ssize(b.tokens)};
    models::ForwardTrace trace;
    models::ForwardOptions options{.mla_form = manner.mla_form};
    if (manner.given_experts) options.given_experts = l.weighted.given_experts;
    const Tensor hidden = by.forward(Tensor::from_i32(b.tokens, shape, device),
                                     ops::Segments::packed(b.segment_lengths, device),
                                     options,
                                     manner.keep_experts ? &trace : nullptr);
    l.take_log_probs(by.token_losses(hidden, Tensor::from_i32(b.labels, shape, device)).to_f32(),
                     scores.log_probs);
    if (manner.keep_experts) scores.experts.push_back(std::move(trace.experts));
    if (manner.alive) manner.alive();
  }
  return scores;
}

}  // namespace ferry
