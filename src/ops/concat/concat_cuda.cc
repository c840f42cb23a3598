// One launch for each part.
#include "ops/concat/concat_cuda.h"

#include "ops/concat/concat_kernels.h"
#include "ops/cuda/launch.h"

namespace ferry::ops::cuda {
namespace {

const char* kernel_of(size_t bytes) {
  return bytes == 1 ? "concat_1" : bytes == 2 ? "concat_2" : bytes == 4 ? "concat_4" : "concat_8";
}

}  // namespace

void concat(const Plan&, const ConcatArgs& args, void*, Stream& stream) {
  static const Code code("concat");
  const size_t bytes = size_of(args.y.dtype);
  const int last = args.y.rank - 1;
  int64_t begin = 0;
  for (const View* x : {&args.a, &args.b}) {
    View part = args.y;
    part.shape[last] = x->shape[last];
    part.data = args.y.as<char>() + begin * static_cast<int64_t>(bytes);
    begin += x->shape[last];
    launch_elements(
        stream, code, kernel_of(bytes), ConcatCuda{x->data, part.data, make_runs(*x, part)});
  }
}

}  // namespace ferry::ops::cuda
