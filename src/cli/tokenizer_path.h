// The tokenizer.json that a command is given by its path.
#pragma once

#include <string>

#include "base/result.h"

namespace ferry::cli {

/// Checks, before the file is read, that it is one that may be: no folder (the message says where
/// its tokenizer.json lies), nothing that only stands for a file, and, if it lies in a model
/// directory with a passport, what the passport lists. Errors: kNotFound, kInvalidInput, kCorrupt.
Result<void> check_tokenizer_path(const std::string& path);

}  // namespace ferry::cli
