// What a thread is told of its errors: the code of the last one (aclrtGetLastError) and the text
// (aclGetRecentErrMsg).
#pragma once

#include <string>

#include "acl.h"

namespace ascend_sim {

/// What a documented code means, in a few words; "unknown" for others.
std::string meaning_of(int code);

/// Notes the error for this thread and returns it: `return fail(code::kParam, "size is 0");`.
int fail(int code, const std::string& why);

/// The same for aclnn's codes, of which aclrtGetLastError knows nothing: it keeps the runtime's.
ASCEND_SIM_EXPORT int explain(int code, const std::string& why);

/// The text that nobody asked for yet, taken away; empty if there is none.
ASCEND_SIM_EXPORT std::string take_message();

/// This thread's last error; `clear` forgets it.
int last_error(bool clear);

}  // namespace ascend_sim
