// Attention's speed at the shapes of training, forward and backward, counting what is visible only:
// 2 (Dqk + Dv) operations a query, key and head forward, 2 (3 Dqk + 2 Dv) backward.
// Wall-clock time; FERRY_BENCH_CPU_TIME=1 counts the threads' processor time instead, for tuning on
// a machine that others use too. Usage: attention_bench [f32|bf16]. The last line is JSON.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "autograd/tape.h"
#include "base/clock.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "ops/add/add.h"
#include "ops/attention/attention.h"

namespace ferry {
namespace {

struct BenchShape {
  const char* name;
  std::vector<int32_t> lengths;
  int64_t heads, key_heads, d_qk, d_v;
  bool shared;
};

Tensor normal(const Shape& shape, DType dtype, uint64_t stream) {
  const Random random(1, RandomPurpose::kTest, stream);
  std::vector<float> values(static_cast<size_t>(shape.count()));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(random.uniform(i) * 2 - 1);
  Tensor t = Tensor::empty(shape, dtype, cpu_device());
  t.assign_f32(values);
  return t;
}

template <typename F>
double best_seconds(F&& f) {
  double best = INFINITY, spent = 0;
  for (int i = 0; i < 3 || (spent < 1.5 && i < 50); ++i) {
    const double seconds = f();
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

std::string measure(const BenchShape& s, DType dtype) {
  int64_t tokens = 0;
  double pairs = 0;
  for (const int32_t n : s.lengths) {
    tokens += n;
    pairs += 0.5 * n * (n + 1.0);
  }
  Tensor q = normal({tokens, s.heads, s.d_qk}, dtype, 0);
  Tensor k = normal({tokens, s.key_heads, s.d_qk}, dtype, 1);
  Tensor v = s.shared ? k.slice(2, 0, s.d_v) : normal({tokens, s.key_heads, s.d_v}, dtype, 2);
  const Tensor d_out = normal({tokens, s.heads, s.d_v}, dtype, 3);
  const ops::Segments segments = ops::Segments::packed(s.lengths, cpu_device());
  const float scale = 1 / std::sqrt(static_cast<float>(s.d_qk));
  const bool cpu_time = std::getenv("FERRY_BENCH_CPU_TIME") != nullptr;
  const auto now = [cpu_time] {
    return cpu_time ? static_cast<double>(std::clock()) / CLOCKS_PER_SEC
                    : system_clock().monotonic_s();
  };
  const double forward = best_seconds([&] {
    const double begin = now();
    const Tensor out = ops::attention(q, k, v, segments, scale);
    return now() - begin;
  });
  q.set_needs_grad(true);
  k.set_needs_grad(true);
  v.set_needs_grad(true);
  const double backward = best_seconds([&] {
    Tape tape(&ops::accumulate);
    Tensor out;
    {
      const Tape::Recording recording(&tape);
      out = ops::attention(q, k, v, segments, scale);
    }
    const double begin = now();
    tape.backward(out, d_out);
    return now() - begin;
  });
  const auto heads = static_cast<double>(s.heads);
  const double forward_gflops =
      2e-9 * pairs * heads * static_cast<double>(s.d_qk + s.d_v) / forward;
  const double backward_gflops =
      2e-9 * pairs * heads * static_cast<double>(3 * s.d_qk + 2 * s.d_v) / backward;
  fmt::print(
      "{:>10} {:>4}  forward {:8.2f} ms {:6.1f} GFLOP/s   backward {:8.2f} ms {:6.1f} GFLOP/s\n",
      s.name,
      to_string(dtype),
      forward * 1e3,
      forward_gflops,
      backward * 1e3,
      backward_gflops);
  return fmt::format("\"{}_{}\": {{\"forward_gflops\": {:.1f}, \"backward_gflops\": {:.1f}}}",
                     s.name,
                     to_string(dtype),
                     forward_gflops,
                     backward_gflops);
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  using namespace ferry;
  const std::string only = argc > 1 ? argv[1] : "";
  const std::vector<int32_t> s_lengths = {
      100, 412, 512, 300, 212, 150, 362, 512, 512, 250, 262, 512};
  const std::vector<BenchShape> shapes = {
      {"s48", s_lengths, 8, 8, 48, 32, false},
      {"s96", s_lengths, 5, 5, 96, 64, false},
      {"m", std::vector<int32_t>(8, 1024), 12, 12, 96, 64, false},
      {"long", {2048}, 16, 1, 576, 512, true},  // one document, one key head: threads must share it
      {"absorbed", std::vector<int32_t>(4, 512), 16, 1, 576, 512, true},
  };
  std::string json;
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    if ((only == "f32" && dtype != DType::kF32) || (only == "bf16" && dtype != DType::kBF16))
      continue;
    for (const BenchShape& shape : shapes)
      json += (json.empty() ? "" : ", ") + measure(shape, dtype);
  }
  fmt::print("{{\"threads\": {}, {}}}\n", cpu_pool().threads(), json);
  return 0;
}
