// Defects that can be switched on one by one, and the lists of what there is: ops, defects,
// mutants. Each is registered where it is written, by a static object, before any call is made.
#pragma once

#include <string>
#include <string_view>

#include "acl.h"

namespace ascend_sim {

/// One line of the list of defects. `op` is the aclnn op that it spoils without its "aclnn", or
/// "runtime"; `what` says in a few words what it does. A conditional one spoils only the calls that
/// meet a condition (a size, a type, a moment), so it needs work that meets it to be seen.
struct ASCEND_SIM_EXPORT RegisteredDefect {
  RegisteredDefect(const char* name, const char* op, const char* what, bool conditional = false);
};

struct ASCEND_SIM_EXPORT RegisteredOp {
  explicit RegisteredOp(const char* name);
};

/// Marks an op whose device function asks Launch::reduction, so that k_minus_1 applies.
struct ASCEND_SIM_EXPORT ReducingOp {
  explicit ReducingOp(const char* name);
};

/// Whether FERRY_ASCEND_SIM_DEFECT names it. `name` must have been registered: otherwise aborts.
ASCEND_SIM_EXPORT bool defect(std::string_view name);
/// True at about one in `one_in` calls, by seed and call number: for defects that come and go.
ASCEND_SIM_EXPORT bool now_and_then(std::string_view name, uint64_t one_in);

}  // namespace ascend_sim

/// At file scope, before the op: ASCEND_DEFECT(rope_half_split, "RotaryPositionEmbedding", "...").
#define ASCEND_DEFECT(name, op, what) \
  static const ascend_sim::RegisteredDefect defect_##name{#name, op, what};
#define ASCEND_REDUCES(name) static const ascend_sim::ReducingOp reducing_##name{#name};
