// The aclnn ops that Ferry's kernels call, each with the arguments of its first phase, and the one
// way to call them: plan, take the workspace from the pool, launch, enter the stream's ring.
//
//   aclnn::Mm(stream, a.x, Operand(a.w).transpose(0, 1), a.y, kKeepType);
//
// The calls allocate from the device's pool in stream order: a hit is no call of the system. They
// never wait. A status that is not success becomes a DeviceError that names the op.
#pragma once

#include <atomic>
#include <cstdint>

#include "device/ascend/acl.h"
#include "ops/ascend/operand.h"

namespace ferry::ops::ascend {

/// The libraries. Only where an Ascend device is open: that is where kernels run.
const acl::Library& library();

namespace detail {

using Launch = acl::Status (*)(void* workspace, uint64_t bytes, acl::Executor*, acl::Stream);

/// The function of libopapi.so. Throws DeviceError when this CANN has none of that name.
void* resolve(Stream& stream, const char* op, const char* suffix);
void launch(Stream& stream,
            const char* op,
            acl::Status planned,
            Launch launch,
            uint64_t workspace_bytes,
            acl::Executor* executor);

}  // namespace detail

/// One aclnn op. Args: what its first phase takes before workspaceSize and executor.
template <class... Args>
class AclnnOp {
 public:
  explicit constexpr AclnnOp(const char* name) : name_(name) {}
  const char* name() const { return name_; }

  void operator()(Stream& stream, Args... args) const {
    Plan plan = plan_.load(std::memory_order_acquire);
    if (plan == nullptr) {
      launch_.store(reinterpret_cast<detail::Launch>(detail::resolve(stream, name_, "")),
                    std::memory_order_relaxed);
      plan = reinterpret_cast<Plan>(detail::resolve(stream, name_, "GetWorkspaceSize"));
      plan_.store(plan, std::memory_order_release);
    }
    uint64_t bytes = 0;
    acl::Executor* executor = nullptr;
    const acl::Status planned = plan(args..., &bytes, &executor);
    detail::launch(
        stream, name_, planned, launch_.load(std::memory_order_relaxed), bytes, executor);
  }

 private:
  using Plan = acl::Status (*)(Args..., uint64_t*, acl::Executor**);
  const char* name_;
  mutable std::atomic<Plan> plan_ = nullptr;
  mutable std::atomic<detail::Launch> launch_ = nullptr;
};

/// Of matrix products: fp32 stays fp32. The other values cost mantissa bits without a word.
inline constexpr int8_t kKeepType = 0;

/// Of RotaryPositionEmbedding.
inline constexpr int64_t kRopeHalf = 0;
inline constexpr int64_t kRopeInterleaved = 1;

}  // namespace ferry::ops::ascend

