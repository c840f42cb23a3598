#include "train/train_step.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "autograd/tape.h"
#include "base/check.h"
#include "base/flight_record.h"
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

TrainStep::TrainStep(models::TrainableLm& model,
                     Optimizer& optimizer,
                     const StepSettings& settings,
                     SharedStep* shared,
                     TrainedAdapter* adapter)
    : model_(model),
      optimizer_(optimizer),
      settings_(settings),
      shared_(shared),
      adapter_(adapter) {
  if (adapter_ != nullptr) return;  // it has told the weights that it adapts
  for (Weight* w : optimizer_.weights()) w->value.set_needs_grad(true);
}

void TrainStep::begin(int64_t micro_batches) {
  gradients_.clear();
  expert_counts_.clear();
  trees_.clear();
  prepared_ = {};
  micro_batches_ = micro_batches;
  share_ = {0, micro_batches};
  nodes_ = {share_};
  if (shared_ != nullptr) {
    const comm::ReducePlan& plan = shared_->plan(micro_batches);
    share_ = plan.share(shared_->ranks().rank());
    nodes_ = plan.nodes(shared_->ranks().rank());
  }
  trees_.resize(nodes_.size());
}

models::LossOptions TrainStep::loss_options(double share) const {
  return {.mla_form = settings_.mla_form,
          .recompute = settings_.recompute,
          .balance_alpha = settings_.balance_alpha * share};
}

StepGradients TrainStep::gradients(int64_t step,
                                   std::span<const data::Batch> micro_batches,
                                   const std::function<void(int64_t)>& done) {
  prepare(step, micro_batches, done);
  return commit();
}

void TrainStep::prepare(int64_t step,
                        std::span<const data::Batch> micro_batches,
                        const std::function<void(int64_t)>& done) {
  begin(std::ssize(micro_batches));
  StepGradients& sum = prepared_.sum;
  const bool mtp = model_.has_mtp() && settings_.mtp_weight > 0 && step % settings_.mtp_every == 0;
  if (mtp) sum.mtp_loss = 0;
  int64_t mtp_labels = 0;
  for (const data::Batch& batch : micro_batches) {
    sum.tokens += static_cast<int64_t>(batch.tokens.size());
    sum.label_bytes += batch.label_bytes;
    sum.labels += counted(batch.labels);
    mtp_labels += counted(batch.mtp_labels);
  }
  const bool again =
      computed_ && computed_->step == step && computed_->micro_batches == micro_batches_;
  if (again) {
    if (done) done(share_.size());
  } else {
    computed_.reset();
    compute(step, micro_batches, mtp, mtp_labels, done);
  }
  if (shared_ != nullptr) share(step);
}

void TrainStep::compute(int64_t step,
                        std::span<const data::Batch> micro_batches,
                        bool mtp,
                        int64_t mtp_labels,
                        const std::function<void(int64_t)>& done) {
  const StepGradients& sum = prepared_.sum;
  std::vector<LossTerms>& terms = prepared_.terms;
  for (int64_t m = share_.begin; m < share_.end; ++m) {
    const data::Batch& batch = micro_batches[static_cast<size_t>(m)];
    models::LossOptions options =
        loss_options(static_cast<double>(batch.tokens.size()) / static_cast<double>(sum.tokens));
    options.scale = static_cast<float>(1 / static_cast<double>(std::max<int64_t>(1, sum.labels)));
    if (mtp)
      options.mtp_scale = static_cast<float>(settings_.mtp_weight /
                                             static_cast<double>(std::max<int64_t>(1, mtp_labels)));
    terms.push_back(micro_batch(to_device(batch, model_.device()), m, options));
    if (done) done(std::ssize(terms));
  }
  prepared_.mtp_last = !terms.empty() && terms.front().mtp;
  if (shared_ != nullptr) keep_computed(step);
}

StepGradients TrainStep::commit() {
  return shared_ != nullptr ? finish(shared_->commit()) : commit_alone();
}

StepGradients TrainStep::commit(std::span<const double> squares) { return finish(squares); }

WeightedGradients TrainStep::gradients(std::span<const WeightedBatch> micro_batches,
                                       const std::function<void(int64_t)>& done) {
  check(shared_ == nullptr, "train step: weighted labels are learnt from by one process alone");
  begin(std::ssize(micro_batches));
  int64_t& of_step = prepared_.sum.tokens;
  for (const WeightedBatch& b : micro_batches)
    of_step += static_cast<int64_t>(b.batch.tokens.size());
  std::vector<Tensor> token_losses;
  for (const WeightedBatch& b : micro_batches) {
    models::LossOptions options =
        loss_options(static_cast<double>(b.batch.tokens.size()) / static_cast<double>(of_step));
    options.given_experts = b.given_experts;
    models::TokenBatch tokens = to_device(b.batch, model_.device());
    tokens.weights = Tensor::from_f32(b.weights, tokens.labels.shape(), model_.device());
    prepared_.terms.push_back(micro_batch(tokens, std::ssize(prepared_.terms), options));
    token_losses.push_back(prepared_.terms.back().token_losses);
    if (done) done(std::ssize(prepared_.terms));
  }
  WeightedGradients out{.of = commit()};
  for (const Tensor& t : token_losses) out.token_losses.push_back(t.to_f32());
  return out;
}

