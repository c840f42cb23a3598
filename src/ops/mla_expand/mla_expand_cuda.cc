// Three copies forward; two copies and a sum over heads on the way back.
#include "ops/mla_expand/mla_expand_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/mla_expand/mla_expand_kernels.h"

namespace ferry::ops::cuda {
namespace {

const Code& code() {
  static const Code code("mla_expand");
  return code;
}

/// Columns of a view of rank 3.
View columns(View v, int64_t begin, int64_t count) {
  v.data = v.as<char>() + begin * static_cast<int64_t>(size_of(v.dtype));
  v.shape[2] = count;
  return v;
}

void copy(Stream& stream, const View& from, const View& to) {
  launch_elements(stream,
                  code(),
                  by_type(from.dtype, "mla_copy_f32", "mla_copy_bf16"),
                  MlaCopyCuda{from.data, to.data, make_runs(from, to)});
}

}  // namespace

void mla_expand_forward(const Plan&, const MlaExpandArgs& a, void*, Stream& stream) {
  const int64_t d_v = a.v.shape[2], rotary = a.k_pe.shape[1], nope = a.k.shape[2] - rotary;
  View k_pe = a.k_pe;  // the same for every head
  k_pe.rank = 3;
  k_pe.shape[1] = a.k.shape[1];
  k_pe.shape[2] = rotary;
  k_pe.stride[1] = 0;
  k_pe.stride[2] = 1;
  copy(stream, columns(a.kv, 0, nope), columns(a.k, 0, nope));
  copy(stream, k_pe, columns(a.k, nope, rotary));
  copy(stream, columns(a.kv, nope, d_v), a.v);
}

void mla_expand_backward(const Plan&, const MlaExpandBackwardArgs& a, void*, Stream& stream) {
  const int64_t d_v = a.d_v.shape[2], rotary = a.d_k_pe.shape[1], nope = a.d_k.shape[2] - rotary;
  copy(stream, columns(a.d_k, 0, nope), columns(a.d_kv, 0, nope));
  copy(stream, a.d_v, columns(a.d_kv, nope, d_v));
  if (a.d_k_pe.count() == 0) return;
  code().launch(stream,
                by_type(a.d_k.dtype, "mla_rotary_f32", "mla_rotary_bf16"),
                {blocks_of(a.d_k_pe.count(), 256)},
                {256},
                MlaRotaryCuda{.d_k = columns(a.d_k, nope, rotary).data,
                              .d_k_pe = a.d_k_pe.data,
                              .tokens = a.d_k.shape[0],
                              .heads = a.d_k.shape[1],
                              .rotary = rotary,
                              .token_stride = a.d_k.stride[0],
                              .head_stride = a.d_k.stride[1],
                              .out_stride = a.d_k_pe.stride[0]});
}

}  // namespace ferry::ops::cuda
