// matmul through aclnnMm, or aclnnBatchMatMul for a batch. The matrix unit adds in float32 but
// rounds the result to its operands' type, so bf16 products with an f32 result are made of f32
// copies of the rounded operands: their products are exact there.
#include "ops/ascend/scratch.h"
#include "ops/matmul/matmul_kernels.h"

namespace ferry::ops::ascend {

void matmul(const Plan&, const MatmulArgs& args, void*, Stream& stream) {
  if (args.c.count() == 0) return;
  if (args.a.count() == 0) return aclnn::InplaceZero(stream, Operand(args.c));  // an empty sum
  const acl::DataType compute = acl_type(args.compute), out = acl_type(args.c.dtype);
  const acl::DataType type = compute == out ? compute : acl::kFloat;
  Scratch scratch(stream);
  const auto operand = [&](const View& v, bool transpose) {
    const Operand x = scratch.cast(scratch.cast(v, compute), type);
    return transpose ? x.transpose(-1, -2) : x;
  };
  const Operand a = operand(args.a, args.transpose_a), b = operand(args.b, args.transpose_b);
  const Operand c = out == type ? Operand(args.c) : scratch.like(args.c, type);
  (c.rank() == 3 ? aclnn::BatchMatMul : aclnn::Mm)(stream, a, b, c, kKeepType);
  if (out != type) aclnn::InplaceCopy(stream, Operand(args.c), c);
}

}  // namespace ferry::ops::ascend
