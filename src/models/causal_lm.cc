#include "models/causal_lm.h"

#include <numeric>

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/dispatch.h"
#include "ops/linear/linear.h"

namespace ferry::models {
Tensor rows_of(const Tensor& x, std::span<const int64_t> rows) {
  check(!rows.empty(), "rows: none of {}", x.shape().str());
  const auto run_end = [&](size_t first) {
    size_t end = first + 1;
    while (end < rows.size() && rows[end] == rows[end - 1] + 1) ++end;
    return end;
  };
  if (run_end(0) == rows.size()) return x.slice(0, rows.front(), rows.back() + 1);
  const auto count = static_cast<int64_t>(rows.size());
  const Tensor chosen = Tensor::empty({count, x.dim(1)}, x.dtype(), x.device());
  for (size_t i = 0, end = 0; i < rows.size(); i = end) {
    end = run_end(i);
    const Tensor from = x.slice(0, rows[i], rows[end - 1] + 1),
                 to = chosen.slice(0, static_cast<int64_t>(i), static_cast<int64_t>(end));
    ops::copy(to.view(), from.view(), x.device());
  }
  return chosen;
}

Tensor CausalLm::logits(const Tensor& hidden, std::span<const int64_t> rows) {
  return ops::linear(rows_of(hidden, rows), head(), {.out = DType::kF32});
}

Tensor CausalLm::token_losses(const Tensor& hidden, const Tensor& labels) {
  return ops::cross_entropy(hidden, head(), labels, 1).token_losses;
}

Tensor CausalLm::draft(const Tensor&, const Tensor&, const ops::Segments&, KvCache&) {
  throw Bug("draft: the model has no MTP modules");
}

std::unique_ptr<KvCache> CausalLm::make_cache(int64_t pages, bool drafting) const {
  return std::make_unique<KvCache>(blocks() + drafting, cache_widths(), pages, compute_, *device_);
}

int64_t CausalLm::cache_bytes_per_token(bool drafting) const {
  const std::vector<int64_t> widths = cache_widths();
  return (blocks() + drafting) * std::accumulate(widths.begin(), widths.end(), int64_t{0}) *
         static_cast<int64_t>(size_of(compute_));
}

void CausalLm::begin_layer(int64_t number) const {
  const auto layer = static_cast<int>(number);
  if (Tape* tape = Tape::current()) tape->begin_layer(layer);
  ops::begin_layer(layer);
  if (entering_) entering_(layer);
}

}  // namespace ferry::models
