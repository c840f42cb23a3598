// Products with int8 and int4 weights at the shapes of R1-Distill-Qwen-1.5B's layers, from memory
// that no cache holds, beside the read bandwidth measured in turns with them: a few rows are to run
// at that bandwidth. For 512 rows the rate of operations. Last line: JSON.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/cpu_tier.h"
#include "base/threads.h"
#include "device/cpu/cpu_device.h"
#include "ops/linear/linear.h"
#include "tensor/quantise.h"

namespace ferry {
namespace {

constexpr int64_t kLayers = 12;  // about 560 MB of int8

struct Shape2 {
  int64_t outputs, inputs;
};
constexpr Shape2 kMatrices[] = {
    {1536, 1536}, {256, 1536}, {256, 1536}, {1536, 1536}, {8960, 1536}, {8960, 1536}, {1536, 8960}};

double seconds_of(auto&& f) {
  const double begin = system_clock().monotonic_s();
  f();
  return system_clock().monotonic_s() - begin;
}

/// Bytes read by all threads, 64 at a time.
double read_all(const std::vector<Weight>& weights, uint64_t& sink) {
  double bytes = 0;
  for (const Weight& w : weights) {
    const auto* data = static_cast<const char*>(w.value.data());
    const auto size = static_cast<int64_t>(w.value.bytes());
    const int64_t piece = int64_t{256} << 10;
    std::vector<uint64_t> sums(static_cast<size_t>((size + piece - 1) / piece));
    cpu_pool().parallel_for(static_cast<int64_t>(sums.size()), [&](int64_t task, int) {
      uint64_t a[8] = {};
      const int64_t end = std::min(size, (task + 1) * piece);
      for (int64_t i = task * piece; i + 64 <= end; i += 64)
        for (int j = 0; j < 8; ++j) {
          uint64_t v = 0;
          std::memcpy(&v, data + i + 8 * j, 8);
          a[j] ^= v;
        }
      for (const uint64_t v : a) sums[static_cast<size_t>(task)] ^= v;
    });
    for (const uint64_t s : sums) sink ^= s;
    bytes += static_cast<double>(size);
  }
  return bytes;
}

std::vector<Weight> model_of(WeightCodes kind) {
  std::vector<Weight> weights;
  std::vector<float> row;
  for (int64_t layer = 0; layer < kLayers; ++layer)
    for (const auto& [outputs, inputs] : kMatrices) {
      PanelsInMaking made(kind, {outputs, inputs});
      CodeRows rows{
          std::vector<int8_t>(static_cast<size_t>(outputs * inputs)),
          std::vector<float>(static_cast<size_t>(outputs * made.layout().groups()), 0.01f)};
      const CodePanels& l = made.layout();
      const int range = l.largest() - l.least() + 1;
      for (size_t i = 0; i < rows.codes.size(); ++i)
        rows.codes[i] =
            static_cast<int8_t>(l.least() + static_cast<int>(i * 37 % static_cast<size_t>(range)));
      made.put(0, 0, rows);
      Weight w{.name = "w", .global_shape = {outputs, inputs}, .shard = {}};
      made.store_in(w);
      weights.push_back(std::move(w));
    }
  return weights;
}

}  // namespace
}  // namespace ferry

int main() {
  using namespace ferry;
  std::string json;
  uint64_t sink = 0;
  for (const WeightCodes kind : {WeightCodes::kInt8, WeightCodes::kInt4}) {
    const std::vector<Weight> weights = model_of(kind);
    for (const int64_t rows : {1, 2, 4, 8, 16, 64, 512}) {
      // Where products are what it costs, a matrix shows it, in moments when the machine is ours.
      const size_t used_weights = rows > 16 ? 1 : weights.size();
      std::vector<Tensor> x;
      for (const int64_t inputs : {1536, 8960}) {
        x.push_back(Tensor::empty({rows, inputs}, DType::kBF16, cpu_device()));
        std::vector<float> values(static_cast<size_t>(rows * inputs));
        for (size_t i = 0; i < values.size(); ++i)
          values[i] = static_cast<float>(i * 7919 % 2001) / 1000 - 1;
        x.back().assign_f32(values);
      }
      double bytes = 0, products = 0;
      for (size_t i = 0; i < used_weights; ++i) {
        bytes += static_cast<double>(weights[i].value.bytes() + weights[i].scales.bytes());
        products += static_cast<double>(weights[i].global_shape.count());
      }
      double best = 1e9, read = 1e9, read_bytes = 0;
      for (int round = 0; round < (rows > 16 ? 60 : 12); ++round) {
        if (round % 5 == 0 || rows <= 16)
          read = std::min(read, seconds_of([&] { read_bytes = read_all(weights, sink); }));
        best = std::min(best, seconds_of([&] {
                          for (size_t i = 0; i < used_weights; ++i)
                            static_cast<void>(ops::linear(
                                x[weights[i].global_shape[1] == 1536 ? 0 : 1], weights[i]));
                        }));
      }
      const double bandwidth = read_bytes / read, used = bytes / best,
                   gops = 2e-9 * products * static_cast<double>(rows) / best;
      fmt::print("{} {:4} rows: {:8.2f} ms, {:6.1f} GB/s of {:5.1f} ({:3.0f} %), {:7.0f} GOPS\n",
                 to_string(kind),
                 rows,
                 1e3 * best,
                 1e-9 * used,
                 1e-9 * bandwidth,
                 100 * used / bandwidth,
                 gops);
      json += fmt::format(
          "{}{{\"codes\": \"{}\", \"rows\": {}, \"seconds\": {:.6g}, "
          "\"of_bandwidth\": {:.4g}, \"gops\": {:.5g}}}",
          json.empty() ? "" : ", ",
          to_string(kind),
          rows,
          best,
          used / bandwidth,
          gops);
    }
  }
  fmt::print("{{\"cpu\": \"{}\", \"threads\": {}, \"sink\": {}, \"rows\": [{}]}}\n",
             to_string(cpu_tier()),
             cpu_pool().threads(),
             sink % 2,
             json);
  return 0;
}
