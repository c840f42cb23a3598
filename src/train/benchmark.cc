#include "train/benchmark.h"

#include <algorithm>

#include "base/clock.h"
#include "base/random.h"
#include "base/system.h"
#include "train/estimate.h"
#include "train/model_setup.h"
#include "train/train_step.h"

namespace ferry {
namespace {

/// One micro-batch of whole sequences of random tokens, each predicted from the one before.
data::Batch random_batch(int64_t tokens, int64_t sequence, int64_t vocab, uint64_t number) {
  const Random random(1, RandomPurpose::kTest, number);
  data::Batch b;
  for (int64_t t = 0; t < tokens; ++t) {
    const auto at = static_cast<uint64_t>(t);
    const auto id = [&](uint64_t i) {
      return static_cast<int32_t>(random.below(i, static_cast<uint64_t>(vocab)));
    };
    b.tokens.push_back(id(at));
    b.next.push_back(id(at + 1));
    b.mtp_labels.push_back((t + 1) % sequence == 0 ? -1 : id(at + 2));
  }
  b.labels = b.next;
  b.segment_lengths.assign(static_cast<size_t>(tokens / sequence), static_cast<int32_t>(sequence));
  b.label_bytes = tokens;
  return b;
}

}  // namespace

Result<BenchmarkResult> benchmark_training(const Settings& settings,
                                           int64_t steps,
                                           int64_t warmup) {
  if (!settings.model.vocab_size)
    return fail(Code::kInvalidInput, "model.vocab_size: must be given; there is no tokenizer here");
  TRY_ASSIGN(Device * device, open_device(settings.train.device));
  RunData data;
  data.vocab_size = static_cast<int32_t>(*settings.model.vocab_size);
  data.eos = 1;
  BenchmarkResult r;
  std::optional<InitModel> init;
  if (!settings.model.init.empty()) {
    TRY_ASSIGN(init, InitModel::open(settings.model.init));
  }
  InitModel* const from = init ? &*init : nullptr;
  TRY_ASSIGN(const std::string config,
             resolve_config(settings.model, from, data, settings.data.sequence_length));
  const uint64_t before = memory_resident_bytes();
  TRY_ASSIGN(const std::unique_ptr<models::TrainableLm> model,
             make_training_model(settings, from, config, *device));
  r.config_json = model->config_json("float32");
  r.parameters = model->parameters_total();
  Optimizer optimizer(optimizer_of(settings), model->weights());
  TrainStep step(*model, optimizer, step_settings(settings.train));
  const int64_t sequence = settings.data.sequence_length, micro = settings.train.micro_batch_tokens;
  struct Measured {
    double seconds;
    bool mtp;
  };
  std::vector<Measured> measured;
  const Clock& clock = system_clock();
  for (int64_t s = 0; s < warmup + steps; ++s) {
    std::vector<data::Batch> batches;
    for (int64_t at = 0; at < settings.train.tokens_per_step; at += micro)
      batches.push_back(
          random_batch(micro,
                       sequence,
                       *settings.model.vocab_size,
                       static_cast<uint64_t>(s * settings.train.tokens_per_step + at)));
    const double begin = clock.monotonic_s();
    const StepGradients g = step.gradients(s, batches);
    step.update(settings.optimizer.lr);
    device->stream().synchronize();
    if (s >= warmup) measured.push_back({clock.monotonic_s() - begin, g.mtp_loss.has_value()});
  }
  r.live_mb = static_cast<double>(device->memory_use().peak_bytes) / 1e6;
  r.peak_mb = static_cast<double>(memory_peak_bytes() - before) / 1e6;
  std::sort(measured.begin(), measured.end(), [](const Measured& a, const Measured& b) {
    return a.seconds < b.seconds;
  });
  double seconds = 0;
  for (const Measured& m : measured) {
    r.mtp_steps += m.mtp;
    seconds += m.seconds;
  }
  const Measured median = measured[measured.size() / 2];
  const double tokens = static_cast<double>(settings.train.tokens_per_step);
  r.tokens_per_s = tokens / median.seconds;
  r.mean_tokens_per_s = tokens * static_cast<double>(measured.size()) / seconds;
  r.best_tokens_per_s = tokens / measured.front().seconds;
  const double peak = measure_peak(*device, model->compute());
  r.peak_gflops = peak / 1e9;
  const double flops =
      3 * model->flops_per_token(
              static_cast<double>(sequence) / 2, mla_form_of(settings.train), median.mtp);
  r.mfu = flops * r.tokens_per_s / peak;
  return r;
}

}  // namespace ferry