StepGradients TrainStep::commit_alone() {
  for (const Weight* w : optimizer_.weights())
    gradients_.push_back(trees_.front().take(w->value, micro_batches_));
  std::vector<Tensor> tensors;
  for (const LossTerms& t : prepared_.terms)
    tensors.insert(tensors.end(), t.tensors.begin(), t.tensors.end());
  const Tensor squares = gradient_squares(gradients_);
  if (squares.defined()) tensors.push_back(squares);
  const std::vector<std::vector<double>> values = read_together(tensors);
  size_t at = 0;
  for (const LossTerms& t : prepared_.terms) {
    std::vector<double>& of_micro_batch = prepared_.losses.emplace_back();
    for (size_t i = 0; i < t.tensors.size(); ++i) of_micro_batch.push_back(values[at++][0]);
  }
  return finish(squares.defined() ? values.back() : std::vector<double>());
}

void TrainStep::keep_computed(int64_t step) {
  computed_ = Computed{};
  Computed& kept = *computed_;
  SharedStep::Share& share = kept.share;
  for (size_t n = 0; n < nodes_.size(); ++n) {
    std::vector<Tensor>& sums = share.sums.emplace_back();
    for (const Weight* w : optimizer_.weights())
      sums.push_back(trees_[n].take(w->value, nodes_[n].size()));
  }
  for (const LossTerms& t : prepared_.terms) {
    std::vector<double>& of_micro_batch = share.losses.emplace_back();
    for (const std::vector<double>& value : read_together(t.tensors))
      of_micro_batch.push_back(value[0]);
  }
  prepared_.terms.clear();
  for (const Tensor& counts : expert_counts_) share.expert_counts.push_back(counts.to_i32());
  kept.step = step;
  kept.micro_batches = micro_batches_;
  kept.expert_counts = expert_counts_;
  kept.mtp_last = prepared_.mtp_last;
}

/// Of a step of which others compute the rest: what comes back is what one process would have read.
void TrainStep::share(int64_t step) {
  expert_counts_ = computed_->expert_counts;
  prepared_.mtp_last = computed_->mtp_last;
  // Sums are folded in memory of their own while something else holds them.
  SharedStep::Whole whole = shared_->reduce(step, micro_batches_, computed_->share);
  gradients_ = std::move(whole.gradients);
  for (size_t l = 0; l < expert_counts_.size(); ++l)
    expert_counts_[l] =
        Tensor::from_i32(whole.expert_counts[l], expert_counts_[l].shape(), model_.device());
  prepared_.losses = std::move(whole.losses);
}

/// The same numbers in the same order give the same sums, whoever computed them.
StepGradients TrainStep::finish(std::span<const double> squares) {
  computed_.reset();
  StepGradients& sum = prepared_.sum;
  for (const std::vector<double>& losses : prepared_.losses) {
    size_t at = 0;
    const size_t end = losses.size() - (prepared_.mtp_last ? 1 : 0);
    sum.loss += losses[at++];
    for (; at < end; ++at) sum.balance_loss += losses[at];
    if (prepared_.mtp_last) *sum.mtp_loss += losses[at] / settings_.mtp_weight;
  }
  const GradientNorm norm = gradient_norm(squares, 1);
  sum.norm = norm_ = norm.norm;
  sum.finite = norm.finite && std::isfinite(sum.loss) && std::isfinite(sum.mtp_loss.value_or(0)) &&
               std::isfinite(sum.balance_loss);
  return std::exchange(prepared_, {}).sum;
}

TrainStep::LossTerms TrainStep::micro_batch(const models::TokenBatch& tokens,
                                            int64_t index,
                                            const models::LossOptions& options) {
  flight::set_pass(flight::Pass::kForward);
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
  size_t node = 0;
  while (index >= nodes_[node].end) ++node;
  const auto add = [&](const Tensor& leaf, Tensor gradient) {
    trees_[node].add(index - nodes_[node].begin, leaf, std::move(gradient));
  };
  tape.backward(std::move(seeds), {.leaf_ready = [&](const Tensor& leaf, Tensor gradient) {
                  if (adapter_ != nullptr)
                    adapter_->take(leaf, gradient, add);
                  else
                    add(leaf, std::move(gradient));
                }});
  flight::set_pass(flight::Pass::kNone);
  return terms;
}

void TrainStep::update(double lr) {
  apply(lr);
  spread();
  settle();
}

void TrainStep::apply(double lr) {
  flight::set_pass(flight::Pass::kUpdate);
  optimizer_.step(gradients_, lr, clip_scale(norm_, settings_.clip));
  gradients_.clear();
  flight::set_pass(flight::Pass::kNone);
}

void TrainStep::spread() {
  if (shared_ != nullptr) shared_->spread();
}

void TrainStep::settle() {
  if (adapter_ != nullptr) {
    adapter_->merge();
    return;
  }
  const std::vector<Weight*> biases = model_.selection_biases();
  for (size_t l = 0; l < biases.size() && l < expert_counts_.size(); ++l)
    ops::bias_update(
        *biases[l], expert_counts_[l], static_cast<float>(settings_.bias_update_speed));
}

}  // namespace ferry
