// How an op's table names its CUDA kernels. Apart from ops/kernel_table.h, which kernels of every
// device include.
#pragma once

#include "ops/kernel_table.h"

/// In <op>.cc, inside namespace ferry::ops: declares the host's side of a kernel, or what plans for
/// it, which <op>_cuda.cc defines in namespace ferry::ops::cuda. Then CUDA_KERNEL(Args, name) or
/// CUDA_KERNEL(Args, name, plan) in the table.
#define DECLARE_CUDA_KERNEL(Args, name)                \
  namespace cuda {                                     \
  void name(const Plan&, const Args&, void*, Stream&); \
  }
#define DECLARE_CUDA_PLAN(Args, name) \
  namespace cuda {                    \
  Plan name(const Args&);             \
  }
#define CUDA_KERNEL(Args, name, ...) \
  ::ferry::ops::Kernel<Args>(&cuda::name __VA_OPT__(, &cuda::) __VA_ARGS__)
