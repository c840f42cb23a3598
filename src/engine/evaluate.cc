#include "engine/evaluate.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/math.h"

namespace ferry::engine {
namespace {

/// A run of tokens scored together. Label -1: context only, scored by the window before.
struct Window {
  std::vector<int32_t> tokens, labels;
};

/// Windows of one document: inputs are [first_context, t0, t1, ...], labels [t0, t1, ...].
void add_windows(const std::vector<int32_t>& document,
                 int32_t first_context,
                 const EvaluateOptions& o,
                 std::vector<Window>& out) {
  const auto n = static_cast<int64_t>(document.size());
  const int64_t stride = std::max<int64_t>(
      1, o.context - static_cast<int64_t>(static_cast<double>(o.context) * o.overlap));
  int64_t counted = 0;  // labels [0, counted) have been scored
  for (int64_t begin = 0; counted < n; begin += stride) {
    const int64_t end = std::min(n, begin + o.context);
    Window w;
    for (int64_t i = begin; i < end; ++i) {
      w.tokens.push_back(i == 0 ? first_context : document[static_cast<size_t>(i - 1)]);
      w.labels.push_back(i < counted ? -1 : document[static_cast<size_t>(i)]);
    }
    counted = end;
    out.push_back(std::move(w));
  }
}

double score(models::CausalLm& model, std::span<const Window> windows) {
  std::vector<int32_t> tokens, labels, lengths;
  for (const Window& w : windows) {
    tokens.insert(tokens.end(), w.tokens.begin(), w.tokens.end());
    labels.insert(labels.end(), w.labels.begin(), w.labels.end());
    lengths.push_back(static_cast<int32_t>(w.tokens.size()));
  }
  const Shape shape = {static_cast<int64_t>(tokens.size())};
  const Tensor hidden = model.forward(Tensor::from_i32(tokens, shape, model.device()),
                                      ops::Segments::packed(lengths, model.device()),
                                      {},
                                      nullptr);
  double nats = 0;
  for (const float l :
       model.token_losses(hidden, Tensor::from_i32(labels, shape, model.device())).to_f32())
    nats += static_cast<double>(l);
  return nats;
}

}  // namespace

double Evaluation::bits_per_byte() const {
  return bytes > 0 ? nats / math::kLn2 / static_cast<double>(bytes) : 0;
}
double Evaluation::nats_per_token() const {
  return tokens > 0 ? nats / static_cast<double>(tokens) : 0;
}

void evaluate(models::CausalLm& model,
              std::span<const std::vector<int32_t>> documents,
              int32_t first_context,
              const EvaluateOptions& options,
              Evaluation& sum,
              const std::function<void(int64_t)>& progress) {
  check(options.context >= 2 && options.context <= model.max_positions(),
        "evaluate: a context of {} tokens, the model has {}",
        options.context,
        model.max_positions());
  check(options.overlap >= 0 && options.overlap < 1, "evaluate: overlap {}", options.overlap);
  std::vector<Window> pending;
  const int64_t before = sum.tokens;
  int64_t pending_tokens = 0;
  const auto flush = [&] {
    if (pending.empty()) return;
    sum.nats += score(model, pending);
    pending.clear();
    pending_tokens = 0;
    if (progress) progress(sum.tokens - before);
  };
  std::vector<Window> windows;
  for (const std::vector<int32_t>& document : documents) {
    windows.clear();
    add_windows(document, first_context, options, windows);
    for (Window& w : windows) {
      const auto size = static_cast<int64_t>(w.tokens.size());
      if (pending_tokens + size > std::max(options.tokens_per_pass, options.context)) flush();
      pending_tokens += size;
      sum.tokens +=
          std::count_if(w.labels.begin(), w.labels.end(), [](int32_t l) { return l >= 0; });
      pending.push_back(std::move(w));
    }
  }
  flush();
}

}  // namespace ferry::engine
