// What token_log_probs promises, on every device.
#include <algorithm>
#include <cmath>

#include "ops/call_check.h"
#include "ops/spec.h"
#include "ops/token_log_probs/token_log_probs.h"
#include "ops/token_log_probs/token_log_probs_reference.h"

namespace ferry::ops {
namespace {

/// Quotients are rounded, and so are their distance to the largest, e^x (2 ulp), each addition of
/// a tile's lane and of the tiles, the logarithm and the two sums. An error of a quotient moves the
/// sum of exponentials by as much, relative to it.
std::vector<double> bound_of(const RefTensor& logits,
                             const RefTensor& ids,
                             const RefTensor& temperatures,
                             const RefTensor& y) {
  constexpr double u = 0x1p-24;
  const int64_t vocab = logits.shape[1], k = ids.shape[1];
  std::vector<double> bound(y.values.size());
  for (int64_t r = 0; r < logits.shape[0]; ++r) {
    const double* const x = logits.values.data() + r * vocab;
    double size = 0;
    for (int64_t v = 0; v < vocab; ++v) size = std::max(size, std::abs(x[v]));
    size = temperatures[r] > 0 ? size / temperatures[r] : 0;  // NaN, or the 0 of no token
    // At a distance of 104 and more e^x is nothing in f32, whatever the distance's error.
    const double exponent = 2 * u * size + u * std::min(2 * size, 104.0);
    const double sum = u * (4 + 64 + static_cast<double>(vocab) / 1024 + 5);
    for (int64_t i = r * k; i < (r + 1) * k; ++i)
      bound[static_cast<size_t>(i)] =
          1.01 * (exponent + sum + 4 * u * size + 4 * u * (std::abs(y.values[i]) + 1));
  }
  return bound;
}

OpCase log_probs_case(const char* name,
                      int64_t rows,
                      int64_t vocab,
                      int64_t k,
                      double spread,
                      double temperature,
                      bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} [{}, {}] ids {}", name, rows, vocab, k);
  std::vector<double> ids, temperatures;
  for (int64_t i = 0; i < rows * k; ++i)  // the first and the last column, and none, occur
    ids.push_back(i % 5 == 3   ? -1
                  : i % 2 == 0 ? static_cast<double>(i * 7 % vocab)
                               : static_cast<double>(vocab - 1));
  for (int64_t r = 0; r < rows; ++r) temperatures.push_back(r % 3 == 2 ? 1 : temperature);
  c.inputs = {{.name = "logits", .shape = {rows, vocab}, .scale = spread, .rows = true},
              {.name = "ids",
               .shape = {rows, k},
               .dtype = DType::kI32,
               .fill = InputSpec::Fill::kGiven,
               .rows = true,
               .given = ids},
              {.name = "temperatures",
               .shape = {rows},
               .fill = InputSpec::Fill::kGiven,
               .rows = true,
               .given = temperatures}};
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {token_log_probs(in[0], in[1], in[2])};
  };
  c.reference = [](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {token_log_probs_reference(in[0], in[1], in[2])};
  };
  c.tolerance = [](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    return bound_of(in[0], in[1], in[2], y);
  };
  c.flops = 3 * static_cast<double>(rows * vocab);
  c.bytes = 4 * static_cast<double>(rows * vocab);
  c.benchmark = benchmark;
  return c;
}

}  // namespace

OpSpec token_log_probs_spec() {
  OpSpec spec{
      .op = "token_log_probs",
      .kernels = kernel_rows({"token_log_probs"}),
      .cases = {},
      .calls = {{.kernel = "token_log_probs",
                 .bound = [](CallFacts& facts, const char*, const RefTensor& y) {
                   std::vector<double> bound = bound_of(
                       facts.input("logits"), facts.input("ids"), facts.input("temperatures"), y);
                   for (double& b : bound) b *= 2;  // the device's and the judge's
                   return bound;
                 }}}};
  spec.cases.push_back(log_probs_case("one", 1, 1, 1, 1, 1));
  spec.cases.push_back(log_probs_case("odd", 7, 129, 3, 3, 0.7));
  spec.cases.push_back(log_probs_case("several tiles", 5, 4099, 6, 2, 1.3));
  spec.cases.push_back(log_probs_case("far apart", 4, 70, 5, 200, 0.1));
  spec.cases.push_back(log_probs_case("at 0", 4, 70, 5, 3, 0));
  spec.cases.push_back(log_probs_case("below 0", 4, 70, 5, 3, -1));
  spec.cases.push_back(log_probs_case("hot", 3, 1025, 2, 1, 90));
  spec.cases.push_back(log_probs_case("a batch of R1's vocabulary", 64, 129280, 8, 3, 1, true));
  return spec;
}

}  // namespace ferry::ops
