#include "train/train_step.h"

#include <algorithm>
#include <cmath>

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/add/add.h"
#include "ops/balance_loss/balance_loss.h"
#include "train/model_setup.h"

namespace ferry {
namespace {

models::TokenBatch to_device(const data::Batch& batch, Device& device) {
  const Shape shape = {static_cast<int64_t>(batch.tokens.size())};
  models::TokenBatch b;
  b.tokens = Tensor::from_i32(batch.tokens, shape, device);
  b.labels = Tensor::from_i32(batch.labels, shape, device);
  if (!batch.mtp_labels.empty()) {
    b.mtp_tokens = Tensor::from_i32(batch.next, shape, device);
    b.mtp_labels = Tensor::from_i32(batch.mtp_labels, shape, device);
  }
  b.segments = ops::Segments::packed(batch.segment_lengths, device);
  return b;
}

int64_t counted(const std::vector<int32_t>& labels) {
  return std::count_if(labels.begin(), labels.end(), [](int32_t l) { return l >= 0; });
}

}  // namespace

StepSettings step_settings(const TrainSettings& t) {
  return {.mla_form = mla_form_of(t),
          .recompute = recompute_of(t),
          .mtp_weight = t.mtp_weight,
          .mtp_every = t.mtp_every,
          .balance_alpha = t.balance_alpha,
          .bias_update_speed = t.bias_update_speed,
          .clip = t.clip};
}

TrainStep::TrainStep(models::TrainableLm& model, Optimizer& optimizer, const StepSettings& settings)
    : model_(model), optimizer_(optimizer), settings_(settings) {
  for (Weight* w : optimizer_.weights()) w->value.set_needs_grad(true);
}

void TrainStep::begin() {
  gradients_.clear();
  tree_.clear();
  expert_counts_.clear();
}

models::LossOptions TrainStep::loss_options(double share) const {
  return {.mla_form = settings_.mla_form,
          .recompute = settings_.recompute,
          .balance_alpha = settings_.balance_alpha * share};
}

StepGradients TrainStep::gradients(int64_t step,
                                   std::span<const data::Batch> micro_batches,
                                   const std::function<void(int64_t)>& done) {
  begin();
  StepGradients sum;
  const bool mtp = model_.has_mtp() && settings_.mtp_weight > 0 && step % settings_.mtp_every == 0;
  if (mtp) sum.mtp_loss = 0;
  int64_t mtp_labels = 0;
  for (const data::Batch& batch : micro_batches) {
    sum.tokens += static_cast<int64_t>(batch.tokens.size());
    sum.label_bytes += batch.label_bytes;
    sum.labels += counted(batch.labels);
    mtp_labels += counted(batch.mtp_labels);
  }
  std::vector<LossTerms> terms;
  for (const data::Batch& batch : micro_batches) {
    models::LossOptions options =
        loss_options(static_cast<double>(batch.tokens.size()) / static_cast<double>(sum.tokens));
    options.scale = static_cast<float>(1 / static_cast<double>(std::max<int64_t>(1, sum.labels)));
    if (mtp)
      options.mtp_scale = static_cast<float>(settings_.mtp_weight /
                                             static_cast<double>(std::max<int64_t>(1, mtp_labels)));
    terms.push_back(micro_batch(to_device(batch, model_.device()), std::ssize(terms), options));
    if (done) done(std::ssize(terms));
  }
  finish(terms, sum);
  return sum;
}

WeightedGradients TrainStep::gradients(std::span<const WeightedBatch> micro_batches,
                                       const std::function<void(int64_t)>& done) {
  begin();
  WeightedGradients out;
  for (const WeightedBatch& b : micro_batches)
    out.of.tokens += static_cast<int64_t>(b.batch.tokens.size());
  std::vector<LossTerms> terms;
  for (const WeightedBatch& b : micro_batches) {
    models::LossOptions options = loss_options(static_cast<double>(b.batch.tokens.size()) /
                                               static_cast<double>(out.of.tokens));
    options.given_experts = b.given_experts;
    models::TokenBatch tokens = to_device(b.batch, model_.device());
    tokens.weights = Tensor::from_f32(b.weights, tokens.labels.shape(), model_.device());
    terms.push_back(micro_batch(tokens, std::ssize(terms), options));
    if (done) done(std::ssize(terms));
  }
  finish(terms, out.of);
  for (const LossTerms& t : terms) out.token_losses.push_back(t.token_losses.to_f32());
  return out;
}

void TrainStep::finish(const std::vector<LossTerms>& terms, StepGradients& sum) {
  for (const Weight* w : optimizer_.weights())
    gradients_.push_back(tree_.take(w->value, std::ssize(terms)));
  std::vector<Tensor> numbers;
  for (const LossTerms& t : terms)
    numbers.insert(numbers.end(), t.tensors.begin(), t.tensors.end());
  const Tensor squares = gradient_squares(gradients_);
  if (squares.defined()) numbers.push_back(squares);
  const std::vector<std::vector<double>> values = read_together(numbers);
  size_t at = 0;
  for (const LossTerms& t : terms) {
    const size_t end = at + t.tensors.size();
    sum.loss += values[at++][0];
    for (; at < end - (t.mtp ? 1 : 0); ++at) sum.balance_loss += values[at][0];
    if (t.mtp) *sum.mtp_loss += values[at++][0] / settings_.mtp_weight;
  }
  const GradientNorm norm =
      gradient_norm(squares.defined() ? values.back() : std::vector<double>{}, 1);
  sum.norm = norm_ = norm.norm;
  sum.finite = norm.finite && std::isfinite(sum.loss) && std::isfinite(sum.mtp_loss.value_or(0)) &&
               std::isfinite(sum.balance_loss);
}

TrainStep::LossTerms TrainStep::micro_batch(const models::TokenBatch& tokens,
                                            int64_t index,
                                            const models::LossOptions& options) {
  Tape tape(&ops::accumulate);
  models::Losses losses;
  {
    const Tape::Recording recording(&tape);
    losses = model_.losses(tokens, options);
  }
  const std::vector<float> one = {1.0f};
  const Tensor unit = Tensor::from_f32(one, {1}, model_.device());
  std::vector<std::pair<Tensor, Tensor>> seeds = {{losses.main, unit}};
  if (losses.mtp.defined()) seeds.emplace_back(losses.mtp, unit);
  for (const Tensor& b : losses.balance) seeds.emplace_back(b, unit);
  for (size_t l = 0; l < losses.trace.experts.size(); ++l) {
    const int experts = static_cast<int>(model_.experts());
    if (l == expert_counts_.size())
      expert_counts_.push_back(Tensor::zeros({experts}, DType::kI32, model_.device()));
    ops::add_expert_counts(losses.trace.experts[l], expert_counts_[l]);
  }
  LossTerms terms{
      .tensors = {losses.main}, .mtp = losses.mtp.defined(), .token_losses = losses.token_losses};
  terms.tensors.insert(terms.tensors.end(), losses.balance.begin(), losses.balance.end());
  if (terms.mtp) terms.tensors.push_back(losses.mtp);
  losses = {};
  tape.backward(std::move(seeds), {.leaf_ready = [&](const Tensor& leaf, Tensor gradient) {
                  tree_.add(index, leaf, std::move(gradient));
                }});
  return terms;
}

void TrainStep::update(double lr) {
  optimizer_.step(gradients_, lr, clip_scale(norm_, settings_.clip));
  gradients_.clear();
  const std::vector<Weight*> biases = model_.selection_biases();
  for (size_t l = 0; l < biases.size() && l < expert_counts_.size(); ++l)
    ops::bias_update(
        *biases[l], expert_counts_[l], static_cast<float>(settings_.bias_update_speed));
}

}  // namespace ferry
