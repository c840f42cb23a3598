#include "train/train_step.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "autograd/tape.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/flight_record.h"
#include "ops/add/add.h"
#include "ops/balance_loss/balance_loss.h"
#include "train/flip_point_in.h"
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
                     TrainedAdapter* adapter,
                     CorruptionGuard* guard)
    : model_(model),
      optimizer_(optimizer),
      settings_(settings),
      shared_(shared),
      adapter_(adapter),
      guard_(guard) {
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
  trees_.resize(nodes_.size());
  if (shared_ != nullptr) begin_share(shared_->ranks().rank());
}

/// What that rank computes of the step is computed from here on.
void TrainStep::begin_share(int rank) {
  const comm::ReducePlan& plan = shared_->plan(micro_batches_);
  share_ = plan.share(rank);
  nodes_ = plan.nodes(rank);
  trees_.clear();
  trees_.resize(nodes_.size());
  expert_counts_.clear();
  prepared_.terms.clear();
}

models::LossOptions TrainStep::loss_options(double share) const {
  return {.mla_form = settings_.mla_form,
          .recompute = settings_.recompute,
          .balance_alpha = settings_.balance_alpha * share};
}

StepGradients TrainStep::gradients(int64_t step,
                                   std::span<const data::Batch> micro_batches,
                                   const std::function<void(int64_t)>& done) {
  for (;;) {
    prepare(step, micro_batches, done);
    if (std::optional<StepGradients> g = commit()) return *std::move(g);
  }
}

void TrainStep::prepare(int64_t step,
                        std::span<const data::Batch> micro_batches,
                        const std::function<void(int64_t)>& done,
                        const StepRouting& routing) {
  begin(std::ssize(micro_batches));
  flip_held("flip.weights", "flip.state");
  StepGradients& sum = prepared_.sum;
  Asked asked{.step = step, .micro_batches = micro_batches};
  asked.mtp = runs_mtp(step);
  if (!routing.empty()) asked.routing = &routing;
  if (asked.mtp) sum.mtp_loss = 0;
  for (const data::Batch& batch : micro_batches) {
    sum.tokens += static_cast<int64_t>(batch.tokens.size());
    sum.label_bytes += batch.label_bytes;
    sum.labels += counted(batch.labels);
    asked.mtp_labels += counted(batch.mtp_labels);
  }
  asked.tokens = sum.tokens;
  asked.labels = sum.labels;
  const bool again =
      computed_ && computed_->step == step && computed_->micro_batches == micro_batches_;
  if (again) {
    if (done) done(share_.size());
  } else {
    computed_.reset();
    compute(asked, done);
    if (shared_ != nullptr) computed_ = take_computed(step);
  }
  if (shared_ == nullptr) return;
  if (!again) {
    for (const std::vector<Tensor>& sums : computed_->share.sums) flip_point_in("flip.nodes", sums);
    if (guard_ != nullptr) computed_->hash = guard_->hash_of_own(computed_->share);
  }
  for (const std::vector<Tensor>& sums : computed_->share.sums) flip_point_in("flip.kept", sums);
  if (again && guard_ != nullptr) guard_->look_at_share(computed_->share, computed_->hash);
  if (guard_ != nullptr) compute_others(asked, done);
  share(step);
}

void TrainStep::compute(const Asked& asked, const std::function<void(int64_t)>& done) {
  std::vector<LossTerms>& terms = prepared_.terms;
  for (int64_t m = share_.begin; m < share_.end; ++m) {
    const data::Batch& batch = asked.micro_batches[static_cast<size_t>(m)];
    models::LossOptions options =
        loss_options(static_cast<double>(batch.tokens.size()) / static_cast<double>(asked.tokens));
    options.scale = static_cast<float>(1 / static_cast<double>(std::max<int64_t>(1, asked.labels)));
    if (asked.routing != nullptr) options.given_experts = asked.routing->at(static_cast<size_t>(m));
    if (asked.mtp)
      options.mtp_scale = static_cast<float>(
          settings_.mtp_weight / static_cast<double>(std::max<int64_t>(1, asked.mtp_labels)));
    terms.push_back(micro_batch(to_device(batch, model_.device()), m, options));
    if (done) done(std::ssize(terms));
  }
  prepared_.mtp_last = !terms.empty() && terms.front().mtp;
}

/// What other ranks compute of the step, as far as this one is to look at it.
void TrainStep::compute_others(const Asked& asked, const std::function<void(int64_t)>& done) {
  const int me = shared_->ranks().rank();
  int64_t more = shared_->plan(micro_batches_).share(me).size();
  for (const int rank : guard_->begin(asked.step)) {
    if (rank == me) {
      guard_->computed(me, computed_->hash);
      continue;
    }
    const double began_s = system_clock().monotonic_s();
    begin_share(rank);
    compute(asked, [&](int64_t n) {
      if (done) done(more + n);
    });
    more += share_.size();
    const Computed theirs = take_computed(asked.step);
    guard_->audited_for(system_clock().monotonic_s() - began_s);
    guard_->computed(rank, guard_->hash_of_own(theirs.share));
  }
}

