#include "verify/training.h"

#include <algorithm>
#include <set>

#include "autograd/tape.h"
#include "ops/add/add.h"
#include "ops/call_check.h"
#include "verify/call_judge.h"
#include "verify/library_watch.h"
#include "verify/recorder.h"

namespace ferry::verify {
namespace {

constexpr size_t kFindingsMax = 50;  // what follows is no news

/// Knows which layer a call belongs to, and what it asked of the vendor's library.
class Place final : public ops::Observer {
 public:
  Place(Device& device, int blocks)
      : blocks_(blocks), watch_(device, [this](const char* call) { called(call); }) {}

  void layer(int number) override { enter(number); }
  void enter(int number) {
    layer_ = number;
    index_ = 0;
  }
  void before(const ops::OpCall&) override {
    ++index_;
    calls_.clear();
    running_ = true;
  }
  void after(const ops::OpCall&) override { running_ = false; }

  std::string layer_name() const { return name_of_layer(layer_, blocks_); }
  int64_t index() const { return index_ - 1; }
  const std::vector<std::string>& calls() const { return calls_; }

 private:
  void called(const char* call) {
    if (running_ && std::find(calls_.begin(), calls_.end(), call) == calls_.end())
      calls_.emplace_back(call);
  }

  int blocks_;
  int layer_ = 0;
  int64_t index_ = 0;
  bool running_ = false;
  std::vector<std::string> calls_;
  LibraryWatch watch_;
};

/// The tokens as a micro-batch: each predicts the next of its document.
models::TokenBatch micro_batch(const probe::Batch& batch, Device& device) {
  std::vector<int32_t> labels;
  size_t at = 0;
  for (const int32_t length : batch.lengths) {
    for (int32_t i = 1; i < length; ++i)
      labels.push_back(batch.tokens[at + static_cast<size_t>(i)]);
    labels.push_back(-1);
    at += static_cast<size_t>(length);
  }
  const Shape shape = {std::ssize(batch.tokens)};
  models::TokenBatch out;
  out.tokens = Tensor::from_i32(batch.tokens, shape, device);
  out.labels = Tensor::from_i32(labels, shape, device);
  out.segments = ops::Segments::packed(batch.lengths, device);
  return out;
}

/// Trained weights ask for gradients while it lives.
class WithGradients {
 public:
  explicit WithGradients(models::TrainableLm& model) {
    for (Weight* w : model.weights())
      if (w->trained() && w->value.defined()) weights_.push_back(w);
    for (Weight* w : weights_) w->value.set_needs_grad(true);
  }
  ~WithGradients() {
    for (Weight* w : weights_) w->value.set_needs_grad(false);
  }
  WithGradients(const WithGradients&) = delete;
  WithGradients& operator=(const WithGradients&) = delete;

 private:
  std::vector<Weight*> weights_;
};

}  // namespace

void judge_training(models::TrainableLm& model,
                    const probe::Batch& batch,
                    int blocks,
                    Report& report) {
  Device& device = model.device();
  Place place(device, blocks);
  doctor::CallJudge judge([&](const std::string& property, const ops::CallFinding& f) {
    if (doctor::of_an_element(property) && report.parted.size() < kFindingsMax)
      report.parted.push_back({"training", place.layer_name(), place.index(), place.calls(), f});
  });
  const models::TokenBatch tokens = micro_batch(batch, device);
  const WithGradients gradients(model);
  // The first installed is nearest to the kernel: what the judge copies is not the kernel's.
  const ops::Observing placing(place), judging(judge);
  const auto labels = static_cast<float>(batch.tokens.size() - batch.lengths.size());
  Tape tape(&ops::accumulate);
  models::Losses losses;
  {
    const Tape::Recording recording(&tape);
    losses = model.losses(tokens,
                          {.mla_form = models::MlaForm::kExpanded,
                           .balance_alpha = 1e-3,
                           .scale = 1 / std::max(1.0f, labels)});
  }
  const std::vector<float> one = {1.0f};
  const Tensor unit = Tensor::from_f32(one, {1}, device);
  std::vector<std::pair<Tensor, Tensor>> seeds = {{losses.main, unit}};
  for (const Tensor& b : losses.balance) seeds.emplace_back(b, unit);
  tape.backward(std::move(seeds),
                {.leaf_ready = [](const Tensor&, Tensor) {},
                 .layer_done = [&](int layer) { place.enter(std::max(0, layer - 1)); }});
  report.calls += judge.calls();
  report.training_calls = judge.calls();
  report.unjudged.insert(report.unjudged.end(), judge.unjudged().begin(), judge.unjudged().end());
}

}  // namespace ferry::verify
