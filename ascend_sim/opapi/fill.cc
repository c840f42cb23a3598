// Ops that write one value everywhere: InplaceZero.
#include "nnopbase/op.h"

using namespace ascend_sim;

ASCEND_OP(InplaceZero, aclTensor* self_ref) {
  return plan("InplaceZero", workspace_size, executor, [&](Plan& op) {
    const Tensor self = op.inout("selfRef", self_ref);
    op.launch([self](Launch&) {
      store_bits(
          self,
          std::vector<unsigned char>(static_cast<size_t>(self.elements()) * size_of(self.dtype)));
    });
  });
}
