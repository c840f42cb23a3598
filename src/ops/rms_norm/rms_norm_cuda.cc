// One kernel forward; one for rows and one for the weight on the way back.
#include "ops/rms_norm/rms_norm_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/rms_norm/rms_norm_kernels.h"

namespace ferry::ops::cuda {
namespace {

const Code& code() {
  static const Code code("rms_norm");
  return code;
}

}  // namespace

void rms_norm_forward(const Plan&, const RmsNormArgs& a, void*, Stream& stream) {
  if (a.x.count() == 0) return;
  const RmsNormCuda args{.x = a.x.data,
                         .weight = a.weight.data,
                         .y = a.y.data,
                         .rstd = a.rstd.as<float>(),
                         .tokens = a.x.shape[0],
                         .hidden = a.x.shape[1],
                         .x_stride = a.x.stride[0],
                         .eps = a.eps,
                         .weight_bf16 = is_bf16(a.weight)};
  code().launch(stream,
                by_type(a.x.dtype, "rms_norm_f32", "rms_norm_bf16"),
                rows_grid(args.tokens),
                kRowsBlock,
                args);
}

void rms_norm_backward(const Plan&, const RmsNormBackwardArgs& a, void*, Stream& stream) {
  const RmsNormBackwardCuda args{.x = a.x.data,
                                 .weight = a.weight.data,
                                 .rstd = a.rstd.as<float>(),
                                 .d_y = a.d_y.data,
                                 .d_x = a.d_x.data,
                                 .d_weight = a.d_weight.as<float>(),
                                 .tokens = a.x.shape[0],
                                 .hidden = a.x.shape[1],
                                 .x_stride = a.x.stride[0],
                                 .d_y_stride = a.d_y.stride[0],
                                 .weight_bf16 = is_bf16(a.weight)};
  if (a.x.count() > 0)
    code().launch(stream,
                  by_type(a.x.dtype, "rms_norm_backward_f32", "rms_norm_backward_bf16"),
                  rows_grid(args.tokens),
                  kRowsBlock,
                  args);
  if (a.d_weight.given() && args.hidden > 0)
    code().launch(stream,
                  by_type(a.x.dtype, "rms_norm_weight_f32", "rms_norm_weight_bf16"),
                  columns_grid(args.hidden),
                  kColumnsBlock,
                  args);
}

}  // namespace ferry::ops::cuda
