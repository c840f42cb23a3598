#include "models/llama/size.h"

namespace ferry::models::llama {
namespace {

double number(int64_t n) { return static_cast<double>(n); }

struct Widths {
  explicit Widths(const Config& c)
      : hidden(number(c.hidden_size)),
        queries(number(c.num_attention_heads) * number(c.head_dim)),
        keys(number(c.num_key_value_heads) * number(c.head_dim)),
        inner(number(c.intermediate_size)) {}
  double hidden, queries, keys, inner;

  double matrices() const { return hidden * (2 * queries + 2 * keys + 3 * inner); }  // of a layer
};

}  // namespace

double parameters_total(const Config& c) {
  const Widths w(c);
  const double vectors = 2 * w.hidden + (c.qwen2 ? w.queries + 2 * w.keys : 0);
  return number(c.num_hidden_layers) * (w.matrices() + vectors) + w.hidden +
         number(c.vocab_size) * w.hidden * (c.tie_word_embeddings ? 1 : 2);
}

double parameters_active(const Config& c) {
  const Widths w(c);
  return number(c.num_hidden_layers) * w.matrices() + number(c.vocab_size) * w.hidden;
}

double flops_per_token(const Config& c, double context) {
  return 2 * parameters_active(c) + number(c.num_hidden_layers) * 4 * Widths(c).queries * context;
}

double activation_bytes_per_token(const Config& c, DType compute, Recompute recompute) {
  const Widths w(c);
  const double size = static_cast<double>(size_of(compute));
  // What a layer keeps: the residual stream twice, attention's output and the logarithm of its sum,
  // values, both sides of SwiGLU.
  const double kept = size * (2 * w.hidden + w.queries + w.keys + 2 * w.inner) +
                      sizeof(float) * number(c.num_attention_heads);
  // What is made again: normed values, queries, keys, the product of the sides; and with biases the
  // products before them.
  const double again = size * (2 * w.hidden + w.queries + 2 * w.keys + w.inner) +
                       (c.qwen2 ? sizeof(float) * (w.queries + 2 * w.keys) : 0);
  const double layers = number(c.num_hidden_layers);
  double sum = layers * (kept + (recompute == Recompute::kNone ? again : 0));
  if (recompute == Recompute::kLayers) sum = size * w.hidden * (layers + 1) + kept;
  // The layer that is played back holds gradients beside it, about as much.
  return sum + (recompute == Recompute::kNone ? 1 : 2) * again +
         size * (2 * w.inner + 4 * w.hidden);
}

}  // namespace ferry::models::llama
