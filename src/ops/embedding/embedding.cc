// Checks, kernel table and gradient of embedding.
#include "ops/embedding/embedding.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dequantize/dequantize.h"
#include "ops/dispatch.h"
#include "ops/embedding/embedding_kernels.h"
#include "ops/pair_linear/pair_linear.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(EmbeddingArgs, embedding_forward)
DECLARE_CUDA_KERNEL(EmbeddingBackwardArgs, embedding_backward)

const KernelTable<EmbeddingArgs> kForward{
    .op = "embedding",
    .cpu = CPU_KERNEL(EmbeddingArgs, embedding_forward),
    .cuda = CUDA_KERNEL(EmbeddingArgs, embedding_forward),
    .ascend = ASCEND_KERNEL(EmbeddingArgs, Branch::kFused, embedding_forward),
};

const KernelTable<EmbeddingBackwardArgs> kBackward{
    .op = "embedding_backward",
    .cpu = CPU_KERNEL(EmbeddingBackwardArgs, embedding_backward),
    .cuda = CUDA_KERNEL(EmbeddingBackwardArgs, embedding_backward),
    .ascend = ASCEND_KERNEL(EmbeddingBackwardArgs, Branch::kFused, embedding_backward),
};

Tensor embedding(const Tensor& ids, const Weight& weight, DType out) {
  if (weight.paired) return pair_rows(ids, weight, out);
  const bool codes = weight.codes().has_value();
  const Tensor w = codes ? weight.value : weight_values(weight, out);
  const Shape matrix = codes ? weight.global_shape : w.shape();
  check(ids.rank() == 1 && matrix.rank() == 2,
        "embedding: ids {}, {} {}",
        ids.shape().str(),
        weight.name,
        matrix.str());
  check(ids.dtype() == DType::kI32, "embedding: ids are {}", to_string(ids.dtype()));
  check(out == DType::kF32 || out == DType::kBF16, "embedding: wanted in {}", to_string(out));
  Tensor y = Tensor::empty({ids.dim(0), matrix[1]}, out, ids.device());
  dispatch(kForward,
           EmbeddingArgs{ids.view(),
                         w.view(),
                         y.view(),
                         matrix[0],
                         codes ? weight.scales.view() : View{},
                         weight.codes().value_or(WeightCodes{})},
           ids.device());
  Tape* const tape = Tape::current();
  check(
      tape == nullptr || !codes, "embedding: {} holds codes, which cannot be trained", weight.name);
  if (tape != nullptr)
    tape->record(
        "embedding",
        {w},
        {y},
        [](Grads&) {},  // the ids have no gradient
        [ids, w = w.without_memory(), y = y.without_memory()](Grads& grads) {
          Tensor d_w = Tensor::empty(w.shape(), DType::kF32, ids.device());
          dispatch(kBackward,
                   EmbeddingBackwardArgs{ids.view(), grads.of(y).view(), d_w.view()},
                   ids.device());
          grads.add(w, d_w);
        });
  return y;
}

}  // namespace ferry::ops
