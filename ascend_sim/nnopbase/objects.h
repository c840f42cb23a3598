// What stands behind the handles of nnopbase: tensors, scalars, arrays, lists. Each handle is known
// while it lives, so that one that was destroyed too early, or twice, is told from one that was
// not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "acl.h"
#include "nnopbase/tensor.h"

struct aclTensor {
  ascend_sim::Tensor value;
};
struct aclScalar {
  aclDataType dtype = ACL_DT_UNDEFINED;
  double value = 0;
  int64_t integer = 0;
};
struct aclIntArray {
  std::vector<int64_t> values;
};
struct aclFloatArray {
  std::vector<float> values;
};
struct aclBoolArray {
  std::vector<unsigned char> values;
};
struct aclTensorList {
  std::vector<const aclTensor*> members;
};
struct aclScalarList {
  std::vector<const aclScalar*> members;
};

namespace ascend_sim {

/// Number of a living handle, never used twice; 0 if there is no such handle (any more).
uint64_t life_of(const void* handle);

}  // namespace ascend_sim
