// The vendor's ops read and write memory at whatever id they are given; ours gives zeros for ids
// outside the vocabulary. So those look up row 0 and their row is replaced by zeros, on the way in
// and, for the gradient, on the way out.
#include "ops/ascend/aclnn.h"
#include "ops/ascend/float32.h"
#include "ops/embedding/embedding_kernels.h"

namespace ferry::ops::ascend {
namespace {

class SafeIds {
 public:
  SafeIds(Stream& stream, const View& ids, int64_t vocab)
      : stream_(stream),
        ids_(stream, acl::kInt32, Operand(ids)),
        below_(stream, acl::kBool, Operand(ids)),
        above_(stream, acl::kBool, Operand(ids)) {
    const Temp zero(stream, acl::kInt32, {1});
    aclnn::InplaceZero(stream, zero);
    aclnn::LtTensor(stream, Operand(ids), zero, below_);
    aclnn::GtScalar(stream, Operand(ids), Scalar(vocab - 1), above_);
    aclnn::InplaceCopy(stream, ids_, Operand(ids));
    aclnn::InplaceMaskedFillScalar(stream, ids_, below_, Scalar(int64_t{0}));
    aclnn::InplaceMaskedFillScalar(stream, ids_, above_, Scalar(int64_t{0}));
  }
  const Operand& ids() const { return ids_; }
  /// rows [tokens, hidden]: zeros where the id was outside.
  void clear_outside(const Operand& rows) const {
    aclnn::InplaceMaskedFillScalar(stream_, rows, below_.unsqueeze(1), Scalar(0.0f));
    aclnn::InplaceMaskedFillScalar(stream_, rows, above_.unsqueeze(1), Scalar(0.0f));
  }

 private:
  Stream& stream_;
  Temp ids_, below_, above_;
};

}  // namespace

void embedding_forward(const Plan&, const EmbeddingArgs& a, void*, Stream& stream) {
  if (a.y.count() == 0) return;
  const SafeIds safe(stream, a.ids, a.weight.shape[0]);
  const Operand y(a.y);
  if (a.weight.dtype == a.y.dtype) {
    aclnn::Embedding(stream, Operand(a.weight), safe.ids(), y);
  } else {
    const Temp rows(stream, acl_type(a.weight.dtype), y);
    aclnn::Embedding(stream, Operand(a.weight), safe.ids(), rows);
    aclnn::Cast(stream, rows, y.type(), y);
  }
  safe.clear_outside(y);
}

void embedding_backward(const Plan&, const EmbeddingBackwardArgs& a, void*, Stream& stream) {
  const Operand d_weight(a.d_weight);
  if (a.d_y.count() == 0) return aclnn::InplaceZero(stream, d_weight);
  const SafeIds safe(stream, a.ids, a.d_weight.shape[0]);
  const Temp rows(stream, acl::kFloat, Operand(a.d_y));
  aclnn::InplaceCopy(stream, rows, Operand(a.d_y));
  safe.clear_outside(rows);
  constexpr uint64_t kNoPadding = ~uint64_t{0};
  aclnn::EmbeddingDenseBackward(stream,
                                rows,
                                safe.ids(),
                                static_cast<uint64_t>(a.d_weight.shape[0]),
                                kNoPadding,
                                false,
                                d_weight);
}

}  // namespace ferry::ops::ascend
