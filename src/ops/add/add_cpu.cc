// y = a + b, row by row; rows are runs of the last dimension.
#include "ops/add/add_kernels.h"
#include "ops/cpu/loops.h"

namespace ferry::ops::FERRY_TIER {
namespace {

template <typename T>
void run(const AddArgs& args) {
  const Rows rows({&args.a, &args.b, &args.y});
  parallel_lanes(rows, [&](const int64_t* offset, int64_t i, int n) {
    store_n(args.y.as<T>() + offset[2] + i,
            load_n(args.a.as<T>() + offset[0] + i, n) + load_n(args.b.as<T>() + offset[1] + i, n),
            n);
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
