// Elementwise forward; sums of columns on the way back.
#include "ops/add_bias/add_bias_cuda.h"

#include "ops/add_bias/add_bias_kernels.h"
#include "ops/cuda/launch.h"

namespace ferry::ops::cuda {
namespace {

const Code& code() {
  static const Code code("add_bias");
  return code;
}

}  // namespace

void add_bias(const Plan&, const AddBiasArgs& a, void*, Stream& stream) {
  View bias = a.bias;  // the same for every row
  bias.rank = 2;
  bias.shape[0] = a.x.shape[0];
  bias.shape[1] = a.x.shape[1];
  bias.stride[0] = 0;
  bias.stride[1] = 1;
  launch_elements(
      stream,
      code(),
      by_type(a.y.dtype, "add_bias_f32", "add_bias_bf16"),
      AddBiasCuda{a.x.as<float>(), a.bias.as<float>(), a.y.data, make_runs(a.x, bias, a.y)});
}

void add_bias_backward(const Plan&, const AddBiasBackwardArgs& a, void*, Stream& stream) {
  const int64_t columns = a.d_y.shape[1];
  if (columns == 0) return;
  code().launch(stream,
                by_type(a.d_y.dtype, "add_bias_backward_f32", "add_bias_backward_bf16"),
                columns_grid(columns),
                kColumnsBlock,
                AddBiasBackwardCuda{
                    a.d_y.data, a.d_bias.as<float>(), a.d_y.shape[0], columns, a.d_y.stride[0]});
}

}  // namespace ferry::ops::cuda
