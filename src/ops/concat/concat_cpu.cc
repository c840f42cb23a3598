// Copies rows; a row is a run of the last dimension.
#include <cstring>

#include "device/cpu/cpu_device.h"
#include "ops/concat/concat_kernels.h"
#include "tensor/bf16.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr int64_t kRowsPerTask = 64;

char* row(const View& v, int64_t r, int64_t size) {
  const int64_t inner = v.rank == 3 ? v.shape[1] : 1;
  const int64_t offset =
      v.rank == 3 ? r / inner * v.stride[0] + r % inner * v.stride[1] : r * v.stride[0];
  return v.as<char>() + offset * size;
}

}  // namespace

void concat(const Plan&, const ConcatArgs& args, void*, Stream&) {
  const auto size = static_cast<int64_t>(size_of(args.a.dtype));
  const int64_t rows = args.y.shape[0] * (args.y.rank == 3 ? args.y.shape[1] : 1);
  const int64_t a_bytes = args.a.shape[args.a.rank - 1] * size,
                b_bytes = args.b.shape[args.b.rank - 1] * size;
  cpu_pool().parallel_for((rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int) {
    for (int64_t r = task * kRowsPerTask; r < rows && r < (task + 1) * kRowsPerTask; ++r) {
      char* y = row(args.y, r, size);
      std::memcpy(y, row(args.a, r, size), static_cast<size_t>(a_bytes));
      std::memcpy(y + a_bytes, row(args.b, r, size), static_cast<size_t>(b_bytes));
    }
  });
}

}  // namespace ferry::ops::FERRY_TIER