// Named as the vendor names them, so that its manual finds them.
namespace ferry::ops::ascend::aclnn {

using T = acl::Tensor*;
using TL = acl::TensorList*;
using S = acl::Scalar*;
using IA = acl::IntArray*;
using I = int64_t;
using Str = const char*;
using Type = acl::DataType;

#define FERRY_ACLNN(name, ...) inline const AclnnOp<__VA_ARGS__> name("aclnn" #name)

// Matrix products: self, mat2, out, cubeMathType.
FERRY_ACLNN(Matmul, T, T, T, int8_t);
FERRY_ACLNN(Mm, T, T, T, int8_t);
FERRY_ACLNN(BatchMatMul, T, T, T, int8_t);
// x, weight, bias?, scale?, offset?, antiquantScale?, antiquantOffset?, perTokenScale?, groupList?,
// activationInput?, activationQuantScale?, activationQuantOffset?, splitItem, groupType,
// groupListType, actType, tuningConfig?, out, activationFeatureOut?, dynQuantScaleOut?
FERRY_ACLNN(
    GroupedMatmulV5, TL, TL, TL, TL, TL, TL, TL, TL, T, TL, TL, TL, I, I, I, I, IA, TL, TL, TL);

// Norm, RoPE, activations, softmax.
FERRY_ACLNN(RmsNorm, T, T, double, T, T);             // x, gamma, epsilon, y, rstd
FERRY_ACLNN(RmsNormGrad, T, T, T, T, T, T);           // dy, x, rstd, gamma, dx, dgamma
FERRY_ACLNN(RotaryPositionEmbedding, T, T, T, I, T);  // x, cos, sin, mode, out
// dy, cos, sin, x?, mode, dx, dcos, dsin
FERRY_ACLNN(RotaryPositionEmbeddingGrad, T, T, T, T, I, T, T, T);
FERRY_ACLNN(SwiGlu, T, I, T);         // x, dim, out
FERRY_ACLNN(SwiGluGrad, T, T, I, T);  // dy, x, dim, out
FERRY_ACLNN(Silu, T, T);
FERRY_ACLNN(SiluBackward, T, T, T);  // dy, self, out
FERRY_ACLNN(Sigmoid, T, T);
FERRY_ACLNN(SigmoidBackward, T, T, T);  // dy, y, out
FERRY_ACLNN(Softmax, T, I, T);
FERRY_ACLNN(SoftmaxBackward, T, T, I, T);  // dy, y, dim, out
FERRY_ACLNN(LogSoftmax, T, I, T);
FERRY_ACLNN(LogSoftmaxBackward, T, T, I, T);  // dy, y, dim, out

// Attention.
// query, key, value, realShift?, dropMask?, paddingMask?, attenMask?, prefix?, scaleValue,
// keepProb, preTokens, nextTokens, headNum, inputLayout, innerPrecise, sparseMode, softmaxMax,
// softmaxSum, softmaxOut, attentionOut
FERRY_ACLNN(
    FlashAttentionScore, T, T, T, T, T, T, T, IA, double, double, I, I, I, Str, I, I, T, T, T, T);
// query, key, value, dy, pseShift?, dropMask?, paddingMask?, attenMask?, softmaxMax?, softmaxSum?,
// softmaxIn?, attentionIn?, prefix?, scaleValue, keepProb, preTokens, nextTokens, headNum,
// inputLayout, innerPrecise, sparseMode, dq, dk, dv, dpse
FERRY_ACLNN(FlashAttentionScoreGrad,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            IA,
            double,
            double,
            I,
            I,
            I,
            Str,
            I,
            I,
            T,
            T,
            T,
            T);
// As FlashAttentionScore, with actualSeqQLen?, actualSeqKvLen? after prefix?.
FERRY_ACLNN(FlashAttentionVarLenScore,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            IA,
            IA,
            IA,
            double,
            double,
            I,
            I,
            I,
            Str,
            I,
            I,
            T,
            T,
            T,
            T);
// As FlashAttentionScoreGrad, with actualSeqQLen?, actualSeqKvLen? after prefix?.
FERRY_ACLNN(FlashAttentionUnpaddingScoreGrad,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            IA,
            IA,
            IA,
            double,
            double,
            I,
            I,
            I,
            Str,
            I,
            I,
            T,
            T,
            T,
            T);
// query, key, value, pseShift?, attenMask?, actualSeqLengths?, actualSeqLengthsKv?, deqScale1?,
// quantScale1?, deqScale2?, quantScale2?, quantOffset2?, antiquantScale?, antiquantOffset?,
// blockTable?, queryPaddingSize?, kvPaddingSize?, keyAntiquantScale?, keyAntiquantOffset?,
// valueAntiquantScale?, valueAntiquantOffset?, keySharedPrefix?, valueSharedPrefix?,
// actualSharedPrefixLen?, queryRope?, keyRope?, keyRopeAntiquantScale?, numHeads, scaleValue,
// preTokens, nextTokens, inputLayout, numKeyValueHeads, sparseMode, innerPrecise, blockSize,
// antiquantMode, softmaxLseFlag, keyAntiquantMode, valueAntiquantMode, attentionOut, softmaxLse
FERRY_ACLNN(FusedInferAttentionScoreV3,
            T,
            TL,
            TL,
            T,
            T,
            IA,
            IA,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            T,
            IA,
            T,
            T,
            T,
            I,
            double,
            I,
            I,
            Str,
            I,
            I,
            I,
            I,
            I,
            bool,
            I,
            I,
            T,
            T);

// Experts.
// x, bias?, k, kGroup, groupCount, groupSelectMode, renorm, normType, outFlag,
// routedScalingFactor, eps, y, expertIdx, out
FERRY_ACLNN(MoeGatingTopK, T, T, I, I, I, I, I, I, bool, double, double, T, T, T);
// x, expertIdx, activeNum, expertCapacity, expertNum, dropPadMode, expertTokensCountOrCumsumFlag,
// expertTokensBeforeCapacityFlag, expandedX, expandedRowIdx, expertTokensCountOrCumsum?,
// expertTokensBeforeCapacity?
FERRY_ACLNN(MoeInitRoutingV2, T, T, I, I, I, I, I, bool, T, T, T, T);
// gradExpandedX, expandedRowIdx, topK, dropPadMode, activeNum, out
FERRY_ACLNN(MoeInitRoutingV2Grad, T, T, I, I, I, T);
// tokens, indices, numOutTokens, paddedMode, permuteTokens, sortedIndices
FERRY_ACLNN(MoeTokenPermute, T, T, I, bool, T, T);
FERRY_ACLNN(MoeTokenPermuteGrad, T, T, I, bool, T);  // dy, sortedIndices, numTopk, padded, out
// permutedTokens, sortedIndices, probs?, paddedMode, restoreShape?, out
FERRY_ACLNN(MoeTokenUnpermute, T, T, T, bool, IA, T);
// permuteTokens, dy, sortedIndices, probs?, paddedMode, restoreShape?, d_permuted, d_probs
FERRY_ACLNN(MoeTokenUnpermuteGrad, T, T, T, T, bool, IA, T, T);
// expandedX, expandedRowIdx, x1?, x2?, bias?, scales?, expertIdx?, dropPadMode, out
FERRY_ACLNN(MoeFinalizeRoutingV2, T, T, T, T, T, T, T, I, T);
// gradY, expandedRowIdx, expandedX?, scales?, expertIdx?, bias?, dropPadMode, activeNum,
// expertNum, expertCapacity, gradExpandedX, gradScales
FERRY_ACLNN(MoeFinalizeRoutingV2Grad, T, T, T, T, T, T, I, I, I, I, T, T);

// Embedding, loss, optimizer.
FERRY_ACLNN(Embedding, T, T, T);  // weight, indices, out
FERRY_ACLNN(EmbeddingDenseBackward, T, T, uint64_t, uint64_t, bool, T);
// grad, indices, numWeights, paddingIdx, scaleGradByFreq, out
FERRY_ACLNN(NLLLoss, T, T, T, I, I, T, T);
// self, target, weight, reduction, ignoreIndex, out, totalWeight
FERRY_ACLNN(NLLLossBackward, T, T, T, T, I, I, T, T);
// dy, self, target, weight, reduction, ignoreIndex, totalWeight, out
FERRY_ACLNN(ApplyAdamWV2, T, T, T, T, T, T, float, float, float, float, float, bool, bool);
// var, m, v, maxGradNorm?, grad, step, lr, beta1, beta2, weightDecay, eps, amsgrad, maximize
FERRY_ACLNN(LinalgVectorNorm, T, S, IA, bool, Type, T);  // self, ord, dims, keep, type, out

// Sorting and indices.
FERRY_ACLNN(Topk, T, I, I, bool, bool, T, T);  // self, k, dim, largest, sorted, values, indices
FERRY_ACLNN(Sort, T, bool, I, bool, T, T);     // self, stable, dim, descending, values, indices
FERRY_ACLNN(Argsort, T, I, bool, T);           // self, dim, descending, out
FERRY_ACLNN(ArgMax, T, I, bool, T);            // self, dim, keepdim, out
FERRY_ACLNN(Gather, T, I, T, T);               // self, dim, index, out
FERRY_ACLNN(GatherV2, T, I, T, T);
FERRY_ACLNN(IndexSelect, T, I, T, T);
FERRY_ACLNN(IndexAdd, T, I, T, T, S, T);    // self, dim, index, source, alpha, out
FERRY_ACLNN(ScatterAdd, T, I, T, T, T);     // self, dim, index, src, out
FERRY_ACLNN(InplaceIndexCopy, T, I, T, T);  // self, dim, index, source
FERRY_ACLNN(Cumsum, T, I, Type, T);         // self, dim, type, out
FERRY_ACLNN(Arange, S, S, S, T);            // start, end, step, out

// Element by element.
FERRY_ACLNN(Cast, T, Type, T);
FERRY_ACLNN(Add, T, T, S, T);  // self, other, alpha, out
FERRY_ACLNN(Adds, T, S, S, T);
FERRY_ACLNN(InplaceAdd, T, T, S);
FERRY_ACLNN(Sub, T, T, S, T);
FERRY_ACLNN(Mul, T, T, T);
FERRY_ACLNN(InplaceMul, T, T);
FERRY_ACLNN(Muls, T, S, T);
FERRY_ACLNN(InplaceMuls, T, S);
FERRY_ACLNN(Div, T, T, T);
FERRY_ACLNN(Divs, T, S, T);
FERRY_ACLNN(Exp, T, T);
FERRY_ACLNN(Log, T, T);
FERRY_ACLNN(Sqrt, T, T);
FERRY_ACLNN(Rsqrt, T, T);
FERRY_ACLNN(Reciprocal, T, T);
FERRY_ACLNN(Neg, T, T);
FERRY_ACLNN(Cos, T, T);
FERRY_ACLNN(Sin, T, T);
FERRY_ACLNN(PowTensorScalar, T, S, T);
FERRY_ACLNN(PowScalarTensor, S, T, T);
FERRY_ACLNN(Addcmul, T, T, T, S, T);  // self, tensor1, tensor2, value, out
FERRY_ACLNN(Maximum, T, T, T);
FERRY_ACLNN(EqTensor, T, T, T);
FERRY_ACLNN(LtTensor, T, T, T);
FERRY_ACLNN(GtScalar, T, S, T);
FERRY_ACLNN(SWhere, T, T, T, T);                // condition, self, other, out
FERRY_ACLNN(InplaceMaskedFillScalar, T, T, S);  // self, mask, value
FERRY_ACLNN(InplaceFillScalar, T, S);
FERRY_ACLNN(InplaceZero, T);

// Sums and maxima.
FERRY_ACLNN(ReduceSum, T, IA, bool, Type, T);  // self, dims, keep, type, out
FERRY_ACLNN(Mean, T, IA, bool, Type, T);
FERRY_ACLNN(Amax, T, IA, bool, T);
FERRY_ACLNN(MaxDim, T, I, bool, T, T);  // self, dim, keep, out, indices

// Copies.
FERRY_ACLNN(InplaceCopy, T, T);        // self, source: strided, and casts
FERRY_ACLNN(Slice, T, I, I, I, I, T);  // self, dim, start, end, step, out
FERRY_ACLNN(Permute, T, IA, T);
FERRY_ACLNN(Repeat, T, IA, T);
FERRY_ACLNN(Cat, TL, I, T);
FERRY_ACLNN(SplitWithSize, T, IA, I, TL);
FERRY_ACLNN(Triu, T, I, T);

#undef FERRY_ACLNN

}  // namespace ferry::ops::ascend::aclnn