bool TrainStep::runs_mtp(int64_t step) const {
  return model_.has_mtp() && settings_.mtp_weight > 0 && step % settings_.mtp_every == 0;
}

int64_t TrainStep::routed_layers(int64_t step) const {
  const models::RoutedLayers routed = model_.routed_layers();
  return routed.layers + (runs_mtp(step) ? routed.mtp_layers : 0);
}

StepRouting TrainStep::routing(int64_t step, std::span<const data::Batch> micro_batches) {
  flight::set_pass(flight::Pass::kForward);
  StepRouting chosen;
  for (const data::Batch& batch : micro_batches)
    chosen.push_back(model_
                         .losses(to_device(batch, model_.device()),
                                 {.mla_form = settings_.mla_form,
                                  .recompute = settings_.recompute,
                                  .mtp_scale = runs_mtp(step) ? 1.0f : 0.0f})
                         .trace.experts);
  flight::set_pass(flight::Pass::kNone);
  return chosen;
}

std::optional<StepGradients> TrainStep::commit() {
  if (shared_ == nullptr) return commit_alone();
  if (guard_ == nullptr) return finish(shared_->commit());
  const std::optional<std::vector<double>> squares =
      guard_->commit(computed_->step, gradients_, computed_->share, computed_->hash);
  if (squares) return finish(*squares);
  computed_.reset();
  return std::nullopt;
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
  WeightedGradients out{.of = commit_alone()};
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

/// The trees' sums, and the numbers, over the share that was computed.
TrainStep::Computed TrainStep::take_computed(int64_t step) {
  Computed taken;
  SharedStep::Share& share = taken.share;
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
  taken.step = step;
  taken.micro_batches = micro_batches_;
  taken.expert_counts = expert_counts_;
  taken.mtp_last = prepared_.mtp_last;
  return taken;
}

/// Of a step of which others compute the rest: what comes back is what one process would have read.
void TrainStep::share(int64_t step) {
  expert_counts_ = computed_->expert_counts;
  prepared_.mtp_last = computed_->mtp_last;
  // Sums are folded in memory of their own while something else holds them.
  SharedStep::Whole whole = shared_->reduce(
      step, micro_batches_, computed_->share, guard_ != nullptr && guard_->sums_at_both());
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
    flip_point_in("flip.gradient", {&gradient, 1});
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
  const double scale = clip_scale(norm_, settings_.clip);
  const auto update = [&] {
    optimizer_.step(gradients_, lr, scale);
    flip_held("flip.updated", "flip.updated.state");
  };
  const auto update_one = [&](size_t i) {
    optimizer_.step_one(i, gradients_[i], lr, scale);
    flip_point_in("flip.audited", {&optimizer_.weights()[i]->value, 1});
    flip_point_in("flip.audited.state", optimizer_.state(i));
  };
  if (guard_ != nullptr)
    guard_->update(gradients_, update_one, update);
  else
    update();
  gradients_.clear();
  flight::set_pass(flight::Pass::kNone);
}

void TrainStep::spread() {
  if (shared_ != nullptr) shared_->spread();
}

void TrainStep::settle() {
  if (adapter_ != nullptr) {
    adapter_->merge();
  } else {
    const std::vector<Weight*> biases = model_.selection_biases();
    for (size_t l = 0; l < biases.size() && l < expert_counts_.size(); ++l)
      ops::bias_update(
          *biases[l], expert_counts_[l], static_cast<float>(settings_.bias_update_speed));
  }
  flip_held("flip.written", "flip.written.state");
  if (guard_ != nullptr) guard_->wrote();
}

void TrainStep::look_at_own() const {
  if (guard_ == nullptr) return;
  flip_held("flip.looked", "flip.looked.state");
  guard_->look_at_own();
  if (computed_) guard_->look_at_share(computed_->share, computed_->hash);
}

void TrainStep::flip_held(const char* of_weights, const char* of_state) const {
  if (!faults_armed()) return;
  std::vector<Tensor> weights, state;
  for (const Weight* w : model_.weights()) weights.push_back(w->value);
  for (size_t i = 0; i < optimizer_.weights().size(); ++i)
    if (shared_ == nullptr || shared_->holds(i))
      for (Tensor& t : optimizer_.state(i)) state.push_back(std::move(t));
  flip_point_in(of_weights, weights);
  flip_point_in(of_state, state);
}

}  // namespace ferry
