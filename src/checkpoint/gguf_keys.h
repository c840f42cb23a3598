// Which keys of a GGUF header describe a model that Ferry computes.
#pragma once

#include <string>

#include "base/result.h"
#include "checkpoint/gguf.h"

namespace ferry {

/// Every key "ARCH.*" of the file is one that is read, one that says nothing of what is computed, or
/// one whose value changes nothing. Errors: kInvalidInput, naming the first that is none of these:
/// with it, another model would answer.
Result<void> check_gguf_keys(const GgufFile& file, const std::string& arch);

}  // namespace ferry
