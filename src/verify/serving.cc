#include "verify/serving.h"

#include <algorithm>

#include "models/slot_cache.h"

namespace ferry::verify {
namespace {

using probe::Answers;

/// Of the experts of the batch of all, those of these rows, for each MoE layer.
std::vector<Tensor> rows_of_batch(const std::vector<std::vector<int32_t>>* given,
                                  const std::vector<int64_t>& batch_rows,
                                  int64_t top_k,
                                  Device& device) {
  std::vector<Tensor> layers;
  if (given == nullptr) return layers;
  for (const std::vector<int32_t>& all : *given) {
    std::vector<int32_t> mine;
    for (const int64_t row : batch_rows)
      mine.insert(mine.end(), all.begin() + row * top_k, all.begin() + (row + 1) * top_k);
    layers.push_back(Tensor::from_i32(mine, {std::ssize(batch_rows), top_k}, device));
  }
  return layers;
}

}  // namespace

std::vector<Rows> rows_of(const Probes& probes) {
  std::vector<Rows> rows;
  int64_t begin = 0;
  for (const Probe& p : probes.list) {
    rows.push_back({begin, std::ssize(p.tokens)});
    begin += rows.back().tokens;
  }
  return rows;
}

Answers serve(models::CausalLm& model,
              const Probes& probes,
              const std::vector<std::vector<int32_t>>* given,
              const std::function<void(int64_t)>& before_pass) {
  const std::vector<Rows> rows = rows_of(probes);
  Answers answers;
  int64_t longest = 0, texts = 0;
  std::vector<size_t> first_position;  // of each probe, among answers.logits
  for (size_t p = 0; p < rows.size(); ++p) {
    longest = std::max(longest, rows[p].tokens);
    texts = std::max(texts, rows[p].tokens - probes.list[p].prompt);
    first_position.push_back(answers.logits.size());
    answers.logits.resize(answers.logits.size() + probes.list[p].logits.size());
    answers.tokens += rows[p].tokens;
  }
  answers.experts.assign(
      probes.list[0].routers.size(),
      std::vector<int32_t>(static_cast<size_t>(answers.tokens * probes.top_k), -1));
  models::SlotCache cache(model, std::ssize(rows), longest);
  for (int64_t step = 0; step <= texts; ++step) {
    before_pass(step);
    std::vector<models::SlotCache::Part> parts;
    std::vector<int32_t> tokens;
    std::vector<int64_t> batch_rows;  // where these tokens are in the batch of all
    for (size_t p = 0; p < rows.size(); ++p) {
      const Probe& probe = probes.list[p];
      const int64_t begin = step == 0 ? 0 : probe.prompt + step - 1;
      const int64_t end = std::min(probe.prompt + step, rows[p].tokens);
      if (begin >= end) continue;
      parts.push_back({static_cast<int64_t>(p), end - begin});
      for (int64_t t = begin; t < end; ++t) {
        tokens.push_back(probe.tokens[static_cast<size_t>(t)]);
        batch_rows.push_back(rows[p].begin + t);
      }
    }
    const ops::Segments segments = cache.begin(parts);
    models::ForwardOptions options;
    options.cache = cache.cache();
    options.given_experts = rows_of_batch(given, batch_rows, probes.top_k, model.device());
    models::ForwardTrace trace;
    const Tensor hidden = model.forward(
        Tensor::from_i32(tokens, {std::ssize(tokens)}, model.device()), segments, options, &trace);
    int64_t row = -1;
    for (const auto& part : parts) {
      row += part.tokens;
      answers.logits[first_position[static_cast<size_t>(part.slot)] + static_cast<size_t>(step)] =
          model.logits(hidden, {&row, 1}).to_f32();
    }
    cache.commit();
    for (size_t l = 0; l < trace.experts.size(); ++l) {
      const std::vector<int32_t> chosen = trace.experts[l].to_i32();
      for (size_t i = 0; i < chosen.size(); ++i) {
        const auto top_k = static_cast<size_t>(probes.top_k);
        const auto to = static_cast<size_t>(batch_rows[i / top_k]) * top_k + i % top_k;
        answers.experts[l][to] = chosen[i];
      }
    }
  }
  return answers;
}

}  // namespace ferry::verify
