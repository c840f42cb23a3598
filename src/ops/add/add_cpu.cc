// y = a + b, row by row; rows are runs of the last dimension.
#include "device/cpu/cpu_device.h"
#include "ops/add/add_kernels.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/simd.h"

namespace ferry::ops::FERRY_TIER {
namespace {

template <typename T>
void add_row(const T* a, const T* b, T* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load(a + i) + load(b + i));
  if (const int rest = static_cast<int>(n - i))
    store_n(y + i, load_n(a + i, rest) + load_n(b + i, rest), rest);
}

template <typename T>
void run(const AddArgs& args) {
  const Rows rows({&args.a, &args.b, &args.y});
  cpu_pool().parallel_for(rows.blocks(), [&](int64_t block, int) {
    rows.for_block(block, [&](const int64_t* offset, int64_t n) {
      add_row(
          args.a.as<T>() + offset[0], args.b.as<T>() + offset[1], args.y.as<T>() + offset[2], n);
    });
  });
}

}  // namespace

void add(const Plan&, const AddArgs& args, void*, Stream&) {
  if (args.a.dtype == DType::kF32)
    run<float>(args);
  else
    run<bf16_t>(args);
}

}  // namespace ferry::ops::FERRY_TIER
