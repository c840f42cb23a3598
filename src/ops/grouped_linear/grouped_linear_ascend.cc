// The experts' products through aclnnGroupedMatmulV5. The rows' ends stay on the device, as the
// list of running sums that it takes. As in matmul, an f32 result of bf16 products is made of f32
// copies of the operands. Rows from offsets[experts] on are left as they are.
#include "ops/ascend/scratch.h"
#include "ops/grouped_linear/grouped_linear_kernels.h"

namespace ferry::ops::ascend {
namespace {

constexpr int64_t kOneOutput = 3;    // splitItem
constexpr int64_t kSplitRows = 0;    // groupType: a group's rows meet its own weight
constexpr int64_t kSplitDepth = 2;   // groupType: a group's rows are what is summed over
constexpr int64_t kRunningSums = 0;  // groupListType
constexpr int64_t kNoActivation = 0;

}  // namespace

void grouped_matmul(const Plan&, const GroupedMatmulArgs& args, void*, Stream& stream) {
  if (args.c.count() == 0) return;
  const bool weights = args.product == GroupedProduct::kWeights;
  const acl::DataType compute = acl_type(args.compute), out = acl_type(args.c.dtype);
  const acl::DataType type = compute == out ? compute : acl::kFloat;
  Scratch scratch(stream);
  const Operand c = out == type ? Operand(args.c) : scratch.like(args.c, type);
  if (weights) aclnn::InplaceZero(stream, c);  // what experts without rows get
  if (args.a.count() > 0 && args.b.count() > 0) {
    const Operand a = scratch.cast(scratch.cast(args.a, compute), type),
                  b = scratch.cast(scratch.cast(args.b, compute), type);
    const Operand offsets(args.offsets);
    const Operand ends = scratch.cast(offsets.slice(0, 1, offsets.dim(0)), acl::kInt64);
    aclnn::GroupedMatmulV5(
        stream,
        OperandList{weights ? a.transpose(0, 1) : a},
        OperandList{args.product == GroupedProduct::kForward ? b.transpose(1, 2) : b},
        nullptr,  // bias
        nullptr,  // scale
        nullptr,  // offset
        nullptr,  // antiquantScale
        nullptr,  // antiquantOffset
        nullptr,  // perTokenScale
        ends,
        nullptr,  // activationInput
        nullptr,  // activationQuantScale
        nullptr,  // activationQuantOffset
        kOneOutput,
        weights ? kSplitDepth : kSplitRows,
        kRunningSums,
        kNoActivation,
        nullptr,  // tuningConfig
        OperandList{c},
        nullptr,   // activationFeatureOut
        nullptr);  // dynQuantScaleOut
  }
  if (out != type) aclnn::InplaceCopy(stream, Operand(args.c), c);
}

}  // namespace ferry::ops::ascend
