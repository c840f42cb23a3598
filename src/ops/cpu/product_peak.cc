#include "ops/cpu/product_peak.h"

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "device/cpu/cpu_device.h"

namespace ferry::ops {
namespace {

double most_in_a_second(int64_t (*multiply)(int64_t rounds)) {
  constexpr int64_t kRounds = 20000;  // about a tenth of a millisecond
  const int64_t parts = 16 * int64_t{cpu_pool().threads()};
  std::vector<int64_t> done(static_cast<size_t>(parts));
  double best = 0;
  for (int pass = 0; pass < 10; ++pass) {
    const double begin = system_clock().monotonic_s();
    cpu_pool().parallel_for(
        parts, [&](int64_t part, int) { done[static_cast<size_t>(part)] = multiply(kRounds); });
    const double seconds = system_clock().monotonic_s() - begin;
    double all = 0;
    for (const int64_t n : done) all += static_cast<double>(n);
    best = std::max(best, all / seconds);
  }
  return best;
}

}  // namespace

ProductPeak measure_product_peak() {
  return {.codes = most_in_a_second(CPU_FUNCTION(multiply_codes)),
          .bf16 = most_in_a_second(CPU_FUNCTION(multiply_bf16))};
}

}  // namespace ferry::ops
