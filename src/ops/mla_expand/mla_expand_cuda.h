// What the CUDA kernels of mla_expand take.
#pragma once

#include "ops/cuda/runs.h"

namespace ferry::ops {

struct MlaCopyCuda {
  const void* from;
  void* to;
  Runs<2> runs;  // from, to
};

struct MlaRotaryCuda {
  const void* d_k;  // from the first rotary column
  void* d_k_pe;
  int64_t tokens, heads, rotary, token_stride, head_stride, out_stride;
};

}  // namespace ferry::ops
