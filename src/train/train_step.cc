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
  b.mtp_tokens = b.labels;  // the token after each input: every label exists
  b.mtp_labels = Tensor::from_i32(batch.mtp_labels, shape, device);
  b.segments = ops::Segments::packed(batch.segment_lengths, device);
  return b;
}

int64_t counted(const std::vector<int32_t>& labels) {
  return std::count_if(labels.begin(), labels.end(), [](int32_t l) { return l >= 0; });
}

double value_of(const Tensor& scalar) { return static_cast<double>(scalar.to_f32().at(0)); }

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

TrainStep::TrainStep(models::CausalLm& model, Optimizer& optimizer, const StepSettings& settings)
    : model_(model), optimizer_(optimizer), settings_(settings) {
  for (Weight* w : optimizer_.weights()) w->value.set_needs_grad(true);
}

StepGradients TrainStep::gradients(int64_t step,
                                   std::span<const data::Batch> micro_batches,
                                   const std::function<void(int64_t)>& done) {
  gradients_.clear();
  tree_.clear();
  expert_counts_.clear();
  StepGradients sum;
  const bool mtp = model_.has_mtp() && settings_.mtp_weight > 0 && step % settings_.mtp_every == 0;
  if (mtp) sum.mtp_loss = 0;
  int64_t labels = 0, mtp_labels = 0;
  for (const data::Batch& batch : micro_batches) {
    sum.tokens += static_cast<int64_t>(batch.tokens.size());
    sum.label_bytes += batch.label_bytes;
    labels += counted(batch.labels);
    mtp_labels += counted(batch.mtp_labels);
  }
  int64_t index = 0;
  for (const data::Batch& batch : micro_batches) {
    micro_batch(batch,
                index++,
                static_cast<double>(std::max<int64_t>(1, labels)),
                mtp ? settings_.mtp_weight : 0,
                static_cast<double>(std::max<int64_t>(1, mtp_labels)),
                sum.tokens,
                sum);
    if (done) done(index);
  }
  for (const Weight* w : optimizer_.weights()) gradients_.push_back(tree_.take(w->value, index));
  const GradientNorm norm = gradient_norm(gradients_, 1);
  sum.norm = norm_ = norm.norm;
  sum.finite = norm.finite && std::isfinite(sum.loss) && std::isfinite(sum.mtp_loss.value_or(0)) &&
               std::isfinite(sum.balance_loss);
  return sum;
}

void TrainStep::micro_batch(const data::Batch& batch,
                            int64_t index,
                            double labels,
                            double mtp_weight,
                            double mtp_labels,
                            int64_t step_tokens,
                            StepGradients& sum) {
  const models::TokenBatch tokens = to_device(batch, model_.device());
  models::ForwardOptions forward;
  forward.mla_form = settings_.mla_form;
  forward.recompute = settings_.recompute;
  forward.balance_alpha = settings_.balance_alpha * static_cast<double>(batch.tokens.size()) /
                          static_cast<double>(step_tokens);
  Tape tape(&ops::accumulate);
  models::Losses losses;
  {
    const Tape::Recording recording(&tape);
    losses = model_.losses(tokens,
                           forward,
                           {.scale = static_cast<float>(1 / labels),
                            .mtp_scale = static_cast<float>(mtp_weight / mtp_labels)});
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
  sum.loss += value_of(losses.main);
  if (losses.mtp.defined()) *sum.mtp_loss += value_of(losses.mtp) / mtp_weight;
  for (const Tensor& b : losses.balance) sum.balance_loss += value_of(b);
  losses = {};
  tape.backward(std::move(seeds), {.leaf_ready = [&](const Tensor& leaf, Tensor gradient) {
                  tree_.add(index, leaf, std::move(gradient));
                }});
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
