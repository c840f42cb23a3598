// Kernels that are composed of several aclnn ops compute in float32 between them: an op of the
// vendor rounds its result to the type of its tensors.
#pragma once

#include <optional>

#include "ops/ascend/aclnn.h"

namespace ferry::ops::ascend {

/// A tensor as float32: itself, or a copy in a Temp.
class Float32 {
 public:
  Float32(Stream& stream, const Operand& source) : source_(source) {
    if (source.type() == acl::kFloat) return;
    temp_.emplace(stream, acl::kFloat, source);
    aclnn::Cast(stream, source, acl::kFloat, *temp_);
  }
  const Operand& operand() const { return temp_ ? *temp_ : source_; }
  operator acl::Tensor*() const { return operand(); }

 private:
  Operand source_;
  std::optional<Temp> temp_;
};

/// Where a kernel writes float32: the result itself, or a Temp that store() rounds into it.
class Float32Result {
 public:
  Float32Result(Stream& stream, const Operand& result) : stream_(stream), result_(result) {
    if (result.type() != acl::kFloat) temp_.emplace(stream, acl::kFloat, result);
  }
  const Operand& operand() const { return temp_ ? *temp_ : result_; }
  operator acl::Tensor*() const { return operand(); }

  /// Takes what the result holds now.
  void load() const {
    if (temp_) aclnn::Cast(stream_, result_, acl::kFloat, *temp_);
  }
  void store() const {
    if (temp_) aclnn::Cast(stream_, *temp_, result_.type(), result_);
  }

 private:
  Stream& stream_;
  Operand result_;
  std::optional<Temp> temp_;
};

}  // namespace ferry::ops::ascend
