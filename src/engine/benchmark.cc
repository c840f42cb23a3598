#include "engine/benchmark.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/check.h"
#include "base/clock.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "engine/engine.h"

namespace ferry::engine {
namespace {

double now() { return system_clock().monotonic_s(); }

std::vector<int32_t> random_prompt(const models::CausalLm& model, int64_t tokens, uint64_t stream) {
  const Random random(1, RandomPurpose::kTest, stream);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < tokens; ++i)
    ids.push_back(static_cast<int32_t>(
        random.below(static_cast<uint64_t>(i), static_cast<uint64_t>(model.vocab_size()))));
  return ids;
}

RequestId ask(Engine& engine, std::vector<int32_t> prompt, int64_t tokens) {
  Request request{.prompt = std::move(prompt), .options = {}, .salt = ""};
  request.options.tokens_max = tokens;
  const Result<RequestId> id = engine.submit(std::move(request));
  check(id.has_value(), "bench: {}", id ? "" : id.error().message);
  return *id;
}

EngineOptions options_for(int64_t running, int64_t tokens_each) {
  return {.cache_tokens = running * (tokens_each + models::kPageTokens),
          .running = running,
          .tokens_per_pass = std::max<int64_t>(512, running + 1),
          .remember = false};
}

/// Seconds of a prompt, to its first token.
double prefill(models::CausalLm& model, int64_t tokens, uint64_t stream) {
  Engine engine(model, options_for(1, tokens + 1));
  ask(engine, random_prompt(model, tokens, stream), 1);
  const double begin = now();
  while (!engine.idle()) engine.step();
  return now() - begin;
}

/// Seconds of `steps` tokens of each of so many requests, whose prompts are there.
double decode(models::CausalLm& model, int64_t at_once, const ServingLoad& load, uint64_t stream) {
  // Those whose prompts are read first answer while others' are read: none is to end before time.
  const int64_t tokens = load.steps + 4 * at_once + 8;
  Engine engine(model, options_for(at_once, load.context + tokens));
  for (int64_t i = 0; i < at_once; ++i)
    ask(engine, random_prompt(model, load.context, stream + static_cast<uint64_t>(i)), tokens);
  std::set<RequestId> answering;
  while (std::ssize(answering) < at_once)  // until each has its first token
    for (const Progress& p : engine.step())
      if (!p.tokens.empty()) answering.insert(p.id);
  const double begin = now();
  for (int64_t s = 0; s < load.steps; ++s) engine.step();
  return now() - begin;
}

}  // namespace

double measure_read_bandwidth() {
  constexpr int64_t kNumbers = int64_t{1} << 26;  // of 8 bytes: half a gigabyte
  constexpr int64_t kPart = int64_t{1} << 17;
  constexpr int kStreams = 4;  // that a thread reads side by side, as products read rows
  constexpr int64_t kStream = kPart / kStreams;
  // Of the device, as weights are: in pages of the same size. In small ones a machine that is
  // virtual spends more time on finding pages than on reading them.
  const Tensor memory = Tensor::empty({kNumbers}, DType::kI64, cpu_device());
  int64_t* const numbers = static_cast<int64_t*>(memory.data());
  std::iota(numbers, numbers + kNumbers, int64_t{0});
  std::vector<int64_t> sums(static_cast<size_t>(kNumbers / kPart));
  double best = 0;
  for (int pass = 0; pass < 6; ++pass) {
    const double begin = now();
    cpu_pool().parallel_for(kNumbers / kPart, [&](int64_t part, int) {
      const int64_t* const from = numbers + part * kPart;
      int64_t lanes[kStreams][8] = {};
      for (int64_t i = 0; i < kStream; i += 8)
        for (int s = 0; s < kStreams; ++s)
          for (int l = 0; l < 8; ++l) lanes[s][l] ^= from[s * kStream + i + l];
      for (const auto& stream : lanes)
        for (const int64_t lane : stream) sums[static_cast<size_t>(part)] ^= lane;
    });
    best = std::max(best, static_cast<double>(memory.bytes()) / (now() - begin));
  }
  int64_t all = 0;
  for (const int64_t s : sums) all ^= s;
  check(all == 0, "bandwidth: memory was read wrongly");  // each bit occurs an even number of times
  return best;
}

ServingSpeed measure_serving(models::CausalLm& model, const ServingLoad& load) {
  ServingSpeed speed;
  speed.bytes_per_s = measure_read_bandwidth();
  speed.peak = ops::measure_product_peak();
  const std::vector<Weight*> weights = model.weights();
  const bool has_head = std::any_of(
      weights.begin(), weights.end(), [](const Weight* w) { return w->role == WeightRole::kHead; });
  for (const Weight* w : weights)
    if (w->role != WeightRole::kEmbedding || !has_head)
      speed.weight_bytes +=
          static_cast<double>(w->value.bytes() + (w->scales.defined() ? w->scales.bytes() : 0));
  for (int64_t round = 0; round < load.rounds; ++round) {
    const auto stream = static_cast<uint64_t>(1000 * round);
    speed.prefill_tokens_per_s =
        std::max(speed.prefill_tokens_per_s,
                 static_cast<double>(load.prompt) / prefill(model, load.prompt, stream));
    for (const int64_t n : load.at_once) {
      double& fastest = speed.decode_tokens_per_s[n];
      fastest = std::max(fastest,
                         static_cast<double>(n * load.steps) / decode(model, n, load, stream + 1));
    }
  }
  return speed;
}

}  // namespace ferry::engine
