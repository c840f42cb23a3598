// Temporaries of a part of a kernel, for ops that are composed of many aclnn calls.
#pragma once

#include <initializer_list>
#include <list>

#include "ops/ascend/aclnn.h"

namespace ferry::ops::ascend {

/// Gives its memory back, in stream order, when it goes. Operands that it gave end with it.
class Scratch {
 public:
  explicit Scratch(Stream& stream) : stream_(stream) {}

  Stream& stream() const { return stream_; }

  Operand take(acl::DataType type, std::initializer_list<int64_t> shape) {
    return temps_.emplace_back(stream_, type, shape);
  }
  /// Contiguous, with x's shape.
  Operand like(const Operand& x, acl::DataType type) {
    return temps_.emplace_back(stream_, type, x);
  }
  /// x in another type, rounded to nearest even; x itself if it has the type.
  Operand cast(const Operand& x, acl::DataType type) {
    if (x.type() == type) return x;
    const Operand y = like(x, type);
    aclnn::Cast(stream_, x, type, y);
    return y;
  }
  /// x itself, or a contiguous copy.
  Operand packed(const Operand& x) {
    if (x.contiguous()) return x;
    const Operand y = like(x, x.type());
    aclnn::InplaceCopy(stream_, y, x);
    return y;
  }

 private:
  Stream& stream_;
  std::list<Temp> temps_;
};

}  // namespace ferry::ops::ascend
