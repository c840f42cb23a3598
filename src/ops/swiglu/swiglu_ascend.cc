// The vendor's ops take gate and up as the two halves of one tensor's columns. Where they already
// are, nothing is copied; otherwise they are put side by side first.
#include <optional>
#include <vector>

#include "ops/ascend/aclnn.h"
#include "ops/swiglu/swiglu_kernels.h"

namespace ferry::ops::ascend {
namespace {

/// Twice as wide in the last dimension.
std::vector<int64_t> doubled(const View& half) {
  std::vector<int64_t> shape(half.shape, half.shape + half.rank);
  shape.back() *= 2;
  return shape;
}

/// One view over both if `second` lies right behind `first` in each row, with nothing between.
std::optional<View> side_by_side(const View& first, const View& second) {
  const int last = first.rank - 1;
  const auto bytes = first.shape[last] * static_cast<int64_t>(size_of(first.dtype));
  if (first.as<char>() + bytes != second.as<char>()) return std::nullopt;
  for (int d = 0; d < last; ++d)
    if (first.shape[d] > 1 &&
        (first.stride[d] != second.stride[d] || first.stride[d] < 2 * first.shape[last]))
      return std::nullopt;
  View both = first;
  both.shape[last] *= 2;
  return both;
}

/// Calls f with gate and up as one operand.
template <typename F>
void with_both(Stream& stream, const View& gate, const View& up, F&& f) {
  if (const std::optional<View> both = side_by_side(gate, up)) return f(Operand(*both));
  const Temp both(stream, acl_type(gate.dtype), doubled(gate));
  aclnn::Cat(stream, OperandList({Operand(gate), Operand(up)}), -1, both);
  f(both);
}

}  // namespace

void swiglu_forward(const Plan&, const SwigluArgs& a, void*, Stream& stream) {
  if (a.y.count() == 0) return;
  with_both(stream, a.gate, a.up, [&](const Operand& both) {
    aclnn::SwiGlu(stream, both, -1, Operand(a.y));
  });
}

void swiglu_backward(const Plan&, const SwigluBackwardArgs& a, void*, Stream& stream) {
  if (a.d_y.count() == 0) return;
  const int64_t n = a.d_gate.shape[a.d_gate.rank - 1];
  const Temp d_both(stream, acl_type(a.d_gate.dtype), doubled(a.d_gate));
  with_both(stream, a.gate, a.up, [&](const Operand& both) {
    aclnn::SwiGluGrad(stream, Operand(a.d_y), both, -1, d_both);
  });
  aclnn::InplaceCopy(stream, Operand(a.d_gate), d_both.slice(-1, 0, n));
  aclnn::InplaceCopy(stream, Operand(a.d_up), d_both.slice(-1, n, 2 * n));
}

}  // namespace ferry::ops::ascend
