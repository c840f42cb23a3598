#include "ops/matmul/rounded_weight.h"

#include "autograd/tape.h"
#include "ops/cast/cast.h"
#include "ops/matmul/matmul_kernels.h"

namespace ferry::ops {
namespace {

constexpr int kRoundedLayout = 2;  // PackedWeight::layout; packed_weight.cc has another

}  // namespace

Tensor rounded_weight(const Weight& weight, const Tensor& values, DType compute) {
  const auto takes = kMatmul.on(values.device().kind()).traits.takes_rounded;
  if (values.dtype() == compute || takes == nullptr || !takes(values.device(), compute))
    return values;
  const bool fresh = weight.packed != nullptr && weight.packed->layout == kRoundedLayout &&
                     weight.packed->version == weight.version &&
                     weight.packed->of == values.storage().get();
  if (!fresh) {
    weight.packed.reset();  // its memory is the next one's
    const Tape::Recording nobody(nullptr);
    weight.packed = std::make_shared<PackedWeight>(PackedWeight{
        weight.version, kRoundedLayout, values.storage().get(), cast(values, compute)});
  }
  return weight.packed->panels;
}

}  // namespace ferry::ops
