// The vendor's op in float32: it wants cos and sin in x's type, and in bfloat16 they would be off
// by 2^-9. The gradient is the rotation the other way: the same op with -sin.
#include "ops/ascend/aclnn.h"
#include "ops/ascend/float32.h"
#include "ops/rope/rope_kernels.h"

namespace ferry::ops::ascend {
namespace {

/// The angles of each token [1, tokens, 1, 2 * pairs]: each of a row of the table [positions,
/// pairs] twice, side by side (interleaved) or half a row apart.
class Angles {
 public:
  Angles(Stream& stream, const View& table, const View& position, bool interleaved, bool negative)
      : rows_(stream, acl::kFloat, {position.shape[0], table.shape[1]}),
        wide_(stream, acl::kFloat, {position.shape[0], 2 * table.shape[1]}) {
    aclnn::IndexSelect(stream, Operand(table), 0, Operand(position), rows_);
    const int twice = interleaved ? 2 : 1;
    const Operand to = interleaved ? wide_.split(1, table.shape[1]) : wide_.split(1, 2);
    if (negative) {
      const Temp turned(stream, acl::kFloat, rows_);
      aclnn::Neg(stream, rows_, turned);
      aclnn::InplaceCopy(stream, to, turned.unsqueeze(twice));
    } else {
      aclnn::InplaceCopy(stream, to, rows_.unsqueeze(twice));
    }
  }
  Operand operand() const { return wide_.unsqueeze(1).unsqueeze(0); }

 private:
  Temp rows_, wide_;
};

}  // namespace

void rope(const Plan&, const RopeArgs& a, void*, Stream& stream) {
  if (a.x.count() == 0) return;
  const Operand x(a.x), y(a.y);
  const int64_t depth = x.dim(2), end = a.begin + 2 * a.cos.shape[1];
  if (a.begin > 0) aclnn::InplaceCopy(stream, y.slice(2, 0, a.begin), x.slice(2, 0, a.begin));
  if (end < depth) aclnn::InplaceCopy(stream, y.slice(2, end, depth), x.slice(2, end, depth));
  const Angles cos(stream, a.cos, a.position, a.interleaved, false);
  const Angles sin(stream, a.sin, a.position, a.interleaved, a.inverse);
  const Float32 source(stream, x.slice(2, a.begin, end));
  const Temp turned(stream, acl::kFloat, source.operand());
  aclnn::RotaryPositionEmbedding(stream,
                                 source.operand().unsqueeze(0),
                                 cos.operand(),
                                 sin.operand(),
                                 a.interleaved ? kRopeInterleaved : kRopeHalf,
                                 turned.unsqueeze(0));
  aclnn::InplaceCopy(stream, y.slice(2, a.begin, end), turned);
}

}  // namespace ferry::ops::ascend
