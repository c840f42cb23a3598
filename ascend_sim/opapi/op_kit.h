// What the ops of this folder share: checks that recur, and loops over elements.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "nnopbase/op.h"
#include "opapi/view.h"
#include "opapi/workers.h"

namespace ascend_sim {

/// FLOAT, FLOAT16, or BF16 where the chip has it; 161002 otherwise.
inline void require_float(const Plan& op, const char* name, const Tensor& t) {
  op.require_type(name, t, {ACL_FLOAT, ACL_FLOAT16, ACL_BF16});
  op.require(t.dtype != ACL_BF16 || op.chip().has_bf16(),
             std::string(name) + ": BFLOAT16 is not supported on " + op.chip().name);
}

/// A float type as above, or an integer or BOOL. (DOUBLE is not offered here, but by Cast.)
inline void require_number(const Plan& op, const char* name, const Tensor& t) {
  if (is_float(t.dtype)) require_float(op, name, t);
}

inline void require_index(const Plan& op, const char* name, const Tensor& t) {
  op.require_type(name, t, {ACL_INT32, ACL_INT64});
}

/// For ops that are made for training and long vectors: 910B, 910C and 950 only.
inline void require_training_chip(const Plan& op) {
  op.require(op.chip().family != ChipFamily::k310P, "not supported on " + op.chip().name);
}

/// 561002, which documents give for shapes that a kernel cannot be tiled for, is answered by
/// 161002 here as well: callers see a refusal in the first phase either way.

inline constexpr int64_t kPiece = 4096;  // elements that a loop holds at a time

/// work(first, n) over [0, count) in pieces of at most kPiece, on several threads if there are
/// many.
template <class Work>
void in_pieces(int64_t count, const Work& work) {
  constexpr int64_t kShare = 16 * kPiece;
  in_parallel((count + kShare - 1) / kShare, [&](int64_t share) {
    const int64_t end = std::min(count, (share + 1) * kShare);
    for (int64_t i = share * kShare; i < end; i += kPiece) work(i, std::min(kPiece, end - i));
  });
}

/// out[i] = f(in0[i], in1[i], ...) over views of out's shape, computed in Number.
template <class Number, size_t kInputs, class F>
void map_as(const View& out, const std::array<View, kInputs>& in, const F& f) {
  in_pieces(out.count(), [&](int64_t first, int64_t n) {
    Number values[kInputs][kPiece], result[kPiece];
    for (size_t i = 0; i < kInputs; ++i) read(in[i], first, n, values[i]);
    for (int64_t j = 0; j < n; ++j) {
      if constexpr (kInputs == 1)
        result[j] = static_cast<Number>(f(values[0][j]));
      else if constexpr (kInputs == 2)
        result[j] = static_cast<Number>(f(values[0][j], values[1][j]));
      else
        result[j] = static_cast<Number>(f(values[0][j], values[1][j], values[2][j]));
    }
    write(out, first, n, result);
  });
}

/// The same with tensors, each broadcast to out's shape. Integers are computed as integers (when
/// all inputs are), everything else in float32. f takes any number type.
template <class F, class... Tensors>
void map(const F& f, const Tensor& out, const Tensors&... in) {
  const View to = view(out);
  const std::array<View, sizeof...(in)> from = {broadcast(view(in), out.shape)...};
  const bool integers = (... && !is_float(in.dtype));
  if (integers)
    map_as<int64_t>(to, from, f);
  else
    map_as<float>(to, from, f);
}

}  // namespace ascend_sim
