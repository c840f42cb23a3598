#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// {k, v} as in mla_expand.h.
std::vector<RefTensor> mla_expand_reference(const RefTensor& kv, const RefTensor& k_pe, int64_t nope);

}  // namespace ferry::ops
